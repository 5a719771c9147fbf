"""How the frames of a clip follow each other: flicker, cuts at borders, loops, frozen and repeated frames.

All of it from one number a pair of neighbours, their mean absolute difference ("change", in levels of 255).
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, median

import torch
from torch import Tensor

from .figure import Figure, Measure
from .walk import Step, change

STILL = 0.1  # levels: a change under it is what a codec does to a frame that stands still
PAUSE = 0.1  # share of the median change under which a frame of a moving clip counts as shown twice
NEAR = 4  # changes on each side of a border that it is compared with
# A mean change of fewer levels cannot be seen: where all stands still, there is no change to compare a border with.
LEAST_CHANGE = 0.25


class _OfChanges(Measure):
    """A measure of the changes from each frame to the next."""

    def __init__(self) -> None:
        self._changes: list[float] = []

    def see(self, step: Step) -> None:
        if step.previous is not None:
            self._changes.append(step.change)


class Flicker(_OfChanges):
    """How much changes from frame to frame, and how unevenly."""

    frames = 3
    figures = (
        Figure(
            "flicker",
            "levels",
            (0, 255),
            "mean absolute difference of neighbouring frames; motion raises it too: read it beside `motion`",
            source="VBench's temporal flickering is 1 - flicker/255",
        ),
        Figure(
            "acceleration",
            "levels",
            (0, 255),
            "mean distance of a frame from the mean of its two neighbours; steady motion hardly raises it",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._second: list[float] = []

    def see(self, step: Step) -> None:
        super().see(step)
        if step.before is not None:
            self._second.append(acceleration(step.before, step.previous, step.frame))

    def values(self) -> dict[str, float]:
        return {"flicker": mean(self._changes), "acceleration": mean(self._second)}

    def curves(self) -> dict[str, list[float]]:
        return {"change": self._changes}


class Frozen(_OfChanges):
    """Frames that stand still or come twice."""

    frames = 2
    figures = (
        Figure("frozen", "share", (0, 1), f"pairs of neighbours that differ by less than {STILL} levels"),
        Figure("frozen_longest", "frames", (1, None), "longest run of frames that stand still"),
        Figure(
            "repeated",
            "share",
            (0, 1),
            "in a clip that moves: frames shown twice (change under a tenth of the median), as by a wrong frame rate",
        ),
    )

    def values(self) -> dict[str, float]:
        still = [value < STILL for value in self._changes]
        longest = run = 1
        for held in still:
            run = run + 1 if held else 1
            longest = max(longest, run)
        moving = [value for value, held in zip(self._changes, still, strict=True) if not held]
        limit = max(STILL, PAUSE * median(moving)) if moving else 0.0
        repeated = mean(value < limit for value in self._changes) if len(moving) * 2 > len(still) else 0.0
        return {"frozen": mean(still), "frozen_longest": longest, "repeated": repeated}


class Seams(_OfChanges):
    """Whether one sees where windows, or clips, were joined.

    Args:
        borders: numbers of the frames that begin something new.
    """

    frames = 3
    figures = (
        Figure(
            "seam", "ratio", (0, None), "change at the borders over the median change around each; 1 = not to be seen"
        ),
        Figure("seam_worst", "ratio", (0, None), "the same at the worst border"),
    )

    def __init__(self, borders: Iterable[int] = ()) -> None:
        super().__init__()
        self.borders = sorted(set(borders))

    def values(self) -> dict[str, float]:
        last = len(self._changes)
        wrong = [border for border in self.borders if not 1 <= border <= last]
        if wrong:
            raise ValueError(f"the borders {wrong} lie outside of the clip; frame numbers from 1 to {last} are wanted.")
        if not self.borders:
            return {}
        ratios = seam_ratios(self._changes, self.borders)
        return {"seam": mean(ratios), "seam_worst": max(ratios)}


class Loop(_OfChanges):
    """Whether the clip can be shown in a loop."""

    frames = 4
    figures = (
        Figure(
            "loop_seam",
            "ratio",
            (0, None),
            "change from the last frame to the first over the median change of the clip; 1 = a loop",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self._first: Tensor | None = None
        self._last: Tensor | None = None

    def see(self, step: Step) -> None:
        super().see(step)
        if self._first is None:
            self._first = step.frame
        self._last = step.frame

    def values(self) -> dict[str, float]:
        return {"loop_seam": loop_ratio(self._changes, change(self._last, self._first))}


def acceleration(before: Tensor, frame: Tensor, after: Tensor) -> float:
    """Return the mean distance of a (c, h, w) frame from the mean of its two neighbours, in their unit."""
    return change((before + after) / 2, frame)


def loop_ratio(all_changes: Iterable[float], back: float, least: float = LEAST_CHANGE) -> float:
    """Return the change from the last frame to the first over the median change of a clip.

    Args:
        all_changes: of each frame to the next; back: of the last to the first; in levels.
        least: levels that both count as at least.
    """
    return max(back, least) / max(median(all_changes), least)


def changes(frames: Tensor, where: Tensor | None = None) -> list[float]:
    """Return the mean absolute change, in levels, between neighbours of (t, h, w, 3) uint8 frames.

    Args:
        where: (h, w) bool; None or an empty one = everywhere.
    """
    frames = frames.movedim(-1, 1)
    return [change(a.float(), b.float(), where) for a, b in zip(frames[:-1], frames[1:], strict=True)]


def flicker(frames: Tensor, where: Tensor | None = None) -> float:
    """Return the mean of `changes`: the flicker of a clip, or of a region of it.

    Frames are (t, h, w, 3) uint8.
    """
    return mean(changes(frames, where))


def seam_ratios(all_changes: Iterable[float], borders: Iterable[int]) -> list[float]:
    """Return the change at each border over the median change around it.

    The median is of up to 2 `NEAR` changes that are no borders themselves, or of all changes of the clip if there are
    none. Changes count as `LEAST_CHANGE` levels at least.

    Args:
        all_changes: of each frame to the next, in levels.
        borders: numbers of the frames, from 1, that begin something new.
    """
    every = torch.tensor(list(all_changes))
    border = torch.zeros(len(every), dtype=torch.bool)
    border[[number - 1 for number in borders]] = True
    ratios = []
    for i in border.nonzero().flatten().tolist():
        near = slice(max(0, i - NEAR), i + NEAR + 1)
        inner = every[near][~border[near]]
        middle = (inner if len(inner) else every).median()
        ratios.append(float(every[i].clamp(min=LEAST_CHANGE) / middle.clamp(min=LEAST_CHANGE)))
    return ratios
