"""The cases of `evaluate conditioning`: held-out scenes of one object, and what is known of each task's clip.

t - frames, h, w - pixels; clips are (1, 3, t, h, w) in [-1, 1], masks (1, 1, t, h, w), 1 = known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clips.conditioning import Condition, cinemagraph, inpaint, key_frames
from ..clips.framing import grown
from ..world import FAMILIES, Scene, render_clip, scene_from_caption
from ..world.dice import hash_text
from .cases import mini_cases, reworded

EACH = 32  # cases of each task
STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # denoise of the SDEdit curve
GROW = 3  # pixels that a region is wider than its object
BORDER = 12  # pixels made up at the left and the right of 64
TASKS = ("first frame", "first and last", "inpaint", "outpaint", "cinemagraph", "sdedit")


@dataclass(frozen=True)
class ConditionCase:
    """One clip that is wanted: what the source shows, and what the prompt asks for."""

    id: str
    task: str
    prompt: str  # of the clip that is made
    source: str  # caption of the clip or picture that is given
    scene_seed: int
    seed: int  # of the sample
    denoise: float = 1.0

    @property
    def given(self) -> Scene:
        """The scene that is given, and true for what is known."""
        return scene_from_caption(self.source, self.scene_seed)

    @property
    def wanted(self) -> Scene:
        """The scene that the prompt asks for."""
        return scene_from_caption(self.prompt, self.scene_seed)


def condition_cases(split: str) -> list[ConditionCase]:
    """At least EACH cases of every task, of one of SPLITS; SDEdit has eight of each strength."""
    sources = [case for case in mini_cases(split) if case.scene.family == "shape"]
    cases = []
    for task in TASKS:
        moving = [c for c in sources if c.scene.attributes["motion"] != "standing still"]
        pool = moving if task == "cinemagraph" else sources
        count = 8 * len(STRENGTHS) if task == "sdedit" else EACH
        for index in range(count):
            source = pool[index % len(pool)]
            prompt = source.prompt
            if task in ("inpaint", "sdedit"):
                prompt = recoloured(source.scene, index)
            strength = STRENGTHS[index % len(STRENGTHS)] if task == "sdedit" else 1.0
            digest = hash_text(f"{task}|{index}|{source.prompt}|{prompt}|{strength}")
            name = f"{task.replace(' ', '-')}-{index:02d}-{digest % 16**6:06x}"
            cases.append(
                ConditionCase(
                    name,
                    task,
                    prompt=prompt,
                    source=source.prompt,
                    scene_seed=source.scene_seed,
                    seed=2000 + index,
                    denoise=strength,
                )
            )
    return cases


def recoloured(scene: Scene, index: int) -> str:
    """A caption of the same scene with its object in another colour that the world allows there."""
    family = FAMILIES[scene.family]
    attributes = {name: scene.attributes[name] for name in family.attributes}
    others = [
        attributes | {"colour": colour}
        for colour in family.attributes["colour"]
        if colour != attributes["colour"] and family.allowed(attributes | {"colour": colour})
    ]
    chosen = others[hash_text(f"colour|{index}|{scene.caption}") % len(others)]
    return reworded(scene, chosen)


def truth(case: ConditionCase, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The given scene's own clip (1, 3, t, h, w), and the coverage of its object (t, h, w)."""
    clip, cover = render_clip(case.given, frames, 16.0, height=height, width=width, masks=True)
    return clip[None], cover[0]


def condition_of(case: ConditionCase, clip: Tensor, cover: Tensor) -> Condition | None:
    """What is known of the (1, 3, t, h, w) clip that a case asks for; None for SDEdit. `cover` is (t, h, w)."""
    frames, (height, width) = clip.shape[2], clip.shape[3:]
    if case.task == "first frame":
        return key_frames(clip[:, :, :1], [0], frames)
    if case.task == "first and last":
        return key_frames(clip[:, :, [0, -1]], [0, -1], frames)
    if case.task == "outpaint":
        known = torch.ones(1, 1, 1, height, width)
        border = round(BORDER * width / 64)
        known[..., :border], known[..., width - border :] = 0, 0
        return inpaint(clip, known)
    region = grown((cover > 0.05).float(), max(1, round(GROW * width / 64)))
    if case.task == "inpaint":
        return inpaint(clip, 1 - region[None, None])
    if case.task == "cinemagraph":
        return cinemagraph(clip[:, :, 0], 1 - region.amax(0)[None, None], frames)
    return None
