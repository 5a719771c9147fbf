"""The SD x4 upscaler around clips: latents of the large clip, with the small clip on further channels.

It is told the number of the noise on the small clip as a class (`label_emb`), and that noise is a diffusion step of
Stable Diffusion's own kind, not an addition as in `ssr` (noise-conditioning augmentation, Ho et al. 2022, "Cascaded
diffusion models"). Shapes: b - clips, c - channels, t - frames, h, w - height, width of the latents and of the small clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stunet import SpaceTimeUNet
from .temporal import TemporalLayers
from .unet import UNet

SCALE = 4  # large over small size; of its VAE too
LOW_BETAS = (0.0001, 0.02)  # of the noise on the small clip, and of the model's own schedule
MOST_LEVEL = 350  # of 1000: the strongest noise that it was trained with


def small_frames(frames: Tensor) -> Tensor:
    """Return (3, t, h / 4, w / 4) in [-1, 1], the means of 4 x 4 pixels, of (t, h, w, 3) uint8 frames."""
    return F.avg_pool2d(frames.float().permute(0, 3, 1, 2) / 127.5 - 1, SCALE).transpose(0, 1)


def noised(low: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Return a small clip (b, 3, t, h, w) at diffusion steps `level` (b,), whole numbers; at 0 it is left as it is.

    Args:
        noise: like low.
    """
    first, last = (beta**0.5 for beta in LOW_BETAS)
    kept = torch.cumprod(1 - torch.linspace(first, last, 1000, dtype=torch.float64) ** 2, dim=0).to(low)
    kept = kept[level.to(low.device)].reshape(-1, 1, 1, 1, 1)
    mixed = kept.sqrt() * low + (1 - kept).sqrt() * noise
    return torch.where(level.to(low.device).reshape(-1, 1, 1, 1, 1) > 0, mixed, low)


class LatentUpscaler(nn.Module):
    """Predict the model output (v) of the large clip's noised latents, with the small clip behind them.

    Args:
        unet: whose `low_channels` take the small clip.
        temporal: layers for it.
    """

    def __init__(self, unet: UNet, temporal: TemporalLayers) -> None:
        super().__init__()
        self.clips = SpaceTimeUNet(unet, temporal)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor,
        low: Tensor,
        checkpointing: bool = False,
        **place,
    ) -> Tensor:
        """Return the (b, c, t, h, w) model output.

        Args:
            x: (b, c, t, h, w) noised latents; timesteps: (b,); context: (b, l, d).
            y: (b,) whole numbers, the steps of the noise on the small clip.
            low: (b, 3, t, h, w) small clip in [-1, 1], with its noise.
            checkpointing, place: see `SpaceTimeUNet`.
        """
        return self.clips(
            torch.cat([x, low.to(x)], dim=1), timesteps, context, y=y, checkpointing=checkpointing, **place
        )
