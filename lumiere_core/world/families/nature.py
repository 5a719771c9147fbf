"""Fire, weather and plants: a campfire, falling snow, rain, swaying flowers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import colour_parameters
from .base import CAMERA, DAYLIGHT, SUNNY, Attributes, Family, camera_parameters

# Campfire.


def _campfire_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "size": dice.uniform(0.36, 0.44) if attributes["size"] == "small"
        else dice.uniform(0.60, 0.70),
        "place": dice.uniform(-0.3, 0.3),
        "phase": dice.uniform(0.0, 6.28),
        **landscape_parameters(attributes["background"], 0.0, dice.uniform()),
    }  # fmt: skip


def _campfire(canvas: Canvas, parameters: Parameters) -> Tensor:
    draw_landscape(canvas, parameters)
    size, phase = parameters["size"], parameters["phase"]
    x = canvas.x - parameters["place"] * canvas.half_width
    y = canvas.y + 0.68 * canvas.half_height
    flicker = torch.sin(canvas.time * 9.0 + phase)
    # The ground and the air around are lit.
    glow = torch.exp(-(x * x + (y - 0.5 * size) ** 2) / (2.2 * size * size) * 1.2)
    canvas.add(glow * (0.20 + 0.03 * flicker), canvas.constant((1.0, 0.55, 0.2)))
    mask = None
    layers = (
        (1.00, 1.00, (0.93, 0.27, 0.06)),
        (0.70, 0.70, (1.00, 0.60, 0.10)),
        (0.40, 0.45, (1.00, 0.93, 0.45)),
    )
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
        canvas.paint(alpha, canvas.constant(colour))
        mask = alpha if mask is None else mask
    logs = sdf.capsules(x, y, [
        (-0.72 * size, -0.14 * size, 0.66 * size, 0.12 * size),
        (-0.66 * size, 0.12 * size, 0.72 * size, -0.14 * size),
    ], 0.085 * size + 0.012)  # fmt: skip
    canvas.paint(canvas.cover(logs), canvas.constant((0.45, 0.25, 0.12)))
    for spark in range(3):
        rise = torch.remainder(canvas.time * 0.45 + spark / 3 + phase, 1.0)
        path = 0.25 * torch.sin(phase + spark * 2.0 + rise * 4.0) * size * (1.0 + rise)
        dot = sdf.circle(x - path, y - size * (1.4 + 1.1 * rise), 0.035)
        canvas.paint(canvas.cover(dot) * (1.0 - rise), canvas.constant((1.0, 0.62, 0.2)))
    return mask


CAMPFIRE = Family(
    name="campfire",
    keywords=("campfire", "bonfire", "fire", "flames"),
    attributes={
        "background": ("forest", "beach", "snow", "grass", "mountains"),
        "size": ("small", "big"),
    },
    templates=(
        "a {size} campfire burning {background}",
        "a {size} campfire burns {background}",
        "a {size} campfire {background}",
        "{background}, a {size} campfire burns",
    ),
    phrases={
        "background": {
            "forest": ("in a forest at night", "in the forest at night", "by a dark forest"),
            "beach": ("on a beach at night", "on the beach at night"),
            "snow": ("in the snow at night", "on snow at night"),
            "grass": ("on grass at night", "in a grassy field at night"),
            "mountains": ("in the mountains at night", "in front of mountains at night"),
        },
        "size": {"small": ("small", "little"), "big": ("big", "large")},
    },
    synonyms={"background": {"forest": ("forest", "woods", "trees"), "beach": ("beach",),
                             "snow": ("snow",), "grass": ("grass", "field"),
                             "mountains": ("mountains", "mountain")}},
    parameters=_campfire_parameters,
    draw=_campfire,
    optional={"size": 0.3},
)  # fmt: skip


# Falling snow and rain.

_STREET_SCENES = ("forest", "mountains", "city", "street")


def _snowfall_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "speed": {"gentle": 0.30, "heavy": 0.55}[attributes["strength"]],
        "heavy": float(attributes["strength"] == "heavy"),
        "phase": dice.uniform(0.0, 10.0),
        **landscape_parameters(attributes["background"], DAYLIGHT[attributes["time"]] * 0.9,
                               dice.uniform()),
    }  # fmt: skip


def _snowfall(canvas: Canvas, parameters: Parameters) -> Tensor:
    draw_landscape(canvas, parameters)
    phase = parameters["phase"]
    haze = torch.full_like(phase, 0.22)
    canvas.paint(haze, canvas.tone((0.30, 0.33, 0.42), (0.6, 0.6, 0.7), (0.72, 0.77, 0.82)))
    drift = 0.05 * torch.sin(canvas.x * 2.6 + phase)
    alpha = canvas.cover(canvas.y + 0.80 * canvas.half_height - drift)
    canvas.paint(alpha, canvas.tone((0.62, 0.66, 0.76), (0.8, 0.8, 0.85), (0.94, 0.96, 0.98)))
    flakes = _lanes(canvas, phase, parameters["speed"], 12, 0.8, sway=0.03)
    radius = 0.040 + 0.016 * parameters["heavy"]
    flakes = canvas.cover(torch.sqrt(flakes) - radius)
    canvas.paint(flakes, canvas.constant((1.0, 1.0, 1.0)))
    return flakes


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
    keywords=("snow falling", "falling snow", "snowfall", "snowing", "snow falls", "snowstorm",
              "snow fall", "snow is falling"),
    attributes={
        "time": ("day", "night"),
        "background": _STREET_SCENES,
        "strength": ("gentle", "heavy"),
    },
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
    synonyms={"background": {"forest": ("forest", "trees", "woods"), "city": ("city", "skyline"),
                             "mountains": ("mountain", "mountains"), "street": ("street", "road")},
              "strength": {"heavy": ("snowstorm",)}},
    parameters=_snowfall_parameters,
    draw=_snowfall,
    defaults={"time": "day"},
    optional={"strength": 0.3},
)  # fmt: skip


def _rain_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "phase": dice.uniform(0.0, 10.0),
        "speed": {"gentle": 1.5, "heavy": 2.2}[attributes["strength"]],
        "heavy": float(attributes["strength"] == "heavy"),
        **landscape_parameters(attributes["background"], DAYLIGHT[attributes["time"]] * 0.85,
                               dice.uniform()),
    }  # fmt: skip


def _rain(canvas: Canvas, parameters: Parameters) -> Tensor:
    draw_landscape(canvas, parameters)
    phase = parameters["phase"]
    gloom = torch.full_like(phase, 0.55)
    canvas.paint(gloom, canvas.tone((0.12, 0.14, 0.20), (0.34, 0.36, 0.42), (0.42, 0.46, 0.52)))
    drops = _lanes(canvas, phase, parameters["speed"], 11, 0.75, stretch=3.6)
    radius = 0.030 + 0.012 * parameters["heavy"]
    drops = canvas.cover(torch.sqrt(drops) - radius)
    canvas.paint(drops, canvas.tone((0.52, 0.62, 0.78), (0.75, 0.80, 0.88), (0.80, 0.88, 0.95)))
    # Rings where drops hit the ground, one in each column of the frame.
    width = 0.5
    column = torch.floor(canvas.x / width)
    clock = canvas.time * 1.3 + phase + column * 0.37
    count = torch.floor(clock)
    age = clock - count
    x = canvas.x - (column + 0.5) * width
    y = canvas.y + (0.72 + 0.2 * torch.sin(count * 2.3 + column)) * canvas.half_height
    ring = sdf.ellipse(x, y, 0.04 + 0.17 * age, 0.02 + 0.06 * age).abs() - 0.016
    canvas.paint(canvas.cover(ring) * ((1.0 - age) * 0.8),
                 canvas.tone((0.5, 0.6, 0.75), (0.7, 0.75, 0.85), (0.80, 0.88, 0.95)))  # fmt: skip
    return drops


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
    synonyms={"background": {"street": ("street", "road"), "city": ("city", "skyline"),
                             "ocean": ("ocean", "sea", "water"), "forest": ("forest", "trees"),
                             "grass": ("grass", "field", "meadow")}},
    parameters=_rain_parameters,
    draw=_rain,
    defaults={"time": "day"},
    optional={"strength": 0.3},
)  # fmt: skip


# Swaying flowers.

_FLOWER_COLOURS = ("red", "orange", "yellow", "purple", "white")


def _flowers_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "phase": dice.uniform(0.0, 6.28),
        "periods": dice.uniform(2.2, 4.0),
        "sway": dice.uniform(0.14, 0.20),
        "height": dice.uniform(0.9, 1.1),
        **camera_parameters(attributes["camera"], dice),
        **landscape_parameters("grass", DAYLIGHT[attributes["time"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _flowers(canvas: Canvas, parameters: Parameters) -> Tensor:
    draw_landscape(canvas, parameters)
    dim = canvas.tone((0.55, 0.55, 0.6), (0.9, 0.85, 0.82), (1.0, 1.0, 1.0))
    colour = (parameters.rgb() + 1.0) * (dim + 1.0) / 2.0 - 1.0
    stem_colour = canvas.tone((0.05, 0.24, 0.10), (0.18, 0.34, 0.10), (0.12, 0.42, 0.12))
    middle = canvas.tone((0.5, 0.35, 0.1), (0.7, 0.42, 0.1), (0.45, 0.25, 0.08))
    mask = None
    base = -canvas.half_height * 1.1
    for flower, (place, tall) in enumerate(((-0.52, 0.86), (0.50, 0.92), (0.0, 1.1))):
        beat = 2.0 * math.pi * parameters["periods"] * canvas.progress + parameters["phase"]
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
        canvas.paint(alpha, colour)
        canvas.paint(canvas.cover(radius - 0.09), middle)
        mask = alpha if mask is None else torch.maximum(mask, alpha)
    return mask


FLOWERS = Family(
    name="swaying flowers",
    keywords=("flowers?", "tulips?", "roses?", "daisies", "daisy", "sunflowers?"),
    attributes={
        "camera": tuple(CAMERA),
        "time": ("day", "sunset", "night"),
        "colour": _FLOWER_COLOURS,
    },
    templates=(
        "{colour} flowers swaying in the wind {time}{camera}",
        "{colour} flowers swaying in a field {time}{camera}",
        "{colour} flowers sway in the breeze {time}{camera}",
        "a meadow of {colour} flowers swaying {time}{camera}",
    ),
    phrases={
        "camera": CAMERA,
        "time": SUNNY,
        "colour": {name: (name,) for name in _FLOWER_COLOURS},
    },
    parameters=_flowers_parameters,
    draw=_flowers,
    unhashed=("camera",),
    defaults={"camera": "static", "time": "day"},
    optional={"colour": 0.06},
    weights={"camera": {"static": 16.0}},
    allowed=lambda attributes: not (
        attributes["time"] == "sunset" and attributes["colour"] in ("orange", "yellow")
    ),
)

FAMILIES = (CAMPFIRE, SNOWFALL, RAIN, FLOWERS)
