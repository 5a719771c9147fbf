"""Things that move: a sailing boat, a waving flag, a car on a mountain road."""

from __future__ import annotations

import math

import torch

from .. import sdf
from ..backgrounds import BACKGROUND_COLOURS, below, draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import COLOURS, colour_parameters
from .base import DAYLIGHT, SUNNY, Attributes, Family, cycle, cycle_parameters, travel, travel_parameters

# Colours that a time of day already shows in the sky or in the dark.
_TAKEN = {"day": (), "sunset": ("orange",), "night": ("black", "blue")}

# A sailing boat.


def _boat_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **travel_parameters(attributes["direction"], dice, 0.36, 0.5),
        "size": dice.uniform(0.46, 0.54),
        **cycle_parameters(dice.uniform(2.2, 3.6), dice.uniform(), 3.0),
        **landscape_parameters("ocean", DAYLIGHT[attributes["time"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _boat(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    size = parameters["size"]
    beat = cycle(canvas, parameters)
    x = (canvas.x - travel(canvas, parameters, 0.45)) * parameters["direction"] / size
    y = (canvas.y + (0.36 - 0.035 * torch.sin(beat)) * canvas.half_height) / size
    x, y = sdf.rotate(x, y, 0.10 * torch.cos(beat))
    hull = torch.maximum((x.abs() - 0.62 - 0.45 * y) * 0.91, (y - 0.05).abs() - 0.20)
    mast = sdf.segment(x, y, start_x=0.02, start_y=0.2, end_x=0.02, end_y=1.5, radius=0.035)
    # Two sails: the big one behind the mast, the small one before it.
    big = torch.maximum(torch.maximum(x + 0.05, 0.36 - y), (y - 1.48 - 1.75 * x) * (1.0 / math.hypot(1.0, 1.75)))
    small = torch.maximum(torch.maximum(0.10 - x, 0.36 - y), (y - 1.30 + 1.95 * x) * (1.0 / math.hypot(1.0, 1.95)))
    colour = parameters.rgb()
    dim = canvas.tone((0.80, 0.80, 0.85), (0.93, 0.91, 0.90), (1.0, 1.0, 1.0))
    sails = canvas.cover(torch.minimum(big, small) * size)
    wood = canvas.cover(torch.minimum(hull, mast) * size)
    brown = canvas.tone((0.20, 0.12, 0.08), (0.36, 0.18, 0.12), (0.46, 0.26, 0.14))
    canvas.paint(wood, brown, "subject")
    canvas.paint(sails, (colour + 1.0) * (dim + 1.0) / 2.0 - 1.0, "subject")
    # A wave in front hides the keel.
    crest = -0.44 * canvas.half_height + 0.035 * torch.sin(canvas.x * 6.0 - canvas.time * 2.0)
    front = canvas.tone((0.05, 0.10, 0.26), (0.36, 0.32, 0.44), (0.06, 0.44, 0.66))
    band = canvas.cover(canvas.y - crest) * canvas.cover(crest - 0.24 - canvas.y)
    canvas.paint(band, front)
    foam = canvas.tone((0.30, 0.38, 0.55), (0.88, 0.70, 0.64), (0.85, 0.95, 0.98))
    canvas.paint(canvas.cover((canvas.y - crest).abs() - 0.02), foam)


_SAILS = ("white", "red", "orange", "yellow", "green", "purple")
BOAT = Family(
    name="sailing boat",
    keywords=("boat", "sailboat", "ship", "sailing"),
    attributes={"time": ("day", "sunset", "night"), "direction": ("left", "right"), "colour": _SAILS},
    templates=(
        "a boat with {colour} {direction} on the ocean {time}",
        "a sailing boat with {colour} {direction.s} over the waves {time}",
        "a {colour.adjective} sailboat {direction} on the sea {time}",
        "a {colour.adjective} boat {direction} on the ocean {time}",
    ),
    phrases={
        "time": SUNNY,
        "direction": {
            side: (f"sailing {side}", f"sailing to the {side}", f"moving {side}") for side in ("left", "right")
        },
        "direction.s": {side: (f"sails {side}", f"sails to the {side}") for side in ("left", "right")},
        "colour": {name: (f"{name} sails", f"a {name} sail") for name in _SAILS},
        "colour.adjective": {name: (name,) for name in _SAILS},
    },
    synonyms={
        "direction": {"left": ("left",), "right": ("right",)},
        "time": {"sunset": ("sunset", "dusk"), "night": ("night", "moonlight")},
    },
    parameters=_boat_parameters,
    draw=_boat,
    defaults={"time": "day"},
    optional={"colour": 0.3, "direction": 0.05},
    allowed=lambda attributes: attributes["colour"] not in _TAKEN[attributes["time"]],
)


# A waving flag.

_FLAG_BACKGROUNDS = {
    "sky": ("sky", 2.0),
    "city": ("city", 2.0),
    "beach at sunset": ("beach", 1.0),
    "snow": ("snow", 2.0),
    "mountains": ("mountains", 2.0),
}


def _flag_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **cycle_parameters(dice.uniform(3.0, 5.0), dice.uniform(), 4.0),
        "length": dice.uniform(0.95, 1.15),
        "height": dice.uniform(0.27, 0.33),
        "place": dice.uniform(-0.08, 0.08),
        **landscape_parameters(*_FLAG_BACKGROUNDS[attributes["background"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _flag(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    left = parameters["place"] - 0.55
    x, y = canvas.x - left, canvas.y - 0.38 * canvas.half_height
    pole = canvas.cover(x.abs() - 0.045) * canvas.cover(canvas.y - 0.86 * canvas.half_height)
    length = parameters["length"]
    share = (x / length).clamp(0.0, 1.0)
    beat = 2.0 * math.pi * 1.25 * share - cycle(canvas, parameters)
    wave = y - 0.15 * share.sqrt() * torch.sin(beat)
    distance = torch.maximum((wave.abs() - parameters["height"]) * 0.85, (x - 0.5 * length).abs() - 0.5 * length)
    alpha = canvas.cover(distance)
    # Folds that turn from the light are darker.
    light = 0.80 + 0.20 * torch.cos(beat + 0.6)
    colour = (parameters.rgb() + 1.0) * light[:, None] - 1.0
    black = (parameters.rgb().mean(1, keepdim=True) < -0.8).float()
    canvas.paint(alpha, colour + black * (light[:, None] - 0.6) * 0.5, "subject")
    canvas.paint(pole, canvas.constant((0.34, 0.30, 0.28)))


FLAG = Family(
    name="waving flag",
    keywords=("flag", "flags", "banner"),
    attributes={"background": tuple(_FLAG_BACKGROUNDS), "colour": tuple(COLOURS)},
    templates=(
        "a {colour} flag waving in the wind {background}",
        "a {colour} flag waves in the wind {background}",
        "a {colour} flag waving {background}",
        "a {colour} flag fluttering {background}",
    ),
    phrases={
        "background": {
            "sky": ("under a clear sky", "in front of a clear sky", "against the sky"),
            "city": ("over a city", "in front of a city skyline"),
            "beach at sunset": ("on a beach at sunset", "over the beach at sunset"),
            "snow": ("in the snow", "over a snowy landscape"),
            "mountains": ("in front of mountains", "in the mountains", "over the mountains"),
        },
        "colour": {name: (name,) for name in COLOURS},
    },
    synonyms={
        "background": {
            "sky": ("sky",),
            "city": ("city", "skyline"),
            "snow": ("snow",),
            "beach at sunset": ("beach", "sunset"),
            "mountains": ("mountain", "mountains"),
        }
    },
    parameters=_flag_parameters,
    draw=_flag,
    optional={"background": 0.05},
    allowed=lambda attributes: attributes["colour"] not in BACKGROUND_COLOURS.get(attributes["background"], ()),
)


# A car on a mountain road.


def _car_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **travel_parameters(attributes["direction"], dice, 0.36, 0.5),
        "size": dice.uniform(0.50, 0.57),
        "phase": dice.uniform(0.0, 6.28),
        **landscape_parameters("mountains", DAYLIGHT[attributes["time"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _car(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    road = canvas.tone((0.13, 0.13, 0.17), (0.28, 0.25, 0.29), (0.40, 0.40, 0.42))
    below(canvas, -0.55 * canvas.half_height, road)
    dash = sdf.centred_remainder(canvas.x + parameters["variation"], 0.5)
    dashes = canvas.cover(dash.abs() - 0.14) * canvas.cover((canvas.y + 0.84 * canvas.half_height).abs() - 0.032)
    canvas.paint(dashes, canvas.tone((0.5, 0.5, 0.46), (0.75, 0.7, 0.62), (0.86, 0.86, 0.80)))
    size, direction = parameters["size"], parameters["direction"]
    place = travel(canvas, parameters, 0.5)
    x = (canvas.x - place) * direction / size
    y = (canvas.y + 0.44 * canvas.half_height) / size
    y = y - 0.012 * torch.sin(canvas.time * 11.0)
    body = sdf.box(x, y, 0.78, 0.13) - 0.06
    cabin = torch.maximum((x + 0.08).abs() - 0.56 + 0.55 * (y - 0.1), (y - 0.32).abs() - 0.26)
    glass = torch.maximum((x + 0.08).abs() - 0.45 + 0.55 * (y - 0.1), (y - 0.34).abs() - 0.14)
    glass = torch.maximum(glass, 0.045 - (x + 0.08).abs())
    dim = canvas.tone((0.80, 0.80, 0.85), (0.95, 0.92, 0.90), (1.0, 1.0, 1.0))
    alpha = canvas.cover(torch.minimum(body, cabin) * size)
    canvas.paint(alpha, (parameters.rgb() + 1.0) * (dim + 1.0) / 2.0 - 1.0, "subject")
    canvas.paint(
        canvas.cover(glass * size), canvas.tone((0.28, 0.34, 0.44), (0.55, 0.50, 0.55), (0.62, 0.76, 0.80)), "surface"
    )
    lamp = sdf.circle(x - 0.78, y - 0.05, 0.085)
    canvas.paint(canvas.cover(lamp * size), canvas.constant((1.0, 0.95, 0.70)), "subject")
    turn = -direction * place / (0.24 * size)
    for wheel in (-0.48, 0.48):
        wheel_x, wheel_y = x - wheel, y + 0.20
        tyre = canvas.cover(sdf.circle(wheel_x, wheel_y, 0.24) * size)
        canvas.paint(tyre, canvas.constant((0.07, 0.07, 0.08)), "subject")
        turned_x, turned_y = sdf.rotate(wheel_x * direction, wheel_y, turn * direction)
        spoke = torch.maximum(sdf.circle(wheel_x, wheel_y, 0.15), torch.minimum(turned_x.abs(), turned_y.abs()) - 0.05)
        canvas.paint(canvas.cover(spoke * size), canvas.constant((0.72, 0.72, 0.74)), "surface")


CAR = Family(
    name="car",
    keywords=("car", "truck", "driving", "drives"),
    attributes={"time": ("day", "sunset", "night"), "direction": ("left", "right"), "colour": tuple(COLOURS)},
    templates=(
        "a {colour} car {direction} on a mountain road {time}",
        "a {colour} car {direction.s} along a mountain road {time}",
        "a {colour} car {direction} through the mountains {time}",
    ),
    phrases={
        "time": SUNNY,
        "direction": {
            side: (f"driving {side}", f"driving to the {side}", f"moving {side}") for side in ("left", "right")
        },
        "direction.s": {side: (f"drives {side}", f"drives to the {side}") for side in ("left", "right")},
        "colour": {name: (name,) for name in COLOURS},
    },
    synonyms={
        "direction": {"left": ("left",), "right": ("right",)},
        "time": {"sunset": ("sunset", "dusk"), "night": ("night",)},
    },
    parameters=_car_parameters,
    draw=_car,
    defaults={"time": "day"},
    optional={"colour": 0.05, "direction": 0.05},
    allowed=lambda attributes: attributes["colour"] not in _TAKEN[attributes["time"]],
)
