"""A super-resolution stage as the host's own kind of MODEL (Lumiere §3.2).

It reads the small clip and the noise on it from the conditioning, under the names that the host's SD x4 upscaler
uses (`concat_image`, `noise_augmentation`), so the node that sets them for that one fits this one too.
"""

from __future__ import annotations

import math

import comfy.conds
import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor

from ...lumiere_core.diffusion.schedule import Schedule
from ...lumiere_core.diffusion.upscale import NOISES, noise_numbers
from ...lumiere_core.nets.config import SSRConfig
from ...lumiere_core.nets.ssr import NOISE_STREAM, augment, pooled_with_level
from .image_model import LumiereModel, LumiereModelConfig, LumiereUNet
from .keys import GRAIN
from .noise import ClipNoise


class LumiereSSRUNet(LumiereUNet):
    """Channels: noised large clip, upsampled small clip. The layers answer with the difference from the latter."""

    def _forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        """(n, 6, h, w) -> (n, 3, h, w)."""
        return x[:, 3:] + super()._forward(x, *args, **kwargs)


class SmallClip(comfy.conds.CONDRegular):
    """The small clip (t, c, h, w), upsampled only when a call of the model needs it: a window at a time."""

    def __init__(self, cond: Tensor, size: tuple[int, int]) -> None:
        super().__init__(cond)
        self.large = size

    def _copy_with(self, cond: Tensor) -> SmallClip:
        return SmallClip(cond, self.large)

    def process_cond(self, batch_size: int, area=None, **kwargs) -> comfy.conds.CONDRegular:
        low = comfy.utils.repeat_to_batch_size(self.cond, batch_size)
        large = F.interpolate(low, size=self.large, mode="bicubic", align_corners=False)
        return comfy.conds.CONDNoiseShape(large).process_cond(batch_size, area)


class LumiereSSRModel(LumiereModel):
    """The super-resolution stage: six input channels, the noise level beside the pooled text in `y`."""

    unet_class = LumiereSSRUNet

    def __init__(self, config: LumiereModelConfig, schedule: Schedule, ssr: SSRConfig, device=None) -> None:
        super().__init__(config, schedule, device)
        self.ssr = ssr

    @property
    def pooled_width(self) -> int:
        return self.adm_channels - self.ssr.level_channels

    def memory_required(self, input_shape, cond_shapes=None) -> float:
        """Return the bytes of activations: linear in the pixels, as there is no self-attention.

        The host's formula for models with memory-efficient attention, on every device. Measured on a CPU:
        two thirds of it.
        """
        area = input_shape[0] * math.prod(input_shape[2:])
        size = torch.finfo(self.get_dtype_inference()).bits // 8
        return area * size * 0.01 * self.memory_usage_factor * (1 << 20)

    def encode_adm(self, **kwargs) -> Tensor:
        """Return the (1, adm) vector of pooled text and noise level."""
        pooled = super().encode_adm(**kwargs)
        level = torch.tensor([float(kwargs.get("noise_augmentation", 0.0))])
        return pooled_with_level(pooled, level, self.ssr)

    def extra_conds(self, **kwargs) -> dict:
        """Add the small clip, with noise of the asked level: the same in all frames if `GRAIN` does not say otherwise.

        Raises:
            ValueError: the conditioning holds no small clip.
        """
        out = super().extra_conds(**kwargs)
        low, noise = kwargs.get("concat_image"), kwargs["noise"]
        if low is None:
            raise ValueError(
                "the conditioning of a super-resolution MODEL must hold the small clip (concat_image). Use the node "
                "Lumiere Super Resolution, which sets it; a base MODEL for new clips comes from another checkpoint."
            )
        level = float(kwargs.get("noise_augmentation", 0.0))
        low = comfy.utils.repeat_to_batch_size(low[:, :3], noise.shape[0])
        if level:
            numbers = kwargs.get(GRAIN) or noise_numbers(NOISES[0], low.shape[0])
            clips = low.shape[0] // len(numbers)
            noises = ClipNoise.of_clips(kwargs.get("seed") or 0, clips, len(numbers), numbers)
            grain = noises.at_step(low.shape, NOISE_STREAM)
            low = augment(low, grain.to(low), torch.full((low.shape[0],), level), self.ssr)
        out["c_concat"] = SmallClip(low.to(kwargs["device"]), tuple(noise.shape[-2:]))
        return out
