"""`evaluate loop`: is a clip that was made as a loop (`closed`) as smooth from its last frame to its first as elsewhere?"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from datetime import datetime, timezone

from torch import Tensor

from ..files import Record
from ..measures.steadiness import changes, loop_ratio
from ..measures.walk import change
from .cases import Case, mini_cases
from .clips import ClipMaker, mean_levels
from .table import Bar

CASES = 16
SMOOTH = 1.2  # of the median change
LEAST = 1e-3  # levels that a change counts as at least


class Loop:
    """Cases, measurement and bars of the evaluation."""

    title = "loops of lumiere-mini"
    tolerances = {"seam": 0.3}
    notes = (
        "Seam: the change from the last frame to the first over the median change from frame to frame. The way in which "
        "the places of a loop go there and back was chosen on three prompts of the tuning split."
    )

    def __init__(self, options: argparse.Namespace) -> None:
        self.clips = ClipMaker(options)
        self.run = {**self.clips.run, "loops": 1}

    def cases(self) -> list[Case]:
        cases = mini_cases("reporting")
        return cases[:: len(cases) // CASES][:CASES]

    def measure(self, case: Case) -> Record:
        """Make the clip of a case as a loop and as ever."""
        plain = self.clips.make(case.id, case.prompt, case.seed)
        maker = self.clips
        request = replace(maker.request, closed=True)
        closed = maker.make(f"{case.id}-closed", case.prompt, case.seed, request)
        seams = {"closed": seam(closed.frames), "as ever": seam(plain.frames)}
        return {
            "case": case.id,
            "prompt": case.prompt,
            "seed": case.seed,
            **self.run,
            "sha256": maker.sha256,
            "device": closed.device,
            "seconds": closed.seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": {},
            "right": {},
            "seam": seams,
            "levels": mean_levels(closed.frames),
        }

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked of the loops, with clips that are none beside it."""
        closed, plain = ([r["seam"][kind] for r in records] for kind in ("closed", "as ever"))
        smooth = sum(value <= SMOOTH for value in closed)
        mean = statistics.mean(closed)
        return [
            Bar("loops", f">= {CASES}", str(len(closed)), len(closed) >= CASES),
            Bar(
                "seam, mean",
                f"<= {SMOOTH}",
                f"{mean:.2f}",
                held=mean <= SMOOTH,
                note=f"as ever {statistics.mean(plain):.2f}",
            ),
            Bar(f"  loops with a seam <= {SMOOTH}", "", f"{smooth}/{len(closed)}"),
            Bar("  worst seam", "", f"{max(closed):.2f}", note=f"as ever {max(plain):.2f}"),
        ]


def seam(frames: Tensor) -> float:
    """Return the change from the last frame of (t, h, w, 3) uint8 to the first over the median change between frames."""
    back = change(frames[-1].movedim(-1, 0).float(), frames[0].movedim(-1, 0).float())
    return round(loop_ratio(changes(frames), back, LEAST), 3)
