"""From frames to training clips: shots, one clip length, and sizes that keep the aspect ratio."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..clips import framing

# A cut: neighbouring frames (16 x 16 pixels, in [0, 1]) differ by at least this, and by this many times what
# the frames before did. Fast pans and flicker rise with their neighbours; a cut stands alone.
CUT_DIFFERENCE, CUT_RATIO = 0.12, 4.0


@dataclass
class Segment:
    """Frames (t, h, w, 3) uint8 of one shot, from frame `start` of the resampled video on."""

    start: int
    frames: np.ndarray


@dataclass
class Leftover:
    """A piece that is too short for a clip."""

    start: int
    length: int


def buckets(size: int, multiple: int, most: float = 2.0) -> list[tuple[int, int]]:
    """Return the (height, width) of clips: about size x size pixels each, aspect ratios up to `most`.

    Raises:
        ValueError: the size is smaller than the multiple.
    """
    if size < multiple:
        raise ValueError(f"the size is {size}; at least {multiple} pixels are wanted for this model.")
    found = set()
    for width in range(multiple, int(size * math.sqrt(most)) + multiple, multiple):
        height = max(multiple, round(size * size / width / multiple) * multiple)
        if max(height, width) / min(height, width) <= most + 1e-6:
            found |= {(height, width), (width, height)}
    return sorted(found) or [(size // multiple * multiple,) * 2]


def best_bucket(height: int, width: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the size whose aspect ratio is nearest, so that the least is cropped."""
    ratio = math.log(width / height)
    return min(sizes, key=lambda s: (abs(math.log(s[1] / s[0]) - ratio), -s[0] * s[1]))


def fit(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an (h, w, 3) uint8 frame to cover (height, width) and crop the middle; edges are anti-aliased."""
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame)
    x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
    x, _ = framing.fit(x, *size, "crop")
    return x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def split(frames: Iterable[np.ndarray], length: int, sizes: list[tuple[int, int]]) -> Iterator[Segment | Leftover]:
    """Yield clips of exactly `length` frames, none across a cut, and the leftovers of the shots.

    One clip's frames are held at a time, at their final size.
    """
    held: list[np.ndarray] = []
    start, size, cuts = 0, None, _Cuts()
    number = -1
    for number, frame in enumerate(frames):
        if size is None:
            size = best_bucket(*frame.shape[:2], sizes)
        small = fit(frame, size)
        if cuts.is_cut(small) or len(held) == length:
            yield from _piece(held, start, length)
            held, start = [], number
        held.append(small)
    if number >= 0:
        yield from _piece(held, start, length)


def _piece(held: list[np.ndarray], start: int, length: int) -> Iterator[Segment | Leftover]:
    if len(held) == length:
        yield Segment(start, np.stack(held))
    elif held:
        yield Leftover(start, len(held))


class _Cuts:
    """Tells whether a frame begins a new shot, from the frames before it."""

    def __init__(self) -> None:
        self.before: np.ndarray | None = None
        self.recent: list[float] = []

    def is_cut(self, frame: np.ndarray) -> bool:
        x = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        small = F.adaptive_avg_pool2d(x, 16).numpy()
        before, self.before = self.before, small
        if before is None:
            return False
        difference = float(np.abs(small - before).mean())
        # Without a frame before it nothing is known of what is usual. One cut does not move the median.
        usual = statistics.median(self.recent) if self.recent else difference
        self.recent = [*self.recent[-7:], difference]
        return difference > CUT_DIFFERENCE and difference > CUT_RATIO * usual
