"""The main family: one coloured shape, one motion, one background, one camera."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import sdf
from ..backgrounds import BACKGROUND_COLOURS, BACKGROUNDS, LANDSCAPES, PLAIN, draw_landscape, landscape_parameters
from ..canvas import Canvas, Parameters, draw_by_kind
from ..dice import Dice
from ..palette import COLOURS, colour_parameters
from .base import CAMERA, Attributes, Family, camera_parameters, rhythm

SHAPES = ("ball", "square", "triangle", "star")
MOTIONS = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "bouncing",
    "spinning",
    "swinging",
    "growing",
    "standing still",
)

# Radius of the circle around each shape over the radius of a ball of the same area.
EXTENT = {
    "ball": 1.0,
    "square": math.sqrt(math.pi) / 2 * math.sqrt(2),
    "triangle": math.sqrt(math.pi / (3 * math.sqrt(3) / 4)),
    "star": math.sqrt(math.pi / (5 * sdf.STAR_INNER * math.sin(math.radians(36)))),
}
# Periods or turns in a clip and the phase at its beginning, see `rhythm`: a ball is dropped from its highest place, a
# pendulum let go at the right, a spin goes with the clock.
USUAL = {"bouncing": (3.0, 0.5), "swinging": (2.6, 0.25), "spinning": (-1.7, 0.0)}
CAMERA_MOTIONS = {
    "pan left": ("bouncing", "spinning", "standing still"),
    "pan right": ("bouncing", "spinning", "standing still"),
    "zoom in": ("spinning", "standing still"),
    "zoom out": ("spinning", "standing still"),
}


def _allowed(attributes: Attributes) -> bool:
    if attributes["colour"] in BACKGROUND_COLOURS[attributes["background"]]:
        return False
    camera = attributes["camera"]
    return camera == "static" or attributes["motion"] in CAMERA_MOTIONS[camera]


def _derived(attributes: Attributes) -> Attributes:
    motion = attributes["motion"]
    return {"direction": motion.split()[1]} if motion.startswith("moving") else {}


def _parameters(attributes: Attributes, dice: Dice) -> dict[str, float]:
    shape, motion, background = (attributes[name] for name in ("shape", "motion", "background"))
    plain = background in PLAIN
    dark = background in ("night sky", "plain black")
    size = dice.uniform(0.24, 0.38)
    travel = dice.uniform(0.38, 0.62)
    static = attributes["camera"] == "static"
    periods = turns = 0.0
    if motion.startswith("moving"):
        size = dice.uniform(0.22, 0.31)
    elif motion == "bouncing":
        size, periods = dice.uniform(0.22, 0.30), dice.uniform(2.3, 4.7)
    elif motion == "swinging":
        size, periods = dice.uniform(0.22, 0.30), dice.uniform(2.2, 4.0)
    elif motion == "growing":
        size = dice.uniform(0.17, 0.21)
    if not static:
        size = dice.uniform(0.24, 0.32)
    offset_x = dice.uniform(-0.55, 0.55) if static else 0.0
    offset_y = dice.uniform(-0.5, 0.4) if static else -0.1
    phase = dice.uniform()
    lowest, highest = dice.uniform(0.75, 1.0), dice.uniform(0.25, 0.9)
    if motion == "spinning":
        turns, phase = rhythm(dice.sign() * dice.uniform(1.2, 2.6), phase, *USUAL[motion])
    elif motion in USUAL:
        periods, phase = rhythm(periods, phase, *USUAL[motion])
    sign = {"moving left": -1.0, "moving right": 1.0, "moving up": 1.0, "moving down": -1.0}
    horizontal = motion in ("moving left", "moving right")
    vertical = motion in ("moving up", "moving down")
    return {
        "shape": float(SHAPES.index(shape)),
        "size": size,  # radius of the ball of the same area
        "size_end": dice.uniform(0.40, 0.46) if motion == "growing" else size,
        "extent": EXTENT[shape],
        "travel_x": sign.get(motion, 0.0) * travel if horizontal else 0.0,
        "travel_y": sign.get(motion, 0.0) * travel if vertical else 0.0,
        "offset_x": offset_x,
        "offset_y": offset_y,
        "bouncing": float(motion == "bouncing"),
        "swinging": float(motion == "swinging"),
        "periods": periods,
        "phase": phase,
        "lowest": lowest,
        "highest": highest,
        "turns": turns,
        "rope": 0.5 if dark else -0.5,
        **camera_parameters(attributes["camera"], dice),
        **landscape_parameters(*LANDSCAPES[background], dice.uniform()),
        **colour_parameters(attributes["colour"], dice),
        **colour_parameters(background.split()[1] if plain else "white", dice, "plain"),
    }


def place(canvas: Canvas, parameters: Parameters) -> Tensor:
    """Return x, y, turn (radians) and size of the object, (n, 4, 1, 1)."""
    u = canvas.progress
    size = parameters["size"] + (parameters["size_end"] - parameters["size"]) * u
    extent = torch.maximum(parameters["size"], parameters["size_end"]) * parameters["extent"]
    free_x, free_y = canvas.half_width - extent, canvas.half_height - extent

    reach_x = torch.minimum(parameters["travel_x"].abs() * canvas.half_width, free_x)
    reach_y = torch.minimum(parameters["travel_y"].abs() * canvas.half_height, free_y)
    path = 2.0 * u - 1.0
    x = parameters["travel_x"].sign() * reach_x * path + parameters["offset_x"] * (free_x - reach_x)
    y = parameters["travel_y"].sign() * reach_y * path + parameters["offset_y"] * (free_y - reach_y)

    cycle = parameters["periods"] * u + parameters["phase"]
    fall = cycle - torch.floor(cycle)
    low = -parameters["lowest"] * free_y
    bounce = low + (parameters["highest"] * free_y - low) * 4.0 * fall * (1.0 - fall)
    y = torch.where(parameters["bouncing"] > 0, bounce, y)

    # The pendulum hangs from the middle of the upper edge.
    rope = canvas.half_height + 0.55 * parameters["lowest"] * free_y
    widest = torch.asin((0.9 * free_x / rope).clamp(0.0, 0.8))
    angle = widest * torch.sin(cycle * (2.0 * math.pi))
    swinging = parameters["swinging"] > 0
    x = torch.where(swinging, rope * torch.sin(angle), x)
    y = torch.where(swinging, canvas.half_height - rope * torch.cos(angle), y)
    turn = torch.where(swinging, angle, parameters["turns"] * (2.0 * math.pi) * u)
    return torch.stack(torch.broadcast_tensors(x, y, turn, size), 1)


def _silhouette(shape: float, canvas: Canvas, parameters: Parameters) -> Tensor:
    """Coverage of the shape and of its left half, (n, 2, h, w)."""
    x, y, turn, size = canvas.layers["place"].unbind(1)
    x, y = sdf.rotate(canvas.x - x, canvas.y - y, turn)
    name = SHAPES[int(shape)]
    if name == "square":
        half = size * (EXTENT[name] / math.sqrt(2))
        distance = sdf.box(x, y, half, half)
    else:
        distance = {"ball": sdf.circle, "triangle": sdf.triangle, "star": sdf.star}[name](x, y, size * EXTENT[name])
    alpha = canvas.cover(distance)
    half = canvas.cover(x) if any(parameters.listed("turns")) else alpha
    return torch.stack([alpha, half.expand_as(alpha)], 1)


def _draw(canvas: Canvas, parameters: Parameters) -> None:
    draw_landscape(canvas, parameters)
    canvas.layers["place"] = place(canvas, parameters)
    if any(parameters.listed("swinging")):
        x, y, _, _ = canvas.layers["place"].unbind(1)
        rope = sdf.segment(
            canvas.x, canvas.y, start_x=0.0 * x, start_y=canvas.half_height + 0.1, end_x=x, end_y=y, radius=0.022
        )
        colour = canvas.constant((0.5, 0.5, 0.5)) + parameters["rope"][:, None]
        canvas.paint(canvas.cover(rope) * parameters["swinging"], colour)
    alpha, half = draw_by_kind(canvas, parameters, parameters.listed("shape"), _silhouette).unbind(1)
    colour = parameters.rgb()
    canvas.paint(alpha, colour, "subject")
    if any(parameters.listed("turns")):
        # One half has another tone, so that a turning ball is seen to turn.
        dark = (colour.mean(1, keepdim=True) < -0.8).float()
        tone = (colour + 1.0) * 0.45 - 1.0 + dark * 0.75
        canvas.paint(alpha * half * parameters["turns"].sign().abs(), tone, "surface")


def _background_phrases() -> dict[str, tuple[str, ...]]:
    phrases = {
        f"plain {name}": (
            f"in front of a plain {name} background",
            f"on a plain {name} background",
            f"against a plain {name} background",
            f"over a {name} background",
        )
        for name in COLOURS
    }
    return phrases | {
        "night sky": ("in the night sky", "against the night sky", "in front of a starry night sky"),
        "grass": ("on grass", "over grass", "on the grass", "in a grassy field", "in front of a meadow"),
        "beach at sunset": ("on a beach at sunset", "over the beach at sunset", "in front of a beach at sunset"),
        "snow": ("on snow", "in the snow", "over snow", "in front of a snowy landscape"),
        "ocean": ("over the ocean", "above the sea", "in front of the ocean", "over the sea"),
        "city": ("over a city", "in front of a city skyline", "against the city", "in the city"),
        "street": ("on a street", "in the street", "over a street", "in front of a street"),
    }


def _motion_phrases(form: str) -> dict[str, tuple[str, ...]]:
    """Words for every motion; form "" is the participle, "s" the finite verb."""
    moves = ("moving", "drifting", "gliding", "floating") if not form else ("moves", "drifts", "glides", "floats")
    phrases = {}
    for side in ("left", "right"):
        phrases[f"moving {side}"] = tuple(f"{verb} {way}" for verb in moves for way in (side, f"to the {side}"))

    def pick(pairs):
        return tuple(pair[bool(form)] for pair in pairs)

    phrases["moving up"] = (*(f"{verb} up" for verb in moves), *pick([("rising", "rises"), ("rising up", "rises up")]))
    phrases["moving down"] = (
        *(f"{verb} down" for verb in moves),
        *pick([("falling", "falls"), ("sinking down", "sinks down"), ("falling down", "falls down")]),
    )
    phrases["bouncing"] = pick([("bouncing", "bounces"), ("bouncing up and down", "bounces up and down")])
    phrases["spinning"] = pick(
        [("spinning", "spins"), ("spinning in place", "spins in place"), ("rotating", "rotates")]
    )
    phrases["swinging"] = pick(
        [("swinging on a pendulum", "swings on a pendulum"), ("swinging like a pendulum", "swings like a pendulum")]
    )
    phrases["growing"] = pick(
        [("growing", "grows"), ("growing bigger", "grows bigger"), ("growing larger", "grows larger")]
    )
    phrases["standing still"] = pick(
        [("standing still", "stands still"), ("resting", "rests"), ("staying still", "stays still")]
    )
    return phrases


FAMILY = Family(
    name="shape",
    keywords=("ball", "square", "triangle", "star"),
    attributes={
        "camera": tuple(CAMERA),
        "background": BACKGROUNDS,
        "motion": MOTIONS,
        "colour": tuple(COLOURS),
        "shape": SHAPES,
    },
    templates=(
        "a {colour} {shape} {motion} {background}{camera}",
        "a {colour} {shape} {motion} {background}{camera}",
        "a {colour} {shape} {motion.s} {background}{camera}",
        "the {colour} {shape} {motion.s} {background}{camera}",
        "a {colour} {shape} that {motion.s} {background}{camera}",
        "{background}, a {colour} {shape} {motion.s}{camera}",
        "a {colour} {shape} {background}, {motion}{camera}",
    ),
    phrases={
        "camera": CAMERA,
        "background": _background_phrases(),
        "motion": _motion_phrases(""),
        "motion.s": _motion_phrases("s"),
        "colour": {name: (name,) for name in COLOURS},
        "shape": {name: (name,) for name in SHAPES},
    },
    synonyms={
        "background": {
            "night sky": ("night", "starry sky", "stars"),
            "grass": ("grass", "meadow", "field"),
            "beach at sunset": ("beach", "sunset"),
            "snow": ("snow", "snowy"),
            "ocean": ("ocean", "sea", "water"),
            "city": ("city", "skyline"),
            "street": ("street", "road"),
            **{f"plain {name}": (f"{name} background", f"plain {name}") for name in COLOURS},
        },
        "motion": {
            "moving left": ("from right to left", "to the left", "left"),
            "moving right": ("from left to right", "to the right", "right"),
            "moving up": ("upwards", "up"),
            "moving down": ("downwards", "down"),
            "bouncing": ("bounce", "jumping", "jumps"),
            "spinning": ("spin", "turning", "turns"),
            "swinging": ("pendulum", "swinging", "swings"),
            "growing": ("grow", "getting bigger"),
            "standing still": ("still", "stationary"),
        },
        "shape": {"ball": ("circle", "sphere", "balls"), "square": ("cube", "box"), "star": ("stars",)},
        "colour": {"purple": ("violet",)},
    },
    parameters=_parameters,
    draw=_draw,
    allowed=_allowed,
    unhashed=("camera",),
    defaults={"camera": "static"},
    optional={"background": 0.04},
    weights={"camera": {"static": 10.0}},
    derived=_derived,
)
