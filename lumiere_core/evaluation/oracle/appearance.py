"""The colours that a scene's object and its surroundings have, taken from rendered clips.

n - colours in a table; rgb in [0, 1]. Object and background never share a hue band in the world, so a
pixel is told by the nearest colour in such a table. The oracle is told the scene's family and what
surrounds the object, never its colour, shape or motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from ...world import FAMILIES, Scene, render_frames
from ...world.dice import Dice

BACKGROUND, SHARED = -1, -2  # owners of colours that no named colour owns
SCENES = 3  # rendered for each colour
TIMES = (0.4, 2.4, 4.5)  # seconds
CELL = 14  # steps a channel is divided into to count colours
CUBE = 32  # and to look them up
RARE = 0.004  # share of the pixels under which a colour is left out
APART = 0.09  # distance under which two colours are called the same
NEUTRAL = {"shape": {"motion": "spinning", "camera": "static"}}  # shows both tones and no rope
UNTOLD = ("colour", "shape", "direction")  # attributes that a table does not depend on


@dataclass(frozen=True)
class Appearance:
    """A table of colours with owners."""

    colours: tuple[str, ...]  # names that can be told apart from the surroundings
    rgb: Tensor  # (n, 3)
    owner: Tensor  # (n,) index into `colours`, BACKGROUND or SHARED (any object's second tone)

    def only(self, colour: str) -> Appearance:
        """The table without the other colours' own entries."""
        index = self.colours.index(colour)
        kept = (self.owner < 0) | (self.owner == index)
        return Appearance(self.colours, self.rgb[kept], self.owner[kept])

    def label(self, pixels: Tensor) -> Tensor:
        """Owner of the nearest colour for pixels (..., 3), looked up in a coarse colour cube."""
        steps = (torch.arange(CUBE) + 0.5) / CUBE
        cube = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).view(-1, 3)
        owner = self.owner[torch.cdist(cube, self.rgb).argmin(1)]
        cell = (pixels * CUBE).long().clamp(0, CUBE - 1)
        return owner[(cell[..., 0] * CUBE + cell[..., 1]) * CUBE + cell[..., 2]]


def smooth(images: Tensor) -> Tensor:
    """Blur (n, c, h, w) by a 3x3 Gaussian: takes the edge off noise, keeps an object of 3 pixels."""
    taps = torch.tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps).expand(images.shape[1], 1, 3, 3)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel.contiguous(), groups=images.shape[1])


def appearance_of(scene: Scene, height: int = 64, width: int = 64) -> Appearance | None:
    """The table for scenes like this one; None for a family without a colour attribute."""
    entry = FAMILIES[scene.family]
    if "colour" not in entry.attributes:
        return None
    told = {
        name: scene.attributes[name]
        for name in entry.attributes
        if name not in UNTOLD and scene.attributes[name] != "none"
    } | NEUTRAL.get(scene.family, {})
    return _table(scene.family, tuple(sorted(told.items())), height, width)


@lru_cache(maxsize=64)
def _table(family: str, told: tuple[tuple[str, str], ...], height: int, width: int) -> Appearance:
    entry = FAMILIES[family]
    surroundings, own, names = [], {}, []
    for colour in entry.attributes["colour"]:
        scenes = _scenes(family, {**dict(told), "colour": colour})
        if not scenes:
            continue
        names.append(colour)
        inside, outside = _pixels(scenes, height, width)
        own[colour] = _common(inside)
        surroundings.append(outside)
    background = _common(torch.cat(surroundings))
    rgb, owner = [background], [torch.full((len(background),), BACKGROUND)]
    for index, colour in enumerate(names):
        entries = own[colour]
        others = torch.cat([own[name] for name in names if name != colour] or [entries[:0]])
        entries = entries[_distance(entries, background) > APART]
        shared = _distance(entries, others) < APART
        rgb.append(entries)
        owner.append(torch.where(shared, SHARED, index))
    return Appearance(tuple(names), torch.cat(rgb), torch.cat(owner))


def _scenes(family: str, fixed: dict[str, str]) -> list[Scene]:
    """A few scenes of a family with some attributes fixed and all values of the others seen."""
    entry = FAMILIES[family]
    free = [name for name in entry.attributes if name not in fixed]
    choices = [
        attributes
        for values in product(*(entry.attributes[name] for name in free))
        if entry.allowed(attributes := fixed | dict(zip(free, values, strict=True)))
    ]
    scenes = []
    for seed in range(max(SCENES, len(choices)) if choices else 0):
        ordered = {name: choices[seed % len(choices)][name] for name in entry.attributes}
        parameters = entry.parameters(ordered, Dice(seed, 0xA99EA2))
        scenes.append(Scene(family, "", ordered, parameters=parameters, seed=seed))
    return scenes


def _pixels(scenes: list[Scene], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixels well inside the main object and well outside it, each (n, 3)."""
    repeated = [scene for scene in scenes for _ in TIMES]
    times = torch.tensor(TIMES * len(scenes))
    images, masks = render_frames(repeated, times, height, width, masks=True)
    pixels = smooth((images + 1) / 2).permute(0, 2, 3, 1)
    core = -F.max_pool2d(-masks, 3, 1, 1) > 0.95
    if core.sum() < 20 * len(scenes):  # thin objects have no core
        core = masks > 0.8
    near = F.max_pool2d(masks, 5, 1, 2) > 0.01
    return pixels[core[:, 0]], pixels[~near[:, 0]]


def _common(pixels: Tensor) -> Tensor:
    """Mean colour of every cell of the colour cube that holds more than a RARE share of pixels."""
    cell = (pixels.clamp(0, 0.999) * CELL).long()
    code = (cell[:, 0] * CELL + cell[:, 1]) * CELL + cell[:, 2]
    codes, place, count = code.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(codes), 3).index_add_(0, place, pixels)
    return (sums / count[:, None])[count > RARE * len(pixels)]


def _distance(entries: Tensor, others: Tensor) -> Tensor:
    """Distance of each entry to the nearest of the others."""
    if len(others) == 0:
        return torch.full((len(entries),), float("inf"))
    return torch.cdist(entries, others).min(1).values
