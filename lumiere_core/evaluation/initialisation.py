"""`evaluate initialisation`: temporal layers from scratch, resizes as nearest neighbours or by He et al. (2015).

Lumiere App. B: strided frames on the way down and duplicated frames on the way up are the better start (v2, Fig. 12,
on UCF-101). Here lumiere-mini's image model is frozen and new temporal layers learn whole clips of the world; a pair of
runs differs in the resizes' first weights only. The loss curves are stored with the lines; `curves` draws them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import bundled_files, load_into, load_parts
from ..config import TemporalConfig
from ..json_lines import Record
from ..schedule import Schedule
from ..temporal import TemporalLayers
from ..text import TextEncoder
from ..training.loop import step_once
from ..training.optimizers import make_optimizer
from ..training.options import TrainOptions
from ..training.phases.temporal import TemporalPhase, new_temporal
from ..unet import UNet
from .table import Bar

STARTS = ("nearest", "he")
SEEDS = (0, 1)
TAIL = 0.2  # share of the steps, at the end, whose mean loss is compared
# 16 frames over the 5 seconds of a clip: the motion is large from frame to frame.
SETTINGS = TrainOptions(
    steps=100,
    batch_size=1,
    learning_rate=1e-3,
    warmup=10,
    height=32,
    width=32,
    num_frames=16,
    fps=3.2,
    sigma_shift=4.0,
)


@dataclass(frozen=True)
class Run:
    """One training run."""

    start: str
    seed: int

    @property
    def id(self) -> str:
        return f"{self.start}-{self.seed}"

    @property
    def prompt(self) -> str:
        return f"resizes start as {self.start}, seed {self.seed}"


class Initialisation:
    """Cases, measurement and bars of the evaluation."""

    title = "first weights of the temporal resizes: nearest neighbour against He et al."

    def __init__(self, options: argparse.Namespace) -> None:
        files = bundled_files()
        self.parts = load_parts(files)
        self.device = options.device
        image = next(h for name, h in self.parts.sha256.items() if "image" in name)
        self.run = {
            "image_sha256": image, "steps": SETTINGS.steps, "batch_size": SETTINGS.batch_size,
            "frames": SETTINGS.num_frames, "learning_rate": SETTINGS.learning_rate,
        }  # fmt: skip

    def cases(self) -> list[Run]:
        return [Run(start, seed) for seed in SEEDS for start in STARTS]

    def measure(self, case: Run) -> Record:
        """Train from scratch and return the losses."""
        began = time.monotonic()
        losses = list(self._losses(case))
        tail = losses[-round(TAIL * len(losses)) :]
        mean = sum(tail) / len(tail)
        return {
            "case": case.id, "prompt": case.prompt, "start": case.start, "train_seed": case.seed, **self.run,
            "device": self.device, "seconds": round(time.monotonic() - began, 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            # Kernels differ from machine to machine: the first loss must come again, later ones drift.
            "seen": {"first loss": round(losses[0], 3)}, "right": {"finite": all(map(math.isfinite, losses))},
            "last_fifth": round(mean, 5), "losses": [round(loss, 4) for loss in losses],
        }  # fmt: skip

    def bars(self, records: list[Record]) -> list[Bar]:
        """Nearest neighbours must end lower for every seed."""
        found = {(r["start"], r["train_seed"]): float(r["last_fifth"]) for r in records}
        bars = []
        for seed in SEEDS:
            pair = [found.get((start, seed)) for start in STARTS]
            if None in pair:
                bars.append(Bar(f"nearest below He, seed {seed}", "lower", "not run", False))
                continue
            got = f"{pair[0]:.4f} against {pair[1]:.4f}"
            bars.append(
                Bar(f"nearest below He, seed {seed}", "lower", got, pair[0] < pair[1],
                    f"mean loss of the last {round(TAIL * SETTINGS.steps)} of {SETTINGS.steps} steps")
            )  # fmt: skip
        write_curves(records, Path(__file__).parent / "results" / "initialisation")
        return bars

    def _losses(self, case: Run) -> Iterator[float]:
        import dataclasses

        options = dataclasses.replace(SETTINGS, seed=case.seed, device=self.device)
        parts = self.parts
        unet, text = UNet(parts.unet_config), TextEncoder(parts.text_config)
        load_into(unet, parts.image, "the bundled image model")
        load_into(text, parts.text, "the bundled text encoder")
        config = dataclasses.replace(
            parts.temporal_config, frames_per_clip=options.num_frames, fps=options.fps
        )
        layers = new_temporal(unet.config, TemporalConfig(**vars(config)), case.seed)
        if case.start == "he":
            start_by_he(layers, case.seed)
        phase = TemporalPhase(unet, layers, text, Schedule(**parts.schedule), options)
        optimizer = make_optimizer(phase.module, options)
        for step in range(options.steps):
            yield step_once(phase, options, optimizer, step)[0]


@torch.no_grad()
def start_by_he(layers: TemporalLayers, seed: int) -> None:
    """Fill the resizes as ordinary convolutions are: normal, variance 2 / fan-in, no bias (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in layers.named_parameters():
        if ".down.conv." in name or ".up.conv." in name:
            if parameter.ndim > 1:
                std = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            else:
                parameter.zero_()


def smoothed(losses: list[float], share: float = 0.1) -> Tensor:
    """Return the running mean of a curve, without a start value that weighs too much."""
    mean, weight, curve = 0.0, 0.0, []
    for loss in losses:
        mean, weight = mean * (1 - share) + loss * share, weight * (1 - share) + share
        curve.append(mean / weight)
    return torch.tensor(curve)


def write_curves(records: list[Record], path: Path) -> None:
    """Write path.png with the running means of all runs, and path.csv with every loss."""
    import csv
    import os

    from PIL import Image, ImageDraw

    from ..media import save_image

    records = sorted(records, key=lambda r: r["case"])
    partial = path.with_name(f".{path.name}.{os.getpid()}.csv")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(r["case"] for r in records)])
        for step, row in enumerate(zip(*(r["losses"] for r in records), strict=True)):
            writer.writerow([step + 1, *row])
    os.replace(partial, path.with_suffix(".csv"))
    curves = {r["case"]: smoothed(r["losses"]).log10() for r in records}
    low = min(c.min().item() for c in curves.values())
    high = max(c.max().item() for c in curves.values())
    image = Image.new("RGB", (800, 420), "white")
    draw = ImageDraw.Draw(image)
    colours = {"nearest": (30, 90, 200), "he": (200, 60, 40)}

    def place(x: float, y: float) -> tuple[float, float]:
        return 70 + x * 714, 34 + (high - y) / max(high - low, 1e-6) * 340

    for i in range(5):
        y = low + (high - low) * i / 4
        draw.line([place(0, y), place(1, y)], fill=(225, 225, 225))
        draw.text((8, place(0, y)[1] - 6), f"{10**y:.4f}", fill="black")
        draw.text((place(i / 4, low)[0] - 10, 390), f"{i * SETTINGS.steps // 4}", fill="black")
    for name, curve in curves.items():
        points = [place(i / (len(curve) - 1), y) for i, y in enumerate(curve.tolist())]
        draw.line(points, fill=colours[name.split("-")[0]], width=2)
    title = (
        "loss over steps (running mean): blue = nearest-neighbour resizes, red = He; two seeds each"
    )
    draw.text((70, 10), title, fill="black")
    save_image(image, path.with_suffix(".png"))
