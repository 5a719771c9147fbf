"""Two clips on one picture, with what differs between them.

h, w - pixels of a frame. Frames are (h, w, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

STRIP = 20  # pixels of the line of text
GAP = 4
GAIN = 4.0  # of the difference: 64 levels are white


def side_by_side(
    first: Iterable[np.ndarray], second: Iterable[np.ndarray], labels: tuple[str, str] = ("A", "B"), gain: float = GAIN
) -> Iterator[np.ndarray]:
    """Yield frames with the first clip, the second and their difference, as long as the shorter one.

    The second is scaled to the first's height, and padded or cropped to its width about the middle.

    Args:
        gain: how often the absolute difference is multiplied; 0 leaves it out.
    """
    head = None
    for one, other in zip(first, second, strict=False):
        one = np.asarray(one)
        other = matched(np.asarray(other), *one.shape[:2])
        parts = [one, other]
        if gain > 0:
            difference = np.abs(one.astype(np.float32) - other.astype(np.float32)).mean(-1, keepdims=True) * gain
            parts.append(np.broadcast_to(difference.clip(0, 255), one.shape).astype(np.uint8))
        line = np.full((one.shape[0], GAP, 3), 24, dtype=np.uint8)
        row = np.concatenate([piece for part in parts for piece in (part, line)][:-1], 1)
        if head is None:
            names = [*labels, f"difference x{gain:g}"][: len(parts)]
            head = _strip(names, one.shape[1], row.shape[1])
        frame = np.concatenate([head, row])
        yield frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]  # H.264 takes even sizes


def matched(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a frame to a height, and crop or pad it to a width about the middle."""
    from PIL import Image

    if frame.shape[:2] == (height, width):
        return frame
    scaled = max(1, round(frame.shape[1] * height / frame.shape[0]))
    seen = frame.shape[1] * min(1.0, width / scaled)  # pixels in a row that are not cropped
    left = (frame.shape[1] - seen) / 2
    size, box = (min(scaled, width), height), (left, 0, left + seen, frame.shape[0])
    frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR, box))
    left = (width - size[0]) // 2
    return np.pad(frame, ((0, 0), (left, width - size[0] - left), (0, 0)))


def _strip(labels: list[str], width: int, full: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (full, STRIP), (24, 24, 24))
    draw = ImageDraw.Draw(image)
    for index, label in enumerate(labels):
        printable = label.encode("ascii", "replace").decode()  # the built-in font has no more
        draw.text((index * (width + GAP) + 4, 4), printable[: max(1, width // 6)], fill=(230, 230, 230))
    return np.asarray(image)
