"""The procedural world: scenes with captions, attributes and exact masks.

It is the data that the small model is trained on, the data it is tested on and the oracle that
measures what a model drew. See families/ for what there is to see.
"""

from .backgrounds import BACKGROUNDS
from .canvas import CLIP_SECONDS
from .families import FAMILIES
from .families.shapes import MOTIONS, SHAPES
from .palette import COLOURS, colour_mask
from .render import render_clip, render_frames
from .rhythms import rhythm_scene, tempo_scene
from .scene import Scene, attribute_labels, is_held_out, recaption, sample_scene, scene_from_caption

__all__ = [
    "BACKGROUNDS",
    "CLIP_SECONDS",
    "COLOURS",
    "FAMILIES",
    "MOTIONS",
    "SHAPES",
    "Scene",
    "attribute_labels",
    "colour_mask",
    "is_held_out",
    "recaption",
    "render_clip",
    "render_frames",
    "rhythm_scene",
    "sample_scene",
    "scene_from_caption",
    "tempo_scene",
]
