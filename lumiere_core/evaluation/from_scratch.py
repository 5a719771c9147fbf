"""Evaluations that train small temporal layers twice, from two starts, on the same clips in the same order.

lumiere-mini's image model is frozen and new temporal layers learn clips of the world; a pair of runs differs in the first
weights only. The loss curves are stored with the lines; `write_curves` draws them.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from ..diffusion.models import Models
from ..diffusion.schedule import Schedule
from ..files import Record, atomic
from ..nets.checkpoint import bundled_files, load_into, load_parts
from ..nets.config import TemporalConfig
from ..nets.temporal import TemporalLayers
from ..nets.text_encoder import TextEncoder
from ..nets.unet import UNet
from ..training.loop import step_once
from ..training.optimizers import make_optimizer
from ..training.options import TrainOptions
from ..training.stages import world_clips_run
from .table import Bar

RESULTS = Path(__file__).parent / "results"
TAIL = 0.2  # share of the steps, at the end, whose mean loss is compared
COLOURS = ((30, 90, 200), (200, 60, 40))  # of the two starts' curves


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
        return f"start {self.start}, seed {self.seed}"


class FromScratch(ABC):
    """Cases, measurement and bars: the first start must end lower than the second, for every seed."""

    title: str
    starts: tuple[str, str]
    names: tuple[str, str]  # of the starts, in the picture
    seeds = (0, 1)
    picture: str  # name of the curves' files
    # 16 frames over the 5 seconds of a clip: the motion is large from frame to frame.
    settings = TrainOptions(
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

    def __init__(self, options: argparse.Namespace) -> None:
        self.parts = load_parts(bundled_files())
        self.device = options.device
        image = next(h for name, h in self.parts.sha256.items() if "image" in name)
        settings = self.settings
        self.run = {
            "image_sha256": image,
            "steps": settings.steps,
            "batch_size": settings.batch_size,
            "frames": settings.num_frames,
            "learning_rate": settings.learning_rate,
        }

    @abstractmethod
    def layers(self, case: Run, unet: UNet, config: TemporalConfig) -> TemporalLayers:
        """Return the temporal layers that a run begins with."""

    def cases(self) -> list[Run]:
        return [Run(start, seed) for seed in self.seeds for start in self.starts]

    def measure(self, case: Run) -> Record:
        """Train from scratch and return the losses."""
        began = time.monotonic()
        losses = list(self._losses(case))
        tail = losses[-round(TAIL * len(losses)) :]
        mean = sum(tail) / len(tail)
        return {
            "case": case.id,
            "prompt": case.prompt,
            "start": case.start,
            "train_seed": case.seed,
            **self.run,
            "device": self.device,
            "seconds": round(time.monotonic() - began, 1),
            "date": datetime.now(timezone.utc).date().isoformat(),
            # Kernels differ from machine to machine: the first loss must come again, later ones drift.
            "seen": {"first loss": round(losses[0], 3)},
            "right": {"finite": all(map(math.isfinite, losses))},
            "last_fifth": round(mean, 5),
            "losses": [round(loss, 4) for loss in losses],
        }

    def bars(self, records: list[Record]) -> list[Bar]:
        found = {(r["start"], r["train_seed"]): float(r["last_fifth"]) for r in records}
        better, other = self.starts
        bars = []
        for seed in self.seeds:
            pair = [found.get((start, seed)) for start in self.starts]
            name = f"{better} below {other}, seed {seed}"
            if None in pair:
                bars.append(Bar(name, "lower", "not run", False))
                continue
            steps = self.settings.steps
            note = f"mean loss of the last {round(TAIL * steps)} of {steps} steps"
            got = f"{pair[0]:.4f} against {pair[1]:.4f}"
            bars.append(Bar(name, "lower", got, held=pair[0] < pair[1], note=note))
        write_curves(records, RESULTS / self.picture, self.starts, self.names)
        return bars

    def frozen(self) -> tuple[UNet, TextEncoder]:
        """Return the bundled image model and text encoder."""
        unet, text = UNet(self.parts.unet_config), TextEncoder(self.parts.text_config)
        load_into(unet, self.parts.image, "the bundled image model")
        load_into(text, self.parts.text, "the bundled text encoder")
        return unet, text

    def temporal_config(self) -> TemporalConfig:
        """Return the bundled layers' configuration, at the length of these runs, without what is ours."""
        return dataclasses.replace(
            self.parts.temporal_config,
            frames_per_clip=self.settings.num_frames,
            fps=self.settings.fps,
            coordinates=False,
            shared_noise=0.0,
        )

    def _losses(self, case: Run) -> Iterator[float]:
        options = dataclasses.replace(self.settings, seed=case.seed, device=self.device)
        unet, text = self.frozen()
        layers = self.layers(case, unet, self.temporal_config())
        models = Models(text, unet, layers, Schedule(**self.parts.schedule))
        run = world_clips_run("temporal", models, options)
        optimizer = make_optimizer(run.module, options)
        for step in range(options.steps):
            yield step_once(run, optimizer, step)[0]


def smoothed(losses: list[float], share: float = 0.1) -> Tensor:
    """Return the running mean of a curve, without a start value that weighs too much. (steps,)."""
    mean, weight, curve = 0.0, 0.0, []
    for loss in losses:
        mean, weight = mean * (1 - share) + loss * share, weight * (1 - share) + share
        curve.append(mean / weight)
    return torch.tensor(curve)


def write_curves(records: list[Record], path: Path, starts: tuple[str, str], names: tuple[str, str]) -> None:
    """Write path.png with the running means of all runs, and path.csv with every loss."""
    from PIL import Image, ImageDraw

    from ..clips.media import save_image

    records = sorted(records, key=lambda r: r["case"])
    with atomic(path.with_suffix(".csv")) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", *(r["case"] for r in records)])
        for step, row in enumerate(zip(*(r["losses"] for r in records), strict=True)):
            writer.writerow([step + 1, *row])
    curves = [(r["start"], smoothed(r["losses"]).log10()) for r in records]
    steps = len(curves[0][1])
    low = min(curve.min().item() for _, curve in curves)
    high = max(curve.max().item() for _, curve in curves)
    image = Image.new("RGB", (800, 420), "white")
    draw = ImageDraw.Draw(image)

    def place(x: float, y: float) -> tuple[float, float]:
        return 70 + x * 714, 34 + (high - y) / max(high - low, 1e-6) * 340

    for i in range(5):
        y = low + (high - low) * i / 4
        draw.line([place(0, y), place(1, y)], fill=(225, 225, 225))
        draw.text((8, place(0, y)[1] - 6), f"{10**y:.4f}", fill="black")
        draw.text((place(i / 4, low)[0] - 10, 390), f"{i * steps // 4}", fill="black")
    for start, curve in curves:
        points = [place(i / (steps - 1), y) for i, y in enumerate(curve.tolist())]
        draw.line(points, fill=COLOURS[starts.index(start)], width=2)
    title = f"loss over steps (running mean): blue = {names[0]}, red = {names[1]}; two seeds each"
    draw.text((70, 10), title, fill="black")
    save_image(image, path.with_suffix(".png"))
