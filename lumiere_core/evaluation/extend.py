"""`evaluate extend`: do the colours of a clip that goes on by pieces stay those of its first piece?"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from datetime import datetime, timezone

from torch import Tensor

from ..clips.conditioning import key_frames
from ..clips.video import to_uint8
from ..diffusion.extend import extend
from ..files import Record
from ..measures.drift import apart
from ..measures.region import levels
from .cases import Case, mini_cases
from .clips import ClipMaker, device_name, mean_levels
from .table import Bar

CASES = 4
PIECES, OVERLAP = 4, 20  # of the template: 80 frames and four times 60
LIMIT = 1.2  # drift over all pieces, of that over one
SEEDS = 1_000_003  # as the node's pieces


class Extend:
    """Cases, measurement and bars of the evaluation."""

    title = "clips of lumiere-mini that go on by four pieces"
    tolerances = {"drift": 1.0}
    notes = (
        "Drift: how far mean and contrast (standard deviation) of a piece are from those of the first, in levels of 255, mean "
        "of the three colours. The bar asks that four pieces drift no further than 1.2 times what one does without an anchor."
    )

    def __init__(self, options: argparse.Namespace) -> None:
        self.clips = ClipMaker(options)
        self.run = {**self.clips.run, "pieces": PIECES, "overlap": OVERLAP}

    def cases(self) -> list[Case]:
        cases = mini_cases("reporting")
        return cases[:: len(cases) // CASES][:CASES]

    def measure(self, case: Case) -> Record:
        """Continue the clip of a case with the anchor and without."""
        started = time.monotonic()
        first = self._clip(case, case.seed)
        made = {name: self._continued(case, first, anchor) for name, anchor in (("anchored", 1.0), ("wild", 0.0))}
        drifts = {name: drift(clip, first.shape[2]) for name, clip in made.items()}
        levels = mean_levels(to_uint8(made["anchored"][0]))
        return {
            "case": case.id,
            "prompt": case.prompt,
            "seed": case.seed,
            **self.run,
            "sha256": self.clips.sha256,
            "device": device_name(self.clips.device),
            "seconds": round(time.monotonic() - started, 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": {},
            "right": {},
            "drift": drifts,
            "levels": levels,
        }

    def _clip(self, case: Case, seed: int, known: Tensor | None = None) -> Tensor:
        """Return a (1, 3, t, h, w) clip that begins with what is known."""
        from ..diffusion.generate import generate

        kept: list[Tensor] = []
        request = replace(self.clips.request, prompt=case.prompt, seed=seed)
        condition = None
        if known is not None:
            condition = key_frames(known, range(known.shape[2]), request.num_frames)
        generate(self.clips.models(), request, keep_float=kept.append, known=condition)
        return kept[0].cpu()

    def _continued(self, case: Case, first: Tensor, anchor: float) -> Tensor:
        def sample(number: int, known: Tensor) -> Tensor:
            return self._clip(case, case.seed + (number + 1) * SEEDS, known)

        return extend(first, PIECES, OVERLAP, sample=sample, anchor=anchor)

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked of the colours."""
        bars = [Bar("clips", f">= {CASES}", str(len(records)), len(records) >= CASES)]
        for name in ("mean", "contrast"):
            alone, tame, wild = (
                statistics.mean(r["drift"][kind][piece][name] for r in records)
                for kind, piece in (("wild", "1"), ("anchored", str(PIECES)), ("wild", str(PIECES)))
            )
            limit = LIMIT * alone
            note = f"without an anchor {wild:.2f}, after one piece {alone:.2f}"
            bars.append(Bar(f"drift of the {name}", f"<= {limit:.2f}", f"{tame:.2f}", held=tame <= limit, note=note))
        return bars


def drift(clip: Tensor, frames: int) -> dict[str, dict[str, float]]:
    """Return how far mean and contrast of each piece of (1, 3, t, h, w) in [-1, 1] are from those of the first.

    Args:
        frames: of the first piece.
    """
    first, *rest = (levels(part) for part in (clip[:, :, :frames], *clip[:, :, frames:].split(frames - OVERLAP, dim=2)))
    return {
        str(piece): {name: round(value, 2) for name, value in apart(first, part).items()}
        for piece, part in enumerate(rest, 1)
    }
