"""Numbers on one conditioned clip; all in levels of 255. t - frames, h, w - pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..measures.walk import change


def levels(video: Tensor) -> Tensor:
    """(1, 3, t, h, w) in [-1, 1] -> (3, t, h, w) in levels of 255."""
    return (video[0].clamp(-1, 1) + 1) * 127.5


def copy_error(estimate: Tensor, clip: Tensor, known: Tensor) -> float:
    """Root mean square error of the network's own answer where the clip is known; before anything is pasted.

    Clips are (1, 3, t, h, w), `known` (1, 1, t, h, w).
    """
    error = (levels(estimate) - levels(clip)).square()
    mask = known[0].expand_as(error) > 0.5
    return error[mask].mean().sqrt().item()


def seam(video: Tensor, known: Tensor) -> float:
    """Mean step between neighbouring pixels of which one is known and one is not.

    Args:
        video: (3, t, h, w); known: (t, h, w).
    """
    steps = []
    for axis in (-1, -2):
        size = video.shape[axis] - 1
        first, second = video.narrow(axis, 0, size), video.narrow(axis, 1, size)
        crossing = known.narrow(axis, 0, size) != known.narrow(axis, 1, size)
        steps.append((first - second).abs().mean(0)[crossing])
    return torch.cat(steps).mean().item()


def jump(video: Tensor, frame: int) -> float:
    """Mean change from a frame to the next; (3, t, h, w)."""
    return change(video[:, frame], video[:, frame + 1])


def motion_inside(video: Tensor, region: Tensor) -> float:
    """Mean standard deviation over time in a (h, w) region; (3, t, h, w)."""
    return video[:, 1:].std(dim=1)[:, region].mean().item()


def change_outside(video: Tensor, region: Tensor) -> float:
    """Largest difference to the first frame outside of a (h, w) region."""
    rest = video[:, :, ~region]
    return (rest - rest[:, :1]).abs().max().item() if rest.numel() else 0.0


def mean_error(video: Tensor, clip: Tensor, where: Tensor) -> float:
    """Mean absolute difference of two (3, t, h, w) clips where a (t, h, w) mask is true."""
    return (video - clip).abs().mean(0)[where].mean().item()


def detail(frame: Tensor, region: Tensor | None = None) -> float:
    """Mean squared difference of a (3, h, w) frame from its own 3x3 means, in a (h, w) region or everywhere."""
    smooth = F.avg_pool2d(F.pad(frame[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
    fine = (frame - smooth).square().mean(0)
    return (fine if region is None else fine[region]).mean().item()
