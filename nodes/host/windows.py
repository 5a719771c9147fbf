"""Temporal Multidiffusion on any MODEL of the host: the windows of `lumiere_core.multidiffusion` (Lumiere §3.2).

A wrapper around the host's evaluation of the prompts cuts every noised clip into overlapping windows, has each
denoised by whatever is below it, and blends the answers, so samplers see the whole clip and networks one window.
Frames are the batch axis of 4-D latents (image models, AnimateDiff, Lumiere) or axis 2 of 5-D latents, which may be
packed with those of sound. What of latents and prompts belongs to a window is cut in `window_cut.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import comfy.model_management as model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lumiere_core.diffusion.multidiffusion import Blend, Window, plan_windows, window_weights
from . import features
from .keys import KEY as LUMIERE
from .keys import LOOP, RUN, WINDOWS
from .models import set_wrappers
from .window_cut import WholeClip

MIB = 1 << 20
# What a run holds of the whole clip, in float32 copies: noise, empty clip, the sampler's x, estimates and their
# temporaries, the sum of the windows' answers. `make bench` measured 6.2 for Lumiere Super Resolution.
CLIP_COPIES = 7


@dataclass(frozen=True)
class Windows:
    """How clips are cut."""

    length: int  # frames of a window
    overlap: int  # frames that neighbours share
    weighting: str = "uniform"
    closed_loop: bool = False
    anchor_frame: bool = False  # a window that begins mid-clip sees the frame before it, whose answer is left out
    retain_first: bool = False  # it sees the clip's first frame instead

    def plan(self, frames: int, clips: int) -> list[Window]:
        """Return the windows of a batch of clips, each of one clip."""
        windows = plan_windows(frames, self.length, self.overlap, self.closed_loop)
        return [tuple(f + clip * frames for f in w) for clip in range(clips) for w in windows]

    def halved(self) -> Windows:
        """Return shorter windows, whose overlap leaves at least half of them new."""
        length = self.length // 2
        return replace(self, length=length, overlap=min(self.overlap, length // 2))

    def anchor(self, window: Window, frames: int) -> int | None:
        """Return the row that a window sees before its own, or None.

        Args:
            window: rows of the batch. frames: of a clip.
        """
        first = window[0] // frames * frames  # of the window's clip
        if self.retain_first:
            return first if first not in window else None
        return window[0] - 1 if self.anchor_frame and window[0] > first else None


def with_windows(model: comfy.model_patcher.ModelPatcher, windows: Windows) -> comfy.model_patcher.ModelPatcher:
    """Return a clone of a MODEL that denoises clips in windows; windows that it had are replaced.

    Raises:
        ValueError: impossible windows.
    """
    plan_windows(1, windows.length, windows.overlap)
    window_weights(windows.length, windows.overlap, windows.weighting)
    model = model.clone()
    wrappers = [
        (WrappersMP.OUTER_SAMPLE, Start(windows)),
        (WrappersMP.PREPARE_SAMPLING, budget),
        (WrappersMP.CALC_COND_BATCH, in_windows),
    ]
    set_wrappers(model, WINDOWS, wrappers)
    model.set_attachments(WINDOWS, windows)
    return model


@dataclass
class _Run:
    """What one sampling run knows about its windows."""

    windows: Windows
    frames: int  # of a clip
    clips: int
    axis: int
    shape: torch.Size  # of the noise
    seen: bool = False  # what the first step brings

    def refuse(self, model_options: dict) -> None:
        """Raise ValueError for what is on the MODEL and cannot be cut; see `features.refuse_in_windows`."""
        options, around = model_options.get("transformer_options", {}), model_options.get("model_function_wrapper")
        features.refuse_in_windows(options, around, self.shape[self.axis] if len(self.shape) > 3 else 0, self.axis)

    def one_window(self, length: int) -> list[int]:
        """Return the shape of the noise of one window."""
        shape, length = list(self.shape), min(length, self.frames)
        if len(shape) == 3:  # packed: one axis holds everything
            shape[2] = -(-shape[2] * length // self.frames)
        else:
            shape[self.axis] = length
        return shape


class Start:
    """OUTER_SAMPLE: plan the windows of a run and say what it will need."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __call__(self, executor, noise, *args, latent_shapes=None, **kwargs):
        guider = executor.class_obj
        kwargs["latent_shapes"] = latent_shapes
        shape = latent_shapes[0] if latent_shapes is not None and len(latent_shapes) > 1 else noise.shape
        if len(shape) not in (4, 5):
            logging.warning(
                f"Lumiere: no temporal windows for latents of {len(shape)} axes, whose frames cannot be told apart."
            )
            return executor(noise, *args, **kwargs)
        axis = 0 if len(shape) == 4 else 2
        inflation = guider.model_patcher.attachments.get(LUMIERE)
        frames, clips = shape[axis] - (guide_frames(guider.conds) if axis else 0), 1
        if axis == 0 and inflation is not None and inflation.frames_per_clip:
            frames = min(frames, inflation.frames_per_clip)
            clips = shape[0] // frames
        windows = self.windows
        if guider.model_patcher.attachments.get(LOOP):
            windows = replace(windows, closed_loop=True)
        run = _Run(windows, frames, clips, axis=axis, shape=noise.shape)
        if len(windows.plan(frames, clips)) > 1:
            run.refuse(guider.model_options)
        # The guider's options are a copy made for this run.
        guider.model_options.setdefault("transformer_options", {})[WINDOWS] = run
        _report(run, guider.model_patcher)
        return executor(noise, *args, **kwargs)


def guide_frames(conds: dict[str, list[dict]]) -> int:
    """Return how many guide frames of LTX-Video stand behind the clip in its latent."""
    for entry in (entry for entries in conds.values() for entry in entries):
        if entry.get("guide_attention_entries"):
            return sum(guide["latent_shape"][0] for guide in entry["guide_attention_entries"])
    return 0


def _report(run: _Run, patcher: comfy.model_patcher.ModelPatcher) -> None:
    """Log the windows and the predicted peak memory."""
    count = len(run.windows.plan(run.frames, run.clips))
    peak = predicted_peak(patcher, run.shape, run.one_window(run.windows.length))
    logging.info(
        f"Lumiere: {run.frames} frames in {count} windows of {min(run.windows.length, run.frames)}; predicted peak "
        f"{sum(peak.values()) / MIB:,.0f} MiB ({', '.join(f'{k} {v / MIB:,.0f}' for k, v in peak.items())})."
    )


def predicted_peak(patcher: comfy.model_patcher.ModelPatcher, shape: torch.Size, window: list[int]) -> dict[str, float]:
    """Return the bytes of weights, of one window's activations and of the whole clip's state.

    Args:
        shape: of the whole clip's noise. window: of a window's.
    """
    models = [patcher, *patcher.get_nested_additional_models()]
    return {
        "weights": sum(model.model_size() for model in models),
        "one window": patcher.model.memory_required(window),
        "clip": CLIP_COPIES * 4 * torch.Size(shape).numel(),
    }


def budget(executor, model, noise_shape, conds, model_options=None, **kwargs):
    """PREPARE_SAMPLING: ask for the memory of one window."""
    run = (model_options or {}).get("transformer_options", {}).get(WINDOWS)
    shape = list(noise_shape) if run is None else run.one_window(run.windows.length)
    return executor(model, shape, conds, model_options=model_options, **kwargs)


def in_windows(executor, model, conds, x_in: Tensor, timestep: Tensor, model_options: dict):
    """CALC_COND_BATCH: denoise window by window; after an out-of-memory error in shorter windows.

    `x_in` is (n, c, …).
    """
    run = model_options.get("transformer_options", {}).get(WINDOWS)
    if run is None or x_in.shape != run.shape:  # inside another's windows
        return executor(model, conds, x_in, timestep, model_options)
    while True:
        try:
            return _denoise(
                run, executor, model=model, conds=conds, x_in=x_in, timestep=timestep, model_options=model_options
            )
        except Exception as error:
            if not out_of_memory(error):
                raise
            shorter = _shorter(run, error)
        # Outside of the handler: the traceback holds the tensors of the call that failed.
        run.windows = shorter
        model_management.soft_empty_cache(True)


def _shorter(run: _Run, error: Exception) -> Windows:
    """Return half the windows and say so.

    Raises:
        RuntimeError: they cannot get shorter.
    """
    now = replace(run.windows, length=min(run.windows.length, run.frames))
    if now.length < 2:
        raise RuntimeError(
            "memory ran out even with windows of one frame. Choose a smaller picture, or close other programs."
        ) from error
    shorter = now.halved()
    logging.warning(
        f"Lumiere: out of memory with windows of {now.length} frames; going on with {shorter.length} (overlap "
        f"{shorter.overlap}). Set context_length to {shorter.length} to begin there."
    )
    return shorter


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error means that memory ran out, on a GPU of any maker or on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, model_management.ACCELERATOR_ERROR) and model_management.is_oom(error):
        return True  # the host has cleared the pending error, too
    words = ("out of memory", "defaultcpuallocator")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _denoise(run: _Run, executor, model, conds, x_in, timestep, model_options):
    windows = run.windows.plan(run.frames, run.clips)
    if len(windows) == 1:
        return executor(model, conds, x_in, timestep, model_options)
    if not run.seen:  # a wrapper of the whole run may have put another one in
        run.refuse(model_options)
        run.seen = True
    whole = WholeClip(model, conds, x_in, axis=run.axis, overlap=run.windows.overlap)
    blends = [[Blend(latent, run.axis) for latent in whole.latents] for _ in conds]
    progress = _Progress(model_options, timestep, len(windows))
    clip = getattr(model_options.get("transformer_options", {}).get(RUN), "live", None)
    for number, rows in enumerate(windows):
        model_management.throw_exception_if_processing_interrupted()
        window = whole.cut(rows, run.windows.anchor(rows, run.frames))
        options = {
            **model_options,
            "transformer_options": {**model_options.get("transformer_options", {}), **window.options()},
        }
        answers = executor(model, window.conds(), window.x, window.timestep(timestep), options)
        for blend, answer in zip(blends, answers, strict=True):
            for latent, (part, places, overlap) in zip(blend, window.answers(answer), strict=True):
                latent.add(part, places, window_weights(len(places), overlap, run.windows.weighting))
        if clip is not None and run.axis == 0:
            clip.show_window(windows, number, next(window.answers(answers[0]))[0])
        progress.advance()
    return [whole.joined([latent.result() for latent in blend]) for blend in blends]


class _Progress:
    """Moves the node's bar between the sampler's reports: a step of a long clip takes minutes."""

    def __init__(self, model_options: dict, timestep: Tensor, windows: int) -> None:
        sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
        self.bar, self.windows, self.done = None, windows, 0
        if sigmas is not None:
            self.steps = int((sigmas[:-1] > timestep.max().to(sigmas) * (1 + 1e-4)).sum())
            self.bar = comfy.utils.ProgressBar(len(sigmas) - 1)

    def advance(self) -> None:
        """Count one window; the last of a step is the sampler's to report."""
        self.done += 1
        if self.bar is not None and self.done < self.windows:
            self.bar.update_absolute(self.steps + self.done / self.windows)
