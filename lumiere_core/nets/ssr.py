"""Spatial super-resolution: the second stage, which makes a coarse clip large (Lumiere §3.2).

The network is a Space-Time U-Net that sees <noisy large clip, upsampled small clip> on its channels. Noise is
added to the small clip, too, and its level is told to the network beside the pooled text (noise-conditioning
augmentation, Ho et al. 2022, "Cascaded diffusion models"), so that it gets used to the errors of the
stage before. Shapes: b - clips, c - channels, t - frames, h, w - height, width of the small clip.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clips.video import fold, unfold
from .checkpoint import WEIGHTS, Parts
from .config import SSRConfig
from .stunet import SpaceTimeUNet
from .temporal import TemporalLayers
from .unet import UNet
from .unet_layers import timestep_embedding

BUNDLED = "lumiere-mini-ssr"
NOISE_STREAM = 1 << 32  # of `frame_noise`: the augmentation's noise, apart from that of the steps


def bundled_ssr_files(folder: Path = WEIGHTS) -> list[Path]:
    """Return the files of the SSR model that is shipped with the pack, its text encoder first.

    Raises:
        FileNotFoundError: one of them is missing.
    """
    files = [folder / "mini-text.safetensors", folder / "mini-ssr.safetensors"]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"no {file}. The pack is incomplete: install it again.")
    return files


def ssr_config(parts: Parts) -> SSRConfig:
    """Return what makes a checkpoint an SSR model.

    Raises:
        ValueError: it is none, for example a base model.
    """
    if "ssr" not in parts.config:
        raise ValueError(
            f"{', '.join(parts.sha256) or 'the checkpoint'} is no super-resolution model: its lumiere.config has "
            f'{sorted(parts.config)} but no "ssr". Load {BUNDLED}, or a file that `train ssr` wrote.'
        )
    return SSRConfig.from_dict(parts.config["ssr"])


def upsample(low: Tensor, scale: int) -> Tensor:
    """Return (n, c, scale h, scale w) for (n, c, h, w), bicubic; what the network starts from."""
    return F.interpolate(low, scale_factor=scale, mode="bicubic", align_corners=False)


def augment(low: Tensor, noise: Tensor, level: Tensor, config: SSRConfig) -> Tensor:
    """Add noise of the share `level` (n,) in [0, 1] of the largest trained one to (n, c, h, w)."""
    return low + noise * (level * config.max_noise).to(low).reshape(-1, 1, 1, 1)


def pooled_with_level(pooled: Tensor, level: Tensor, config: SSRConfig) -> Tensor:
    """Return the vector `y`: (n, d) pooled text and the embedding of the (n,) augmentation levels in [0, 1]."""
    embedding = timestep_embedding(level.to(pooled.device) * 1000, config.level_channels)
    return torch.cat([pooled, embedding.to(pooled)], dim=-1)


class SSRNetwork(nn.Module):
    """Predict the clean large clip from <noisy large clip, upsampled small clip>.

    The U-Net answers with the difference from the upsampled clip, which is added here; its last convolution
    starts at zero, so an untrained network upsamples.

    Args:
        unet: of 6 input and 3 output channels.
        temporal: layers for it; None treats every frame by itself.
    """

    def __init__(self, unet: UNet, temporal: TemporalLayers | None, config: SSRConfig) -> None:
        super().__init__()
        self.unet, self.temporal, self.config = unet, temporal, config
        self.clips = SpaceTimeUNet(unet, temporal) if temporal is not None else None

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor,
        low: Tensor,
        checkpointing: bool = False,
        numbers: Tensor | None = None,
        clip_frames: int = 0,
    ) -> Tensor:
        """Return the (b, 3, t, H, W) clean clip.

        Args:
            x: (b, 3, t, H, W) noised clip, scaled to unit variance.
            timesteps: (b,); context: (b, l, d); y: (b, adm) from `pooled_with_level`.
            low: (b, 3, t, H, W) from `upsample`.
            checkpointing: recompute activations in the backward pass.
            numbers, clip_frames: where the frames are in their clips; see `SpaceTimeUNet`.
        """
        both = torch.cat([x, low], dim=1)
        if self.clips is not None:
            place = {"numbers": numbers, "clip_frames": clip_frames}
            return low + self.clips(both, timesteps, context, y, checkpointing=checkpointing, **place)
        t = x.shape[2]
        timesteps, context, y = (v.repeat_interleave(t, dim=0) for v in (timesteps, context, y))
        return low + unfold(self.unet(fold(both), timesteps, context, y), t)
