"""Fitting what was made to what is known: no seam at the mask's border, no jump after a given frame.

Ours; the paper shows no seams and says nothing of blending. A network repeats what is given with a small error of colour,
which nobody sees until the true pixels stand beside it. As in gradient-domain compositing (Pérez et al. 2003, "Poisson
Image Editing") a smooth correction is added to what was made, so that it meets what is known at its border, in space and in
time; unlike there, borders where both sides differ much are taken for real edges and are left alone.

Shapes: b - clips, c - channels, t - frames, h, w - height, width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .conditioning import Condition
from .masks import is_known

REACH = 100
TOLERANCE = 0.15  # of the whole range from black to white
SPACE = 0.04  # weight of neighbours in the frame over those in time: a given frame says most of the very next one
BORDER = 0.2  # of neighbours in the frame of which one is known


def blend_known(
    made: Tensor,
    condition: Condition,
    reach: int = REACH,
    tolerance: float = TOLERANCE,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Return a clip whose made part meets what is known; what is known is not put in.

    Args:
        made: (b, c, t, h, w) in [-1, 1].
        condition: what is known of it.
        reach: steps in which the correction spreads, as heat does: 100 are felt over some ten frames, four times as
            many twice as far.
        tolerance: difference between neighbours, as a share of the whole range, above which they are taken for two
            sides of an edge.
        on_step: called with the number of each step; may raise to stop.
    """
    known = is_known(condition.known)
    there = torch.where(known, condition.clip.to(made), made)
    spread = (2 * tolerance) ** 2
    total = torch.full_like(made[:, :1], 1e-6)  # no division by zero where edges are all around
    border = torch.zeros_like(made)
    pairs = []
    # A pixel that is known in no frame learns nothing from other frames; there all neighbours count alike.
    in_time = torch.where(known.any(dim=2, keepdim=True), 1.0, SPACE)
    for axis, share in ((2, in_time), (3, SPACE), (4, SPACE)):
        size = made.shape[axis] - 1
        if size == 0:
            continue
        step = there.diff(dim=axis)
        crossing = known.narrow(axis, 0, size) != known.narrow(axis, 1, size)
        weight = share if axis == 2 else torch.where(crossing, BORDER, share)
        weight = weight * torch.exp(-step.square().mean(1, keepdim=True) / (2 * spread))
        total.narrow(axis, 0, size).add_(weight)
        total.narrow(axis, 1, size).add_(weight)
        # Beside what is known the correction that is wanted closes the step; elsewhere it is the neighbours' mean.
        border.narrow(axis, 0, size).addcmul_(weight * crossing, step)
        border.narrow(axis, 1, size).addcmul_(weight * crossing, step, value=-1)
        pairs.append((axis, size, weight * ~crossing))
    part = torch.where(known, 0.0, 1 / total)
    correction = border * part
    for number in range(reach):
        following = border.clone()
        for axis, size, weight in pairs:
            following.narrow(axis, 0, size).addcmul_(weight, correction.narrow(axis, 1, size))
            following.narrow(axis, 1, size).addcmul_(weight, correction.narrow(axis, 0, size))
        correction = following.mul_(part)
        if on_step is not None:
            on_step(number)
    return made + correction
