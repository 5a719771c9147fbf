"""How much the temporal parts of one call count: by level, by frame and by place in the frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Strength:
    """Scales what each temporal part changes: 0 leaves the features as they were, 1 is the part as trained.

    Attributes:
        levels: of each level, the finest first; a resize over time counts to the coarser of its two levels.
        mask: ((b t), 1, h, w) at full frame rate, times the level's; None = 1 everywhere.
    """

    levels: tuple[float, ...]
    mask: Tensor | None = None

    def __mul__(self, other: Strength) -> Strength:
        """Return both together; their masks have the same shape or one row."""
        levels = tuple(a * b for a, b in zip(self.levels, other.levels, strict=True))
        masks = [mask for mask in (self.mask, other.mask) if mask is not None]
        return Strength(levels, masks[0] * masks[-1] if len(masks) == 2 else (masks or [None])[0])

    @property
    def silent(self) -> bool:
        """Whether nothing of the temporal parts is left."""
        return not any(self.levels) or (self.mask is not None and not self.mask.any())

    def mixed(self, level: int, mask: Tensor | None, before: Tensor, after: Tensor) -> Tensor:
        """Return features between those before a part and those after it.

        Args:
            mask: ((b t), 1, h, w), `mask` at the level's frame rate; its cells are averaged over the features' pixels.
        """
        value = self.levels[level]
        if mask is None:
            return after if value == 1 else torch.lerp(before, after, value)
        share = F.interpolate(mask.float(), size=after.shape[-2:], mode="area").to(after)
        return torch.addcmul(before, share, after - before, value=value)
