"""Naming the motion of a tracked object.

t - frames. Positions are shares of the frame, y downwards; a direction word means a net move of 30 to
70 % of the frame (design of the world), measured here between the means of the first and last tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .periodic import fit_period
from .track import NONE, Track

OTHER = "other"  # something was seen, but it is none of the motions
MOVED = 0.25  # net move in shares of the frame; the averaging takes a tenth off the 30 % of the world
DIRECT = 1.8  # length of the path over the net move, above which it is no straight move
STILL = 0.10  # range of a resting object's centre
SWUNG = 0.15  # least range of a bounce or swing; 0.25 and more in the world
GROWN = 1.8  # area at the end over area at the start; 3.6 and more in the world
TURNED = 0.7  # turns in the clip; 1.2 and more in the world
TONES = 0.05  # contrast of two halves that counts as two tones
REGULAR = 0.8  # share of the variance that one sine must explain; a jumping blob reaches 0.79


@dataclass(frozen=True)
class Motion:
    """The motion's name and the numbers behind it."""

    name: str
    net: tuple[float, float]  # x, y
    growth: float
    turns: float


def name_motion(
    track: Track, angle: np.ndarray, contrast: np.ndarray, outline_angle: np.ndarray, symmetry: int
) -> Motion:
    """Decide between the motions of the shape family.

    Args:
        angle, contrast: (t,), see `silhouette.two_tone_angle`.
        outline_angle: (t,) rotation of the outline in degrees, which repeats after `symmetry`.
    """
    if not track.there:
        return Motion(NONE, (0.0, 0.0), 1.0, 0.0)
    x, y, area = (calm(filled(values)) for values in (track.x, track.y, area_of(track)))
    net_x, net_y = _net(x), _net(y)
    growth = _ends(area)[1] / max(_ends(area)[0], 1e-6)
    turns = turns_of(angle, contrast, outline_angle, symmetry)
    name = _decide(x, y, net_x, net_y=net_y, growth=growth, turns=turns)
    return Motion(name, (round(net_x, 3), round(net_y, 3)), round(growth, 2), round(turns, 2))


def _decide(x, y, net_x: float, net_y: float, growth: float, turns: float) -> str:
    range_x, range_y = range_of(x), range_of(y)
    if range_y >= SWUNG and range_y > 1.2 * range_x and _winding(y) and _regular(y):
        return "bouncing"
    if range_x >= SWUNG and range_x > range_y and _winding(x) and _regular(x):
        return "swinging"
    direction = name_direction(x, y, net_x, net_y)
    if direction != NONE:
        return f"moving {direction}"
    if max(range_x, range_y) <= 2 * STILL and growth >= GROWN:
        return "growing"
    if max(range_x, range_y) > STILL:
        return OTHER
    if abs(turns) >= TURNED:
        return "spinning"
    return "standing still" if 1 / GROWN < growth < GROWN else OTHER


def direction_of(track: Track) -> str:
    """left, right, up or down for an object that crosses a good part of the frame, else NONE."""
    if not track.there:
        return NONE
    x, y = (calm(filled(values)) for values in (track.x, track.y))
    return name_direction(x, y, _net(x), _net(y))


def name_direction(x, y, net_x: float, net_y: float) -> str:
    """Name a straight move along the axis with the larger net move."""
    path, net, names = (x, net_x, ("left", "right")) if abs(net_x) >= abs(net_y) else (y, net_y, ("up", "down"))
    if abs(net) < MOVED or np.abs(np.diff(path)).sum() > DIRECT * abs(net):
        return NONE
    return names[int(net > 0)]


def area_of(track: Track) -> np.ndarray:
    return np.where(track.found, track.area, np.nan)


def filled(values: np.ndarray) -> np.ndarray:
    """Bridge frames in which the object was not found."""
    index, seen = np.arange(len(values)), np.isfinite(values)
    return np.interp(index, index[seen], values[seen])


def calm(values: np.ndarray) -> np.ndarray:
    """Median of three, then mean of three: takes out jumps of a frame and the jitter of a pixel."""
    padded = np.pad(values, 1, mode="edge")
    middle = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), 0)
    padded = np.pad(middle, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def _ends(values: np.ndarray) -> tuple[float, float]:
    part = max(1, len(values) // 10)
    return float(values[:part].mean()), float(values[-part:].mean())


def _net(values: np.ndarray) -> float:
    first, last = _ends(values)
    return last - first


def range_of(values: np.ndarray) -> float:
    low, high = np.percentile(values, (4, 96))
    return float(high - low)


def _winding(values: np.ndarray) -> bool:
    """Whether the path is at least three times the range: there and back and there."""
    return bool(np.abs(np.diff(values)).sum() >= 3.0 * range_of(values))


def _regular(values: np.ndarray) -> bool:
    fit = fit_period(values, 1.5, 7.0, harmonics=1)
    return fit is not None and fit.explained >= REGULAR


def turns_of(angle, contrast, outline_angle, symmetry: int, parts: int = 10) -> float:
    """Net turns in the clip, by the two tones where there are two, else by the outline.

    Args:
        parts: of the clip that must turn the same way; single frames jitter.
    """
    seen = np.isfinite(angle)
    if seen.any() and np.median(contrast[seen]) >= TONES:
        return _net_turns(angle, 360, parts)
    return 0.0 if symmetry == 360 else _net_turns(outline_angle, symmetry, parts)


def _net_turns(angle: np.ndarray, symmetry: int, count: int) -> float:
    """Turns of an angle in degrees that repeats after `symmetry`; 0 where it wavers."""
    seen = np.flatnonzero(np.isfinite(angle))
    if len(seen) < 8:
        return 0.0
    steps = np.diff(angle[seen])
    steps = (steps + symmetry / 2) % symmetry - symmetry / 2
    # A part of a clip at a time, so that the jitter of single frames does not count as wavering.
    parts = np.array([part.sum() for part in np.array_split(steps, count)])
    back_and_forth = np.abs(steps).sum() > 4 * abs(steps.sum())
    if back_and_forth or abs(parts.sum()) < 0.7 * np.abs(parts).sum():
        return 0.0
    return float(parts.sum() / 360)
