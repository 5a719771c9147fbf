"""The parts that inflate an image U-Net over time (Lumiere §3.1, figure 4).

All parts take frames as a batch, `((b t), c, h, w)`, with the number of frames of a clip beside it, and
return the same layout. Shapes: b - clips, t - frames, c - channels, h, w - height, width, d - the frame vector's width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import AttentionFunction
from .config import TemporalConfig, UNetConfig
from .ring import around, ring_distances

MAX_PERIOD = 1000.0  # frames, of the slowest turn of a rotary position


class TemporalConv(nn.Module):
    """1-D convolution over the frames of every pixel.

    It is computed as a 2-D convolution with a (k, 1) kernel over the plane (t, h w). That plane keeps the
    layout of the frames: a view where they are channels-last, whole rows moved where they are not. On a CPU
    it is not turned into channels-last: oneDNN's weight gradient is 4 to 6 times slower there. Tensor cores
    work in channels-last.

    Args:
        repeat_ends: what lies before and after a clip is its first and last frame; else zeros.
    """

    def __init__(self, channels: int, kernel: int, operations: Any, stride: int = 1, repeat_ends: bool = False) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.repeats = self.reach if repeat_ends else 0
        padding = (self.reach - self.repeats, 0)
        self.conv = operations.Conv2d(channels, channels, (kernel, 1), stride=(stride, 1), padding=padding)

    def forward(self, x: Tensor, num_frames: int, closed: bool = False, ends: Tensor | None = None) -> Tensor:
        """((b t), c, h, w) -> the same, or ((b t/s), c, h, w) with a stride s.

        Args:
            closed: the last frame is before the first.
            ends: (b,) bool, whose ends are repeated where the layer repeats them; None = all clips'.
        """
        c, h, w = x.shape[1:]
        if x.is_cuda:
            x = x.contiguous(memory_format=torch.channels_last)
        x = x.reshape(-1, num_frames, c, h * w)
        x = around(self._convolved, x, self.reach, self.conv.stride[0]) if closed else self._convolved(x, ends)
        return x.reshape(-1, c, h, w)

    def _convolved(self, x: Tensor, ends: Tensor | None = None) -> Tensor:
        x = _with_ends(x, self.repeats, self.repeats, ends)
        return self.conv(x.transpose(1, 2)).transpose(1, 2)  # b t c (h w)


class TemporalDownsample(TemporalConv):
    """1-D temporal convolution, initialised to the identity, then a stride (Lumiere App. B)."""


class TemporalUpsample(nn.Module):
    """Frame duplication, then a 1-D temporal convolution initialised to the identity (App. B)."""

    def __init__(self, channels: int, kernel: int, operations: Any, stride: int, repeat_ends: bool = False) -> None:
        super().__init__()
        self.conv = _duplicating(operations.Conv2d)(channels, channels, (kernel, 1), padding=(kernel // 2, 0))
        self.conv.duplicates, self.conv.repeat_ends = stride, repeat_ends

    def forward(self, x: Tensor, num_frames: int, closed: bool = False, ends: Tensor | None = None) -> Tensor:
        """((b t), c, h, w) -> ((b t s), c, h, w); `closed` and `ends` as of `TemporalConv`."""
        x = x.unflatten(0, (-1, num_frames))
        self.conv.ends = ends
        x = around(self.conv, x, self.conv.padding[0]) if closed else self.conv(x)
        return x.flatten(0, 2)  # b t duplicates c h w


def _duplicating(conv2d: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Return a class like `conv2d` that convolves duplicated frames over time, at half the cost.

    Taps that fall on copies of one frame are added before they are applied. With S the sum of all taps and
    k = 3, the first and last copy of frame i become S x[i] + w[-1] (x[i-1] - x[i]) and
    S x[i] + w[1] (x[i+1] - x[i]): three products a frame where two convolved copies take six.

    `_conv_forward` is where torch's layer, and a host's layer with cast weights, hand over the weight to be
    used; the parameter itself is not read.
    """

    class DuplicatingConv2d(conv2d):
        duplicates: int
        repeat_ends: bool
        ends: Tensor | None = None  # of the call that is made

        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            """Return b t duplicates c h w for b t c h w."""
            reach = weight.shape[2] // 2
            shared = _mix(x, weight.sum(2, keepdim=True), bias)
            copies = []
            for copy in range(self.duplicates):
                y = shared
                frames = [(copy + tap) // self.duplicates for tap in range(-reach, reach + 1)]
                for frame in sorted(set(frames) - {0}):  # the neighbours that this copy reaches
                    taps = [i for i, f in enumerate(frames) if f == frame]
                    shifted = _shifted(x, frame, self.repeat_ends, self.ends)
                    y = y + _mix(shifted - x, weight[:, :, taps].sum(2, keepdim=True))
                copies.append(y)
            return torch.stack(copies, dim=2)

    return DuplicatingConv2d


def _mix(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a (c, c, 1, 1) matrix to the channels of b t c h w."""
    return F.conv2d(x.flatten(0, 1), weight, bias).unflatten(0, x.shape[:2])


def _shifted(x: Tensor, frames: int, repeat_ends: bool, ends: Tensor | None = None) -> Tensor:
    """Return x[i + frames] at frame i of b t c h w; outside the clip zero, or its first or last frame."""
    before, after = max(-frames, 0), max(frames, 0)
    x = _with_ends(x, before, after, ends) if repeat_ends else F.pad(x, (0, 0) * 3 + (before, after))
    return x[:, frames:] if frames > 0 else x[:, :frames]


def _with_ends(x: Tensor, before: int, after: int, ends: Tensor | None = None) -> Tensor:
    """Return b t … with the first frame so many times before it, and the last so many times after.

    Args:
        ends: (b,) bool; clips for which it is false have zeros there. None = all have their ends.
    """
    if not before + after:
        return x
    first, last = x[:, :1], x[:, -1:]
    if ends is not None:
        share = ends.to(x).reshape(-1, *[1] * (x.ndim - 1))
        first, last = first * share, last * share
    return torch.cat([*[first] * before, x, *[last] * after], dim=1)


class ScaleShift(nn.Module):
    """Scale and shift of features by the frame vector (FiLM); the identity without one.

    With `coordinates` both may rise or fall across the frame, so that the vector says where something is and not only
    what it is (coordinates as in Liu et al. 2018, "CoordConv"): what the image model put at the left grows, what it put
    at the right goes. x and y are -1 and 1 at the frame's borders, whatever its size.
    """

    def __init__(self, channels: int, config: TemporalConfig, operations: Any) -> None:
        super().__init__()
        width = config.condition_channels
        self.linear = operations.Linear(width, channels * 2)
        self.ramps = operations.Linear(width, channels * 4) if config.coordinates else None

    def forward(self, x: Tensor, frame_vector: Tensor) -> Tensor:
        """Modulate ((b t), c, h, w) features by ((b t), d) frame vectors."""
        frame_vector = F.silu(frame_vector)
        both = self.linear(frame_vector)[:, :, None, None]
        if self.ramps is not None:
            across, down = self.ramps(frame_vector)[:, :, None, None].chunk(2, dim=1)
            both = both + across * _axis(x, -1) + down * _axis(x, -2)[:, None]
        scale, shift = both.chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


def _axis(x: Tensor, dim: int) -> Tensor:
    """Return the coordinates, -1 to 1, of the pixels' centres along a side of the frame."""
    size = x.shape[dim]
    return (2 * torch.arange(size, device=x.device, dtype=x.dtype) + 1) / size - 1


class ConvInflationBlock(nn.Module):
    """2-D conv, norm, act, 1-D temporal conv, norm, act, zero-initialised projection, residual (fig. 4b).

    The norms see one frame at a time, so changing one frame leaves the norm of the others unchanged.
    """

    def __init__(self, channels: int, config: TemporalConfig, operations: Any) -> None:
        super().__init__()
        ops = operations
        self.conv = ops.Conv2d(channels, channels, config.spatial_kernel, padding=config.spatial_kernel // 2)
        self.norm = ops.GroupNorm(32, channels)
        self.temporal_conv = TemporalConv(channels, config.temporal_kernel, ops, repeat_ends=config.repeat_ends)
        self.temporal_norm = ops.GroupNorm(32, channels)
        self.modulation = ScaleShift(channels, config, ops) if config.condition_channels else None
        self.proj = ops.Conv2d(channels, channels, 1)

    def forward(
        self, x: Tensor, num_frames: int, frame_vector: Tensor | None, closed: bool = False, ends: Tensor | None = None
    ) -> Tensor:
        """((b t), c, h, w) and the frame vectors ((b t), d) or None -> ((b t), c, h, w); `ends` as of `TemporalConv`."""
        in_place = not torch.is_grad_enabled()  # the results of the norms are ours to overwrite
        h = F.silu(self.norm(self.conv(x)), in_place)
        h = self.temporal_norm(self.temporal_conv(h, num_frames, closed, ends))
        if self.modulation is not None and frame_vector is not None:
            h = self.modulation(h, frame_vector)
        return x + self.proj(F.silu(h, in_place))


class TemporalAttention(nn.Module):
    """Self-attention over the frames of every pixel, pre-norm, with rotary position (ours: see below).

    The paper names no temporal position; rotary embedding of the frame number is our documented choice:
    it needs no table, so any clip length works.
    """

    def __init__(self, channels: int, config: TemporalConfig, operations: Any, attention: AttentionFunction) -> None:
        super().__init__()
        ops, heads = operations, max(1, channels // config.num_head_channels)
        if channels % (2 * heads):
            raise ValueError(
                f"num_head_channels is {config.num_head_channels}: {channels} channels cannot be shared out to {heads} heads "
                "of an even width. Choose another one."
            )
        self.heads, self.attention = heads, attention
        self.norm = ops.GroupNorm(32, channels)
        self.modulation = ScaleShift(channels, config, ops) if config.condition_channels else None
        self.to_q = ops.Linear(channels, channels, bias=False)
        self.to_k = ops.Linear(channels, channels, bias=False)
        self.to_v = ops.Linear(channels, channels, bias=False)
        self.to_out = ops.Linear(channels, channels)

    def forward(self, x: Tensor, num_frames: int, frame_vector: Tensor | None, closed: bool = False) -> Tensor:
        """((b t), c, h, w) and the frame vectors ((b t), d) or None -> ((b t), c, h, w)."""
        h, w = x.shape[-2:]
        y = self.norm(x)
        if self.modulation is not None and frame_vector is not None:
            y = self.modulation(y, frame_vector)
        y = rearrange(y, "(b t) c h w -> (b h w) t c", t=num_frames)
        q, k, v = self.to_q(y), self.to_k(y), self.to_v(y)
        y = self._around(q, k, v) if closed else self.attention(*(rotary(x, self.heads) for x in (q, k)), v, self.heads)
        y = self.to_out(y)
        return x + rearrange(y, "(b h w) t c -> (b t) c h w", h=h, w=w)

    def _around(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend on a ring: every frame sees each other at its distance the shorter way, so each is a query by itself."""
        n, t, _ = q.shape
        k = k.repeat_interleave(t, 0)  # (n t) t c
        places = ring_distances(t, q.device).repeat(n, 1)
        y = self.attention(
            q.reshape(n * t, 1, -1), rotary(k, self.heads, places), v.repeat_interleave(t, 0), self.heads
        )
        return y.reshape(n, t, -1)


class AttentionInflationBlock(nn.Module):
    """L temporal attention layers, then a zero-initialised projection, residual (fig. 4c)."""

    def __init__(self, channels: int, config: TemporalConfig, operations: Any, attention: AttentionFunction) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TemporalAttention(channels, config, operations, attention) for _ in range(config.depth)
        )
        self.proj = operations.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, num_frames: int, frame_vector: Tensor | None, closed: bool = False) -> Tensor:
        """((b t), c, h, w) and the frame vectors ((b t), d) or None -> ((b t), c, h, w)."""
        h = x
        for layer in self.layers:
            h = layer(h, num_frames, frame_vector, closed)
        return x + self.proj(h)


def rotary(x: Tensor, heads: int, frames: Tensor | None = None) -> Tensor:
    """Rotate the channel pairs of (n, t, c) queries or keys by angles that grow with the frame number.

    Rotary position embedding (Su et al. 2021) in float32, per head.

    Args:
        frames: (t,) or (n, t) frame numbers; None = 0, 1, ….
    """
    half = x.shape[-1] // heads // 2
    if frames is None:
        frames = torch.arange(x.shape[1], device=x.device)
    rate = MAX_PERIOD ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = frames[..., None].float() * rate  # (…, t, half)
    cos, sin = angle.cos()[..., None, :], angle.sin()[..., None, :]
    first, second = x.float().unflatten(-1, (heads, 2, half)).unbind(-2)  # (n, t, heads, half)
    rotated = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-2)
    return rotated.flatten(2).to(x.dtype)


class FrameVector(nn.Module):
    """One vector a frame from the noise level and the text, for the temporal blocks (our addition).

    Motion words say nothing about a still image, so the frozen image model has no reason to carry
    them; without a path of their own the temporal layers could not tell "left" from "right". The paper
    does not say whether its temporal blocks see the text (`condition_channels = 0` gives them nothing).

    Rotary positions are relative: they tell how far two frames are apart, not which one begins the clip. With
    `coordinates` the vector says so. "Moving left" then means a place for each frame, from the first denoising
    step on; without, every frame would have to work it out from the padding at the clip's ends.
    """

    def __init__(self, unet_config: UNetConfig, config: TemporalConfig, operations: Any) -> None:
        super().__init__()
        ops, channels = operations, config.condition_channels
        context_dim, adm_in_channels = unet_config.context_dim, unet_config.adm_in_channels
        self.time = nn.Sequential(ops.Linear(channels, channels), nn.SiLU())
        self.text = ops.Linear(context_dim, channels) if context_dim else None
        self.score = ops.Linear(context_dim, 1) if context_dim else None
        self.pooled = ops.Linear(adm_in_channels, channels) if adm_in_channels else None
        self.clip_position = ops.Linear(channels, channels * 2) if config.coordinates else None
        self.out = nn.Sequential(nn.SiLU(), ops.Linear(channels, channels))

    def forward(
        self, embedding: Tensor, context: Tensor | None, y: Tensor | None, position: Tensor | None = None
    ) -> Tensor:
        """Return ((b t), d) for ((b t), d) time embeddings, ((b t), l, d) text states, pooled text.

        Args:
            position: ((b t), d) embeddings of the frames' places in the clip; used with `coordinates`.
        """
        h = self.time(embedding)
        if self.text is not None and context is not None:
            context = context.to(h.dtype)
            weight = self.score(context).softmax(dim=1)  # learned attention pooling over the text
            h = h + self.text((weight * context).sum(dim=1))
        if self.pooled is not None and y is not None:
            h = h + self.pooled(y.to(h.dtype))
        if self.clip_position is not None and position is not None:
            # A product, since a direction is one of the text's word and the time: left early, right late.
            scale, shift = self.clip_position(position).chunk(2, dim=-1)
            h = torch.addcmul(shift, h, 1 + scale)
        return self.out(h)
