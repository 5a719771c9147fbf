"""What happens in the sky: sunrise and sunset, moonrise, a shooting star, the earth."""

from __future__ import annotations

import math

import torch

from .. import sdf
from ..backgrounds import draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters
from ..dice import Dice
from ..palette import colour_parameters
from .base import CAMERA, Attributes, Family, camera_parameters, travel, travel_parameters

# How much higher than over the sea the sun and the moon stay to be seen over this land.
_LIFT = {"ocean": 0.0, "field": 0.05, "city": 0.12, "mountains": 0.24}

# Sunrise and sunset.


def _sunrise_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    kind = {"field": "grass"}.get(attributes["background"], attributes["background"])
    return {
        "direction": 1.0 if attributes["motion"] == "rising" else -1.0,
        "place": dice.uniform(-0.4, 0.4),
        "reach": dice.uniform(0.36, 0.44),
        "lift": _LIFT[attributes["background"]],
        "size": dice.uniform(0.22, 0.30),
        **landscape_parameters(kind, 1.0, dice.uniform()),
    }


def _sunrise(canvas: Canvas, parameters: Parameters) -> None:
    progress = canvas.progress - 0.5
    path = parameters["direction"] * progress  # -0.5 with the sun down, 0.5 with the sun up
    level = (parameters["lift"] - 0.02 + 2.0 * parameters["reach"] * path) * canvas.half_height
    daylight = (1.0 + 1.9 * path).clamp(0.05, 1.95)
    sun = canvas.cover(
        sdf.circle(canvas.x - parameters["place"] * canvas.half_width, canvas.y - level, parameters["size"])
    )
    draw_landscape(canvas, parameters, daylight=daylight, behind=sun, light=canvas.constant((1.0, 0.88, 0.30)))


SUNRISE = Family(
    name="sunrise",
    keywords=("sunrise", "sunset timelapse", "sun rising", "sun setting", "the sun"),
    weak_keywords=("sunset", "timelapse", "time-?lapse", "sun"),
    attributes={"background": ("ocean", "mountains", "city", "field"), "motion": ("rising", "setting")},
    templates=(
        "{motion.s} {background}",
        "a timelapse of {motion.s} {background}",
        "timelapse of {motion} {background}",
        "{motion} {background}",
        "{motion} {background}, timelapse",
    ),
    phrases={
        "background": {
            "ocean": ("over the ocean", "over the sea", "above the ocean"),
            "mountains": ("over the mountains", "behind the mountains", "above the mountains"),
            "city": ("over a city", "over the city skyline", "behind a city skyline"),
            "field": ("over a field", "over a grassy field", "over green hills"),
        },
        "motion": {"rising": ("the sun rising",), "setting": ("the sun setting",)},
        "motion.s": {"rising": ("sunrise", "a sunrise"), "setting": ("sunset", "a sunset")},
    },
    synonyms={
        "background": {
            "ocean": ("ocean", "sea"),
            "mountains": ("mountains", "mountain"),
            "city": ("city", "skyline"),
            "field": ("field", "grass", "hills"),
        },
        "motion": {"rising": ("rises", "rising"), "setting": ("sets", "setting", "going down")},
    },
    defaults={"motion": "rising"},
    parameters=_sunrise_parameters,
    draw=_sunrise,
)


# Moonrise.


def _moonrise_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    return {
        "place": dice.uniform(-0.5, 0.5),
        "reach": dice.uniform(0.38, 0.46),
        "lift": _LIFT[attributes["background"]],
        "size": dice.uniform(0.26, 0.34),
        "crescent": float(attributes["phase"] == "crescent"),
        **landscape_parameters(attributes["background"], 0.0, dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _moonrise(canvas: Canvas, parameters: Parameters) -> None:
    climb = 0.7 * parameters["lift"] - 0.22 + 1.8 * parameters["reach"] * canvas.progress
    level = climb * canvas.half_height
    x = canvas.x - parameters["place"] * canvas.half_width
    y = canvas.y - level
    moon = canvas.cover(sdf.circle(x, y, parameters["size"]))
    shadow = canvas.cover(
        sdf.circle(x - 0.45 * parameters["size"], y - 0.15 * parameters["size"], parameters["size"] * 0.88)
    )
    moon = moon * (1.0 - shadow * parameters["crescent"])
    draw_landscape(canvas, parameters, behind=moon, light=parameters.rgb())


MOONRISE = Family(
    name="moonrise",
    keywords=("moon", "moonrise"),
    attributes={
        "background": ("city", "ocean", "mountains"),
        "phase": ("full", "crescent"),
        "colour": ("white", "yellow", "orange", "red"),
    },
    templates=(
        "a {colour} {phase} moon rising {background}",
        "a {colour} {phase} moon rises {background}",
        "{phase} {colour} moon rising {background}",
        "timelapse of a {colour} {phase} moon rising {background}",
    ),
    phrases={
        "background": {
            "city": ("over a city skyline", "over a city", "above the city at night"),
            "ocean": ("over the ocean", "above the sea at night", "over the sea"),
            "mountains": ("over the mountains", "behind the mountains", "above the mountains"),
        },
        "phase": {"full": ("full",), "crescent": ("crescent",)},
        "colour": {name: (name,) for name in ("white", "yellow", "orange", "red")},
    },
    synonyms={
        "background": {"city": ("city", "skyline"), "ocean": ("ocean", "sea"), "mountains": ("mountains", "mountain")},
        "phase": {"crescent": ("half",)},
    },
    parameters=_moonrise_parameters,
    draw=_moonrise,
    optional={"colour": 0.1, "phase": 0.1},
)


# Shooting star.


def _shooting_star_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    kind = {"night sky": "sky"}.get(attributes["background"], attributes["background"])
    return {
        **travel_parameters(attributes["direction"], dice, 0.45, 0.66),
        "height": dice.uniform(0.52, 0.74),
        "drop": dice.uniform(0.12, 0.22),
        **landscape_parameters(kind, 0.0, dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
    }


def _shooting_star(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    direction, drop = parameters["direction"], parameters["drop"]
    x = canvas.x - travel(canvas, parameters, 0.18)
    y = canvas.y - (parameters["height"] - 2.0 * drop * canvas.progress) * canvas.half_height
    # Along the flight: 0 at the head, growing towards the tail, which rises behind it.
    slant = drop * canvas.half_height / (parameters["travel"] * canvas.half_width)
    angle = torch.atan(slant)
    along = -(x * direction * torch.cos(angle) - y * torch.sin(angle))
    across = y * torch.cos(angle) + x * direction * torch.sin(angle)
    share = (along / 0.9).clamp(0.0, 1.0)
    tail = torch.maximum(across.abs() - 0.12 * (1.0 - share), -along)
    colour = parameters.rgb()
    canvas.paint(canvas.cover(tail) * (1.0 - share) * 0.9, colour, "subject")
    head = canvas.cover(sdf.circle(x, y, 0.15))
    canvas.paint(head, colour + (1.0 - colour) * 0.35, "subject")


SHOOTING_STAR = Family(
    name="shooting star",
    keywords=("shooting star", "meteor", "falling star", "comet"),
    attributes={
        "background": ("night sky", "mountains", "ocean", "city", "forest"),
        "direction": ("left", "right"),
        "colour": ("white", "yellow", "green", "orange"),
    },
    templates=(
        "a {colour} shooting star {direction} {background}",
        "a {colour} shooting star {direction} {background}",
        "{colour} shooting star {direction} {background}",
    ),
    phrases={
        "background": {
            "night sky": ("in the night sky", "across the night sky"),
            "mountains": ("over the mountains", "above the mountains at night", "through the night sky over mountains"),
            "ocean": ("over the ocean at night", "above the sea"),
            "city": ("over a city at night", "above the city"),
            "forest": ("over a forest at night", "above the forest"),
        },
        "direction": {
            side: (f"flying {side}", f"moving {side}", f"flies to the {side}", f"streaking to the {side}")
            for side in ("left", "right")
        },
        "colour": {name: (name,) for name in ("white", "yellow", "green", "orange")},
    },
    synonyms={
        "background": {
            "night sky": ("sky",),
            "mountains": ("mountain", "mountains"),
            "ocean": ("ocean", "sea"),
            "city": ("city", "skyline"),
            "forest": ("forest", "trees"),
        },
        "direction": {"left": ("left",), "right": ("right",)},
    },
    parameters=_shooting_star_parameters,
    draw=_shooting_star,
    optional={"colour": 0.1, "direction": 0.1},
)


# Rotating earth.


def _earth_parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    turns = {"slow": dice.uniform(0.4, 0.55), "fast": dice.uniform(1.0, 1.3)}[attributes["speed"]]
    return {
        "turns": turns,
        "start": dice.uniform(0.0, 6.28),
        "size": dice.uniform(0.36, 0.40) if attributes["camera"] != "static" else dice.uniform(0.44, 0.53),
        "starry": float(attributes["background"] == "night sky"),
        **camera_parameters(attributes["camera"], dice),
        **landscape_parameters("plain" if attributes["background"] == "plain black" else "sky", 0.0, dice.uniform()),
        **colour_parameters("black", dice, "plain"),
    }


def _earth(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    size = parameters["size"]
    x, y = canvas.x / size, canvas.y / size
    alpha = canvas.cover(sdf.circle(canvas.x, canvas.y, size))
    ring = torch.sqrt((1.0 - y * y).clamp_min(1e-4))  # radius of the circle of latitude
    latitude = torch.asin(y.clamp(-1.0, 1.0))
    longitude = torch.asin((x / ring).clamp(-1.0, 1.0))
    # Turning eastwards: what is seen moves to the right.
    longitude = longitude - 2.0 * math.pi * parameters["turns"] * canvas.progress
    longitude = longitude + parameters["start"]
    land = (
        torch.sin(2.0 * longitude + 1.2 * torch.sin(latitude * 2.0 + 1.0))
        + 0.7 * torch.sin(longitude + 2.5 * latitude)
        + 0.5 * torch.sin(3.0 * longitude - 2.0 * latitude + 1.0)
    )
    canvas.paint(alpha, canvas.constant((0.10, 0.32, 0.80)), "subject")
    canvas.paint(alpha * ((land - 0.35) * 4.0 + 0.5).clamp(0.0, 1.0), canvas.constant((0.22, 0.62, 0.22)), "surface")
    caps = canvas.cover((0.86 - y.abs()) * size)
    canvas.paint(alpha * caps, canvas.constant((0.96, 0.97, 1.0)), "surface")
    # The night side, on the right.
    shade = ((x + 0.35 * y - 0.30) * 1.6).clamp(0.0, 0.7)
    canvas.paint(alpha * shade, canvas.constant((0.01, 0.01, 0.05)), "surface")


EARTH = Family(
    name="rotating earth",
    keywords=("earth", "globe", "planet"),
    attributes={
        "camera": ("static", "zoom in", "zoom out"),
        "background": ("night sky", "plain black"),
        "speed": ("slow", "fast"),
    },
    templates=(
        "the earth rotating {speed} {background}{camera}",
        "the earth rotates {speed} {background}{camera}",
        "planet earth spinning {speed} {background}{camera}",
        "a video of the earth rotating {speed} {background}{camera}",
    ),
    phrases={
        "camera": {name: CAMERA[name] for name in ("static", "zoom in", "zoom out")},
        "background": {
            "night sky": ("in space", "among the stars", "in front of the stars"),
            "plain black": ("in dark space", "on a plain black background"),
        },
        "speed": {"slow": ("slowly",), "fast": ("fast", "quickly")},
    },
    synonyms={"background": {"night sky": ("stars", "sky"), "plain black": ("black",)}},
    parameters=_earth_parameters,
    draw=_earth,
    defaults={"camera": "static"},
    optional={"speed": 0.3},
    weights={"camera": {"static": 4.0}},
)
