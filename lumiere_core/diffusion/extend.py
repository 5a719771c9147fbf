"""Clips longer than the model makes: pieces that begin with the end of what is there (ours; the paper does not extend clips).

Each piece is a clip of the model's own length whose first frames are known (Lumiere §4.2). Its colours would drift from
piece to piece, since each repeats the errors of the last; so the new frames are brought to the mean and contrast of the
first piece.

Shapes: b - clips, c - channels, t - frames, h, w - height, width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MOST_CONTRAST = 2.0  # by which the anchor changes it at most, either way: a nearly even picture has none to speak of


def extend(
    first: Tensor, pieces: int, overlap: int, sample: Callable[[int, Tensor], Tensor], anchor: float = 1.0
) -> Tensor:
    """Return a clip that goes on by some pieces; its beginning is `first` as it is.

    Args:
        first: (b, c, t, h, w), the first piece, which gives the colours.
        pieces: how many follow.
        overlap: frames of a piece that are the last ones of what is there.
        sample: called with (number of the piece from 0, its known beginning (b, c, overlap, h, w)); returns (b, c, t, h, w).
        anchor: how far the colours of new frames are brought back to the first piece's; 0 = not, 1 = wholly.

    Returns:
        (b, c, t + pieces * (t - overlap), h, w).

    Raises:
        ValueError: the overlap leaves nothing to make.
    """
    check_overlap(first.shape[2], overlap)
    clip = first
    for number in range(pieces):
        made = sample(number, clip[:, :, -overlap:])[:, :, overlap:]
        clip = torch.cat([clip, anchored(made.to(clip), first, anchor, overlap)], dim=2)
    return clip


def check_overlap(frames: int, overlap: int) -> None:
    """Raise ValueError unless a piece of some frames has known ones and new ones."""
    if frames < 2:
        raise ValueError(
            "the clip has one frame, and a piece is as long: none would be new. Sample a clip of more frames first."
        )
    if not 0 < overlap < frames:
        raise ValueError(
            f"overlap is {overlap} and the clip has {frames} frames; 1 to {frames - 1} are wanted, for example a quarter."
        )


def anchored(made: Tensor, first: Tensor, anchor: float, ramp: int) -> Tensor:
    """Bring new frames to the mean and contrast that another piece has in each channel.

    Args:
        made: (b, c, t, h, w), the new frames.
        first: (b, c, t', h, w), the piece whose colours they get.
        anchor: 0 to 1, how far.
        ramp: frames in which the correction grows, so that there is no jump.
    """
    if anchor == 0:
        return made
    (mean, contrast), (wanted, wanted_contrast) = _colours(made), _colours(first)
    gain = (wanted_contrast / contrast).clamp(1 / MOST_CONTRAST, MOST_CONTRAST)
    there = (made.float() - mean) * gain + wanted
    steps = (torch.arange(1, made.shape[2] + 1, device=made.device) / ramp).clamp(max=1) * anchor
    return torch.lerp(made.float(), there, steps[:, None, None]).to(made)


def _colours(clip: Tensor) -> tuple[Tensor, Tensor]:
    """Return (b, c, 1, 1, 1) mean and standard deviation in float32."""
    clip, axes = clip.float(), (2, 3, 4)
    return clip.mean(axes, keepdim=True), clip.std(axes, keepdim=True).clamp(min=1e-4)
