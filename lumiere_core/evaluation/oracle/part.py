"""Naming the motion of a clip that is shorter than a scene and shows its beginning.

`motion.py` knows what a scene shows from beginning to end. Sixteen frames show a fifth of it: a fifth of a path, less than
half a turn, one swing. What is compared with the world here is therefore how fast the object moves, grows and turns, and
whether its track is a piece of a bounce or of a swing.

t - frames. Positions are shares of the frame, y downwards; rates are per scene (80 frames).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .motion import DIRECT, OTHER, STILL, TURNED, area_of, calm, filled, range_of, turns_of
from .track import NONE, Track

SCENE = 80  # frames
MOVED, FASTEST = 0.25, 1.25  # speed of a straight move; 0.38 to 0.62 in the world, and a bounce falls faster
SHEER = 1.15  # length of the path over the net move, up to which it never turns back
STRAIGHT = 0.7  # share of the variance along its axis that a line explains of a straight move
SWUNG = 0.10  # least range of a piece of a bounce or swing
QUICK = 0.75  # least length of the path of a bounce or swing per scene
WAVE = 0.7  # share of the variance that a piece of a bounce or swing explains
GROWN = 0.35  # rate of the growth of the radius, over the first one; 0.9 and more in the world
STEADY = 0.5  # share of the variance of the radius that a line explains of steady growth
MOST_TURNS = 4.0  # turns per scene; at most 2.6 in the world
RESTS = 0.6  # share of the range that a resting object may have in a whole scene, however short the clip
PERIODS = np.linspace(1.6, 6.5, 50)  # in a scene, see gait.RANGES
PHASES = np.arange(40) / 40


def is_part(frames: int) -> bool:
    """Whether a clip of so many frames shows too little of a scene for `motion.name_motion`."""
    return frames < SCENE


def name_part(track: Track, angle: np.ndarray, contrast: np.ndarray, outline_angle: np.ndarray, symmetry: int) -> str:
    """Decide between the motions of the shape family by the first t of 80 frames.

    Args:
        angle, contrast: (t,), see `silhouette.two_tone_angle`.
        outline_angle: (t,) rotation of the outline in degrees, which repeats after `symmetry`.
    """
    if not track.there:
        return NONE
    shown = len(track.x) / SCENE
    rough = [filled(values) for values in (track.x, track.y, np.sqrt(area_of(track)))]
    x, y, radius = (calm(values) for values in rough)
    range_x, range_y = range_of(x), range_of(y)
    direction = _direction(x, y, SHEER)
    if direction != NONE:
        return f"moving {direction}"
    # Calmed, a few frames in any order look like a wave.
    if range_y > 1.2 * range_x and _is_piece("bouncing", rough[1], range_y):
        return "bouncing"
    if range_x > range_y and _is_piece("swinging", rough[0], range_x):
        return "swinging"
    direction = _direction(x, y, DIRECT)
    if direction != NONE:
        return f"moving {direction}"
    rest, moved = STILL * max(shown, RESTS), max(range_x, range_y)
    growth = _speed(radius) / max(float(radius[: max(1, len(radius) // 10)].mean()), 1e-6)
    if moved <= 2 * rest and growth >= GROWN:
        return "growing" if _line(rough[2]) >= STEADY else OTHER
    if moved > rest:
        return OTHER
    turns = turns_of(angle, contrast, outline_angle, symmetry, parts=max(2, round(10 * shown)))
    if abs(turns) >= TURNED * shown:
        return "spinning" if abs(turns) <= MOST_TURNS * shown else OTHER
    return "standing still" if growth > -GROWN else OTHER


def _speed(values: np.ndarray) -> float:
    """Slope of the line through the values, per scene."""
    return float(np.polyfit(np.arange(len(values)) / SCENE, values, 1)[0])


def _line(values: np.ndarray) -> float:
    """Share of the variance that a line explains."""
    if np.ptp(values) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(len(values)), values)[0, 1] ** 2)


def _direction(x: np.ndarray, y: np.ndarray, most: float) -> str:
    """Name a steady move along the faster axis, whose path is at most so many times as long as the net move."""
    speeds = _speed(x), _speed(y)
    path, speed, names = (
        (x, speeds[0], ("left", "right")) if abs(speeds[0]) >= abs(speeds[1]) else (y, speeds[1], ("up", "down"))
    )
    if not MOVED <= abs(speed) <= FASTEST or _line(path) < STRAIGHT:
        return NONE
    if np.abs(np.diff(path)).sum() > most * abs(path[-1] - path[0]):
        return NONE
    return names[int(speed > 0)]


def _is_piece(kind: str, values: np.ndarray, swing: float) -> bool:
    """Whether a track is a quick piece of a wave of this kind, and not better explained as a line."""
    path = float(np.abs(np.diff(values)).sum()) * SCENE / len(values)
    if swing < SWUNG or path < QUICK:
        return False
    centred = values - values.mean()
    waves = _waves(kind, len(values))
    match = waves @ centred / np.linalg.norm(centred)
    best = float(match.max())
    return best > 0 and best**2 >= max(WAVE, _line(values))


@cache
def _waves(kind: str, frames: int) -> np.ndarray:
    """Pieces of the world's waves (n, t) at every tempo and phase, of mean 0 and norm 1; see `world.families.shapes.place`."""
    cycle = PERIODS[:, None, None] * np.arange(frames) / SCENE + PHASES[:, None]
    fall = cycle % 1.0
    wave = -fall * (1.0 - fall) if kind == "bouncing" else np.sin(2 * np.pi * cycle)
    wave = wave.reshape(-1, frames)
    wave = wave - wave.mean(1, keepdims=True)
    return wave / np.linalg.norm(wave, axis=1, keepdims=True)
