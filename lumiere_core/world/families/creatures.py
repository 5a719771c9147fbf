"""Who moves: a walking stick figure, a galloping horse, a swimming turtle."""

from __future__ import annotations

import torch

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import colour_parameters
from .base import Attributes, Family, cycle, cycle_parameters, travel, travel_parameters


def _direction_phrases(*verbs: str) -> dict[str, tuple[str, ...]]:
    return {
        side: tuple(f"{verb} {way}" for verb in verbs for way in (side, f"to the {side}")) for side in ("left", "right")
    }


def limb(hip_x, hip_y, upper, bend, length):
    """The two segments of a limb with two equal parts.

    Args:
        upper: angle of the upper part from straight down, forwards positive, radians.
        bend: how far the lower part is turned from the upper one, radians.
        length: of one part.
    """
    knee_x, knee_y = hip_x + length * torch.sin(upper), hip_y - length * torch.cos(upper)
    foot_x = knee_x + length * torch.sin(upper + bend)
    foot_y = knee_y - length * torch.cos(upper + bend)
    return [(hip_x, hip_y, knee_x, knee_y), (knee_x, knee_y, foot_x, foot_y)]


# A walking stick figure.

_WALK_BACKGROUNDS = {
    "grass": ("grass", 2.0),
    "beach at sunset": ("beach", 1.0),
    "snow": ("snow", 2.0),
    "street": ("street", 2.0),
    "plain white": ("plain", 2.0),
}


def _walker_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **travel_parameters(attributes["direction"], dice, 0.42, 0.6),
        **cycle_parameters(dice.uniform(4.0, 5.5), dice.uniform(), 4.8),
        "size": dice.uniform(0.62, 0.70),
        **landscape_parameters(*_WALK_BACKGROUNDS[attributes["background"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
        **colour_parameters("white", dice, "plain"),
    }


def _walker(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    size = parameters["size"] * canvas.half_height
    beat = cycle(canvas, parameters)
    # From here on the figure is 2 units tall, stands at 0 and looks to the right.
    x = (canvas.x - travel(canvas, parameters, 0.42)) * parameters["direction"] / size
    y = (canvas.y + 0.86 * canvas.half_height) / size
    y = y - 0.04 * torch.cos(2.0 * beat)
    parts = [(0.0, 0.92, 0.0, 1.6)]
    for sign in (-1.0, 1.0):
        swing = torch.sin(beat) * sign
        lift = (torch.cos(beat) * sign).clamp_min(0.0)
        parts += limb(0.0, 0.92, 0.55 * swing, bend=-0.75 * lift, length=0.46)
        parts += limb(0.0, 1.50, -0.65 * swing, bend=0.35 + 0.3 * swing.abs(), length=0.34)
    distance = torch.minimum(sdf.circle(x, y - 1.90, 0.25), sdf.capsules(x, y, parts, 0.092))
    alpha = canvas.cover(distance * size)
    canvas.paint(alpha, parameters.rgb(), "subject")


WALKER = Family(
    name="walking figure",
    keywords=("stick figure", "stickman", "stick man", "person", "man", "woman", "walking"),
    attributes={
        "background": tuple(_WALK_BACKGROUNDS),
        "direction": ("left", "right"),
        "colour": ("black", "red", "blue", "purple"),
    },
    templates=(
        "a {colour} stick figure {direction} {background}",
        "a {colour} stick figure {direction.s} {background}",
        "{background}, a {colour} stick figure {direction.s}",
    ),
    phrases={
        "background": {
            "grass": ("on grass", "over a meadow", "across a grassy field"),
            "beach at sunset": ("on a beach at sunset", "along a beach at sunset"),
            "snow": ("on snow", "in the snow", "through the snow"),
            "street": ("on a street", "along a street", "down the street"),
            "plain white": ("on a plain white background", "in front of a plain white background"),
        },
        "direction": _direction_phrases("walking"),
        "direction.s": _direction_phrases("walks"),
        "colour": {name: (name,) for name in ("black", "red", "blue", "purple")},
    },
    synonyms={
        "background": {
            "grass": ("grass", "field", "meadow", "park"),
            "beach at sunset": ("beach", "sunset"),
            "snow": ("snow", "snowy"),
            "street": ("street", "road", "city"),
            "plain white": ("white background",),
        },
        "direction": {"left": ("left",), "right": ("right",)},
    },
    parameters=_walker_parameters,
    draw=_walker,
    optional={"direction": 0.06, "colour": 0.1},
)


# A galloping horse.

_HORSE_BACKGROUNDS = {
    "grass": ("grass", 2.0),
    "beach at sunset": ("beach", 1.0),
    "snow": ("snow", 2.0),
    "mountains": ("mountains", 1.0),
}


def _horse_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **travel_parameters(attributes["direction"], dice, 0.34, 0.46),
        **cycle_parameters(dice.uniform(6.5, 8.0), dice.uniform(), 7.2),
        "size": dice.uniform(0.52, 0.60),
        **landscape_parameters(*_HORSE_BACKGROUNDS[attributes["background"]], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _horse(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    size = parameters["size"]
    beat = cycle(canvas, parameters)
    x = (canvas.x - travel(canvas, parameters, 0.58)) * parameters["direction"] / size
    y = (canvas.y + 0.26 * canvas.half_height) / size - 0.07 * torch.sin(beat)
    pitch = 0.10 * torch.cos(beat)  # the body rocks; joints turn, so x and y stay one-dimensional

    def joints(start_x, start_y, end_x, end_y):
        return (start_x, start_y + pitch * start_x, end_x, end_y + pitch * end_x)

    thick = [joints(0.40, 0.06, 0.76, 0.46), joints(0.78, 0.52, 1.00, 0.36)]  # neck, head
    thin = [
        joints(-0.52, 0.10, -0.86, 0.10 - 0.8 * pitch),
        joints(0.74, 0.55, 0.77, 0.70),
        joints(-0.86, 0.10 - 0.8 * pitch, -1.02, -0.12),
    ]  # tail, ear
    legs = []
    for front, offset in ((1.0, 0.0), (1.0, 0.7), (-1.0, 2.6), (-1.0, 3.3)):
        swing = torch.sin(beat + offset)
        fold = (0.5 + 0.5 * torch.cos(beat + offset)) * 1.1
        hip_y = -0.12 + pitch * 0.42 * front
        legs += limb(0.42 * front, hip_y, 0.75 * swing + 0.15 * front, bend=-fold, length=0.37)
    distance = sdf.capsules(x, y, [joints(-0.36, 0.0, 0.36, 0.0)], 0.24)
    for parts, radius in ((thick, 0.125), (thin, 0.058), (legs, 0.078)):
        distance = torch.minimum(distance, sdf.capsules(x, y, parts, radius))
    alpha = canvas.cover(distance * size)
    canvas.paint(alpha, parameters.rgb(), "subject")


HORSE = Family(
    name="galloping horse",
    keywords=("horse", "stallion", "pony", "horses"),
    attributes={"background": tuple(_HORSE_BACKGROUNDS), "direction": ("left", "right"), "colour": ("black", "white")},
    templates=(
        "a {colour} horse {direction} {background}",
        "a {colour} horse {direction.s} {background}",
        "the silhouette of a {colour} horse {direction} {background}",
    ),
    phrases={
        "background": {
            "grass": ("on grass", "through a grassy field", "over a meadow"),
            "beach at sunset": ("on a beach at sunset", "along the beach at sunset"),
            "snow": ("in the snow", "on snow", "through the snow"),
            "mountains": ("in front of mountains at sunset", "in the mountains at sunset"),
        },
        "direction": _direction_phrases("galloping", "running"),
        "direction.s": _direction_phrases("gallops", "runs"),
        "colour": {"black": ("black",), "white": ("white",)},
    },
    synonyms={
        "background": {
            "grass": ("grass", "field", "meadow"),
            "beach at sunset": ("beach",),
            "snow": ("snow", "snowy"),
            "mountains": ("mountains", "mountain", "sunset"),
        },
        "direction": {"left": ("left",), "right": ("right",)},
    },
    parameters=_horse_parameters,
    draw=_horse,
    optional={"colour": 0.06, "direction": 0.06},
    allowed=lambda attributes: (attributes["colour"], attributes["background"]) != ("white", "snow"),
)


# A swimming turtle.


def _turtle_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        **travel_parameters(attributes["direction"], dice, 0.34, 0.46),
        **cycle_parameters(dice.uniform(2.6, 4.2), dice.uniform(), 3.4),
        "size": dice.uniform(0.50, 0.58),
        "height": dice.uniform(-0.05, 0.25),
        "variation": dice.uniform(),
        "coral": float(attributes["background"] == "coral reef"),
        "sand": float(attributes["background"] == "sand"),
        **colour_parameters(attributes["colour"], dice),
    }


def _under_water(canvas: Canvas, parameters: Parameters) -> None:
    """Deep water; above sand or a reef where the scene has one."""
    share = (canvas.y / canvas.half_height * 0.5 + 0.5)[:, None]
    top, deep = canvas.constant((0.20, 0.62, 0.85)), canvas.constant((0.02, 0.16, 0.42))
    canvas.fill(deep + share * (top - deep))
    shift = parameters["variation"] * 6.28
    rays = torch.sin((canvas.x - 0.35 * canvas.y) * 5.0 + 0.5 * torch.sin(canvas.time * 0.8) + shift)
    canvas.add(
        rays.clamp_min(0.0) * (canvas.y / canvas.half_height + 0.6).clamp(0.0, 1.0) * 0.10,
        canvas.constant((0.7, 1.0, 1.0)),
    )
    floor = -0.70 * canvas.half_height + 0.06 * torch.sin(canvas.x * 2.5 + shift)
    alpha = canvas.cover(canvas.y - floor) * torch.maximum(parameters["sand"], parameters["coral"])
    canvas.paint(alpha, canvas.constant((0.72, 0.66, 0.48)))
    if any(parameters.listed("coral")):
        x = canvas.x / 0.52 + parameters["variation"]
        number = torch.floor(x)
        height = 0.20 + 0.10 * torch.sin(number * 2.3)
        bump = torch.sqrt((1.0 - ((x - number - 0.5) * 2.1) ** 2).clamp_min(0.0))
        reef = floor - 0.06 + height * bump
        tint = 0.25 * torch.sin(number * 3.1 + shift)  # pinks: no turtle has them
        colours = torch.stack([0.6 + tint, -0.4 + 0.5 * tint, 0.2 + 0.0 * tint], 1)
        canvas.paint(canvas.cover((canvas.y - reef) * 0.8) * parameters["coral"], colours)


def _turtle(canvas: Canvas, parameters: Parameters) -> None:
    _under_water(canvas, parameters)
    size = parameters["size"]
    beat = cycle(canvas, parameters)
    x = (canvas.x - travel(canvas, parameters, 0.55)) * parameters["direction"] / size
    y = canvas.y - (parameters["height"] + 0.04 * torch.sin(beat)) * canvas.half_height
    y = y / size
    shell = torch.maximum(sdf.ellipse(x, y + 0.05, 0.62, 0.42), -0.12 - y)
    stroke = torch.sin(beat)
    skin = sdf.ellipse(x - 0.80, y - 0.02 - 0.03 * stroke, 0.22, 0.17)
    skin = torch.minimum(skin, sdf.ellipse(x, y + 0.13, 0.60, 0.13))
    limbs = [(-0.55, -0.10, -0.80, -0.16)]
    for root, length, swing in ((0.34, 0.52, 0.85), (-0.40, 0.32, -0.6)):
        angle = -0.55 + swing * stroke
        end = (root - length * torch.cos(angle), -0.15 + length * torch.sin(angle))
        limbs.append((root, -0.15, *end))
    skin = torch.minimum(skin, sdf.capsules(x, y, limbs, 0.088))
    colour = parameters.rgb()
    body, dome = canvas.cover(skin * size), canvas.cover(shell * size)
    canvas.paint(body, colour + (1.0 - colour) * 0.30, "subject")
    canvas.paint(dome, (colour + 1.0) * 0.85 - 1.0, "subject")
    plates = sdf.capsules(x, y, [(-0.20, -0.12, -0.14, 0.30), (0.20, -0.12, 0.14, 0.30)], 0.03)
    canvas.paint(dome * canvas.cover(plates * size), (colour + 1.0) * 0.5 - 1.0, "surface")
    eye = sdf.circle(x - 0.86, y - 0.06 - 0.03 * stroke, 0.05)
    canvas.paint(canvas.cover(eye * size), canvas.constant((0.05, 0.05, 0.05)), "surface")
    for bubble in range(3):
        rise = torch.remainder(canvas.time * 0.22 + bubble / 3 + parameters["variation"], 1.0)
        dot = sdf.circle(
            canvas.x - (0.7 - 0.6 * bubble) * canvas.half_width - 0.05 * torch.sin(rise * 12.0),
            canvas.y - (2.2 * rise - 1.1) * canvas.half_height,
            0.05,
        )
        canvas.paint(canvas.cover(dot) * 0.7, canvas.constant((0.75, 0.92, 0.98)))


TURTLE = Family(
    name="swimming turtle",
    keywords=("turtle", "sea turtle", "tortoise"),
    attributes={
        "background": ("water", "coral reef", "sand"),
        "direction": ("left", "right"),
        "colour": ("green", "orange", "yellow", "red"),
    },
    templates=(
        "a {colour} turtle {direction} {background}",
        "a {colour} turtle {direction.s} {background}",
        "a {colour} sea turtle {direction} {background}",
    ),
    phrases={
        "background": {
            "water": ("in the ocean", "in ocean", "in deep water", "in the sea", "under water"),
            "coral reef": ("over a coral reef", "above a coral reef", "in a coral reef"),
            "sand": ("over sand in the sea", "above the sandy sea floor"),
        },
        "direction": _direction_phrases("swimming", "gliding"),
        "direction.s": _direction_phrases("swims"),
        "colour": {name: (name,) for name in ("green", "orange", "yellow", "red")},
    },
    synonyms={
        "background": {
            "water": ("ocean", "water", "sea", "underwater"),
            "coral reef": ("reef", "coral"),
            "sand": ("sand", "sandy"),
        },
        "direction": {"left": ("left",), "right": ("right",)},
    },
    parameters=_turtle_parameters,
    draw=_turtle,
    optional={"colour": 0.06, "direction": 0.06},
)
