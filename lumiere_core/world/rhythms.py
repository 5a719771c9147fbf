"""A narrower world in which nothing but a rhythm has to be found: what Lumiere's figure 2 is about.

One ball or square in front of black, which bounces or swings. In the whole world a word has a usual rhythm, so that the
caption and a frame's place in the clip say where the object is; here no word tells how fast it moves or where it
begins, and every second rhythm or so is too fast for pictures that are eight frames apart.
"""

from __future__ import annotations

import math

from .caption import caption_dice, write_caption
from .dice import Dice, hash_text
from .families import FAMILIES
from .scene import Scene, scene_from_caption

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("ball", "square")
MOTIONS = ("bouncing", "swinging")
BACKGROUND = "plain black"
SLOWEST, FASTEST = 2.5, 12.0  # periods in a clip of 80 frames: 32 to 6.7 frames each


def rhythm_scene(seed: int) -> Scene:
    """Draw the scene of a seed: periods log-uniform, any phase."""
    dice = Dice(seed, hash_text("rhythms"))
    said = {
        "camera": "static",
        "background": BACKGROUND,
        "motion": dice.choice(MOTIONS),
        "colour": dice.choice(COLOURS),
        "shape": dice.choice(SHAPES),
    }
    scene = scene_from_caption(write_caption(FAMILIES["shape"], said, caption_dice(seed)), seed)
    periods = SLOWEST * math.exp(dice.uniform() * math.log(FASTEST / SLOWEST))
    parameters = scene.parameters | {"periods": periods, "phase": dice.uniform()}
    return Scene(scene.family, scene.caption, scene.attributes, parameters=parameters, seed=seed)
