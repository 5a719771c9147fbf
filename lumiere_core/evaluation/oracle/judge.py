"""All that the oracle has to say on one clip.

t - frames, h, w - pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ...clips.video import to_uint8
from ...measures.steadiness import flicker
from ...world import FAMILIES, Scene, render_clip
from .appearance import appearance_of
from .families import name_family
from .gait import RANGES, signal_of
from .motion import direction_of, name_motion
from .periodic import LOST, phase_error
from .silhouette import SYMMETRY, outline, two_tone_angle
from .track import NONE, Track, follow, outside

FITS = 0.85  # overlap with a template from which on an object is of the shape family by its outline
SCATTERED = ("fireworks", "swaying flowers")  # families whose object is many pieces
LEVEL = 1.0  # levels of 255: what rounding to bytes may change in a background that stands still
BRIGHTER = 0.08  # change of the mean level, in shares of white, that a rising sun makes at least


@dataclass
class Verdict:
    """What is seen, by attribute, and the numbers measured on the way."""

    seen: dict[str, str] = field(default_factory=dict)
    measures: dict[str, object] = field(default_factory=dict)

    def right(self, scene: Scene) -> dict[str, bool]:
        """For each attribute that was looked at, whether it is what the scene's caption asks for."""
        asked = {"family": scene.family} | scene.attributes
        return {name: value == asked[name] for name, value in self.seen.items() if asked[name] != NONE}


def judge(frames: Tensor, scene: Scene, fps: float = 16.0) -> Verdict:
    """Look at a clip that was asked for by a scene's caption.

    Args:
        frames: (t, h, w, 3) uint8.
    """
    verdict = Verdict()
    verdict.seen["family"], verdict.measures["family_odds"] = name_family(frames)
    appearance = appearance_of(scene, *frames.shape[1:3])
    if appearance is not None:
        track = follow(frames, appearance, scene.family not in SCATTERED)
        verdict.seen["colour"] = track.colour
        verdict.measures["found"] = round(float(track.found.mean()), 3)
        if scene.family == "shape":
            _judge_shape(verdict, frames, track)
            _judge_flicker(verdict, frames, track, scene=scene, fps=fps)
        elif "direction" in FAMILIES[scene.family].attributes:
            verdict.seen["direction"] = direction_of(track)
        kind = periodic_kind(scene)
        if kind:
            verdict.measures["phase_error"] = _phase_error(kind, track)
    if scene.family == "sunrise":
        verdict.seen["motion"] = _sun(frames)
    return verdict


def periodic_kind(scene: Scene) -> str | None:
    """bouncing, swinging or walking for the scenes whose period is measured."""
    if scene.family == "walking figure":
        return "walking"
    motion = scene.attributes["motion"]
    return motion if scene.family == "shape" and motion in RANGES else None


def _judge_shape(verdict: Verdict, frames: Tensor, track: Track) -> None:
    if not track.there:
        verdict.seen |= {"shape": NONE, "motion": NONE}
        return
    shape = outline(track)
    angle, contrast = two_tone_angle(frames, track)
    symmetry = SYMMETRY.get(shape.shape, 360)
    motion = name_motion(track, angle, contrast, outline_angle=shape.angle, symmetry=symmetry)
    verdict.seen |= {"shape": shape.shape, "motion": motion.name}
    if max(shape.overlap.values()) >= FITS:
        verdict.seen["family"] = "shape"
    verdict.measures |= {"overlap": shape.overlap, "net": motion.net, "growth": motion.growth, "turns": motion.turns}


def _judge_flicker(verdict: Verdict, frames: Tensor, track: Track, scene: Scene, fps: float) -> None:
    """Against the real clip of the same scene, each outside its own object."""
    count, height, width = frames.shape[:3]
    clip, mask = render_clip(scene, count, fps, height=height, width=width, masks=True)
    hanging = scene.attributes["motion"] == "swinging"
    real = flicker(to_uint8(clip), outside(mask[0].numpy() > 0.05, hanging))
    own = flicker(frames, outside(track.masks, hanging))
    verdict.measures |= {
        "flicker": round(own, 3),
        "real_flicker": round(real, 3),
        "flicker_ratio": round(flicker_ratio(own, real), 3),
    }


def flicker_ratio(generated: float, real: float) -> float:
    """Flicker against the real clip's; most real backgrounds are exactly still, hence the floor."""
    return generated / max(real, LEVEL)


def _phase_error(kind: str, track: Track) -> float:
    if not track.there:
        return LOST
    return round(phase_error(signal_of(kind, track), *RANGES[kind]), 3)


def _sun(frames: Tensor) -> str:
    """The sky lightens as the sun rises and darkens as it sets."""
    level = frames.float().mean((1, 2, 3)).numpy() / 255
    part = max(1, len(level) // 10)
    change = float(np.mean(level[-part:]) - np.mean(level[:part]))
    if abs(change) < BRIGHTER:
        return NONE
    return "rising" if change > 0 else "setting"
