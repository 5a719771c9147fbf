"""Layers of the image U-Net, with the parameter names of latent diffusion (LDM) checkpoints.

Shapes: n - images (batch times frames), c - channels, h, w - height, width, l - text states, d - their width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import AttentionFunction
from .config import UNetConfig

MAX_PERIOD = 10000.0  # timesteps, of the slowest wave of their embedding


def timestep_embedding(timesteps: Tensor, channels: int) -> Tensor:
    """Return the (n, channels) cosine/sine embedding of (n,) timesteps; fractions are allowed."""
    half = channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponent)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    """Two convolutions with the time (and text) embedding between them."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, scale_shift: bool) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, out_channels * (2 if scale_shift else 1)))
        # Dropout(0) keeps the LDM numbering: the convolution is out_layers.3.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return (n, out_channels, h, w) for features (n, channels, h, w) and the embedding (n, emb_channels)."""
        h = self.in_layers(x)
        emb = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](torch.addcmul(shift, self.out_layers[0](h), 1 + scale))
        else:
            h = self.out_layers(h + emb)
        return self.skip_connection(x) + h


class Downsample(nn.Module):
    """Halve height and width with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, ceil(h / 2), ceil(w / 2))."""
        return self.op(x)


class Upsample(nn.Module):
    """Double height and width (nearest neighbour, then a convolution)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, c, h, w) -> (n, c, *size), the height and width of the skip that comes next (odd sizes)."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class CrossAttention(nn.Module):
    """Attention of x over context, or over itself when context is None."""

    def __init__(self, channels: int, context_dim: int, heads: tuple[int, int], attention: AttentionFunction) -> None:
        super().__init__()
        self.heads, inner, self.attention = heads[0], math.prod(heads), attention
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(context_dim, inner, bias=False)
        self.to_v = nn.Linear(context_dim, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return (n, k, channels) for queries x (n, k, channels) and context (n, l, context_dim)."""
        context = x if context is None else context
        return self.to_out(self.attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GEGLU(nn.Module):
    """Gated GELU."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, k, channels) -> (n, k, inner)."""
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU, then a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, channels * 4), nn.Dropout(0.0), nn.Linear(channels * 4, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, k, channels) -> the same shape, (n, k, channels)."""
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention over the text, feed-forward; pre-norm residuals.

    Args:
        heads: of the attention, and channels of each.
        text_only: the first attention is over the text as well (as in the SD x4 upscaler), so that the cost grows linearly
            with the number of pixels.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int | None,
        heads: tuple[int, int],
        attention: AttentionFunction,
        text_only: bool,
    ) -> None:
        super().__init__()
        how, width = (heads, attention), context_dim or channels
        self.text_only = text_only
        self.attn1 = CrossAttention(channels, width if text_only else channels, *how)
        self.ff = FeedForward(channels)
        self.attn2 = CrossAttention(channels, width, *how)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """(n, k, channels) and text states (n, l, context_dim) -> (n, k, channels)."""
        x = x + self.attn1(self.norm1(x), context if self.text_only else None)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of one image.

    Args:
        depth: blocks.
        level: of the U-Net; None is the middle block.
    """

    def __init__(
        self, channels: int, depth: int, level: int | None, config: UNetConfig, attention: AttentionFunction
    ) -> None:
        super().__init__()
        heads, text_only = config.heads(channels), config.text_only(level)
        how, inner = (heads, attention, text_only), math.prod(heads)
        self.use_linear = config.use_linear_in_transformer
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        project = nn.Linear if self.use_linear else lambda i, o: nn.Conv2d(i, o, 1)
        self.proj_in = project(channels, inner)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(inner, config.context_dim, *how) for _ in range(depth)
        )
        self.proj_out = project(inner, channels)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """(n, c, h, w) and text states (n, l, context_dim) -> (n, c, h, w)."""
        h, w = x.shape[-2:]
        y = self.norm(x)
        if not self.use_linear:
            y = self.proj_in(y)
        y = y.flatten(2).transpose(1, 2)  # n c h w -> n (h w) c
        if self.use_linear:
            y = self.proj_in(y)
        for block in self.transformer_blocks:
            y = block(y, context)
        if self.use_linear:
            y = self.proj_out(y)
        y = y.transpose(1, 2).unflatten(2, (h, w))
        return x + (y if self.use_linear else self.proj_out(y))
