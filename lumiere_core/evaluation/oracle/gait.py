"""The signals whose period is measured."""

from __future__ import annotations

import numpy as np

from .track import Track

# Search for the period, in periods in 5 s: wider than what the world draws.
RANGES = {"bouncing": (1.6, 6.5), "swinging": (1.5, 5.5), "walking": (5.5, 15.0)}


def signal_of(kind: str, track: Track) -> np.ndarray:
    """One number a frame (t,): height of the ball, place of the bob, spread of the walker's feet."""
    values = {
        "bouncing": lambda: track.y,
        "swinging": lambda: track.x,
        "walking": lambda: _spread(track),
    }
    signal = values[kind]()
    index, seen = np.arange(len(signal)), np.isfinite(signal)
    return np.interp(index, index[seen], signal[seen])


def _spread(track: Track) -> np.ndarray:
    """Standard deviation of the legs' pixels along x, over the height of the figure."""
    spread = np.full(len(track.x), np.nan)
    for index in np.flatnonzero(track.found):
        rows, columns = np.nonzero(track.masks[index])
        height = rows.max() - rows.min() + 1
        legs = columns[rows > rows.max() - 0.40 * height]
        spread[index] = legs.std() / height
    return spread
