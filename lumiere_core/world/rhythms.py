"""A narrower world in which nothing but a rhythm has to be found: what Lumiere's figure 2 is about.

One ball or square in front of black, which bounces or swings. In the whole world a word has a usual rhythm, so that the
caption and a frame's place in the clip say where the object is; here no word tells how fast it moves or where it
begins, and every second rhythm or so is too fast for pictures that are eight frames apart.

Narrower still, for networks that learn for minutes: what bounces in one of four tempi, from the same place; no word tells
which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from .canvas import CLIP_SECONDS
from .caption import caption_dice, write_caption
from .dice import Dice, hash_text
from .families import FAMILIES
from .families.shapes import USUAL, place
from .scene import Scene, scene_from_caption

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("ball", "square")
MOTIONS = ("bouncing", "swinging")
BACKGROUND = "plain black"
SLOWEST, FASTEST = 2.5, 12.0  # periods in a clip of 80 frames: 32 to 6.7 frames each
# Periods in a clip of the narrower world. On every eighth frame 3 and 7 are the same, while 5 and 9 are like no other.
TEMPI = (3.0, 5.0, 7.0, 9.0)
ALIKE = {"size": 0.26, "lowest": 1.0, "highest": 0.9, "offset_x": 0.0}  # of all its scenes


def rhythm_scene(seed: int, motions: Sequence[str] = MOTIONS) -> Scene:
    """Draw the scene of a seed: periods log-uniform, any phase."""
    dice = Dice(seed, hash_text("rhythms"))
    said = {
        "camera": "static",
        "background": BACKGROUND,
        "motion": dice.choice(motions),
        "colour": dice.choice(COLOURS),
        "shape": dice.choice(SHAPES),
    }
    scene = scene_from_caption(write_caption(FAMILIES["shape"], said, caption_dice(seed)), seed)
    periods = SLOWEST * math.exp(dice.uniform() * math.log(FASTEST / SLOWEST))
    parameters = scene.parameters | {"periods": periods, "phase": dice.uniform()}
    return Scene(scene.family, scene.caption, scene.attributes, parameters=parameters, seed=seed)


def tempo_scene(seed: int, tempo: float | None = None) -> Scene:
    """Draw the scene of a seed in which something bounces, dropped from its highest place as the clip begins.

    Args:
        tempo: periods in a clip; None = one of TEMPI.
    """
    scene, drawn = rhythm_scene(seed, ("bouncing",)), Dice(seed, hash_text("tempi")).choice(TEMPI)
    rhythm = {"periods": drawn if tempo is None else tempo, "phase": USUAL["bouncing"][1]}
    return replace(scene, parameters=scene.parameters | ALIKE | rhythm)


def courses(scene: Scene, periods: Tensor, phases: Tensor, frames: Tensor) -> Tensor:
    """Return where the object of a scene were along its motion if it had other rhythms, in sides of a square frame.

    From the left for a swing, from the top for a bounce. (n, t).

    Args:
        periods: (n,) in a clip; phases: (n,) at its beginning, in periods.
        frames: (t,) numbers of frames, 16 a second.
    """
    values = {name: torch.tensor(value).view(1, 1, 1) for name, value in scene.parameters.items()}
    values |= {"periods": periods.view(-1, 1, 1), "phase": phases.view(-1, 1, 1)}
    progress = frames.view(1, 1, -1) / (CLIP_SECONDS * 16.0)
    x, y, _, _ = place(SimpleNamespace(progress=progress, half_width=1.0, half_height=1.0), values).unbind(1)
    return ((1 + x) / 2 if scene.attributes["motion"] == "swinging" else (1 - y) / 2)[:, 0]
