"""A checkpoint's VAE and text encoder, by the host's own loaders, for the training cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_sampling
import comfy.sd
import torch
from torch import Tensor

from ...lumiere_core.diffusion.schedule import Schedule
from ...lumiere_core.nets.backbones import family_name
from ...lumiere_core.nets.checkpoint import sha256
from ...lumiere_core.nets.low import LOW_BETAS, SCALE
from .inflate import unet_config_of

PREFIX = "model.diffusion_model."


class HostEncoders:
    """See `lumiere_core.dataset.encoders.Encoders`."""

    def __init__(self, model: Any, clip: Any, vae: Any, hashes: dict[str, str]) -> None:
        """Use the parts that a loader of the host made.

        Args:
            hashes: file name -> SHA-256 of the checkpoint.

        Raises:
            ValueError: the MODEL cannot be trained; see `describe`.
        """
        self.model, self.clip, self.vae = model, clip, vae
        self.backbone = {**describe(model, vae), "prefix": PREFIX, "sha256": hashes}

    @classmethod
    def load(cls, checkpoint: str | Path) -> HostEncoders:
        """Load a checkpoint with U-Net, text encoder and VAE.

        Raises:
            ValueError: the host does not know it, or a part is missing.
        """
        path = Path(checkpoint)
        try:
            model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path.name}: {error}") from error
        missing = [n for n, part in (("text encoder", clip), ("VAE", vae)) if not _usable(part)]
        if model is None or missing:
            raise ValueError(f"{path.name} has no {' and no '.join(missing) or 'U-Net'}. Give a full checkpoint.")
        return cls(model, clip, vae, {path.name: sha256(path)})

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Return latents (c, t, h, w) of frames (t, h, w, 3) uint8."""
        return encode_frames(self.model, self.vae, frames.float() / 255)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return frames (t, h, w, 3) of latents (c, t, h, w)."""
        samples = self.model.model.process_latent_out(latents.float().permute(1, 0, 2, 3))
        return (self.vae.decode(samples) * 255).round().clamp(0, 255).to(torch.uint8).cpu()

    @torch.no_grad()
    def embed(self, caption: str, height: int, width: int) -> dict[str, Tensor]:
        """Return `context` (l, d) and perhaps `y` (adm,) of a caption for pictures of height x width pixels."""
        tokens = self.clip.tokenize(caption)
        context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        return embedding(self.model, context, pooled, height=height, width=width)


def _usable(part: Any) -> bool:
    """Tell whether the host found the part; a VAE without weights stays an empty object."""
    return part is not None and getattr(part, "first_stage_model", part) is not None


def describe(model: Any, vae: Any) -> dict[str, Any]:
    """Return what the trainer must know of a MODEL and its VAE.

    Raises:
        ValueError: it takes more than noised latents, or its noise schedule is none that the trainer has.
    """
    config = unet_config_of(model)
    channels = model.model.latent_format.latent_channels
    if config.in_channels != channels + config.low_channels:
        raise ValueError(
            f"{family_name(config)} with {config.in_channels} input channels takes more than noised latents. Train on "
            "the plain model of the same family: its temporal layers fit the inpainting variant too."
        )
    ratio = vae.spacial_compression_encode()
    if config.low_channels and ratio != SCALE:
        raise ValueError(
            f"the {family_name(config)} sees small frames as large as its latents, {SCALE} times smaller than the clip, but this VAE "
            f"makes them {ratio} times smaller. Connect the VAE of its own checkpoint."
        )
    return {
        "unet": config.to_dict(),
        "schedule": schedule_of(model).to_dict(),
        "ratio": ratio,
        # Every spatial resize halves the latents, and sizes of a clip must not need padding.
        "multiple": ratio * config.patch_size * 2 ** (config.num_levels - 1),
    }


def schedule_of(model: Any) -> Schedule:
    """Return core's schedule that has the MODEL's noise levels and prediction.

    Raises:
        ValueError: there is none.
    """
    sampling, prediction = model.get_model_object("model_sampling"), prediction_of(model)
    sigmas = getattr(sampling, "sigmas", torch.zeros(0)).float().cpu()
    if prediction is not None and len(sigmas):
        data = float(sampling.sigma_data)
        ends = {"sigma_min": sigmas[0].item() / data, "sigma_max": sigmas[-1].item() / data}
        kinds = [(kind, {}) for kind in ("scaled_linear", "linear")] + [("cosine", ends)]
        kinds += [("scaled_linear", {"betas": betas}) for betas in ((0.00085, 0.020), LOW_BETAS)]
        for kind, values in kinds:
            schedule = Schedule(kind, prediction, steps=len(sigmas), sigma_data=data, **values)
            if torch.allclose(schedule.sigmas, sigmas, rtol=1e-3):
                return schedule
    raise ValueError(
        f"this model's noise schedule ({type(sampling).__mro__[1].__name__}, {len(sigmas)} steps) is none that the "
        "trainer has: Stable Diffusion's scaled-linear betas, those of its upscaler, AnimateDiff's, or lumiere-mini's cosine."
    )


def prediction_of(model: Any) -> str | None:
    """Return what a MODEL's network predicts, "v", "x0" or "eps", or None for anything else (flows)."""
    sampling = model.get_model_object("model_sampling")
    kinds = (
        ("v", comfy.model_sampling.V_PREDICTION),
        ("x0", comfy.model_sampling.X0),
        ("eps", comfy.model_sampling.EPS),
    )
    return next((name for name, kind in kinds if isinstance(sampling, kind)), None)


def encode_frames(model: Any, vae: Any, images: Tensor) -> Tensor:
    """(t, h, w, 3) in [0, 1] -> (c, t, h / ratio, w / ratio), scaled as the U-Net sees it."""
    latents = vae.encode(images[..., :3]).float().cpu()
    return model.model.process_latent_in(latents).permute(1, 0, 2, 3)


def embedding(model: Any, context: Tensor, pooled: Tensor | None, height: int, width: int) -> dict[str, Tensor]:
    """Return `context` (l, d) and, where the U-Net wants it, `y` (adm,), as a sampling run would hand them over."""
    found = {"context": context[0].float().cpu()}
    y = model.model.encode_adm(pooled_output=pooled, height=height, width=width)
    if y is not None and unet_config_of(model).adm_in_channels:
        found["y"] = y[0].float().cpu()
    return found
