"""lumiere-mini's image model as the host's own kind of MODEL: its U-Net class, schedule and pixel latents.

The temporal layers are added by `inflate.py`, as to any other U-Net.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import ModelType
from torch import Tensor

from ...lumiere_core.diffusion.schedule import Schedule
from ...lumiere_core.nets.checkpoint import check_state
from ...lumiere_core.nets.config import UNetConfig
from ...lumiere_core.nets.details import Details
from ...lumiere_core.nets.unet import UNet, patchify, unpatchify
from . import models

# What the host's memory formula calls 1.0 is a U-Net of 320 channels at the latent's resolution.
CHANNELS_OF_FACTOR_ONE = 320


class CleanData(comfy.model_sampling.X0):
    """The network answers with the clean data over `sigma_data`, which the host's own class leaves out."""

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """Return the network's answer (n, c, h, w) as it is: it predicts clean data."""
        return model_output * self.sigma_data


# How the host turns the network's answer into clean data; all of them scale the network's input by c_in.
PREDICTIONS = {"v": comfy.model_sampling.V_PREDICTION, "eps": comfy.model_sampling.EPS, "x0": CleanData}


class LumiereUNet(UNetModel):
    """The host's U-Net on pixels: p x p pixels are moved into channels before it and back after it.

    Args:
        pixels: channels of an image, with a basis of the patches; see `UNetConfig.patch_channels`.
        details: (details, width) of core's network of that name, or None: the U-Net sees all but the details.
    """

    def __init__(
        self, *args, patch_size: int = 1, pixels: int = 0, details: tuple[int, int] | None = None, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self.patch_size = patch_size
        first = kwargs["in_channels"]
        rows = first + (details[0] if details else 0)
        basis = torch.zeros(rows, pixels, patch_size, patch_size, device=kwargs.get("device")) if pixels else None
        self.register_buffer("patch_basis", basis)
        self.details = None
        if details:
            layer = models.made_on(kwargs["operations"].Conv2d, kwargs.get("dtype"), kwargs.get("device"))
            self.details = Details(first, *details, SimpleNamespace(Conv2d=layer))

    def _forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """(n, 3, h, w) -> (n, 3, h, w); the wrappers run around this, so they see whole pixels."""
        patches = patchify(x, self.patch_size, self.patch_basis)
        h = super()._forward(patches[:, : self.in_channels], *args, **kwargs)
        if self.details is not None:
            h = self.details(h, patches)
        return unpatchify(h, self.patch_size, x.shape[-2:], self.patch_basis)


class PixelFormat(comfy.latent_formats.LatentFormat):
    """Frames as a batch of RGB images in [-1, 1]."""

    latent_channels = 3
    latent_dimensions = 2
    spacial_downscale_ratio = 1
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    def process_in(self, latent: Tensor) -> Tensor:
        """Return (n, c, h, w) as it is: pixels are not scaled."""
        return latent

    def process_out(self, latent: Tensor) -> Tensor:
        """Return (n, c, h, w) as it is: pixels are not scaled."""
        return latent


class LumiereModelConfig(comfy.supported_models_base.BASE):
    """What the host's BaseModel reads of a model family."""

    unet_extra_config: dict = {}  # the base class forces a number of attention heads
    latent_format = PixelFormat

    def inpaint_model(self) -> bool:
        return False

    def process_vae_state_dict(self, state_dict) -> dict[str, Tensor]:
        """Return the state dict of the pixel VAE, which holds nothing."""
        return {"pixel_space_vae": torch.tensor(1.0)}


class LumiereModel(comfy.model_base.BaseModel):
    """The image model: pooled text as `y`, the pack's noise schedule."""

    unet_class = LumiereUNet

    def __init__(self, config: LumiereModelConfig, schedule: Schedule, device=None) -> None:
        kind = ModelType.V_PREDICTION if schedule.prediction == "v" else ModelType.EPS
        super().__init__(config, kind, device=device, unet_model=self.unet_class)
        self.model_sampling = noise_schedule(config, schedule)

    def extra_conds(self, **kwargs) -> dict:
        context, width = kwargs.get("cross_attn"), self.model_config.unet_config["context_dim"]
        if context is not None and context.shape[-1] != width:
            raise ValueError(
                f"the conditioning has text states of width {context.shape[-1]}, this model wants {width}. "
                "Encode the prompt with the CLIP output of the loader that this MODEL came from."
            )
        return super().extra_conds(**kwargs)

    @property
    def pooled_width(self) -> int:
        """Width of the pooled text vector."""
        return self.adm_channels

    def encode_adm(self, **kwargs) -> Tensor | None:
        """Return the (1, adm) pooled text vector of a conditioning."""
        if not self.adm_channels:
            return None
        pooled = kwargs.get("pooled_output")
        if pooled is None or pooled.shape[-1] != self.pooled_width:
            got = "none" if pooled is None else f"one of width {pooled.shape[-1]}"
            raise ValueError(
                f"the conditioning must carry a pooled text vector of width {self.pooled_width}, got {got}. "
                "Encode the prompt with the CLIP output of the loader that this MODEL came from."
            )
        return pooled


def noise_schedule(config: LumiereModelConfig, schedule: Schedule) -> torch.nn.Module:
    """Return core's schedule and prediction type as the host's `model_sampling`."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, PREDICTIONS[schedule.prediction]):
        pass

    sampling = Sampling(config)
    sampling._register_schedule(given_betas=schedule.betas)
    if schedule.sigma_data != 1:
        sampling.sigma_data = schedule.sigma_data
        sampling.set_sigmas(sampling.sigmas * schedule.sigma_data)
    return sampling


def unet_arguments(config: UNetConfig) -> dict:
    """Return the keyword arguments of a `LumiereUNet`; all of them plain values, as the host keeps them."""
    pixels = config.in_channels if config.patch_channels else 0
    details = (config.detail_channels, config.detail_width) if config.detail_width else None
    return {**config.host_kwargs(), "patch_size": config.patch_size, "pixels": pixels, "details": details}


def build_image_model(
    state: dict[str, Tensor],
    config: UNetConfig,
    schedule: dict,
    name: str,
    dtype: str = "default",
    disable_dynamic: bool = False,
    new_model: Callable[..., LumiereModel] = LumiereModel,
) -> comfy.model_patcher.ModelPatcher:
    """Return a MODEL of the image U-Net alone. `state` is a state dict.

    Args:
        state: of the image U-Net, LDM keys without a prefix.
        schedule: arguments of core's `Schedule`.
        name: of the checkpoint, for messages.
        dtype: a key of `models.DTYPES`.
        new_model: class of the model, called with the host's configuration, the schedule and a device.

    Raises:
        ValueError: keys or shapes do not fit.
    """
    with torch.device("meta"):
        check_state(UNet(config).state_dict(), state, f"image U-Net weights of {name}")
    model_config = LumiereModelConfig(unet_arguments(config))
    load_device = model_management.get_torch_device()
    weights, compute = models.choose_dtypes(dtype, comfy.utils.calculate_parameters(state), load_device)
    model_config.set_inference_dtype(weights, compute, device=load_device)
    model_config.memory_usage_factor = config.model_channels / CHANNELS_OF_FACTOR_ONE / config.patch_size**2
    model = new_model(model_config, Schedule(**schedule), device=model_management.unet_offload_device())
    patcher = models.new_patcher(model, load_device, disable_dynamic)
    model.load_model_weights(dict(state), "", assign=patcher.is_dynamic())
    return patcher
