"""`evaluate mini`: does lumiere-mini draw what held-out prompts of the world ask for?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import datetime, timezone

from ..files import Record
from .cases import Case, mini_cases
from .clips import ClipMaker, mean_levels
from .oracle import judge, oracle_version
from .oracle_check import GROUPS, KEPT, accuracy_on_real_clips
from .table import Bar, share_bar

STILL = 1.3  # flicker over the real clip's
LEAST_CASES = 128
TRAINED = 64  # pixels, lumiere-mini's clips
NOTES = {
    "reporting": "Nothing was chosen on these prompts.",
    "tuning": "The mix of the temporal layers was chosen on 13 of these prompts, where guidance ends on 33.",
}
LARGER = "Its clips, averaged 2x2, are those that lumiere-mini makes of the same noise; a seed's noise is another one at this size."
WANTED = {
    "colour right": 0.95,
    "shape right": 0.90,
    "motion right": 0.90,
    "scene family right": 0.95,
    "period kept": 0.90,
}
SPINS = 0.75  # of the motions the one that a small picture shows worst


class Mini:
    """Cases, measurement and bars of the evaluation."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.clips, self.split = ClipMaker(options), options.split
        name = options.weights if str(options.weights).startswith("lumiere-mini") else "lumiere-mini"
        self.title = f"{name} on held-out prompts of the procedural world, {self.split} split"
        self.notes = f"{NOTES[self.split]} {LARGER}" if self.clips.request.height > TRAINED else NOTES[self.split]
        self.run = {**self.clips.run, "oracle": oracle_version()}

    def cases(self) -> list[Case]:
        return mini_cases(self.split)

    def measure(self, case: Case) -> Record:
        """Make the clip of a case and judge it."""
        clip = self.clips.make(case.id, case.prompt, case.seed)
        scene = case.scene
        verdict = judge(clip.frames, scene)
        return {
            "case": case.id,
            "prompt": case.prompt,
            "family": scene.family,
            "motion": scene.attributes["motion"],
            "seed": case.seed,
            **self.run,
            "sha256": self.clips.sha256,
            "device": clip.device,
            "seconds": clip.seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": verdict.seen,
            "right": verdict.right(scene),
            **verdict.measures,
            "levels": mean_levels(clip.frames),
        }

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked of the model, with how well the oracle does on real clips beside it."""
        real = accuracy_on_real_clips()
        count = len(records)
        bars = [Bar("held-out prompts", f">= {LEAST_CASES}", str(count), count >= LEAST_CASES)]
        groups = {name: right_answers(records, *keys) for name, keys in GROUPS.items()}
        groups["period kept"] = kept_periods(records)
        for name, answers in groups.items():
            note = f"oracle on real clips: {real[name]}" if name in real else ""
            bars.append(share_bar(name, answers, WANTED[name], note))
            if name == "motion right":
                spins = [r for r in records if r["family"] == "shape" and r["motion"] == "spinning"]
                bars.append(share_bar("  spins right", right_answers(spins, "motion"), SPINS))
        return [*bars, flicker_bar(records), *details(records)]


def right_answers(records: Iterable[Record], *names: str, key: str = "right") -> list[bool]:
    """Right or wrong for every attribute of these names that a prompt asks for."""
    return [bool(r[key][name]) for r in records for name in names if name in r[key]]


def kept_periods(records: Iterable[Record]) -> list[bool]:
    """For every periodic clip, whether its phase at the end is off by less than a quarter period."""
    return [float(r["phase_error"]) < KEPT for r in records if "phase_error" in r]


def flicker_bar(records: list[Record]) -> Bar:
    """Mean over the clips of the flicker of the background against the real clip's."""
    ratios = sorted(float(r["flicker_ratio"]) for r in records if "flicker_ratio" in r)
    name, wanted = "background flicker over real", f"<= {STILL}"
    if not ratios:
        return Bar(name, wanted, "no cases", False)
    mean = sum(ratios) / len(ratios)
    note = f"median {ratios[len(ratios) // 2]:.2f}"
    return Bar(name, wanted, f"{mean:5.2f} (mean of {len(ratios)})", held=mean <= STILL, note=note)


def details(records: list[Record]) -> list[Bar]:
    """What stands behind the bars."""
    shapes = [r for r in records if r["family"] == "shape"]
    others = [r for r in records if r["family"] != "shape"]
    bars = [
        share_bar("  colour, shapes", right_answers(shapes, "colour")),
        share_bar("  colour, other scenes", right_answers(others, "colour")),
        share_bar("  direction, other scenes", right_answers(others, "motion", "direction")),
    ]
    for title, key, group, attribute in (
        ("motion", "motion", shapes, "motion"),
        ("scene family", "family", records, "family"),
        ("period", "motion", [r for r in shapes if "phase_error" in r], None),
        ("period", "family", [r for r in others if "phase_error" in r], None),
    ):
        for value in sorted({str(r[key]) for r in group}):
            mine = [r for r in group if r[key] == value]
            answers = right_answers(mine, attribute) if attribute else kept_periods(mine)
            bars.append(share_bar(f"  {title}: {value}", answers))
    still = [float(r["flicker_ratio"]) <= STILL for r in records if "flicker_ratio" in r]
    bars.append(share_bar(f"  clips with flicker <= {STILL}", still))
    return bars
