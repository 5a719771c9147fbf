"""`evaluate oracle`: how often is the oracle itself right, on real clips and on spoilt ones?"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from ..clips.video import to_uint8
from ..files import Record
from ..world import Scene, render_clip, scene_from_caption
from ..world.dice import hash_text
from .cases import Case, mini_cases
from .oracle import judge, oracle_version
from .store import Store
from .table import Bar, share_bar

RESULTS = Path(__file__).parent / "results" / "oracle.jsonl"
FRAMES, SIDE = 80, 64
NOISE = 0.12  # standard deviation of the noise of a worn clip, in [-1, 1]
KEPT = 0.25  # phase error at the end, in periods, under which a period was kept
LEAST = 0.97  # share of right answers that is asked of the oracle itself
GROUPS = {  # line of the table -> attributes that it counts
    "colour right": ("colour",),
    "shape right": ("shape",),
    "motion right": ("motion", "direction"),
    "scene family right": ("family",),
}
SPOILT = ("another prompt's clip", "frozen", "shuffled", "reversed")


class OracleCheck:
    """Real clips of the held-out prompts, clean, worn and spoilt."""

    title = "The oracle on real clips of the procedural world (held-out split)"

    def __init__(self, options: argparse.Namespace | None = None) -> None:
        self.run = {"frames": FRAMES, "size": [SIDE, SIDE], "oracle": oracle_version()}
        self._cases = mini_cases("reporting")

    def cases(self) -> list[Case]:
        return self._cases

    def measure(self, case: Case) -> Record:
        # Another seed than the one that `evaluate mini` compares flicker with.
        scene = real_scene(case)
        clip = real_clip(scene)
        clean, worn = judge(clip, scene), judge(wear(clip, case.seed), scene)
        index = next(i for i, other in enumerate(self._cases) if other.id == case.id)
        kind = SPOILT[index % len(SPOILT)]
        return {
            "case": case.id,
            "prompt": case.prompt,
            "family": scene.family,
            **self.run,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": clean.seen,
            "right": clean.right(scene),
            **clean.measures,
            "worn": worn.right(scene),
            "spoilt": kind,
            "rejected": self._rejected(kind, case, clip, scene=scene, index=index),
        }

    def _rejected(self, kind: str, case: Case, clip: Tensor, scene: Scene, index: int) -> list[bool]:
        """Whether what is wrong about a spoilt clip was found wrong, one answer for each thing."""
        if kind == "another prompt's clip":
            other = real_scene(self._cases[(index + 5) % len(self._cases)])
            verdict = judge(real_clip(other), scene)
            asked = {"family": scene.family} | scene.attributes
            shown = {"family": other.family} | other.attributes
            return [not right for name, right in verdict.right(scene).items() if asked[name] != shown[name]]
        spoilt = spoil(clip, kind, case.seed)
        verdict = judge(spoilt, scene)
        right = verdict.right(scene)
        found = [not right[name] for name in ("motion", "direction") if name in right and spoils(kind, scene)]
        if kind != "reversed" and "phase_error" in verdict.measures:
            found.append(float(verdict.measures["phase_error"]) >= KEPT)
        return found

    def bars(self, records: list[Record]) -> list[Bar]:
        bars = [share_bar(name, answers, LEAST) for name, answers in _groups(records).items()]
        found = [x for r in records for x in r["rejected"]]
        bars.append(share_bar("wrong clip found wrong", found, LEAST))
        for kind in SPOILT:
            found = [x for r in records if r["spoilt"] == kind for x in r["rejected"]]
            bars.append(share_bar(f"  {kind}", found))
        for name, keys in GROUPS.items():
            answers = [bool(r["worn"][k]) for r in records for k in keys if k in r["worn"]]
            bars.append(share_bar(f"  {name}, blurred and noisy", answers))
        return bars


def _groups(records: list[Record]) -> dict[str, list[bool]]:
    groups = {
        name: [bool(r["right"][k]) for r in records for k in keys if k in r["right"]] for name, keys in GROUPS.items()
    }
    periods = [float(r["phase_error"]) < KEPT for r in records if "phase_error" in r]
    return groups | {"period kept": periods}


def accuracy_on_real_clips() -> dict[str, str]:
    """Shares that `evaluate oracle` stored for this version of the oracle, as text."""
    records = list(Store(RESULTS).of_run({"oracle": oracle_version()}).values())
    groups = _groups(records)
    return {k: f"{100 * sum(v) / len(v):.1f} % of {len(v)}" for k, v in groups.items() if v}


def real_scene(case: Case) -> Scene:
    return scene_from_caption(case.prompt, hash_text(f"real|{case.id}") % 2**31)


def real_clip(scene: Scene) -> Tensor:
    """(t, h, w, 3) uint8."""
    return to_uint8(render_clip(scene, FRAMES, 16.0, height=SIDE, width=SIDE))


def wear(clip: Tensor, seed: int) -> Tensor:
    """Blur and add noise as a small model's clips have. Frames are (t, h, w, 3) uint8."""
    from .oracle.appearance import smooth

    generator = torch.Generator().manual_seed(seed)
    blurred = smooth(clip.permute(0, 3, 1, 2).float()).permute(0, 2, 3, 1)
    noise = torch.randn(clip.shape, generator=generator) * (NOISE * 127.5)
    return (blurred + noise).round().clamp(0, 255).to(torch.uint8)


def spoil(clip: Tensor, kind: str, seed: int = 0) -> Tensor:
    """Take the motion of a clip away, or turn it round. Frames are (t, h, w, 3) uint8."""
    if kind == "frozen":
        return clip[:1].expand_as(clip).contiguous()
    if kind == "shuffled":
        order = torch.randperm(len(clip), generator=torch.Generator().manual_seed(seed))
        return clip[order]
    if kind == "reversed":
        return clip.flip(0)
    raise ValueError(f"got {kind!r}, want frozen, shuffled or reversed")


def spoils(kind: str, scene: Scene) -> bool:
    """Whether a clip of this scene no longer shows its motion when spoilt in this way."""
    motion = scene.attributes["motion"]
    if kind == "reversed":
        return motion not in ("bouncing", "spinning", "swinging", "standing still")
    return motion != "standing still"
