"""Curves over time as one picture, a panel each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

WIDTH, PANEL = 640, 120  # pixels
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 18, 10
LINE, GRID, BORDER = (30, 90, 200), (225, 225, 225), (200, 60, 40)


def draw_curves(curves: dict[str, list[float]], borders: Iterable[int] = ()) -> Image.Image:
    """Draw every curve over the number of its frame, each in a panel with its own scale; borders are red lines."""
    from PIL import Image, ImageDraw

    curves = {name: curve for name, curve in curves.items() if curve}
    image = Image.new("RGB", (WIDTH, max(1, len(curves)) * PANEL), "white")
    draw = ImageDraw.Draw(image)
    for index, (name, curve) in enumerate(curves.items()):
        _panel(draw, index * PANEL, name, curve=curve, borders=borders)
    return image


def _panel(draw, top: int, name: str, curve: list[float], borders: Iterable[int]) -> None:
    finite = [value for value in curve if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    across, down = WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * x / max(1, len(curve) - 1), top + TOP + down * (high - y) / (high - low)

    draw.text((LEFT, top + 3), name, fill="black")
    for value in (low, high):
        draw.line([place(0, value), place(len(curve) - 1, value)], fill=GRID)
        draw.text((4, place(0, value)[1] - 6), f"{value:.4g}", fill="black")
    for border in borders:
        # A curve of changes begins with that from frame 0 to 1.
        draw.line([place(border - 1, low), place(border - 1, high)], fill=BORDER)
    points = [place(x, y) for x, y in enumerate(curve) if math.isfinite(y)]
    if len(points) > 1:
        draw.line(points, fill=LINE, width=2)
