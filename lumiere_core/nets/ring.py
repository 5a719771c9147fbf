"""A clip whose last frame is followed by its first: what the temporal layers see beyond its ends (ours).

Shapes: n - sequences, t - frames, c - channels, b - clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def around(convolve: Callable[[Tensor], Tensor], x: Tensor, reach: int, stride: int = 1) -> Tensor:
    """Convolve (b, t, …) over time as a ring, by a layer that knows of beginnings and ends only.

    The clip is continued at both sides by as many frames as the kernel reaches, in whole strides, and what the layer makes
    of them is cut off.

    Args:
        convolve: (b, t, …) -> (b, t', …), t' a `stride`-th of t.
        reach: frames that the kernel sees to each side.
    """
    extra = -(-reach // stride) * stride
    numbers = torch.arange(-extra, x.shape[1] + extra, device=x.device) % x.shape[1]
    y = convolve(x.index_select(1, numbers))
    cut = extra // stride
    return y[:, cut : y.shape[1] - cut]


def ring_distances(t: int, device: torch.device) -> Tensor:
    """Return (t, t) distances of every frame from every other, the shorter way around: from -t / 2 to t / 2."""
    frames = torch.arange(t, device=device)
    return (frames - frames[:, None] + t // 2) % t - t // 2


def ring_places(numbers: Tensor, frames: int) -> Tensor:
    """Return the places of frames of a ring: there and back, slowly at both ends, so that they are nowhere torn.

    Any shape, such as (b, t).

    Layers that are told places learnt one way through a clip, from 0 to 1. A ring goes that way and returns; at an even
    pace it would turn back at once, which those layers draw as a jump (seam 2.3 of the median change instead of 0.4).

    Args:
        numbers: frame numbers in the ring; frames: of the whole ring.
    """
    return (1 - torch.cos(2 * math.pi * (numbers % frames).float() / frames)) / 2


def check_ring(frames: int, multiple: int) -> None:
    """Raise ValueError unless every level of the network gets whole strides of a ring."""
    if frames % multiple:
        low = frames // multiple * multiple
        raise ValueError(
            f"a loop of {frames} frames does not close: this model sees every {multiple}th frame at its coarsest level. "
            f"Make {low or multiple} or {low + multiple} frames."
        )
