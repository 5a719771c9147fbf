"""Motion modules of AnimateDiff's kind around the image U-Net, at the full frame rate, for `evaluate warm-start`.

Guo et al. 2023: a temporal transformer after every residual(+attention) group of every level. Parameters are named as the
public files name them, so a state dict is such a file.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from ..animatediff import HEADS
from ..attention import scaled_dot_product
from ..pipeline import Models
from ..schedule import Schedule
from ..text import TextEncoder
from ..training.options import TrainOptions
from ..training.phases.temporal import TemporalPhase
from ..unet import UNet, block_names
from ..unet_layers import FeedForward, Upsample


class Position(nn.Module):
    """The table of sines that public files carry."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        angle = torch.arange(frames)[:, None] * torch.exp(
            torch.arange(0, channels, 2) * (-math.log(10000.0) / channels)
        )
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        self.register_buffer("pe", table[None])


class MotionAttention(nn.Module):
    """Attention over frames; the position is added before the projections."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (
            nn.Linear(channels, channels, bias=False) for _ in range(3)
        )
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.pos_encoder = Position(channels, frames)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_encoder.pe[:, : x.shape[1]]
        return self.to_out[0](scaled_dot_product(self.to_q(x), self.to_k(x), self.to_v(x), HEADS))


class MotionBlock(nn.Module):
    """Two attentions and a feed-forward layer, pre-norm residuals."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(MotionAttention(channels, frames) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.ff_norm, self.ff = nn.LayerNorm(channels), FeedForward(channels, nn)

    def forward(self, x: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """Norm, projection, one block, a projection that starts at zero, residual."""

    def __init__(self, channels: int, frames: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, frames)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        h, w = x.shape[-2:]
        y = rearrange(self.norm(x), "(b t) c h w -> (b h w) t c", t=num_frames)
        y = self.proj_out(self.transformer_blocks[0](self.proj_in(y)))
        return x + rearrange(y, "(b h w) t c -> (b t) c h w", h=h, w=w)


class MotionModules(nn.Module):
    """The modules of one U-Net. `attach` puts them behind its blocks."""

    def __init__(self, unet: UNet, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.places: list[tuple[str, nn.Module, TemporalTransformer]] = []
        counts: dict[str, int] = {}
        levels = unet.config.num_levels
        for name, level, channels, resize in block_names(unet.config):
            # As in v1 and v3 files there is none in the middle.
            if resize in ("first", "down") or name == "middle_block":
                continue
            side, _, index = name.partition(".")
            up = side == "output_blocks"
            group = f"up_blocks.{levels - 1 - level}" if up else f"down_blocks.{level}"
            number = counts.get(group, 0)
            counts[group] = number + 1
            module = TemporalTransformer(channels, num_frames)
            key = f"{group}.motion_modules.{number}.temporal_transformer"
            layers = getattr(unet, side)[int(index)]
            last = [layer for layer in layers if not isinstance(layer, Upsample)][-1]
            self.places.append((key, last, module))
        self.transformers = nn.ModuleList(module for _, _, module in self.places)

    def attach(self) -> None:
        """Let the U-Net's blocks hand their results on through the modules."""
        for _, layer, module in self.places:
            layer.register_forward_hook(
                lambda _layer, _inputs, result, module=module: module(result, self.num_frames)
            )

    def file_state(self) -> dict[str, Tensor]:
        """Return the tensors of a motion module file."""
        return {
            f"{key}.{name}": value.detach()
            for key, _, module in self.places
            for name, value in module.state_dict().items()
        }


class MotionPhase(TemporalPhase):
    """Train motion modules on clips; all else is frozen."""

    def __init__(
        self, unet: UNet, modules: MotionModules, text: TextEncoder, schedule: Schedule, options: TrainOptions
    ) -> None:  # fmt: skip
        self.options, self.module, self.unet = options, modules.to(options.device), unet
        for frozen in (unet, text):
            frozen.to(options.device).eval().requires_grad_(False)
        modules.attach()
        self.models = Models(text, unet, None, schedule)

    def network(
        self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, **places: Tensor
    ) -> Tensor:
        frames = x.shape[2]
        each = [v.repeat_interleave(frames, dim=0) for v in (timestep, context, pooled)]
        y = self.unet(rearrange(x, "b c t h w -> (b t) c h w"), *each)
        return rearrange(y, "(b t) c h w -> b c t h w", t=frames)
