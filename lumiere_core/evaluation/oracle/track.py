"""Following the main object through a clip by its colour.

t - frames, h, w - pixels. Positions are shares of the frame's width and height from the top left
corner, areas are shares of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .appearance import SHARED, Appearance, smooth

SMALLEST, LARGEST = 0.004, 0.35  # share of the frame that the main object may cover
SPECK = 5  # pixels: smaller parts are noise
SEEN = 0.5  # share of the frames in which an object must be found to count as there
NONE = "none"


@dataclass
class Track:
    """Where the object is; frames without it hold NaN and an empty mask."""

    colour: str  # NONE: no object was found
    masks: np.ndarray  # (t, h, w) bool
    x: np.ndarray  # (t,)
    y: np.ndarray  # (t,)
    area: np.ndarray  # (t,)

    @property
    def found(self) -> np.ndarray:
        return np.isfinite(self.x)

    @property
    def there(self) -> bool:
        return self.colour != NONE and self.found.mean() >= SEEN


def follow(frames: Tensor, appearance: Appearance, single: bool = True) -> Track:
    """Find the object's colour and its mask in every frame.

    Args:
        frames: (t, h, w, 3) uint8.
        single: the object is one solid piece; else all pieces of its colour count (petals, sparks).
    """
    pixels = smooth(frames.permute(0, 3, 1, 2).float() / 255).permute(0, 2, 3, 1)
    labels = appearance.label(pixels).numpy()
    size = labels[0].size
    scores = []
    for index in range(len(appearance.colours)):
        areas = np.array([_object(frame == index, single).sum() for frame in labels]) / size
        fits = (areas >= SMALLEST) & (areas <= LARGEST)
        scores.append(areas[fits].sum() / len(labels) if fits.mean() >= SEEN else 0.0)
    if max(scores) == 0.0:
        return _track(NONE, np.zeros(labels.shape, bool))
    best = int(np.argmax(scores))
    # The other colours are out of the question now: mixed pixels at the edge go to one of two sides.
    labels = appearance.only(appearance.colours[best]).label(pixels).numpy()
    masks = np.stack([_whole(frame, best, single) for frame in labels])
    return _track(appearance.colours[best], masks)


def _track(colour: str, masks: np.ndarray) -> Track:
    _, height, width = masks.shape
    count = masks.sum((1, 2)).astype(float)
    count[count == 0] = np.nan
    x = (masks.sum(1) @ (np.arange(width) + 0.5)) / count / width
    y = (masks.sum(2) @ (np.arange(height) + 0.5)) / count / height
    return Track(colour, masks, x, y=y, area=np.nan_to_num(count) / (height * width))


def _whole(labels: np.ndarray, index: int, single: bool) -> np.ndarray:
    """The object with those pixels of a second tone that touch it."""
    own = _object(labels == index, single)
    if not own.any() or not (labels == SHARED).any():
        return own
    both = _object(own | (labels == SHARED), single)
    fits = both.mean() <= LARGEST and (both & own).any()
    return both if fits else own


def _object(mask: np.ndarray, single: bool) -> np.ndarray:
    """The largest solid piece without thin threads (a rope), or every piece that is no speck."""
    import cv2

    if not single:
        return _pieces(mask, SPECK)
    kernel = np.ones((3, 3), np.uint8)
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=4)
    if count < 2:
        return np.zeros_like(mask)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    # Corners that opening took off come back, stubs of a rope stay short.
    return (cv2.dilate((pieces == largest).astype(np.uint8), kernel) > 0) & mask


def _pieces(mask: np.ndarray, smallest: int) -> np.ndarray:
    import cv2

    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = stats[:, cv2.CC_STAT_AREA] >= smallest
    kept[0] = False
    return kept[pieces]


def outside(masks: np.ndarray, hanging: bool, margin: int = 3) -> Tensor:
    """Pixels (h, w) bool that the object never comes near.

    Args:
        masks: (t, h, w) bool.
        hanging: a rope joins the object to the middle of the upper edge.
        margin: pixels around the object that are left out too.
    """
    import cv2

    swept = masks.any(0).astype(np.uint8)
    if hanging and swept.any():
        swept[0, swept.shape[1] // 2] = 1
        hull = cv2.convexHull(cv2.findNonZero(swept))
        swept = cv2.fillConvexPoly(swept, hull, 1)
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    return torch.from_numpy(cv2.dilate(swept, kernel) == 0)
