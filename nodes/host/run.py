"""One sampling run of an inflated MODEL: checks, warnings, memory budget and the live preview."""

from __future__ import annotations

import logging
import math

import comfy.utils
import torch
from comfy.cli_args import LatentPreviewMethod, args
from torch import Tensor

from ...lumiere_core.clips.masks import is_known
from ...lumiere_core.clips.video import clip_count
from . import features, live
from .keys import NEEDS_CONDITION, RUN, WINDOWS
from .preview import preview_image
from .sampling import refuse_axes

PREVIEW_SIZE = 512
SHORTEST = 0.4  # of the trained length: lumiere-mini was trained on 32 frames too; its clips of 24 and 16 fall apart

# Memory of the temporal parts over the image model's peak. Measured: none (SD1.5 shape, 32 frames; lumiere-mini, 80
# frames: 191 MiB with and without), since the peak is in the widest decoder block; a margin for convolution workspaces.
TEMPORAL_SHARE = 0.1


class Run:
    """Counts what happened; the temporal state adds to it from inside the U-Net."""

    def __init__(self) -> None:
        self.temporal_calls = 0
        self.live: live.LiveClip | None = None  # for who sees windows of the clip


class WatchRun:
    """OUTER_SAMPLE: refuse impossible batches, stop at NaN, show the clip, notice missing temporal layers.

    Args:
        frames_per_clip: 0 = the whole batch is one clip.
        trained_frames: longest clip seen in training.
        trained_size: (width, height) in pixels seen in training; None = not known.
        takes_conditions: the temporal layers have a conv_cond.
        fps: of the clips seen in training, at which the live clip plays.
    """

    def __init__(
        self,
        frames_per_clip: int,
        trained_frames: int,
        trained_size: tuple[int, int] | None,
        takes_conditions: bool = False,
        fps: float = 16.0,
    ) -> None:
        self.frames_per_clip = frames_per_clip
        self.trained_frames, self.trained_size = trained_frames, trained_size
        self.takes_conditions = takes_conditions
        self.fps = fps

    def __call__(
        self, executor, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, *rest, **kwargs
    ):
        guider = executor.class_obj
        refuse_axes(guider.model_patcher, noise.shape)
        if not any(guider.conds.values()):
            raise ValueError("no prompt is connected that the network could answer; an empty text is a prompt too.")
        if getattr(guider.model_options.get("context_handler"), "context_length", len(noise)) < len(noise):
            around = guider.model_options.get("model_function_wrapper")
            features.refuse_in_windows(guider.model_options.get("transformer_options", {}), around, len(noise))
        frames = self.frames_per_clip or noise.shape[0]
        clip_count(noise.shape[0], frames)
        latent_format = guider.model_patcher.model.latent_format
        denoise_mask = hard_mask(denoise_mask, guider)
        if self.takes_conditions:
            guider.conds = fit_conditions(guider.conds, frames, noise.shape, latent_format.spacial_downscale_ratio)
            guider.conds = say_what_is_known(guider.conds, denoise_mask)
        else:
            refuse_conditions(guider.conds)
            name_unseen_conditions(guider)
        windows = guider.model_patcher.attachments.get(WINDOWS)
        seen = frames if windows is None else min(frames, windows.length)  # by the network at once
        self._warn(seen, noise.shape, latent_format)
        run = Run()
        # The guider's options are a copy made for this run.
        guider.model_options.setdefault("transformer_options", {})[RUN] = run
        if frames > 1:
            run.live = self._live(guider.model_patcher, frames, len(sigmas) - 1)
        watched = _Steps(callback, sigmas, frames, latent_format=latent_format, clip=run.live)
        out = executor(noise, latent_image, sampler, sigmas, denoise_mask, watched, *rest, **kwargs)
        cut = guider.model_options["transformer_options"].get(WINDOWS)
        seen = frames if cut is None else min(frames, cut.windows.length)  # may have become shorter
        if seen > 1 and len(sigmas) > 1 and run.temporal_calls == 0:
            if not watched.made:
                raise ValueError(
                    f"the sampler made no step from sigma {float(sigmas[0]):.4g} to {float(sigmas[-1]):.4g} in "
                    f"{len(sigmas) - 1} steps, so the clip is noise still: dpm_adaptive leaves the last step out. Give "
                    "it more steps, or take another sampler."
                )
            raise RuntimeError(
                f"a clip of {frames} frames was sampled, but no temporal layer ran, so its frames have nothing to "
                "do with each other. Another node replaces the U-Net's forward or its layers on this MODEL: "
                "remove it from the MODEL's path, or put it before the Lumiere loader's."
            )
        return out

    def _live(self, model, frames: int, total: int) -> live.LiveClip | None:
        latent_format = model.model.latent_format
        hidden = latent_format.latent_rgb_factors is None or live.chosen_mode() != "clip"
        if hidden or live.drawn_by_another(model, latent_format):
            return None
        return live.LiveClip(latent_format, frames, total, self.fps)

    def _warn(self, frames: int, shape: torch.Size, latent_format: object) -> None:
        ratio = latent_format.spacial_downscale_ratio
        size = (shape[-1] * ratio, shape[-2] * ratio)
        if frames > self.trained_frames:
            live.warn(
                f"a clip of {frames} frames; these weights were trained on {self.trained_frames}. "
                "Longer clips may lose their motion."
            )
        elif 1 < frames < SHORTEST * self.trained_frames:
            live.warn(
                f"a clip of {frames} frames; these weights were trained on {self.trained_frames}. Clips of less than "
                f"{math.ceil(SHORTEST * self.trained_frames)} may fall apart; 1 makes a still image."
            )
        if self.trained_size and size != tuple(self.trained_size):
            live.warn(
                "a clip of {}x{} pixels; these weights were trained on {}x{}. Other sizes may look worse.".format(
                    *size, *self.trained_size
                )
            )


def hard_mask(mask: Tensor | None, guider) -> Tensor | None:
    """Return the noise mask of a run; a soft one of Lumiere Apply Condition is 1 wherever anything is generated.

    Any shape, such as (n, 1, h, w).

    The network is told of a yes or no, and the paste-back mixes. Differential Diffusion makes its own use of what is soft.
    """
    ours = any(NEEDS_CONDITION in entry for entries in guider.conds.values() for entry in entries)
    if mask is None or not ours or "denoise_mask_function" in guider.model_options:
        return mask
    return 1 - is_known(1 - mask).to(mask)


def say_what_is_known(conds: dict[str, list[dict]], mask: Tensor | None) -> dict[str, list[dict]]:
    """Return the prompts with what a noise mask alone says is known; the host would round it, and call 0.49 known.

    The mask is (n, 1, h, w).
    """
    if mask is None:
        return conds
    hard = 1 - is_known(1 - mask[:, :1]).to(mask)
    return {name: [{"concat_mask": hard, **entry} for entry in entries] for name, entries in conds.items()}


def refuse_conditions(conds: dict[str, list[dict]]) -> None:
    """Raise ValueError if a prompt brings a masked condition, which temporal layers without conv_cond ignore."""
    if any(NEEDS_CONDITION in entry for entries in conds.values() for entry in entries):
        raise ValueError(
            "this MODEL has no weights for masked conditions (no conv_cond): it would make a clip from the text "
            "alone. Load temporal layers that were trained with `train condition`, or leave out Lumiere Apply "
            "Condition."
        )


def name_unseen_conditions(guider) -> None:
    """Warn if a stock node's masked condition is seen neither by temporal layers nor by the image model."""
    entries = [entry for entries in guider.conds.values() for entry in entries]
    unseen = any("concat_latent_image" in entry for entry in entries)
    if unseen and not guider.model_patcher.get_model_object("concat_keys"):
        logging.warning(
            "Lumiere: a prompt brings a masked condition (InpaintModelConditioning), which this MODEL has no weights "
            "for (no conv_cond): only a noise mask on the latent keeps what is known. Load temporal layers that were "
            "trained with `train condition`."
        )


def fit_conditions(conds: dict[str, list[dict]], frames: int, shape: torch.Size, ratio: int) -> dict[str, list[dict]]:
    """Return the prompts with masked conditions that fit the batch, repeated where it holds several clips.

    The host would resample any other in time, and crop it in space, without a word.

    Args:
        frames: of one clip.
        shape: (clips * frames, c, h, w) of the batch.
        ratio: pixels a latent pixel.

    Raises:
        ValueError: a condition of Lumiere Apply Condition is for a clip of another length or size.
    """
    return {name: [fit_condition(entry, frames, shape, ratio) for entry in entries] for name, entries in conds.items()}


def fit_condition(entry: dict, frames: int, shape: torch.Size, ratio: int) -> dict:
    """Return one entry of a prompt as `fit_conditions` does; it is not changed itself."""
    clip = entry.get("concat_latent_image")
    if clip is None:
        return entry
    if clip.shape[0] not in (frames, shape[0]) or clip.shape[-2:] != shape[-2:]:
        problem = misfit(clip.shape, frames, shape, ratio)
        if NEEDS_CONDITION in entry:
            raise ValueError(problem)
        logging.warning(f"Lumiere: {problem}")  # of a stock node, which works so with images
        return entry
    clips = shape[0] // clip.shape[0]
    if clips == 1:
        return entry
    both = {k: entry[k] for k in ("concat_latent_image", "concat_mask") if k in entry}
    return {**entry, **{k: v.repeat(clips, *[1] * (v.ndim - 1)) for k, v in both.items()}}


def misfit(condition: torch.Size, frames: int, shape: torch.Size, ratio: int) -> str:
    """Say what a masked condition is for, what is sampled, and what to do."""
    text = (
        f"the masked condition is for {condition[0]} frames of {condition[-1] * ratio}x{condition[-2] * ratio} "
        f"pixels, and a clip of {frames} frames of {shape[-1] * ratio}x{shape[-2] * ratio} is sampled: what is known "
        "would be resampled in time or cropped. Sample the latent of Lumiere Apply Condition, or make the condition "
        "for this length and size"
    )
    if shape[0] == frames and frames % condition[0] == 0 and frames > condition[0]:
        text += f"; if the batch holds several clips, set the loader's frames_per_clip to {condition[0]}"
    return text + "."


class _Steps:
    """The sampler's callback: check the step, then tell the host, then show the clip."""

    def __init__(self, callback, sigmas: Tensor, frames: int, latent_format: object, clip) -> None:
        self.callback, self.sigmas, self.frames = callback, sigmas, frames
        self.latent_format, self.clip = latent_format, clip
        self.bar = None
        self.made = 0  # steps
        # Where the host draws previews, two pictures would replace one another in the node.
        self.draw = live.chosen_mode() == "sheet" and args.preview_method == LatentPreviewMethod.NoPreviews

    def __call__(self, step: int, x0: Tensor, x: Tensor, total: int) -> None:
        self.made += 1
        if not torch.isfinite(x0).all():
            sigma = float(self.sigmas[min(step, len(self.sigmas) - 1)])
            raise FloatingPointError(
                f"the model gave NaN or infinite values at step {step + 1} of {total} (sigma {sigma:.4g}). "
                "The weights may be damaged, or half precision may overflow: try dtype fp32 in the loader."
            )
        if self.callback is not None:
            self.callback(step, x0, x, total)
        if self.clip is not None:
            self.clip.show(step + 1, x0)
        elif self.frames > 1 and self.draw:
            self._show(step, x0, total)

    def _show(self, step: int, x0: Tensor, total: int) -> None:
        image = preview_image(x0[: self.frames], self.latent_format)
        if image is None:
            self.draw = False
            return
        if self.bar is None:
            self.bar = comfy.utils.ProgressBar(total)
        self.bar.update_absolute(step + 1, total, ("JPEG", image, PREVIEW_SIZE))


def budget(executor, model, noise_shape, conds, *args, **kwargs):
    """PREPARE_SAMPLING: ask for the memory of the temporal activations too; the host counts the image model's."""
    frames = math.ceil(noise_shape[0] * (1 + TEMPORAL_SHARE)) if noise_shape[0] > 1 else 1
    return executor(model, [frames, *noise_shape[1:]], conds, *args, **kwargs)
