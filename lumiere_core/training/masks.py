"""Random masks for the `condition` phase: what of a training clip is known (Lumiere §4.2).

The paper does not say how it draws them; the tasks and their shares here are ours. All masks are (t, h, w) bool,
True = known. t - frames, h, w - height, width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from ..clips.framing import grown
from ..world.dice import Dice

Size = tuple[int, int, int]  # t, h, w

# The share of the training clips that each task gets.
SHARES = {
    "text": 0.30,  # nothing is known: plain text-to-video
    "first frame": 0.20,
    "first and last": 0.06,
    "key frames": 0.06,  # 1 to 4 frames anywhere
    "region": 0.12,  # rectangles, ellipses, strokes; fixed or moving
    "object": 0.08,  # the world's own object: frame by frame, or wherever it goes; or all around it
    "outside": 0.08,  # borders, for outpainting
    "frames": 0.04,  # whole frames: the beginning, the end, or every other one by chance
    "cinemagraph": 0.06,  # frame 0, and all that is outside of a fixed region
}
NEEDS_OBJECT = ("object", "cinemagraph")
INSIDE = ("region", "object", "outside", "cinemagraph")  # whose border runs through frames


def draw_task(dice: Dice) -> str:
    """Return one of SHARES, as often as it says."""
    mark = dice.uniform(0, sum(SHARES.values()))
    return next(task for task, end in zip(SHARES, accumulate(SHARES.values()), strict=True) if mark < end)


def draw_inside(seed: int, size: Size) -> Tensor:
    """Return the (t, h, w) bool mask of one of the tasks `INSIDE`, as often as `SHARES` says; any shape is an object."""
    dice = Dice(seed)
    while (task := draw_task(dice)) not in INSIDE:
        pass
    return draw_known(task, dice, size, lambda: torch.zeros(size))


def draw_known(task: str, dice: Dice, size: Size, cover: Callable[[], Tensor]) -> Tensor:
    """Return the (t, h, w) bool mask of a task, True = known.

    Args:
        cover: returns (t, h, w), the coverage of the clip's main object in [0, 1]; called for NEEDS_OBJECT only.
    """
    known = torch.zeros(size, dtype=torch.bool)
    t = size[0]
    if task == "first frame":
        known[0] = True
    elif task == "first and last":
        known[[0, -1]] = True
    elif task == "key frames":
        known[[_integer(dice, t) for _ in range(1 + _integer(dice, 4))]] = True
    elif task == "region":
        known = ~_region(dice, size)
    elif task == "object":
        known = ~_object(dice, size, cover())
    elif task == "outside":
        known = _inside(dice, size)
    elif task == "frames":
        known[_whole_frames(dice, t)] = True
    elif task == "cinemagraph":
        known = ~_where_it_moves(dice, size, cover())
        known[0] = True
    return known


def _integer(dice: Dice, count: int) -> int:
    return int(dice.uniform(0, count))


def _region(dice: Dice, size: Size, fixed: bool = False) -> Tensor:
    """One to three shapes, (t, h, w), each standing still or gliding straight on."""
    region = torch.zeros(size, dtype=torch.bool)
    for _ in range(1 + _integer(dice, 3)):
        region |= dice.choice((_rectangle, _ellipse, _stroke))(dice, size, fixed or dice.chance(0.5))
    return region


def _plane(dice: Dice, size: Size, fixed: bool) -> tuple[Tensor, Tensor]:
    """Coordinates around a random centre, in sides of the frame: x (t, 1, w) and y (t, h, 1)."""
    t, h, w = size
    time = torch.linspace(0, 0 if fixed else 1, t).view(-1, 1, 1)

    def axis(count: int) -> Tensor:
        start, move = dice.uniform(0.1, 0.9), dice.uniform(-0.5, 0.5)
        return (torch.arange(count) + 0.5) / count - start - move * time[..., 0]

    return axis(w)[:, None, :], axis(h)[:, :, None]


def _rectangle(dice: Dice, size: Size, fixed: bool) -> Tensor:
    x, y = _plane(dice, size, fixed)
    return (x.abs() < dice.uniform(0.1, 0.4)) & (y.abs() < dice.uniform(0.1, 0.4))


def _ellipse(dice: Dice, size: Size, fixed: bool) -> Tensor:
    x, y = _plane(dice, size, fixed)
    return (x / dice.uniform(0.1, 0.4)).square() + (y / dice.uniform(0.1, 0.4)).square() < 1


def _stroke(dice: Dice, size: Size, fixed: bool) -> Tensor:
    """A brush drawn along two to five straight lines."""
    x, y = _plane(dice, size, fixed)
    width, stroke = dice.uniform(0.03, 0.12), torch.zeros(size, dtype=torch.bool)
    x0, y0 = 0.0, 0.0
    for _ in range(2 + _integer(dice, 4)):
        dx, dy = dice.uniform(-0.4, 0.4), dice.uniform(-0.4, 0.4)
        along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-6)).clamp(0, 1)
        stroke |= (x - x0 - along * dx).square() + (y - y0 - along * dy).square() < width**2
        x0, y0 = x0 + dx, y0 + dy
    return stroke


def _object(dice: Dice, size: Size, cover: Tensor) -> Tensor:
    """The object in each frame, everything it passes over, or all but the object."""
    kind, grow = dice.uniform(), _integer(dice, max(2, size[1] // 8))
    region = grown((cover > 0.1).float(), grow) > 0.5
    if not region.any():  # a scene without one object, such as rain
        return _region(dice, size)
    if kind < 0.4:
        return region
    return region.any(dim=0).expand(size) if kind < 0.8 else ~region


def _where_it_moves(dice: Dice, size: Size, cover: Tensor) -> Tensor:
    """A fixed region: the box around all places of the object, or any shape."""
    around, grow = dice.chance(0.6), _integer(dice, max(2, size[1] // 8))
    place = (grown((cover > 0.1).float(), grow) > 0.5).any(dim=0)
    if not around or not place.any():
        return _region(dice, size, fixed=True)
    rows, columns = place.any(dim=1).nonzero(), place.any(dim=0).nonzero()
    box = torch.zeros_like(place)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box.expand(size)


def _inside(dice: Dice, size: Size) -> Tensor:
    """A picture within borders at both sides, above and below, all around, or at one side."""
    t, h, w = size
    sides = dice.choice(
        ((1, 0, 1, 0), (0, 1, 0, 1), (1, 1, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
    )
    widest = 0.6 if sum(sides) == 1 else 0.35
    left, top, right, bottom = (
        round(on * dice.uniform(0.1, widest) * side) for on, side in zip(sides, (w, h, w, h), strict=True)
    )
    known = torch.zeros(size, dtype=torch.bool)
    known[:, top : h - bottom, left : w - right] = True
    return known


def _whole_frames(dice: Dice, t: int) -> Tensor:
    """(t,) bool: the beginning, the end, or each frame with an even chance."""
    kind, share = _integer(dice, 3), dice.uniform(0.1, 0.9)
    numbers = torch.arange(t)
    if kind == 0:
        return numbers <= share * (t - 1)
    if kind == 1:
        return numbers >= share * (t - 1)
    return torch.tensor([dice.chance(0.5) for _ in range(t)])
