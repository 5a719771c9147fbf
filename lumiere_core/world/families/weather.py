"""Falling snow and rain."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from .base import DAYLIGHT, Attributes, Family

_STREET_SCENES = ("forest", "mountains", "city", "street")


def _snowfall_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "speed": {"gentle": 0.30, "heavy": 0.55}[attributes["strength"]],
        "heavy": float(attributes["strength"] == "heavy"),
        "phase": dice.uniform(0.0, 10.0),
        **landscape_parameters(attributes["background"], DAYLIGHT[attributes["time"]] * 0.9, dice.uniform()),
    }


def _snowfall(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    phase = parameters["phase"]
    haze = torch.full_like(phase, 0.22)
    canvas.paint(haze, canvas.tone((0.30, 0.33, 0.42), (0.6, 0.6, 0.7), (0.72, 0.77, 0.82)))
    drift = 0.05 * torch.sin(canvas.x * 2.6 + phase)
    alpha = canvas.cover(canvas.y + 0.80 * canvas.half_height - drift)
    canvas.paint(alpha, canvas.tone((0.62, 0.66, 0.76), (0.8, 0.8, 0.85), (0.94, 0.96, 0.98)))
    flakes = _lanes(canvas, phase, parameters["speed"], count=12, period=0.8, sway=0.03)
    radius = 0.040 + 0.016 * parameters["heavy"]
    flakes = canvas.cover(torch.sqrt(flakes) - radius)
    canvas.paint(flakes, canvas.constant((1.0, 1.0, 1.0)), "subject")


def _lanes(canvas, phase, speed, count, period, sway=0.0, stretch=1.0) -> Tensor:
    """Squared distance to drops that fall in upright lanes, repeating along y.

    A column of pixels belongs to one lane, so what tells lanes apart is one-dimensional. Drops of
    one lane are `period` apart and fall `speed` units per second; `stretch` makes them longer.
    """
    width = 2.0 / count
    lane = torch.floor(canvas.x / width + phase)
    own = lane * 2.39996 + torch.sin(lane * 1.7 + phase)
    pace = speed * (1.0 + 0.18 * torch.sin(lane * 2.1 + phase))
    x = canvas.x - (lane + 0.5 - phase) * width - sway * torch.sin(canvas.time * 1.4 + own)
    y = sdf.centred_remainder(canvas.y + (canvas.time * pace + own), period) / stretch
    return x * x + y * y


SNOWFALL = Family(
    name="falling snow",
    keywords=(
        "snow falling",
        "falling snow",
        "snowfall",
        "snowing",
        "snow falls",
        "snowstorm",
        "snow fall",
        "snow is falling",
    ),
    attributes={"time": ("day", "night"), "background": _STREET_SCENES, "strength": ("gentle", "heavy")},
    templates=(
        "snow falling {strength.ly} {background} {time}",
        "snow falls {strength.ly} {background} {time}",
        "{strength} snowfall {background} {time}",
    ),
    phrases={
        "time": {"day": ("", "by day", "during the day"), "night": ("at night", "by night")},
        "background": {
            "forest": ("on a forest", "in a forest", "over the trees"),
            "mountains": ("in the mountains", "over the mountains"),
            "city": ("over a city", "in the city", "on a city skyline"),
            "street": ("on a street", "in the street"),
        },
        "strength": {"gentle": ("gentle", "light"), "heavy": ("heavy",)},
        "strength.ly": {"gentle": ("gently", "softly"), "heavy": ("heavily", "thickly")},
    },
    synonyms={
        "background": {
            "forest": ("forest", "trees", "woods"),
            "city": ("city", "skyline"),
            "mountains": ("mountain", "mountains"),
            "street": ("street", "road"),
        },
        "strength": {"heavy": ("snowstorm",)},
    },
    parameters=_snowfall_parameters,
    draw=_snowfall,
    defaults={"time": "day"},
    optional={"strength": 0.3},
)


def _rain_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "phase": dice.uniform(0.0, 10.0),
        "speed": {"gentle": 1.2, "heavy": 1.7}[attributes["strength"]],
        "heavy": float(attributes["strength"] == "heavy"),
        **landscape_parameters(attributes["background"], DAYLIGHT[attributes["time"]] * 0.85, dice.uniform()),
    }


def _rain(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    phase = parameters["phase"]
    gloom = torch.full_like(phase, 0.55)
    canvas.paint(gloom, canvas.tone((0.12, 0.14, 0.20), (0.34, 0.36, 0.42), (0.42, 0.46, 0.52)))
    drops = _lanes(canvas, phase, parameters["speed"], count=11, period=0.75, stretch=3.6)
    radius = 0.030 + 0.012 * parameters["heavy"]
    drops = canvas.cover(torch.sqrt(drops) - radius)
    colour = canvas.tone((0.52, 0.62, 0.78), (0.75, 0.80, 0.88), (0.80, 0.88, 0.95))
    canvas.paint(drops, colour, "subject")
    # Rings where drops hit the ground, one in each column of the frame.
    width = 0.5
    column = torch.floor(canvas.x / width)
    clock = canvas.time * 1.3 + phase + column * 0.37
    count = torch.floor(clock)
    age = clock - count
    x = canvas.x - (column + 0.5) * width
    y = canvas.y + (0.72 + 0.2 * torch.sin(count * 2.3 + column)) * canvas.half_height
    ring = sdf.ellipse(x, y, 0.04 + 0.17 * age, 0.02 + 0.06 * age).abs() - 0.016
    canvas.paint(
        canvas.cover(ring) * ((1.0 - age) * 0.8), canvas.tone((0.5, 0.6, 0.75), (0.7, 0.75, 0.85), (0.80, 0.88, 0.95))
    )


RAIN = Family(
    name="rain",
    keywords=("rain", "raining", "rainfall", "raindrops", "rainy"),
    attributes={
        "time": ("day", "night"),
        "background": ("street", "city", "ocean", "forest", "grass"),
        "strength": ("gentle", "heavy"),
    },
    templates=(
        "{strength} rain {background} {time}",
        "{strength} rain falling {background} {time}",
        "rain falling {strength.ly} {background} {time}",
    ),
    phrases={
        "time": {"day": ("", "by day", "during the day"), "night": ("at night", "by night")},
        "background": {
            "street": ("on a street", "in the street"),
            "city": ("over a city", "in the city"),
            "ocean": ("over the ocean", "on the sea"),
            "forest": ("in a forest", "over a forest"),
            "grass": ("on grass", "on a grassy field"),
        },
        "strength": {"gentle": ("gentle", "light"), "heavy": ("heavy",)},
        "strength.ly": {"gentle": ("gently", "softly"), "heavy": ("heavily", "hard")},
    },
    synonyms={
        "background": {
            "street": ("street", "road"),
            "city": ("city", "skyline"),
            "ocean": ("ocean", "sea", "water"),
            "forest": ("forest", "trees"),
            "grass": ("grass", "field", "meadow"),
        }
    },
    parameters=_rain_parameters,
    draw=_rain,
    defaults={"time": "day"},
    optional={"strength": 0.3},
)
