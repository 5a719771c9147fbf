"""A temporal cascade, what Lumiere replaces (figure 2): key frames, then the frames between them window by window.

t - frames, h, w - pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..clips.conditioning import key_frames
from ..diffusion.generate import Request, generate
from ..diffusion.models import Models

SEEDS = 1_000_003  # apart: every model of a cascade, and every window, draws noise of its own


@dataclass(frozen=True)
class Plan:
    """Which frames are key frames, and which windows are filled.

    Args:
        num_frames: of the clip.
        every: frames from one key frame to the next.
        intervals: between key frames, in a window.

    Raises:
        ValueError: the clip is no whole number of windows.
    """

    num_frames: int
    every: int
    intervals: int

    def __post_init__(self) -> None:
        if min(self.num_frames, self.every, self.intervals) < 1 or self.num_frames % self.window:
            raise ValueError(
                f"{self.num_frames} frames are no whole number of windows of {self.intervals} times {self.every} frames; "
                "choose others."
            )

    @property
    def window(self) -> int:
        """New frames of a window; the key frame that ends it, which begins the next, comes on top."""
        return self.every * self.intervals

    @property
    def windows(self) -> int:
        return self.num_frames // self.window

    @property
    def keys(self) -> int:
        """Key frames: one in so many frames, and one past the last frame."""
        return self.num_frames // self.every + 1


def key_clip(models: Models, request: Request, plan: Plan) -> Tensor:
    """Return the (1, c, keys, h, w) key frames that a model of them makes for a request of a whole clip."""
    kept: list[Tensor] = []
    wanted = replace(request, num_frames=plan.keys)
    generate(models, wanted, keep_float=kept.append, numbers=torch.arange(plan.keys) * plan.every)
    return kept[0]


def fill(models: Models, keys: Tensor, request: Request, plan: Plan) -> Tensor:
    """Return the (1, c, t, h, w) clip between key frames, each window made without a look at the others.

    A window knows its own key frames and that which ends it; the windows have no other frame in common, as in the
    cascades that Lumiere is compared with.

    Args:
        models: trained with every so many frames known (`train condition --known-every`).
        keys: (1, c, keys, h, w).
    """
    parts = []
    for window in range(plan.windows):
        known = keys[:, :, window * plan.intervals : (window + 1) * plan.intervals + 1]
        condition = key_frames(known, range(0, plan.window + 1, plan.every), plan.window + 1)
        kept: list[Tensor] = []
        generate(
            models,
            replace(request, num_frames=plan.window + 1, seed=request.seed + (window + 1) * SEEDS),
            keep_float=kept.append,
            known=condition,
            numbers=torch.arange(plan.window + 1) + window * plan.window,
        )
        parts.append(kept[0][:, :, : plan.window])
    return torch.cat(parts, dim=2)
