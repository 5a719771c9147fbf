"""Several clips playing side by side on one picture, with their captions."""

from __future__ import annotations

import numpy as np

CELL, STRIP = 192, 16  # pixels of a clip and of the line of text below it


def contact_frames(videos: list[np.ndarray], captions: list[str], columns: int = 3) -> np.ndarray:
    """Return (t, height, width, 3) uint8 frames of a grid of (t, h, w, 3) uint8 clips, each in a square cell."""
    from PIL import Image, ImageDraw

    columns = min(columns, len(videos))
    rows = -(-len(videos) // columns)
    length = max(len(video) for video in videos)
    frames = np.full((length, rows * (CELL + STRIP), columns * CELL, 3), 24, dtype=np.uint8)
    for index, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        top, left = index // columns * (CELL + STRIP), index % columns * CELL
        height, width = video.shape[1:3]
        scale = CELL / max(height, width)
        # Whole pixels stay whole where a small clip is enlarged.
        filtering = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
        size = max(1, round(width * scale)), max(1, round(height * scale))
        for number in range(length):
            picture = Image.fromarray(video[min(number, len(video) - 1)]).resize(size, filtering)
            y, x = top + (CELL - size[1]) // 2, left + (CELL - size[0]) // 2
            frames[number, y : y + size[1], x : x + size[0]] = np.asarray(picture)
        text = Image.new("RGB", (CELL, STRIP), (24, 24, 24))
        printable = caption.encode("ascii", "replace").decode()  # the built-in font has no more
        ImageDraw.Draw(text).text((3, 2), printable[:32], fill=(220, 220, 220))
        frames[:, top + CELL : top + CELL + STRIP, left : left + CELL] = np.asarray(text)
    return frames
