"""What Lumiere Super Resolution must know of a MODEL that enlarges: lumiere-mini-ssr's kind, or the SD x4 upscaler."""

from __future__ import annotations

import comfy.model_base
import comfy.model_management as model_management
import comfy.model_patcher
import comfy.utils
import torch
from torch import Tensor

from ...lumiere_core.diffusion.back_projection import back_project
from .ssr_model import LumiereSSRModel

SD_FACTOR = 4  # of the SD x4 upscaler, and of its VAE
OF_MODEL = -1  # iterations of back-projection: as the MODEL's file says


def scale_of(model: comfy.model_patcher.ModelPatcher, vae: object) -> int:
    """Return how many times larger a MODEL makes a clip.

    Raises:
        ValueError: it is no super-resolution MODEL, or has not the VAE that it needs.
    """
    network = model.model
    if isinstance(network, LumiereSSRModel):
        if vae is not None:
            raise ValueError("this super-resolution MODEL works on pixels and needs no vae: disconnect the vae input.")
        return network.ssr.scale
    if isinstance(network, comfy.model_base.SD_X4Upscaler):
        if vae is None:
            raise ValueError(
                "this MODEL (SD x4 upscaler) works on latents: connect the VAE of its checkpoint to the vae input."
            )
        return SD_FACTOR
    raise ValueError(
        f"this MODEL ({type(network).__name__}) makes new clips or images and cannot enlarge one. Connect a "
        "super-resolution MODEL: that of Load Lumiere with lumiere-mini-ssr, or of a checkpoint that `train ssr` wrote."
    )


def latent_shape(model: comfy.model_patcher.ModelPatcher, low: torch.Size, scale: int) -> tuple[int, ...]:
    """Return the shape of the large clip's latents for a small clip (t, c, h, w)."""
    size = [side * scale for side in low[-2:]]
    if isinstance(model.model, comfy.model_base.SD_X4Upscaler):
        size = [side // SD_FACTOR for side in size]
    return (low[0], model.get_model_object("latent_format").latent_channels, *size)


def back_projection_of(model: comfy.model_patcher.ModelPatcher, asked: int) -> int:
    """Return how many iterations of back-projection are made where so many are asked for; none for a MODEL of the host's."""
    if asked != OF_MODEL:
        return asked
    return model.model.ssr.back_projection if isinstance(model.model, LumiereSSRModel) else 0


def kept_to(large: Tensor, low: Tensor, iterations: int) -> Tensor:
    """Return large frames (n, 3, H, W) in [0, 1] after back-projection of small ones (n, 3, h, w) in [-1, 1]."""
    if not iterations:
        return large
    return back_project(large, (low + 1) / 2, iterations).clamp_(0, 1)


def decode(vae: object, samples: Tensor, frames: int) -> Tensor:
    """Decode latents a few frames at a time into one IMAGE. (n, c, h, w) -> [n, H, W, 3]."""
    result, bar = None, comfy.utils.ProgressBar(samples.shape[0])
    for start in range(0, samples.shape[0], frames):
        model_management.throw_exception_if_processing_interrupted()
        part = vae.decode(samples[start : start + frames])
        if result is None:
            result = part.new_empty((samples.shape[0], *part.shape[1:]))
        result[start : start + frames] = part
        bar.update(len(part))
    return result
