"""Fireworks and a campfire."""

from __future__ import annotations

import math

import torch

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import colour_parameters
from .base import Attributes, Family

# Fireworks.

_BURST_PERIOD = 2.4  # seconds from one burst to the next of the same series
_BURST_LIFE = 1.9


def _fireworks_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    kind = {"night sky": "sky", "city": "city", "ocean": "ocean"}[attributes["background"]]
    return {
        "start": dice.uniform(0.0, 2.4),
        "place": dice.uniform(0.0, 6.28),
        "radius": dice.uniform(0.46, 0.58),
        **landscape_parameters(kind, 0.0, dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _fireworks(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    colour = parameters.rgb()
    pale = colour + (1.0 - colour) * 0.6
    for series in range(2):
        clock = canvas.time + parameters["start"] + series * (_BURST_PERIOD / 2)
        number = torch.floor(clock / _BURST_PERIOD)
        age = (clock - number * _BURST_PERIOD) / _BURST_LIFE
        angle = parameters["place"] + number * 2.4 + series * 2.0
        x = canvas.x - 0.42 * canvas.half_width * torch.sin(angle)
        top = (0.36 + 0.16 * torch.cos(angle * 1.7)) * canvas.half_height
        y = canvas.y - top + 0.14 * age * age
        reach = parameters["radius"] * (1.0 - (1.0 - age.clamp(0.0, 1.0)) ** 3) + 0.03
        radius = torch.sqrt(x * x + y * y)
        rays = 10
        fold = sdf.centred_remainder(torch.atan2(y, x), 2 * math.pi / rays)
        across = radius * fold
        along = radius - torch.minimum(torch.maximum(radius, reach * 0.45), reach)
        spark = torch.sqrt(across * across + along * along) - 0.04
        fade = (1.0 - age).clamp(0.0, 0.35) / 0.35
        alpha = canvas.cover(spark) * fade
        canvas.paint(alpha, colour, "subject")
        tip = canvas.cover(torch.sqrt(across**2 + (radius - reach) ** 2) - 0.045)
        canvas.paint(tip * fade, pale, "subject")


FIREWORKS = Family(
    name="fireworks",
    keywords=("fireworks?", "firework display"),
    attributes={
        "background": ("night sky", "city", "ocean"),
        "colour": ("red", "orange", "yellow", "green", "blue", "purple", "white"),
    },
    templates=(
        "{colour} fireworks {background}",
        "{colour} fireworks exploding {background}",
        "{colour} fireworks bursting {background}",
        "a display of {colour} fireworks {background}",
    ),
    phrases={
        "background": {
            "night sky": ("in the night sky", "in the dark sky"),
            "city": ("over a city at night", "above the city at night", "over a city skyline"),
            "ocean": ("over the ocean at night", "above the sea at night"),
        },
        "colour": {name: (name,) for name in ("red", "orange", "yellow", "green", "blue", "purple", "white")},
    },
    synonyms={"background": {"city": ("city", "skyline"), "ocean": ("ocean", "sea", "water"), "night sky": ("sky",)}},
    parameters=_fireworks_parameters,
    draw=_fireworks,
    optional={"colour": 0.1, "background": 0.08},
)


# Campfire.


def _campfire_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "size": dice.uniform(0.36, 0.44) if attributes["size"] == "small" else dice.uniform(0.60, 0.70),
        "place": dice.uniform(-0.3, 0.3),
        "phase": dice.uniform(0.0, 6.28),
        **landscape_parameters(attributes["background"], 0.0, dice.uniform()),
    }


def _campfire(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    size, phase = parameters["size"], parameters["phase"]
    x = canvas.x - parameters["place"] * canvas.half_width
    y = canvas.y + 0.68 * canvas.half_height
    flicker = torch.sin(canvas.time * 9.0 + phase)
    # The ground and the air around are lit.
    glow = torch.exp(-(x * x + (y - 0.5 * size) ** 2) / (2.2 * size * size) * 1.2)
    canvas.add(glow * (0.20 + 0.03 * flicker), canvas.constant((1.0, 0.55, 0.2)))
    layers = ((1.00, 1.00, (0.93, 0.27, 0.06)), (0.70, 0.70, (1.00, 0.60, 0.10)), (0.40, 0.45, (1.00, 0.93, 0.45)))
    for wide, tall, colour in layers:
        nearest = None
        for tongue, (side, share) in enumerate(((0.0, 1.0), (-0.30, 0.66), (0.30, 0.70))):
            beat = canvas.time * (6.0 + 1.3 * tongue) + phase + 2.1 * tongue
            height = 1.75 * size * share * tall * (1.0 + 0.16 * torch.sin(beat))
            rise = (y - 0.06 * size) / height
            outside = (rise - 0.5).abs() - 0.5  # above 0 under the flame and over it
            rise = rise.clamp(0.0, 1.0)
            sway = 0.16 * size * rise * torch.sin(beat * 0.9 - 4.0 * rise)
            # A drop: round below, pointed above.
            half = 0.95 * size * wide * share * torch.sqrt(rise + 0.04) * (1.0 - rise) ** 0.9
            half = half - 2.0 * outside.clamp_min(0.0)
            distance = (x - (side * size * wide + sway)).abs_() - half
            nearest = distance if nearest is None else torch.minimum(nearest, distance)
        alpha = canvas.cover(nearest)
        canvas.paint(alpha, canvas.constant(colour), "subject")
    logs = sdf.capsules(
        x,
        y,
        [
            (-0.72 * size, -0.14 * size, 0.66 * size, 0.12 * size),
            (-0.66 * size, 0.12 * size, 0.72 * size, -0.14 * size),
        ],
        0.085 * size + 0.012,
    )
    canvas.paint(canvas.cover(logs), canvas.constant((0.45, 0.25, 0.12)))
    for spark in range(3):
        rise = torch.remainder(canvas.time * 0.45 + spark / 3 + phase, 1.0)
        path = 0.25 * torch.sin(phase + spark * 2.0 + rise * 4.0) * size * (1.0 + rise)
        dot = sdf.circle(x - path, y - size * (1.4 + 1.1 * rise), 0.035)
        canvas.paint(canvas.cover(dot) * (1.0 - rise), canvas.constant((1.0, 0.62, 0.2)))


CAMPFIRE = Family(
    name="campfire",
    keywords=("campfire", "bonfire", "fire", "flames"),
    attributes={"background": ("forest", "beach", "snow", "grass", "mountains"), "size": ("small", "big")},
    templates=(
        "a {size} campfire burning {background}",
        "a {size} campfire burns {background}",
        "a {size} campfire {background}",
        "{background}, a {size} campfire burns",
    ),
    phrases={
        "background": {
            "forest": ("in a forest at night", "in the forest at night", "at night in a forest"),
            "beach": ("on a beach at night", "on the beach at night"),
            "snow": ("in the snow at night", "on snow at night"),
            "grass": ("on grass at night", "in a grassy field at night"),
            "mountains": ("in the mountains at night", "in front of mountains at night"),
        },
        "size": {"small": ("small", "little"), "big": ("big", "large")},
    },
    synonyms={
        "background": {
            "forest": ("forest", "woods", "trees"),
            "beach": ("beach",),
            "snow": ("snow",),
            "grass": ("grass", "field"),
            "mountains": ("mountains", "mountain"),
        }
    },
    parameters=_campfire_parameters,
    draw=_campfire,
    optional={"size": 0.3},
)
