"""What rhythm a clip of `world.rhythms` has, and whether it keeps it. No network looks at it.

t - frames, h, w - pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .oracle.periodic import LOST, fit_period, phase_error

AXES = {"bouncing": 0, "swinging": 1}  # along which the motion goes: down, across
SLOWEST, FASTEST = 1.6, 16.0  # periods in 80 frames that are looked for; the world has 2.5 to 12
COLOURFUL = 64  # levels between a pixel's largest and smallest channel from which on it is of the object
LEAST_PIXELS = 4  # of the object in a frame, at 32x32 pixels
SEEN = 0.8  # share of the frames that must show the object
REGULAR = 0.7  # share of the variance that one sine must explain
SWING = 0.04  # least amplitude, in sides of the frame
KEPT = 0.25  # periods that the phase at the end may be off by


@dataclass(frozen=True)
class Rhythm:
    """The rhythm of a clip.

    Attributes:
        period: frames, by the best sine over the whole clip; 0 = there is no object, or it does not move.
        explained: share of the motion's variance that this sine explains.
        phase_error: drift at the end against the period of the first half, in periods, 0 to LOST; see `periodic`.
        places: (t,) of the object along its motion, in sides of the frame.
    """

    period: float
    explained: float
    phase_error: float
    places: np.ndarray

    @property
    def kept(self) -> bool:
        return self.phase_error < KEPT


def rhythm_of(frames: Tensor, motion: str) -> Rhythm:
    """Measure a clip that was asked for with a motion of `world.rhythms`.

    Args:
        frames: (t, h, w, 3) uint8.
    """
    places = places_of(frames, motion)
    if places is None:
        return Rhythm(0.0, 0.0, LOST, np.full(len(frames), np.nan))
    return rhythm_in(places)


def rhythm_in(places: np.ndarray) -> Rhythm:
    """Measure the rhythm of (t,) places along a motion, in sides of the frame."""
    whole = fit_period(places, SLOWEST, FASTEST, harmonics=1)
    if whole is None or whole.amplitude < SWING:
        return Rhythm(0.0, 0.0, LOST, places)
    error = phase_error(places, SLOWEST, FASTEST, regular=REGULAR, swing=SWING)
    return Rhythm(1 / whole.frequency, whole.explained, error, places)


def places_of(frames: Tensor, motion: str) -> np.ndarray | None:
    """Return the (t,) places of the coloured object along its motion, in sides of the frame; None where there is none.

    The mean place of the colourful pixels: the scenes' background is black and the pendulum's rope grey.
    """
    levels = frames.float()
    chroma = (levels.amax(-1) - levels.amin(-1)).numpy()
    weight = np.where(chroma >= COLOURFUL, chroma, 0.0)
    seen = (weight > 0).sum((1, 2)) >= LEAST_PIXELS * frames.shape[1] * frames.shape[2] / 32**2
    if seen.mean() < SEEN:
        return None
    axis = AXES[motion]
    side = frames.shape[1 + axis]
    along = weight.sum(2 - axis)  # (t, side)
    places = along @ (np.arange(side) + 0.5) / np.maximum(along.sum(1), 1e-6) / side
    index = np.arange(len(frames))
    return np.interp(index, index[seen], places[seen])
