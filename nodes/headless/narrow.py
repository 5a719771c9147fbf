"""A pack of one file that teaches the host a narrow checkpoint, as packs of other people teach it theirs.

`python -m lumiere_core evaluate own-clips` writes such a checkpoint (U-Net, VAE and text encoder under the names that SD
checkpoints have, 64 channels of latents, eight times smaller than the picture) and copies this file into the custom_nodes
of a folder of its own. The host's own loaders then read it, and what this pack does with a checkpoint that it did not make
is done with it.
"""

from __future__ import annotations

import importlib
import sys

import comfy.latent_formats
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

NODE_CLASS_MAPPINGS: dict = {}  # no nodes: the loaders are the host's
CHANNELS, RATIO = 64, 8
SCHEDULE = {"kind": "cosine", "prediction": "x0", "sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 2.0}
TEXT = {"width": 128, "depth": 3, "num_heads": 4, "tokens": 16, "max_bytes": 256}


class NarrowLatents(comfy.latent_formats.LatentFormat):
    """Channels of the VAE below, as they are."""

    latent_channels = CHANNELS
    latent_dimensions = 2
    spacial_downscale_ratio = RATIO


class Narrow(comfy.supported_models_base.BASE):
    """What the host finds of the family in a state dict, and what it must be told."""

    unet_config = {"in_channels": CHANNELS, "model_channels": 64, "context_dim": TEXT["width"], "adm_in_channels": 128}
    unet_extra_config = {"num_heads": -1, "num_head_channels": 64, "use_scale_shift_norm": True}
    latent_format = NarrowLatents
    supported_inference_dtypes = [torch.float32]
    memory_usage_factor = 0.2

    def inpaint_model(self) -> bool:
        return False

    def get_model(self, state_dict: dict[str, Tensor], prefix: str = "", device=None):
        """Return the U-Net with the noise schedule that it was trained on; the state dict is not read."""
        base = _lumiere("nodes.host.image_model").LumiereModel
        schedule = _lumiere("lumiere_core.diffusion.schedule").Schedule(**SCHEDULE)
        return type("NarrowModel", (base,), {"unet_class": UNetModel})(self, schedule, device=device)

    def clip_target(self, state_dict: dict[str, Tensor] | None = None):
        """Return the classes of the tokenizer and the text encoder; the state dict is not read."""
        clip = _lumiere("nodes.host.clip")
        config = _lumiere("lumiere_core.nets.config").TextConfig(**TEXT)

        class Text(clip.TextModel):
            def __init__(self, device="cpu", dtype=None, model_options=None) -> None:
                super().__init__(config, device, dtype, model_options)

        return comfy.supported_models_base.ClipTarget(clip.ByteTokenizer, Text)


class PatchVAE(torch.nn.Module):
    """Parts of 8x8 pixels along the rows of an orthonormal basis; the names are those by which the host knows a TAESD."""

    def __init__(self) -> None:
        super().__init__()
        self.taesd_decoder = torch.nn.ModuleDict({"1": torch.nn.Conv2d(CHANNELS, 3 * RATIO**2, 1, bias=False)})

    def encode(self, pixels: Tensor) -> Tensor:
        """Return (n, 64, h / 8, w / 8) of (n, 3, h, w) in [-1, 1]."""
        basis = self.taesd_decoder["1"].weight[:, :, 0, 0].T.unflatten(1, (3, RATIO, RATIO))
        return torch.nn.functional.conv2d(pixels, basis, stride=RATIO)

    def decode(self, latents: Tensor) -> Tensor:
        """Return (n, 3, h, w) of (n, 64, h / 8, w / 8)."""
        return torch.nn.functional.pixel_shuffle(self.taesd_decoder["1"](latents), RATIO)


def _lumiere(name: str):
    """Return a module of the Lumiere pack, which the host has loaded under a name of its own."""
    loaded = next(other for other in sys.modules if other.endswith(".nodes.host.image_model"))
    return importlib.import_module(f"{loaded.removesuffix('.nodes.host.image_model')}.{name}")


def _teach() -> None:
    """Add the family to those that the host looks through, and the VAE to what it makes of a TAESD's names."""
    taesd = comfy.taesd.taesd.TAESD

    def tiny(*args, latent_channels: int = 4, **kwargs):
        return PatchVAE() if latent_channels == CHANNELS else taesd(*args, latent_channels=latent_channels, **kwargs)

    comfy.taesd.taesd.TAESD = tiny
    comfy.supported_models.models.insert(0, Narrow)


_teach()
