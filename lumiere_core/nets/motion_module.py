"""Motion modules: attention over the frames of every pixel at every level (AnimateDiff, Guo et al. 2023).

They are the second kind of temporal layers. They follow the same blocks of the image U-Net as Lumiere's inflation blocks
do, but change no frame rate, and know a frame's place from a table of sines. `motion_files` reads the public weights.
Shapes: n - pixels of all clips, b - clips, t - frames of a clip, c - channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction
from .config import TemporalConfig

KIND = "motion_module"
# Bytes of the widest activation that is held at a time where no gradient is wanted. A pixel's answer does not depend on
# the others, so they are taken in parts: on a CPU what a part needs then stays near its cache.
PART = {"cpu": 8 << 20, "other": 256 << 20}


class MotionModule(nn.Module):
    """Norm, projection, attention layers and a feed-forward over the frames, zero-initialised projection, residual.

    Args:
        channels: of the features.
        config: with `depth` attention layers (2 in all public files) of `heads` heads (8 in all), whose table of positions
            knows `table_frames` frames. A longer clip gets the table stretched over it.
        operations: namespace with Linear, GroupNorm, LayerNorm, Embedding.
        attention: function (q, k, v, heads).
    """

    def __init__(self, channels: int, config: TemporalConfig, operations: Any, attention: AttentionFunction) -> None:
        super().__init__()
        ops = operations
        self.norm = ops.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = ops.Linear(channels, channels)
        self.layers = nn.ModuleList(FrameAttention(channels, config, ops, attention) for _ in range(config.depth))
        self.ff_norm = ops.LayerNorm(channels)
        self.ff_in = ops.Linear(channels, channels * 8)
        self.ff_out = ops.Linear(channels * 4, channels)
        self.proj = ops.Linear(channels, channels)

    def forward(self, x: Tensor, num_frames: int, frame_vector: Tensor | None = None) -> Tensor:
        """Return ((b t), c, h, w) features; the frame vector is not used by this kind."""
        c, h, w = x.shape[1:]
        y = self.norm(x).reshape(-1, num_frames, c, h * w)
        y = y.permute(0, 3, 1, 2).reshape(-1, num_frames, c)  # (b h w) t c
        if torch.is_grad_enabled():
            y = self._pixels(y)
        else:
            limit = PART["cpu" if y.device.type == "cpu" else "other"]
            for part in y.split(max(1, limit // (num_frames * c * 8 * y.element_size()))):
                part.copy_(self._pixels(part))
        y = y.reshape(-1, h * w, num_frames, c).permute(0, 2, 3, 1).reshape(-1, c, h, w)
        return x + y

    def _pixels(self, y: Tensor) -> Tensor:
        """Return what n t c tokens become."""
        y = self.proj_in(y)
        for layer in self.layers:
            y = _sum(layer(y), y)
        values, gate = self.ff_in(self.ff_norm(y)).chunk(2, dim=-1)
        gate = F.gelu(gate)
        inner = gate * values if torch.is_grad_enabled() else gate.mul_(values)
        return self.proj(_sum(self.ff_out(inner), y))


class FrameAttention(nn.Module):
    """Self-attention over frames whose places are added to the tokens, after a norm."""

    def __init__(self, channels: int, config: TemporalConfig, operations: Any, attention: AttentionFunction) -> None:
        super().__init__()
        ops = operations
        self.heads, self.table_frames, self.attention = config.heads, config.table_frames, attention
        self.norm = ops.LayerNorm(channels)
        # An embedding, so that a host casts and moves it like other weights; a table of sines does not learn.
        self.table = ops.Embedding(config.table_frames, channels)
        self.table.weight.requires_grad_(False)
        self.to_q = ops.Linear(channels, channels, bias=False)
        self.to_k = ops.Linear(channels, channels, bias=False)
        self.to_v = ops.Linear(channels, channels, bias=False)
        self.to_out = ops.Linear(channels, channels)

    def forward(self, y: Tensor) -> Tensor:
        """Return (n, t, c) tokens for (n, t, c) tokens of t frames."""
        y = _sum(self.norm(y), self.places(y))
        return self.to_out(self.attention(self.to_q(y), self.to_k(y), self.to_v(y), self.heads))

    def places(self, y: Tensor) -> Tensor:
        """Return the (t, c) table rows of the tokens' frames, stretched where there are more frames than rows."""
        frames = y.shape[1]
        if frames <= self.table_frames:
            return self.table(torch.arange(frames, device=y.device)).to(y)
        place = torch.linspace(0, self.table_frames - 1, frames, device=y.device)
        low = place.long().clamp(max=self.table_frames - 2)
        share = (place - low)[:, None]
        return torch.lerp(self.table(low).float(), self.table(low + 1).float(), share).to(y)


def _sum(own: Tensor, other: Tensor) -> Tensor:
    """Return own + other of any shape; in place of `own`, a layer's fresh result, where no gradient is wanted."""
    return own + other if torch.is_grad_enabled() else own.add_(other)


def sine_table(frames: int, channels: int) -> Tensor:
    """Return the (frames, channels) table of "Attention Is All You Need": sines and cosines by turns."""
    place = torch.arange(frames, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
    return torch.stack([(place * rate).sin(), (place * rate).cos()], dim=-1).flatten(1)
