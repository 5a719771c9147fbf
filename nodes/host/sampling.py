"""The host's sampling, for nodes that draw their own noise."""

from __future__ import annotations

import comfy.model_management as model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from .noise import ClipNoise

SAMPLERS = comfy.samplers.SAMPLER_NAMES  # the host's own lists, to which other packs may add
SCHEDULERS = comfy.samplers.SCHEDULER_NAMES
RATIO = "downscale_ratio_spacial"  # of an empty latent: how many pixels one of its own is


def empty_clip(width: int, height: int, frames: int) -> dict:
    """Return an empty LATENT of frames that the host's samplers bring to the latent size of any model.

    It is an eighth of the pixels where that is a whole number, as the host's own empty latents are, so that nodes that
    scale latents to a size in pixels (Upscale Latent) mean the same by it.
    """
    ratio = 8 if width % 8 == 0 and height % 8 == 0 else 1
    size = (frames, 3, height // ratio, width // ratio)
    return {"samples": torch.zeros(size, device=model_management.intermediate_device()), RATIO: ratio}


def fitted_samples(model: comfy.model_patcher.ModelPatcher, latent: dict) -> Tensor:
    """Return the samples of a LATENT in the MODEL's channels and size. (n, c, h, w).

    Raises:
        ValueError: it has no frames, another number of axes than the MODEL works on, or sound beside its frames.
    """
    samples = latent["samples"]
    if samples.is_nested:
        raise ValueError(
            "this latent holds frames and sound together, whose noise this node cannot draw. Sample it with KSampler or "
            "SamplerCustomAdvanced."
        )
    refuse_axes(model, samples.shape)
    samples = comfy.sample.fix_empty_latent_channels(
        model, samples, latent.get(RATIO), latent.get("downscale_ratio_temporal")
    )
    if not samples.numel():
        raise ValueError(f"the latent is empty: its samples are {tuple(samples.shape)}. Give it at least one frame.")
    channels = getattr(model.get_model_object("latent_format"), "latent_channels", samples.shape[1])
    if samples.shape[1] != channels:
        raise ValueError(
            f"the latent has {samples.shape[1]} channels and this MODEL works on {channels}: it comes from another "
            "model's VAE. Connect a latent of this model."
        )
    return samples


def refuse_axes(model: comfy.model_patcher.ModelPatcher, shape: torch.Size) -> None:
    """Raise ValueError for a latent with an axis of frames if the MODEL has frames in the batch."""
    if len(shape) == 5 and model.get_model_object("latent_format").latent_dimensions == 2:
        raise ValueError(
            f"this latent is made for a video model ({shape[2]} frames on an axis of their own, {tuple(shape)}), and this "
            f"MODEL ({type(model.model).__name__}) has its frames in the batch. Use Empty Lumiere Latent Video, or encode the "
            "frames with this MODEL's VAE."
        )


def sigmas_of(
    model: comfy.model_patcher.ModelPatcher, steps: int, sampler: str, scheduler: str, denoise: float = 1.0
) -> Tensor:
    """Return the noise levels that KSampler would take; none for `denoise` 0. (steps + 1,).

    Raises:
        ValueError: the scheduler cannot make any of so few steps.
    """
    run = comfy.samplers.KSampler(
        model,
        steps,
        device=model.load_device,
        sampler=sampler,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    if len(run.sigmas) and not (run.sigmas.isfinite().all() and run.sigmas.max() > 0):
        raise ValueError(
            f"the scheduler {scheduler} gives no noise levels for {steps} step(s) at denoise {denoise:g}. Use more steps, "
            "or another scheduler."
        )
    return run.sigmas


def sample(
    model: comfy.model_patcher.ModelPatcher,
    noise: ClipNoise,
    sampler: str,
    sigmas: Tensor,
    samples: Tensor,
    *,
    positive: list,
    negative: list,
    cfg: float,
    seed: int,
    noise_mask: Tensor | None = None,
) -> Tensor:
    """Return denoised samples, with the node's progress bar and preview. (n, c, h, w).

    Raises:
        ValueError: the frames are too small for the network.
    """
    steps = len(sigmas) - 1
    preview = latent_preview.prepare_callback(model, steps)
    try:
        return comfy.sample.sample_custom(
            model,
            noise.initial(samples),
            cfg=cfg,
            sampler=noise.sampler(sampler),
            sigmas=sigmas,
            positive=positive,
            negative=negative,
            latent_image=samples,
            noise_mask=noise_mask,
            callback=lambda step, denoised, x, _: preview(step, denoised, x, steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # as torch's norms say it
            raise
        height, width = samples.shape[-2:]
        raise ValueError(
            f"frames of {width}x{height} are too small for this MODEL: its coarsest level sees a single value. Give them more "
            "pixels."
        ) from error
