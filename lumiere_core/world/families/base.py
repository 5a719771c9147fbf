"""What a scene family is: its attributes, its words and how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..canvas import Canvas, Parameters
from ..dice import Dice

Attributes = dict[str, str]
Phrases = Mapping[str, tuple[str, ...]]  # attribute value -> ways to say it

SUNNY = {"day": ("", "on a sunny day", "by day"), "sunset": ("at sunset", "at dusk"), "night": ("at night", "by night")}
DAYLIGHT = {"night": 0.0, "sunset": 1.0, "day": 2.0}
CAMERA = {
    "static": ("",),
    "pan left": (", the camera pans left", ", camera panning left"),
    "pan right": (", the camera pans right", ", camera panning right"),
    "zoom in": (", the camera zooms in", ", zoom in"),
    "zoom out": (", the camera zooms out", ", zoom out"),
}


def _always(attributes: Attributes) -> bool:
    return True


@dataclass(frozen=True)
class Family:
    """One kind of scene.

    `phrases` is keyed by slot: an attribute's name, or "name.form" for another grammatical form of
    it; `templates` are captions with such slots in braces. `draw` paints the canvas and says which
    strokes are the main object.
    """

    name: str
    keywords: tuple[str, ...]  # a caption with one of these words is of this family
    attributes: Mapping[str, tuple[str, ...]]
    templates: tuple[str, ...]
    phrases: Mapping[str, Phrases]
    parameters: Callable[[Attributes, Dice], dict[str, float]]
    draw: Callable[[Canvas, Parameters], None]
    allowed: Callable[[Attributes], bool] = _always
    weak_keywords: tuple[str, ...] = ()  # the same where no family has a keyword in the caption
    unhashed: tuple[str, ...] = ()  # attributes that the held-out split does not look at
    defaults: Mapping[str, str] = field(default_factory=dict)  # meant when not said; else random
    optional: Mapping[str, float] = field(default_factory=dict)  # chance to leave it unsaid
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of values; else even
    synonyms: Mapping[str, Phrases] = field(default_factory=dict)  # understood, never written
    derived: Callable[[Attributes], Attributes] | None = None  # attributes that follow from others


def camera_parameters(camera: str, dice: Dice) -> dict[str, float]:
    """`pan`: sideways path of the camera in frames per clip; `zoom`: log of the magnification."""
    pan, zoom = dice.uniform(0.38, 0.5), dice.uniform(0.5, 0.7)
    return {
        "pan": {"pan left": -pan, "pan right": pan}.get(camera, 0.0),
        "zoom": {"zoom in": zoom, "zoom out": -zoom}.get(camera, 0.0),
    }


def travel(canvas: Canvas, parameters: Parameters, extent: float) -> Tensor:
    """Sideways position of an object that crosses `travel` of the frame, (n, 1, 1).

    `direction` is -1 (left) or 1 (right), `offset` in [-1, 1] places the path in the room left over
    by `extent`, the object's half width.
    """
    free = canvas.half_width - extent
    reach = (parameters["travel"] * canvas.half_width).clamp_max(max(free, 0.0))
    path = reach * parameters["direction"] * (2.0 * canvas.progress - 1.0)
    return path + parameters["offset"] * (free - reach)


def travel_parameters(direction: str, dice: Dice, low: float = 0.36, high: float = 0.6):
    return {
        "direction": 1.0 if direction == "right" else -1.0,
        "travel": dice.uniform(low, high),
        "offset": dice.uniform(-0.8, 0.8),
    }


FREE = 0.1  # of the scenes have a tempo and a first phase of their own


def rhythm(periods: float, phase: float, usual: float, start: float = 0.0) -> tuple[float, float]:
    """Return periods in a clip, and the phase at its beginning, of what moves back and forth.

    No caption tells either, and a clip that is made from noise must settle on one of them over all of its frames. So the
    word has a usual way, as "moving left" has: `usual` periods, within 2 %, from the phase `start`. One scene in ten is free, so
    that a given picture may show any moment.

    Args:
        periods, phase: drawn for a free scene; phase in [0, 1) also chooses which scenes are free.
        usual: periods in a clip. start: phase at its beginning.
    """
    if phase < FREE:
        return periods, start + phase / FREE
    share = (phase - FREE) / (1.0 - FREE)
    return usual * (0.98 + 0.04 * share), start


def cycle_parameters(periods: float, phase: float, usual: float) -> dict[str, float]:
    """`periods` and `phase` (radians) of a scene, see `rhythm`."""
    periods, phase = rhythm(periods, phase, usual)
    return {"periods": periods, "phase": phase * 2.0 * math.pi}


def cycle(canvas: Canvas, parameters: Parameters) -> Tensor:
    """Phase of the scene's rhythm in radians, (n, 1, 1)."""
    return 2.0 * math.pi * parameters["periods"] * canvas.progress + parameters["phase"]
