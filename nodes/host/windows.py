"""Temporal Multidiffusion on any MODEL of the host: the windows of `lumiere_core.multidiffusion` (Lumiere §3.2).

A wrapper around the host's evaluation of the prompts cuts every noised clip into overlapping windows, has each
denoised by whatever is below it, and blends the answers, so samplers see the whole clip and networks one window.
Frames are the batch axis of 4-D latents (image models, AnimateDiff, Lumiere) or axis 2 of 5-D latents.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import Any

import comfy.model_management as model_management
import comfy.model_patcher
import comfy.utils
import torch
from comfy.context_windows import IndexListContextWindow
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...lumiere_core.diffusion.multidiffusion import Blend, Window, plan_windows, window_weights
from .keys import KEY as LUMIERE
from .keys import RUN, WINDOW, WINDOWS

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

    def plan(self, frames: int, clips: int) -> list[Window]:
        """Return the windows of a batch of clips, each of one clip."""
        windows = plan_windows(frames, self.length, self.overlap, self.closed_loop)
        return [tuple(f + clip * frames for f in w) for clip in range(clips) for w in windows]

    def halved(self) -> Windows:
        """Return shorter windows, whose overlap leaves at least half of them new."""
        length = self.length // 2
        return Windows(length, min(self.overlap, length // 2), self.weighting, self.closed_loop)


def with_windows(model: comfy.model_patcher.ModelPatcher, windows: Windows) -> comfy.model_patcher.ModelPatcher:
    """Return a clone of a MODEL that denoises clips in windows; windows that it had are replaced.

    Raises:
        ValueError: impossible windows.
    """
    plan_windows(1, windows.length, windows.overlap)
    window_weights(windows.length, windows.overlap, windows.weighting)
    model = model.clone()
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, Start(windows)),
        (WrappersMP.PREPARE_SAMPLING, budget),
        (WrappersMP.CALC_COND_BATCH, in_windows),
    ):
        model.remove_wrappers_with_key(kind, WINDOWS)
        model.add_wrapper_with_key(kind, WINDOWS, wrapper)
    model.set_attachments(WINDOWS, windows)
    return model


@dataclass
class _Run:
    """What one sampling run knows about its windows."""

    windows: Windows
    frames: int  # of a clip
    clips: int
    axis: int


class Start:
    """OUTER_SAMPLE: plan the windows of a run and say what it will need."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __call__(self, executor, noise, *args, **kwargs):
        guider = executor.class_obj
        if noise.ndim not in (4, 5):
            logging.warning(
                f"Lumiere: no temporal windows for latents of {noise.ndim} axes, whose frames cannot be told apart."
            )
            return executor(noise, *args, **kwargs)
        axis = 0 if noise.ndim == 4 else 2
        inflation = guider.model_patcher.attachments.get(LUMIERE)
        frames = noise.shape[axis]
        if axis == 0 and inflation is not None and inflation.frames_per_clip:
            frames = min(frames, inflation.frames_per_clip)
        run = _Run(self.windows, frames, noise.shape[axis] // frames, axis)
        # The guider's options are a copy made for this run.
        guider.model_options.setdefault("transformer_options", {})[WINDOWS] = run
        _report(run, guider.model_patcher, noise.shape)
        return executor(noise, *args, **kwargs)


def _report(run: _Run, patcher: comfy.model_patcher.ModelPatcher, shape: torch.Size) -> None:
    """Log the windows and the predicted peak memory."""
    count = len(run.windows.plan(run.frames, run.clips))
    peak = predicted_peak(patcher, shape, run.windows.length, run.axis)
    logging.info(
        f"Lumiere: {run.frames} frames in {count} windows of {min(run.windows.length, run.frames)}; predicted peak "
        f"{sum(peak.values()) / MIB:,.0f} MiB ({', '.join(f'{k} {v / MIB:,.0f}' for k, v in peak.items())})."
    )


def predicted_peak(
    patcher: comfy.model_patcher.ModelPatcher, shape: torch.Size, length: int, axis: int = 0
) -> dict[str, float]:
    """Return the bytes of weights, of one window's activations and of the whole clip's state."""
    window = list(shape)
    window[axis] = min(window[axis], length)
    models = [patcher, *patcher.get_nested_additional_models()]
    return {
        "weights": sum(model.model_size() for model in models),
        "one window": patcher.model.memory_required(window),
        "clip": CLIP_COPIES * 4 * torch.Size(shape).numel(),
    }


def budget(executor, model, noise_shape, conds, model_options=None, **kwargs):
    """PREPARE_SAMPLING: ask for the memory of one window."""
    run = (model_options or {}).get("transformer_options", {}).get(WINDOWS)
    shape = list(noise_shape)
    if run is not None:
        shape[run.axis] = min(shape[run.axis], run.windows.length)
    return executor(model, shape, conds, model_options=model_options, **kwargs)


def in_windows(executor, model, conds, x_in: Tensor, timestep: Tensor, model_options: dict):
    """CALC_COND_BATCH: denoise window by window; after an out-of-memory error in shorter windows."""
    run = model_options.get("transformer_options", {}).get(WINDOWS)
    if run is None or x_in.shape[run.axis] != run.frames * run.clips:  # inside another's windows
        return executor(model, conds, x_in, timestep, model_options)
    while True:
        try:
            return _denoise(run, executor, model, conds, x_in, timestep, model_options)
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
    now = Windows(
        min(run.windows.length, run.frames), run.windows.overlap, run.windows.weighting, run.windows.closed_loop
    )
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
    weights = window_weights(len(windows[0]), run.windows.overlap, run.windows.weighting)
    blends = [Blend(x_in, run.axis) for _ in conds]
    progress = _Progress(model_options, timestep, len(windows))
    clip = getattr(model_options.get("transformer_options", {}).get(RUN), "live", None)
    for number, window in enumerate(windows):
        model_management.throw_exception_if_processing_interrupted()
        numbers = torch.tensor(window, device=x_in.device)
        options = {
            **model_options,
            "transformer_options": {**model_options.get("transformer_options", {}), WINDOW: window},
        }
        controls: dict[int, Any] = {}  # shared by the prompts of a window, or they are not batched
        cut = _Cut(model, x_in, run.axis, numbers, run.windows.overlap)
        parts = [c and [_sliced(entry, cut, controls) for entry in c] for c in conds]
        steps = timestep
        if run.axis == 0 and timestep.shape[0] == x_in.shape[0]:
            steps = timestep[numbers]
        part = x_in.index_select(run.axis, numbers)
        answers = executor(model, parts, part, steps, options)
        for blend, answer in zip(blends, answers, strict=True):
            blend.add(answer, window, weights)
        if clip is not None and run.axis == 0:
            clip.show_window(windows, number, answers[0])
        progress.advance()
    return [blend.result() for blend in blends]


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


@dataclass(frozen=True)
class _Cut:
    """One window of a run, and what its conditions are cut from."""

    model: Any  # the host's model, which knows its own conditions
    x_in: Tensor  # the whole clips
    axis: int
    numbers: Tensor
    overlap: int

    @property
    def frames(self) -> int:
        return self.x_in.shape[self.axis]

    def take(self, value: Any) -> Any:
        """Return the part of a tensor that has frames; all else as it is."""
        frames, axis = self.frames, self.axis
        if not torch.is_tensor(value) or frames == 1:
            return value
        # A 5-D model's latents have frames on axis 2; all else of it (text, …) is per clip.
        if value.ndim <= axis or (axis and value.ndim != 5) or value.shape[axis] != frames:
            return value
        return value.index_select(axis, self.numbers.to(value.device))

    def condition(self, key: str, entry: Any) -> Any:
        """Return one entry of `model_conds` for the window; the host's models know their odd ones (VACE, audio, …)."""
        if key == "num_video_frames":  # Stable Video Diffusion folds the batch by it
            return entry._copy_with(len(self.numbers))
        window = IndexListContextWindow(
            self.numbers.tolist(), dim=self.axis, total_frames=self.frames, context_overlap=self.overlap
        )
        own = self.model.resize_cond_for_context_window(key, entry, window, self.x_in, self.x_in.device)
        if own is not None:
            return own
        value = getattr(entry, "cond", None)
        part = self.take(value)
        return entry if part is value else entry._copy_with(part)


def _sliced(cond: dict, cut: _Cut, controls: dict[int, Any]) -> dict:
    """Return the condition of some frames; what is not per frame stays as it is."""
    frames, numbers = cut.frames, cut.numbers
    out = {**cond, "model_conds": {k: cut.condition(k, v) for k, v in cond["model_conds"].items()}}
    if "mask" in cond:
        mask = cond["mask"]
        if cut.axis and torch.is_tensor(mask) and mask.ndim == 4 and mask.shape[1] == frames:
            out["mask"] = mask.index_select(1, numbers.to(mask.device))  # b t h w
        elif not cut.axis:
            out["mask"] = cut.take(mask)
    if cond.get("control") is not None:
        out["control"] = _sliced_control(cond["control"], numbers, frames, controls)
    return out


def _sliced_control(control: Any, numbers: Tensor, frames: int, made: dict[int, Any]) -> Any:
    """Return a copy of a ControlNet chain whose hints are those of some frames.

    The host would show every window the hints of the first frames. A copy builds its hint anew from the images;
    it lives for one window, so hints take no more memory than a window.
    """
    if id(control) in made:
        return made[id(control)]

    def take(value: Any) -> Any:
        per_frame = torch.is_tensor(value) and value.ndim >= 3 and value.shape[0] == frames
        return value.index_select(0, numbers.to(value.device)) if per_frame else value

    part = copy.copy(control)  # with what `pre_run` set, such as the time range
    part.cond_hint, part.extra_concat = None, None
    part.cond_hint_original = take(control.cond_hint_original)
    part.extra_concat_orig = [take(value) for value in control.extra_concat_orig]
    if control.previous_controlnet is not None:
        part.previous_controlnet = _sliced_control(control.previous_controlnet, numbers, frames, made)
    made[id(control)] = part
    return part
