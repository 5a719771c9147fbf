"""The signals whose period is measured."""

from __future__ import annotations

import numpy as np

from .track import Track

# Search for the period, in periods in 5 s: wider than what the world draws. Then the share of the
# variance that one sine must explain and its least amplitude; real clips have at least 0.91, 0.99 and
# 0.73, and 0.12, 0.27 and 0.048. Legs of a few pixels are noisier than the place of a ball, but a slow
# tremble does not pass for their quick period.
RANGES = {"bouncing": (1.6, 6.5, 0.80, 0.05), "swinging": (1.5, 5.5, 0.85, 0.08), "walking": (5.5, 15.0, 0.60, 0.02)}


def signal_of(kind: str, track: Track) -> np.ndarray:
    """One number a frame (t,): height of the ball, place of the bob, spread of the walker's feet."""
    values = {"bouncing": lambda: track.y, "swinging": lambda: track.x, "walking": lambda: _spread(track)}
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
