"""Regions that move: boxes, ellipses and lassos with key frames, as text, and the masks they cover.

The text is JSON: {"shapes": [{"kind": "box", "keys": [{"frame": 0, "x": 0.5, "y": 0.5, "w": 0.3, "h": 0.2}, …]}, …]}.
A key says where the shape's box is at a frame: its middle and its size, as shares of the picture. Between keys it moves
and grows evenly, before the first and after the last it stays. A "lasso" has "points" too, [x, y] each, as shares of
its box.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KINDS = ("box", "ellipse", "lasso")
PLACE = ("x", "y", "w", "h")
MOST, MOST_POINTS = 64, 4096  # shapes, and points of one: a text from elsewhere must not take hours
MOST_FRAMES = 10**9


@dataclass(frozen=True)
class Shape:
    """One shape: its kind, the frames of its keys in order, and its box (x, y, w, h) at each."""

    kind: str
    frames: tuple[int, ...]
    boxes: Tensor  # (keys, 4)
    points: Tensor | None = None  # (n, 2) of a lasso, in its box

    def boxes_at(self, count: int) -> Tensor:
        """Return the box at each frame of a clip, (count, 4)."""
        times, keys = torch.arange(count, dtype=torch.float64), torch.tensor(self.frames, dtype=torch.float64)
        after = torch.searchsorted(keys, times, right=True).clamp(1, max(1, len(keys) - 1))
        if len(keys) == 1:
            return self.boxes.expand(count, -1)
        start, end = keys[after - 1], keys[after]
        share = ((times - start) / (end - start)).clamp(0, 1)[:, None]
        return self.boxes[after - 1] * (1 - share) + self.boxes[after] * share


def parse(text: str) -> list[Shape]:
    """Read the text of a region; an empty one has no shapes.

    Raises:
        ValueError: it is no region; says what is wrong and where.
    """
    if not text.strip():
        return []
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of 10,000 digits and brackets in brackets too
        raise ValueError(
            f"the region is no JSON ({error}). Draw it in the node, or paste what the node wrote."
        ) from None
    shapes = data.get("shapes") if isinstance(data, dict) else None
    if not isinstance(shapes, list) or len(shapes) > MOST:
        raise ValueError(f'the region must be {{"shapes": [...]}} with at most {MOST} shapes; got {text[:60]!r}.')
    return [_shape(number, shape) for number, shape in enumerate(shapes, 1)]


def _shape(number: int, shape: Any) -> Shape:
    where = f"shape {number} of the region"
    if not isinstance(shape, dict) or shape.get("kind") not in KINDS:
        raise ValueError(f"{where} is {str(shape)[:60]}; its kind must be one of {', '.join(KINDS)}.")
    keys = shape.get("keys")
    if not isinstance(keys, list) or not keys:
        raise ValueError(f"{where} has no keys; wanted is at least one place, with frame, x, y, w and h.")
    try:
        places = {int(key["frame"]): [float(key[name]) for name in PLACE] for key in keys}
        points = [[float(x), float(y)] for x, y in shape.get("points", ())]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{where} has a key or a point that is none ({error}); frame, x, y, w, h are wanted."
        ) from None
    frames = tuple(sorted(places))
    boxes = torch.tensor([places[frame] for frame in frames], dtype=torch.float64)
    outline = torch.tensor(points, dtype=torch.float64)
    finite = torch.isfinite(boxes).all() and torch.isfinite(outline).all()
    if not finite or frames[0] < 0 or frames[-1] > MOST_FRAMES:
        raise ValueError(f"{where} has a place that is no number, or a frame before 0 or after {MOST_FRAMES:,}.")
    if shape["kind"] != "lasso":
        return Shape(shape["kind"], frames, boxes)
    if not 3 <= len(points) <= MOST_POINTS:
        raise ValueError(f"{where}, a lasso, has {len(points)} points; at least 3 are wanted, at most {MOST_POINTS:,}.")
    return Shape("lasso", frames, boxes, outline)


def masks(
    shapes: list[Shape], frames: int, height: int, width: int, on_place: Callable[[], None] = lambda: None
) -> Tensor:
    """Return (frames, height, width) float32: 1 where the middle of a pixel lies in a shape.

    Args:
        on_place: called before a shape is drawn at each of its places; it may raise to stop.
    """
    covered = torch.zeros(frames, height, width, dtype=torch.bool)
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    for shape in shapes:
        boxes, repeated = torch.unique_consecutive(shape.boxes_at(frames), return_inverse=True, dim=0)
        drawn = []
        for box in boxes:
            on_place()
            drawn.append(_inside(shape, box, y, x))
        covered |= torch.stack(drawn)[repeated]
    return covered.to(torch.float32)


def _inside(shape: Shape, box: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return (height, width) bool for one place of a shape."""
    middle_x, middle_y, width, height = box.tolist()
    if width <= 0 or height <= 0:
        return torch.zeros(len(y), len(x), dtype=torch.bool)
    u, v = (x - middle_x) / width, (y - middle_y) / height  # in [-0.5, 0.5] inside of the box
    if shape.kind == "box":
        return (v.abs() <= 0.5)[:, None] & (u.abs() <= 0.5)[None]
    if shape.kind == "ellipse":
        return v[:, None] ** 2 + u[None] ** 2 <= 0.25
    return _in_outline(shape.points - 0.5, v, u)


def _in_outline(points: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """Return (v, u) bool: inside of a closed outline by the even-odd rule."""
    inside = torch.zeros(len(v), len(u), dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(points.tolist(), points.roll(-1, 0).tolist(), strict=True):
        rows = ((y0 <= v) != (y1 <= v)).nonzero()[:, 0]  # those that the edge crosses
        if len(rows):
            crossing = x0 + (v[rows] - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= u[None] < crossing[:, None]
    return inside
