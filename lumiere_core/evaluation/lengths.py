"""`evaluate lengths`: do clips of lumiere-mini hold at every length?

t - frames, h, w - pixels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..clips.video import to_uint8
from ..files import Record
from ..measures.steadiness import LEAST_CHANGE, changes
from ..world import MOTIONS, Scene, render_clip, scene_from_caption
from ..world.dice import hash_text
from .cases import Case, mini_cases, reworded
from .clips import ClipMaker, mean_levels
from .oracle import NONE, oracle_version
from .oracle.appearance import appearance_of
from .oracle.motion import name_motion
from .oracle.part import SCENE, is_part, name_part
from .oracle.silhouette import SYMMETRY, outline, two_tone_angle
from .oracle.track import SMALLEST, Track, follow
from .oracle_check import LEAST, spoil, spoils
from .table import Bar, share_bar

VERSION = 1  # counted up when a case or a measure changes
EACH = {16: 3, 24: 3, 40: 2, 80: 1, 81: 1}  # clips of each motion, by frames: those that dissolve first, most
REAL = 3  # real clips of each prompt and length that the judge is tried on
FPS = 16.0
RIGHT, PRESENT = 0.85, 0.95
LEFT = 0.5  # of its median area that an object which is still there has in the last tenth
FIRST_STEP = 2.0  # change from the first frame to the second over the median change
OTHER = "another motion"
SPOILT = (OTHER, "frozen", "shuffled", "reversed")
COLUMNS = 8  # frames of a clip on a sheet


@dataclass(frozen=True)
class LengthCase(Case):
    """A prompt of the shape family at a length."""

    frames: int


@dataclass(frozen=True)
class Look:
    """What is seen in a clip."""

    motion: str
    shape: str
    present: bool  # to the end, see `is_present`
    first_step: float

    def right(self, scene: Scene) -> dict[str, bool]:
        return {name: getattr(self, name) == scene.attributes[name] for name in ("motion", "shape")}


class Lengths:
    """Cases, measurement and bars of the evaluation."""

    tolerances = {"first_step": 0.3}
    notes = (
        "A clip of fewer than 80 frames is the beginning of a scene: 16 frames show a fifth of a path. More frames show the "
        "whole scene more slowly. Object to the end: the tracker finds an object of the wanted colour in every frame of the last "
        "tenth, with at least half of its median area. First step: the change from the first frame to the second over the "
        f"median change, mean of the clips; both count as {LEAST_CHANGE} levels at least. The judge of `evaluate mini` knows "
        "whole scenes; shorter clips are judged by how fast the object moves, grows and turns, and by pieces of waves."
    )

    def __init__(self, options: argparse.Namespace) -> None:
        self.clips = ClipMaker(argparse.Namespace(**vars(options), frames=SCENE))
        self._cases = length_cases(options.split)
        self.title = f"clips of lumiere-mini at every length, {options.split} split"
        made = {name: value for name, value in self.clips.run.items() if name != "frames"}
        self.run = {**made, "oracle": oracle_version(), "lengths": VERSION}

    def cases(self) -> list[LengthCase]:
        return self._cases

    def measure(self, case: LengthCase) -> Record:
        """Make the clip of a case and judge it; the judge is tried on real and spoilt clips of the same prompt."""
        clip = self._clip(case)
        scene, (height, width) = case.scene, self.run["size"]
        seen = look(clip.frames, scene)
        real = [real_clip(scene, case.frames, height, width) for scene in real_scenes(case)]
        known = [look(frames, scene) for frames in real]
        return {
            "case": case.id,
            "prompt": case.prompt,
            "motion": scene.attributes["motion"],
            "frames": case.frames,
            **self.run,
            "device": clip.device,
            "seconds": clip.seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": {"motion": seen.motion, "shape": seen.shape},
            "right": seen.right(scene),
            "present": seen.present,
            "first_step": seen.first_step,
            "real": {
                "motion": sum(one.right(scene)["motion"] for one in known),
                "present": sum(one.present for one in known),
                "first_step": round(statistics.fmean(one.first_step for one in known), 2),
            },
            "rejected": rejected(case, real[0]),
            "levels": mean_levels(clip.frames)[:3],
        }

    def _clip(self, case: LengthCase):
        request = replace(self.clips.request, num_frames=case.frames)
        return self.clips.make(case.id, case.prompt, case.seed, request)

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked of the clips of each length, with real clips beside it, and of the judge."""
        bars = []
        for frames, mine in groupby(sorted(records, key=lambda r: r["frames"]), lambda r: r["frames"]):
            bars += length_bars(frames, list(mine))
        for motion in MOTIONS:
            mine = [(r["frames"], r["right"]["motion"]) for r in records if r["motion"] == motion]
            bars.append(length_bar(f"  motion: {motion}", mine))
        real = [answer for r in records for answer in on_real(r, "motion")]
        bars.append(share_bar("judge: motion of real clips right", real, LEAST))
        found = {kind: [(r["frames"], r["rejected"][n]) for r in records] for n, kind in enumerate(SPOILT)}
        found = {kind: [answer for answer in mine if answer[1] is not None] for kind, mine in found.items()}
        every = [right for mine in found.values() for _, right in mine]
        bars.append(share_bar("judge: wrong clips found wrong", every, LEAST))
        return bars + [length_bar(f"  {kind}", mine) for kind, mine in found.items()]

    def write_sheets(self, folder: Path) -> list[Path]:
        """Write a contact sheet of the clips of each length that are kept: a row for each clip."""
        from ..clips.media import contact_sheet, evenly_spaced, save_image

        written = []
        for frames, cases in groupby(self.cases(), lambda case: case.frames):
            kept = [case for case in cases if self.clips.path(case.id).is_file()]
            if kept:
                rows = [self._clip(case).frames[evenly_spaced(frames, COLUMNS)] for case in kept]
                written.append(folder / f"lengths-{frames}.png")
                save_image(contact_sheet(torch.cat(rows), COLUMNS), written[-1])
        return written


def length_cases(split: str) -> list[LengthCase]:
    """The first prompts of each motion, the same ones at each length.

    Args:
        split: see `mini_cases`.
    """
    shapes = [case for case in mini_cases(split) if case.scene.family == "shape"]
    motions = {case: case.scene.attributes["motion"] for case in shapes}
    return [
        LengthCase(f"{case.id}-{frames}", case.prompt, case.scene_seed, seed=case.seed, frames=frames)
        for frames, each in EACH.items()
        for motion in MOTIONS
        for case in [case for case in shapes if motions[case] == motion][:each]
    ]


def real_scenes(case: Case) -> list[Scene]:
    """Scenes of the prompt that differ in all that it does not tell."""
    return [scene_from_caption(case.prompt, hash_text(f"length {n}|{case.id}") % 2**31) for n in range(REAL)]


def real_clip(scene: Scene, frames: int, height: int, width: int) -> Tensor:
    """(t, h, w, 3) uint8, as the model is asked for it: see `training.sources.worlds.WorldClips.seconds`."""
    return to_uint8(render_clip(scene, frames, FPS * max(1.0, frames / SCENE), height=height, width=width))


def look(frames: Tensor, scene: Scene) -> Look:
    """Judge the first frames of a scene of the shape family; (t, h, w, 3) uint8."""
    track = follow(frames, appearance_of(scene, *frames.shape[1:3]))
    step = first_step(frames)
    if not track.there:
        return Look(NONE, NONE, present=False, first_step=step)
    shape = outline(track)
    turned = (*two_tone_angle(frames, track), shape.angle, SYMMETRY.get(shape.shape, 360))
    motion = name_part(track, *turned) if is_part(len(frames)) else name_motion(track, *turned).name
    return Look(motion, shape.shape, present=is_present(track, scene.attributes["colour"]), first_step=step)


def is_present(track: Track, colour: str) -> bool:
    """Whether an object of a colour is found in every frame of the last tenth and has not shrunk to less than LEFT."""
    last = track.area[-max(1, round(len(track.area) / 10)) :]
    whole = float(last.mean()) >= LEFT * float(np.median(track.area))
    return track.colour == colour and bool(np.all(last >= SMALLEST)) and whole


def first_step(frames: Tensor) -> float:
    """Return the change from the first frame to the second over the median change, 1 = as everywhere.

    Frames are (t, h, w, 3) uint8.
    """
    steps = changes(frames)
    return round(max(steps[0], LEAST_CHANGE) / max(statistics.median(steps), LEAST_CHANGE), 2)


def rejected(case: LengthCase, real: Tensor) -> list[bool | None]:
    """For each of SPOILT, whether the judge finds the motion wrong; None where that leaves the motion as it was.

    Args:
        real: clip of the case, (t, h, w, 3) uint8.
    """
    scene, (height, width) = case.scene, real.shape[1:3]
    wrong = [real_clip(other_scene(case), case.frames, height, width)]
    wrong += [spoil(real, kind, case.seed) if spoils(kind, scene) else None for kind in SPOILT[1:]]
    return [None if clip is None else not look(clip, scene).right(scene)["motion"] for clip in wrong]


def other_scene(case: LengthCase) -> Scene:
    """The scene of a case with another motion."""
    others = [motion for motion in MOTIONS if motion != case.scene.attributes["motion"]]
    changed = {"motion": others[hash_text(f"motion|{case.id}") % len(others)]}
    return scene_from_caption(reworded(case.scene, changed), case.scene_seed)


def length_bars(frames: int, records: list[Record]) -> list[Bar]:
    """What is asked of the clips of one length."""
    steps = [float(r["first_step"]) for r in records]
    mean, above = statistics.fmean(steps), sum(step > FIRST_STEP for step in steps)
    real = statistics.fmean(float(r["real"]["first_step"]) for r in records)
    note = f"median {statistics.median(steps):.2f}, above {FIRST_STEP:.0f}: {above}/{len(steps)}; real clips {real:.2f}"
    name = f"{frames} frames:"
    return [
        share_bar(f"{name} motion right", [r["right"]["motion"] for r in records], RIGHT, real_note(records, "motion")),
        share_bar(f"{name} object to the end", [r["present"] for r in records], PRESENT, real_note(records, "present")),
        Bar(f"{name} first step over median", f"<= {FIRST_STEP}", f"{mean:.2f}", held=mean <= FIRST_STEP, note=note),
        share_bar(f"  {name} shape right", [r["right"]["shape"] for r in records]),
    ]


def on_real(record: Record, name: str) -> list[bool]:
    """Right and wrong answers on the real clips of a line."""
    right = int(record["real"][name])
    return [True] * right + [False] * (REAL - right)


def real_note(records: Iterable[Record], name: str) -> str:
    answers = [answer for r in records for answer in on_real(r, name)]
    return f"real clips: {100 * sum(answers) / len(answers):.1f} % of {len(answers)}"


def length_bar(name: str, answers: list[tuple[int, bool]]) -> Bar:
    """Right answers, given with the frames of their clips, at all lengths; those at each are noted."""
    parts = []
    for frames in sorted({frames for frames, _ in answers}):
        mine = [right for length, right in answers if length == frames]
        parts.append(f"{frames}: {sum(mine)}/{len(mine)}")
    return share_bar(name, [right for _, right in answers], note=", ".join(parts))
