"""What happens in a region of a clip, around it and where the two meet; all in levels of 255.

t - frames, h, w - pixels. Clips are (3, t, h, w) in levels, regions (h, w) or (t, h, w) bool.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .figure import Figure, Measure
from .walk import Step, change

# The reference's step counts as this much at least, for one on plain colours cannot be seen.
LEAST_STEP = 4.0


class Border(Measure):
    """Whether one sees where what was given meets what was made."""

    needs = ("known",)
    figures = (
        Figure(
            "border_step",
            "levels",
            (0, 255),
            "mean step between neighbouring pixels of which one was given and one was made",
        ),
        Figure(
            "border_ratio",
            "ratio",
            (0, None),
            "the same over the reference's step there, which counts as 4 levels at least; 1 = not to be seen",
        ),
    )

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._real: list[Tensor] = []

    def see(self, step: Step) -> None:
        self._steps.append(_total(step.frame[:, None], step.known[None]))
        if step.reference is not None:
            self._real.append(_total(step.reference[:, None], step.known[None]))

    def values(self) -> dict[str, float]:
        made = _mean_of(self._steps)
        if made is None:  # all is known, or nothing
            return {}
        real = _mean_of(self._real)
        return {"border_step": made} | ({} if real is None else {"border_ratio": made / max(real, LEAST_STEP)})


def _total(video: Tensor, known: Tensor) -> Tensor:
    """(2,) sum and number of the steps across the border of one frame."""
    steps = _steps(video, known)
    return torch.tensor([steps.double().sum(), len(steps)], dtype=torch.float64)


def _mean_of(totals: list[Tensor]) -> float | None:
    total, count = torch.stack(totals).sum(0).tolist() if totals else (0.0, 0.0)
    return total / count if count else None


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
    return _steps(video, known).mean().item()


def _steps(video: Tensor, known: Tensor) -> Tensor:
    """(n,) steps across the border of a (t, h, w) bool region of (3, t, h, w)."""
    steps = []
    for axis in (-1, -2):
        size = video.shape[axis] - 1
        first, second = video.narrow(axis, 0, size), video.narrow(axis, 1, size)
        crossing = known.narrow(axis, 0, size) != known.narrow(axis, 1, size)
        steps.append((first - second).abs().mean(0)[crossing])
    return torch.cat(steps)


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
