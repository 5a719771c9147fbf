"""`evaluate seams`: does super-resolution in windows show where windows meet, and does it beat simple enlargement?

Two measurements a case, both on real clips of the world, made small by the world itself:
- seams: a clip enlarged (a) in windows without overlap, (b) in the host's own context windows, (c) in ours with the
  paper's overlap, (d) in ours, tapered; same model, same noise. A seam is the change between neighbouring frames
  where windows begin or end, over the median change around it.
- truth: a clip enlarged to the trained size, bicubically, frame by frame and with the temporal layers, against the
  world's own large clip: PSNR of the frames, and PSNR of their changes from frame to frame, of the mean error of all clips.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from datetime import datetime, timezone
from statistics import mean

from torch import Tensor

from ..clips.video import from_uint8, to_uint8
from ..diffusion.models import load_upscaler
from ..diffusion.multidiffusion import OVERLAP, plan_windows
from ..diffusion.upscale import NOISES, UpscaleRequest, upscale
from ..files import Record
from ..measures.reference import decibels
from ..measures.steadiness import changes, seam_ratios
from ..nets.ssr import BUNDLED, upsample
from ..world import render_clip
from .cases import Case, mini_cases
from .clips import device_name, mean_levels
from .host_windows import HostWindows
from .store import fingerprint
from .table import Bar

CASES = 32
SEAM_FRAMES, SEAM_SIDE = 32, 24  # of the small clip of the seams: what matters there is time
TRUTH_FRAMES, TRUTH_SIDE = 14, 64
LENGTH = 8  # frames of a window: short, so that a clip has several seams
STEPS = 2
LEAST_GAIN = 2.0  # dB over bicubic
LARGEST_SEAM = 1.10
KINDS = {  # name -> overlap, weighting; None: the host's
    "no overlap": (0, "uniform"),
    "host's context windows": None,
    "ours": (OVERLAP, "uniform"),
    "ours, tapered": (OVERLAP, "tapered"),
}


class Seams:
    """Cases, measurement and bars of the evaluation."""

    tolerances = {"seams": 0.02, "truth": 0.1}  # of a case run again; ratios, and dB
    title = "Super-resolution in windows: seams in time, and distance from the true large clips"
    notes = "The clips are of the tuning split."

    def __init__(self, options: argparse.Namespace) -> None:
        weights = BUNDLED if options.weights == "lumiere-mini" else options.weights
        self.models, parts = load_upscaler(weights, options.device)
        self.device, self.sha256 = options.device, parts.sha256
        self.host = HostWindows(weights)
        self.run: Record = {
            "weights": fingerprint(self.sha256),
            "steps": STEPS,
            "context_length": LENGTH,
            "noise": NOISES[0],
            "seam_clip": [SEAM_FRAMES, SEAM_SIDE],
            "truth_clip": [TRUTH_FRAMES, TRUTH_SIDE],
        }

    def cases(self) -> list[Case]:
        """Held-out prompts of every scene family, shapes most of all."""
        every = mini_cases("tuning")
        return [every[i * len(every) // CASES] for i in range(CASES)]

    def measure(self, case: Case) -> Record:
        """Enlarge the clips of a case in every way."""
        started = time.monotonic()
        seams, levels = self._seams(case)
        truth = self._truth(case)
        found = {
            "nearer than bicubic": truth["ours"]["psnr"] > truth["bicubic"]["psnr"],
            "steadier than single frames": truth["ours"]["change_psnr"] > truth["frame by frame"]["change_psnr"],
        }
        return {
            "case": case.id,
            "prompt": case.prompt,
            "family": case.scene.family,
            "seed": case.seed,
            **self.run,
            "sha256": self.sha256,
            "device": device_name(self.device),
            "seconds": round(time.monotonic() - started, 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            "seen": found,
            "right": found,
            "seams": seams,
            "truth": truth,
            "levels": levels,
        }

    def _seams(self, case: Case) -> tuple[dict[str, float], list[float]]:
        small = _clip(case, SEAM_FRAMES, SEAM_SIDE)
        found, levels = {}, []
        for kind, settings in KINDS.items():
            if settings is None:
                overlap = OVERLAP
                made = self.host.upscale(small, case.prompt, case.seed, steps=STEPS, length=LENGTH, overlap=overlap)
                if made is None:
                    continue
            else:
                overlap, weighting = settings
                request = UpscaleRequest(
                    case.prompt,
                    seed=case.seed,
                    steps=STEPS,
                    context_length=LENGTH,
                    context_overlap=overlap,
                    weighting=weighting,
                )
                made = upscale(self.models, small, request)
            found[kind] = seam_ratio(made, overlap)
            levels += mean_levels(made)
        return found, levels

    def _truth(self, case: Case) -> dict[str, dict[str, float]]:
        small = _clip(case, TRUTH_FRAMES, TRUTH_SIDE)
        large = _clip(case, TRUTH_FRAMES, TRUTH_SIDE * self.models.ssr.scale)
        request = UpscaleRequest(case.prompt, seed=case.seed, steps=STEPS, context_length=LENGTH)
        single = dataclasses.replace(self.models, temporal=None)
        frames = from_uint8(small).transpose(0, 1)
        made = {
            "bicubic": to_uint8(upsample(frames, self.models.ssr.scale).transpose(0, 1)),
            "frame by frame": upscale(single, small, request),
            "ours": upscale(self.models, small, request),
        }
        return {name: distances(clip, large) for name, clip in made.items()}

    def bars(self, records: list[Record]) -> list[Bar]:
        """What is asked: no seams where plain windows show theirs, and nearer to the truth than bicubic."""
        bars = [Bar("clips", f">= {CASES}", str(len(records)), len(records) >= CASES)]
        for kind in KINDS:
            ratios = [r["seams"][kind] for r in records if kind in r["seams"]]
            name = f"change at borders over median: {kind}"
            if not ratios:
                bars.append(Bar(name, "", "not measured: no host", None))
                continue
            got = mean(ratios)
            note = f"worst clip {max(ratios):.2f}"
            if kind.startswith("ours"):
                bars.append(Bar(name, f"<= {LARGEST_SEAM}", f"{got:.3f}", held=got <= LARGEST_SEAM, note=note))
            elif kind == "no overlap":
                ours = mean(r["seams"]["ours"] for r in records)
                # Else the overlap avoids nothing.
                bars.append(
                    Bar(name, f"> {ours:.3f}", f"{got:.3f}", held=got > ours, note=f"{note}; wanted: above ours")
                )
            else:
                bars.append(Bar(name, "", f"{got:.3f}", held=None, note=note))
        for measure, title in (("psnr", "PSNR"), ("change_psnr", "PSNR of changes")):
            value = {
                name: of_mean_error([r["truth"][name][measure] for r in records])
                for name in ("bicubic", "frame by frame", "ours")
            }
            gain = value["ours"] - value["bicubic"]
            note = f"{value['ours']:.2f} dB; bicubic {value['bicubic']:.2f} dB"
            bars.append(
                Bar(
                    f"{title} over bicubic",
                    f">= {LEAST_GAIN} dB",
                    f"{gain:+.2f} dB",
                    held=gain >= LEAST_GAIN,
                    note=note,
                )
            )
            over = value["ours"] - value["frame by frame"]
            asked = measure == "change_psnr"
            bars.append(
                Bar(
                    f"{title} over single frames",
                    "> 0 dB" if asked else "",
                    f"{over:+.2f} dB",
                    over > 0 if asked else None,
                )
            )
        return bars


def seam_ratio(frames: Tensor, overlap: int) -> float:
    """Return the mean seam (`steadiness.seam_ratios`) of (t, h, w, c) uint8 frames at the borders of their windows.

    A border is where the set of windows that hold a frame changes; 1 without borders.
    """
    windows = plan_windows(len(frames), LENGTH, overlap)
    member = [{number for number, window in enumerate(windows) if frame in window} for frame in range(len(frames))]
    borders = [frame for frame in range(1, len(frames)) if member[frame] != member[frame - 1]]
    ratios = seam_ratios(changes(frames), borders)
    return mean(ratios) if ratios else 1.0


def distances(made: Tensor, true: Tensor) -> dict[str, float]:
    """Return PSNR in dB of uint8 clips and of their changes between neighbouring frames.

    Clips are (t, h, w, 3) uint8.
    """
    error = made.double() - true.double()
    errors = {"psnr": error, "change_psnr": error.diff(dim=0)}
    return {name: round(decibels(float(value.square().mean())), 3) for name, value in errors.items()}


def of_mean_error(decibels_of: list[float]) -> float:
    """Return the PSNR in dB of the squared error averaged over clips of these PSNRs.

    Not their mean: where all stands still, the bicubic clip's changes have no error, and no mean of dB holds that.
    """
    return -10 * math.log10(mean(10 ** (-value / 10) for value in decibels_of))


def _clip(case: Case, frames: int, side: int) -> Tensor:
    """(t, h, w, 3) uint8 of the world, at 16 frames a second."""
    return to_uint8(render_clip(case.scene, frames, 16.0, height=side, width=side))
