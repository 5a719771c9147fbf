"""The strength of the temporal layers in one call, of what Lumiere Motion Strength nodes have put on a MODEL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...lumiere_core.clips.video import take_frames
from ...lumiere_core.nets.strength import Strength
from .frames import Rows
from .keys import STRENGTH


@dataclass(frozen=True)
class MotionStrength:
    """What one node asks for.

    Attributes:
        levels: of each level of the U-Net, the finest first.
        mask: (frames or 1, h, w) of the clip at any size, times the levels'; None = 1 everywhere.
        start, end: shares of the sampling; outside of them the layers are as trained.
    """

    levels: tuple[float, ...]
    mask: Tensor | None = None
    start: float = 0.0
    end: float = 1.0


def at_sigma(options: dict, sampling: Any, sigma: Tensor) -> None:
    """Leave of the run's strengths in a call's options those that act at its noise level. `sigma` is (n,)."""
    if STRENGTH in options:
        now = float(sigma.max())
        options[STRENGTH] = [
            s
            for s in options[STRENGTH]
            if sampling.percent_to_sigma(s.end) <= now <= sampling.percent_to_sigma(s.start)
        ]


def strength_of_call(options: dict, rows: Rows, x: Tensor) -> Strength | None:
    """Return the product of the strengths that act on a call; None = as trained.

    Args:
        options: transformer_options of the call, after `at_sigma`.
        rows: of one prompt's part of the call.
        x: the call's input, ((prompts clips frames), c, h, w).

    Raises:
        ValueError: a mask has neither one frame nor one for each of the clip.
    """
    product = None
    for strength in options.get(STRENGTH, ()):
        mask = None if strength.mask is None else _mask(strength.mask, rows, x)
        own = Strength(strength.levels, mask)
        product = own if product is None else product * own
    return product


def _mask(mask: Tensor, rows: Rows, x: Tensor) -> Tensor:
    """Return ((prompts clips frames), 1, h, w) of a node's mask at the size of the input."""
    if len(mask) not in (1, rows.clip_frames, rows.total):
        raise ValueError(
            f"the mask of Lumiere Motion Strength has {len(mask)} frames, and the clip has {rows.clip_frames}. Give it one "
            "frame for the whole clip, or one for each of its frames."
        )
    mask = F.interpolate(mask[:, None].float().clamp(0, 1), size=x.shape[-2:], mode="area").to(x.device)
    wanted = rows.rows if len(mask) == rows.total else rows.numbers
    if len(mask) == 1:
        return mask.expand(len(x), -1, -1, -1)
    part = take_frames(mask, wanted.flatten())
    return part.repeat(len(x) // len(part), 1, 1, 1)


def still_rows(strength: Strength | None) -> Tensor | None:
    """Return which rows of a call nothing may move, as booleans; None = no row; (n,)."""
    if strength is None or strength.mask is None:
        return None
    still = strength.mask.flatten(1).amax(dim=1) == 0
    return still if still.any() else None
