"""Swaying flowers."""

from __future__ import annotations

import torch

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import colour_parameters
from .base import CAMERA, DAYLIGHT, SUNNY, Attributes, Family, camera_parameters, cycle, cycle_parameters

_FLOWER_COLOURS = ("red", "orange", "yellow", "purple", "white")


def _flowers_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **cycle_parameters(dice.uniform(2.2, 4.0), dice.uniform(), 3.0),
        "sway": dice.uniform(0.14, 0.20),
        "height": dice.uniform(0.9, 1.1),
        **camera_parameters(attributes["camera"], dice),
        **landscape_parameters("grass", DAYLIGHT[attributes["time"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _flowers(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    dim = canvas.tone((0.78, 0.78, 0.82), (0.94, 0.91, 0.89), (1.0, 1.0, 1.0))
    colour = (parameters.rgb() + 1.0) * (dim + 1.0) / 2.0 - 1.0
    stem_colour = canvas.tone((0.05, 0.24, 0.10), (0.18, 0.34, 0.10), (0.12, 0.42, 0.12))
    middle = canvas.tone((0.5, 0.35, 0.1), (0.7, 0.42, 0.1), (0.45, 0.25, 0.08))
    base = -canvas.half_height * 1.1
    beat = cycle(canvas, parameters)
    for flower, (place, tall) in enumerate(((-0.52, 0.86), (0.50, 0.92), (0.0, 1.1))):
        height = parameters["height"] * tall * canvas.half_height
        lean = parameters["sway"] * torch.sin(beat - 0.9 * flower) + 0.04
        rise = ((canvas.y - base) / height).clamp(0.0, 1.0)
        x = canvas.x - place * canvas.half_width
        stem = (x - lean * rise * rise).abs() - 0.032
        stem = canvas.cover(stem) * canvas.cover(canvas.y - base - height)
        leaf = sdf.ellipse(x - 0.10 - lean * 0.15, canvas.y - base - 0.42 * height, 0.10, 0.045)
        canvas.paint(torch.maximum(stem, canvas.cover(leaf)), stem_colour)
        x, y = x - lean, canvas.y - base - height
        petals, radius = sdf.petals(x, y)
        alpha = canvas.cover(radius - 0.25 - 0.05 * petals)
        canvas.paint(alpha, colour, "subject")
        canvas.paint(canvas.cover(radius - 0.09), middle, "surface")


FLOWERS = Family(
    name="swaying flowers",
    keywords=("flowers?", "tulips?", "roses?", "daisies", "daisy", "sunflowers?"),
    attributes={"camera": tuple(CAMERA), "time": ("day", "sunset", "night"), "colour": _FLOWER_COLOURS},
    templates=(
        "{colour} flowers swaying in the wind {time}{camera}",
        "{colour} flowers swaying in a field {time}{camera}",
        "{colour} flowers sway in the breeze {time}{camera}",
        "{colour} flowers swing in the wind {time}{camera}",
        "a meadow of {colour} flowers swaying {time}{camera}",
    ),
    phrases={"camera": CAMERA, "time": SUNNY, "colour": {name: (name,) for name in _FLOWER_COLOURS}},
    parameters=_flowers_parameters,
    draw=_flowers,
    unhashed=("camera",),
    defaults={"camera": "static", "time": "day"},
    optional={"colour": 0.06},
    weights={"camera": {"static": 16.0}},
    allowed=lambda attributes: not (attributes["time"] == "sunset" and attributes["colour"] in ("orange", "yellow")),
)
