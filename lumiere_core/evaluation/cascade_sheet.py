"""Slices through time side by side, as in Lumiere's figure 2.

t - frames, h, w - pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .rhythm import AXES

if TYPE_CHECKING:
    from PIL import Image

COLOURS = 48
WIDE, HIGH = 2, 64  # pixels of a frame on the picture, and of a slice
LABEL, TOP, GAP = 40, 18, 4  # pixels


def courses_sheet(rows: list[tuple[str, str, dict[str, Tensor]]]) -> Image.Image:
    """Return a picture of where the object is (up and down) over time (to the right); a column for each kind of clip.

    Args:
        rows: (period, motion, (t, h, w, 3) uint8 clips by kind) each; all clips of one size.
    """
    from PIL import Image, ImageDraw

    first = rows[0][2]
    width, height = WIDE * len(next(iter(first.values()))), HIGH
    picture = Image.new("RGB", (LABEL + len(first) * (width + GAP), TOP + len(rows) * (height + GAP)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((2, 3), "period", fill="black")
    for column, kind in enumerate(first):
        draw.text((LABEL + column * (width + GAP), 3), kind, fill="black")
    for row, (period, motion, clips) in enumerate(rows):
        top = TOP + row * (height + GAP)
        draw.text((2, top + height // 2 - 6), period, fill="black")
        for column, clip in enumerate(clips.values()):
            panel = Image.fromarray(course(clip, motion)).resize((width, height), Image.Resampling.NEAREST)
            picture.paste(panel, (LABEL + column * (width + GAP), top))
    return picture.quantize(COLOURS)


def course(frames: Tensor, motion: str) -> np.ndarray:
    """Return the brightest of each line across the motion, over time: (side, t, 3) uint8 of (t, h, w, 3)."""
    return np.ascontiguousarray(frames.amax(2 - AXES[motion]).transpose(0, 1).numpy())
