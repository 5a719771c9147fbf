"""Clips whose last frame is followed by their first, of any MODEL.

Lumiere's own temporal layers see the clip as a ring (`lumiere_core.nets.ring`). Any other MODEL sees it turned by some frames,
others at every step, so that its first and last frame are neighbours at nearly all of them and the seam of each step lies
elsewhere (ours; the paper shows no loops).
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_patcher
import torch
from comfy.context_windows import ContextSchedules
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lumiere_core.nets.motion_module import KIND as MOTION_MODULE
from . import features
from .keys import HOST_WINDOW, LOOP, WINDOW
from .keys import KEY as LUMIERE
from .models import set_wrappers
from .window_cut import WholeClip

TURN = 0.381966  # of the clip at every step: the golden section comes near no frame again soon


def with_loop(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """Return a clone of a MODEL that makes loops."""
    model = model.clone()
    set_wrappers(model, LOOP, [(WrappersMP.OUTER_SAMPLE, begin), (WrappersMP.CALC_COND_BATCH, turned)])
    model.set_attachments(LOOP, True)
    return model


@dataclass(frozen=True)
class Turns:
    """A run whose clips are turned at every step; the alternative is True, a ring in the layers."""

    frames: int  # of a clip
    clips: int
    axis: int
    shape: torch.Size  # of the noise

    def rows(self, step: int) -> list[int]:
        """Return the rows of the batch as the network sees them at a step."""
        shift = round(step * TURN * self.frames) % self.frames
        turned = [(i + shift) % self.frames for i in range(self.frames)]
        return [clip * self.frames + i for clip in range(self.clips) for i in turned]

    def refuse(self, model_options: dict) -> None:
        """Raise ValueError for what is on the MODEL and cannot be turned; see `features.refuse_in_windows`."""
        options, around = model_options.get("transformer_options", {}), model_options.get("model_function_wrapper")
        if self.frames > 1:
            features.refuse_in_windows(
                options, around, self.frames * self.clips, self.axis, by="in turns (Lumiere Loop)"
            )


def begin(executor, noise, *args, latent_shapes=None, **kwargs):
    """OUTER_SAMPLE: decide how this run is closed.

    Raises:
        ValueError: the latents have no frames, or something on the MODEL cannot be turned with them.
    """
    guider = executor.class_obj
    shape = latent_shapes[0] if latent_shapes is not None and len(latent_shapes) > 1 else noise.shape
    if len(shape) not in (4, 5):
        raise ValueError(
            f"latents of {len(shape)} axes have no frames that could be a loop. Remove Lumiere Loop from this MODEL."
        )
    _refuse_open_windows(guider.model_options.get("context_handler"), shape)
    inflation = guider.model_patcher.attachments.get(LUMIERE)
    loop: bool | Turns = True
    if inflation is None or inflation.temporal_config.kind == MOTION_MODULE:
        axis = 0 if len(shape) == 4 else 2
        frames, clips = shape[axis], 1
        if axis == 0 and inflation is not None and inflation.frames_per_clip:
            frames = min(frames, inflation.frames_per_clip)
            clips = shape[0] // frames
        loop = Turns(frames, clips, axis, noise.shape)
        loop.refuse(guider.model_options)
    # The guider's options are a copy made for this run.
    guider.model_options.setdefault("transformer_options", {})[LOOP] = loop
    return executor(noise, *args, latent_shapes=latent_shapes, **kwargs)


def _refuse_open_windows(handler: object | None, shape: torch.Size) -> None:
    """Raise ValueError for Context Windows of the host that never go around the clip's end; `shape` is the latents'."""
    axis, length = getattr(handler, "dim", len(shape)), getattr(handler, "context_length", 0)
    name = getattr(getattr(handler, "context_schedule", None), "name", None)
    if axis < len(shape) and shape[axis] > length and name not in (None, ContextSchedules.UNIFORM_LOOPED):
        raise ValueError(
            f"no window of the schedule {name} of Context Windows holds the clip's end and its beginning, so the clip would not "
            f"loop. Choose {ContextSchedules.UNIFORM_LOOPED} with closed_loop, or Lumiere Temporal Multidiffusion in its place."
        )


def turned(executor, model, conds, x_in: Tensor, timestep: Tensor, model_options: dict):
    """CALC_COND_BATCH: turn the clip and all that comes per frame, and turn the answers back. `x_in` is (n, c, …).

    Inside windows nothing is turned: those of a loop go around by themselves.
    """
    options = model_options.get("transformer_options", {})
    turns = options.get(LOOP)
    if not isinstance(turns, Turns) or WINDOW in options or HOST_WINDOW in options or x_in.shape != turns.shape:
        return executor(model, conds, x_in, timestep, model_options)
    whole = WholeClip(model, conds, x_in, axis=turns.axis, overlap=0)
    if turns.axis and whole.frames != turns.frames:
        raise ValueError("guide frames behind a clip, as LTX-Video's, cannot be a part of a loop. Remove the guides.")
    rows = turns.rows(step_of(options, timestep))
    clip = whole.cut(rows, None)
    options = {**options, **clip.options()}
    answers = executor(
        model, clip.conds(), clip.x, clip.timestep(timestep), {**model_options, "transformer_options": options}
    )
    return [whole.joined([put_back(part, places, turns.axis) for part, places, _ in clip.answers(a)]) for a in answers]


def put_back(answer: Tensor, places: list[int], axis: int) -> Tensor:
    """Return the rows of an answer in the order of the clip. (n, c, …)."""
    return answer.index_select(axis, torch.tensor(places, device=answer.device).argsort())


def step_of(options: dict, timestep: Tensor) -> int:
    """Return the number of the sampler's step, by its noise level. `timestep` is (n,)."""
    sigmas = options.get("sample_sigmas")
    return 0 if sigmas is None else int((sigmas[:-1] > timestep.max().to(sigmas) * (1 + 1e-4)).sum())
