"""Temporal Multidiffusion: denoise a long clip in overlapping windows that agree (Lumiere §3.2).

At every denoising step the clip is cut into overlapping windows J_i, each is denoised, and the clip nearest
to all answers, argmin_J sum_i w_i ||J - Phi(J_i)||^2, is the weighted mean of the answers over the windows
that hold a frame. Planning works on integers, blending on tensors; frames are on one chosen axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Window = tuple[int, ...]  # frame numbers of the clip, in the order the network sees them

OVERLAP = 2  # frames: "temporal windows have an overlap of 2 frames" (arXiv v2)
WEIGHTINGS = ("uniform", "tapered")


def plan_windows(
    num_frames: int, context_length: int, context_overlap: int = OVERLAP, closed_loop: bool = False
) -> list[Window]:
    """Return windows of `context_length` frames that cover the clip.

    Window starts are `context_length - context_overlap` frames apart; the last window is shifted back so
    that all have the same length. A clip that fits in one window gets one window.

    Args:
        num_frames: frames of the clip.
        context_length: frames of a window (T' in the paper, which does not give its value).
        context_overlap: frames that neighbouring windows share at least.
        closed_loop: windows wrap around, so that the end of the clip is blended with its start.

    Raises:
        ValueError: no frames, an empty window, or an overlap that is negative or not below the length.
    """
    starts = window_starts(num_frames, context_length, context_overlap, closed_loop)
    length = min(context_length, num_frames)
    return [tuple((start + i) % num_frames for i in range(length)) for start in starts]


def window_starts(
    num_frames: int, context_length: int, context_overlap: int = OVERLAP, closed_loop: bool = False
) -> list[int]:
    """Return the first frame of each window of `plan_windows`, which see for arguments and errors."""
    if num_frames < 1 or context_length < 1:
        raise ValueError(f"got {num_frames} frames and windows of {context_length}; both must be at least 1.")
    if not 0 <= context_overlap < context_length:
        raise ValueError(
            f"context_overlap is {context_overlap} frames with windows of {context_length}; "
            f"it must be from 0 to {context_length - 1}."
        )
    if num_frames <= context_length:
        return [0]
    step = context_length - context_overlap
    if closed_loop:
        count = -(-num_frames // step)
        return [round(i * num_frames / count) for i in range(count)]
    count = 1 + -(-(num_frames - context_length) // step)
    return [min(i * step, num_frames - context_length) for i in range(count)]


def window_weights(length: int, overlap: int, weighting: str = "uniform") -> Tensor:
    """Return the (length,) weights of a window's frames.

    "uniform" is the paper's plain average; "tapered" (ours) falls off linearly over the overlap, so a
    frame counts less where its window knows less of its surroundings.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {weighting!r}; wanted one of {WEIGHTINGS}.")
    if weighting == "uniform":
        return torch.ones(length)
    distance = torch.arange(length)
    distance = torch.minimum(distance, length - 1 - distance) + 1.0
    return (distance / (overlap + 1)).clamp(max=1)


class Blend:
    """Weighted mean of window answers, added one at a time, so that only one window is in memory.

    Args:
        like: tensor of the whole clip whose shape, dtype and device the result has.
        dim: its axis of frames.
    """

    def __init__(self, like: Tensor, dim: int) -> None:
        self.total = torch.zeros_like(like)
        self.weight = torch.zeros(like.shape[dim], device=like.device)
        self.dim = dim

    def add(self, answer: Tensor, window: Sequence[int], weights: Tensor) -> None:
        """Add the answer of one window, its frames weighted by (window length,) weights."""
        frames = torch.tensor(window, device=self.total.device)
        weights = weights.to(self.weight)
        shape = [1] * answer.ndim
        shape[self.dim] = -1
        self.total.index_add_(self.dim, frames, answer * weights.reshape(shape).to(answer.dtype))
        self.weight.index_add_(0, frames, weights)

    def result(self) -> Tensor:
        """Return the mean, in the memory of the sum: call it once, at the end.

        It has the shape of the clip, (b, c, t, h, w) or (t, c, h, w).

        Raises:
            ValueError: a frame was covered by no window.
        """
        if not (self.weight > 0).all():
            bare = (self.weight == 0).nonzero().flatten().tolist()
            raise ValueError(f"no window covered the frames {bare[:8]}; plan windows over the clip.")
        shape = [1] * self.total.ndim
        shape[self.dim] = -1
        return self.total.div_(self.weight.reshape(shape).to(self.total.dtype))


def denoise_in_windows(
    denoise: Callable[[Tensor, Window], Tensor], x: Tensor, windows: Sequence[Window], weights: Tensor
) -> Tensor:
    """Denoise a clip window by window and blend the answers.

    Args:
        denoise: called with the frames of one window and its frame numbers; same shape back.
        x: noised clip (b, c, t, …). All windows see slices of this one tensor, so noise that
            was drawn for the clip is shared where they overlap.
        weights: (window length,), from `window_weights`.
    """
    if len(windows) == 1 and len(windows[0]) == x.shape[2]:
        return denoise(x, windows[0])
    blend = Blend(x, dim=2)
    for window in windows:
        frames = torch.tensor(window, device=x.device)
        blend.add(denoise(x.index_select(2, frames), window), window, weights)
    return blend.result()
