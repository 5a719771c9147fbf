"""The plan `train`: the stages that lumiere-mini needs next, in order of worth, as far as the minutes go.

    image128   the image model at 128x128, from the shipped one with its size doubled (`lumiere_core double`)
    clips128   its temporal layers on clips of 2 to 96 frames, with masks
    ssr        super-resolution of frames, degraded as video is
    ssr_clips  its temporal layers, a part of the clips with noise new in each frame

A stage runs a minute at a time, and what it has learnt lies in OUTPUT after each: weights of at most 16 MiB a file. Its
state stays in the folder `state` there; with it the same command goes on, and without it from the weights. The learning
rate falls over the last part of a stage's time.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plan
import torch

from lumiere_core.commands import cli
from lumiere_core.nets.checkpoint import WEIGHTS, load_parts, metadata_for, save_file
from lumiere_core.training.given import Files, options_for
from lumiere_core.training.loop import train
from lumiere_core.training.recipes import load_recipe
from lumiere_core.training.stages import build

LARGEST = 16 << 20  # bytes of a file that comes back
LEG = 1.0  # minutes after which what was learnt is put down
FALLING = 0.35  # share of a stage's time in which its rate falls to zero
TAKEN = 0.1  # share of the minutes that saving and starting may take


@dataclass(frozen=True)
class Stage:
    """One stage: its share of the minutes, what it is given, and its options on a card."""

    name: str
    stage: str
    source: str
    share: float
    file: str
    options: dict[str, Any] = field(default_factory=dict)
    image: str = ""  # stage whose image model it stands on


COMMON = {"optimizer": "Muon", "precision": "bfloat16", "sample_every": -1, "warmup": 20}
CLIPS = {"object_weight": 5.0, "change_weight": 1.0, "motion_weight": 4.0, "pure_noise": 0.1, "moving_share": 0.5}
STAGES = (
    Stage(
        "image128",
        "image",
        "stills",
        0.3,
        "image.safetensors",
        {"batch_size": 512, "learning_rate": 1.5e-3, "sigma_shift": 1.5, "object_weight": 8.0, "moving_share": 0.4}
        | {"height": 128, "width": 128, "ema_decay": 0.99, "seed": 100},
    ),
    Stage(
        "clips128",
        "condition",
        "clips",
        0.4,
        "temporal.safetensors",
        {"batch_size": 64, "learning_rate": 1.5e-3, "sigma_shift": 6.0, "num_frames": 96, "shortest": 2, **CLIPS}
        | {"height": 128, "width": 128, "ema_decay": 0.98, "seed": 101},
        "image128",
    ),
    Stage(
        "ssr",
        "ssr",
        "crops",
        0.15,
        "ssr.safetensors",
        {"batch_size": 64, "learning_rate": 1e-3, "num_frames": 1, "ema_decay": 0.99, "seed": 102},
    ),
    Stage(
        "ssr_clips",
        "ssr",
        "crops",
        0.15,
        "ssr.safetensors",
        {"batch_size": 32, "learning_rate": 1e-3, "num_frames": 8, "change_weight": 2.0, "sigma_shift": 8.0}
        | {"fresh_noise": 0.3, "ema_decay": 0.98, "seed": 103},
    ),
)
PHOTOGRAPHS, SHARE = plan.ROOT / ".gpu" / "photographs", 0.6  # share of the clips that super-resolution learns from
SMALL = {"batch_size": 2, "precision": "float32", "steps": 2, "height": 16, "width": 16}
SHORT = {"clips128": {"num_frames": 5}, "ssr_clips": {"num_frames": 2}}  # frames, small


def run(output: Path, device: str, deadline: plan.Deadline, small: bool) -> int:
    """Train the stages; returns 0 when each had its time."""
    output.mkdir(parents=True, exist_ok=True)
    doubled(output, small)
    minutes = deadline.left() / 60 * (1 - TAKEN)
    for stage in STAGES:
        own = min(minutes * stage.share, deadline.left() / 60)
        if own <= 0:
            print(f"# no time was left for {stage.name}")
            return 1
        steps = learn(stage, output, device, own, small)
        print(f"{stage.name}: {steps} steps, {own:.1f} minutes", flush=True)
    return 0


def doubled(output: Path, small: bool) -> None:
    """Write what image128 and clips128 start from, unless it is there."""
    folder = output / "state" / "doubled"
    if not (folder / "temporal.safetensors").is_file():
        fewer = ["--scenes", "16"] if small else []
        if cli.main(["double", "--output", str(folder), *fewer]):
            raise RuntimeError("the weights could not be doubled")


def learn(stage: Stage, output: Path, device: str, minutes: float, small: bool) -> int:
    """Train one stage for some minutes, a leg at a time; returns its steps."""
    began, steps, leg = time.monotonic(), 0, 0.0
    flat = minutes * (1 - FALLING)
    while True:
        spent = (time.monotonic() - began) / 60
        if small or spent >= flat:
            break
        steps = one_leg(stage, output, device, {"minutes": min(LEG, flat - spent)}, small)
        leg = (time.monotonic() - began) / 60
    if small:
        return one_leg(stage, output, device, {}, small)
    rest = max(1, round(steps / max(leg, 1e-6) * (minutes - leg)))
    falling = {"steps": steps + rest, "decay_from": steps / (steps + rest)}
    end = began + 60 * minutes
    while steps < falling["steps"] and time.monotonic() < end:
        left = {"minutes": min(LEG, (end - time.monotonic()) / 60)}
        steps = one_leg(stage, output, device, falling | left, small)
    return steps


def one_leg(stage: Stage, output: Path, device: str, more: dict[str, Any], small: bool) -> int:
    """Go on with a stage for a leg and put its weights down; returns the steps it has made."""
    folder = output / "state" / stage.name
    given = {**COMMON, **stage.options, "device": device, "steps": 10**6, **more}
    if small:
        given |= SMALL | SHORT.get(stage.name, {})
    if stage.stage == "ssr" and PHOTOGRAPHS.is_dir():
        given["photographs"] = SHARE
    resume = (folder / "state.safetensors").is_file()
    options = options_for(stage.stage, stage.source, given)
    stages = build(stage.stage, files(stage, output), options, architecture(stage))
    steps = train(stages, folder, resume=resume, progress=False)
    weights = folder / stage.file
    if weights.stat().st_size > LARGEST:
        raise RuntimeError(f"{weights.name} has {weights.stat().st_size:,} bytes, more than come back")
    target = output / f"{stage.name}.safetensors"
    shutil.copyfile(weights, target.with_suffix(".partial"))
    target.with_suffix(".partial").replace(target)
    shutil.copyfile(folder / "log.csv", output / f"{stage.name}.csv")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return steps


def files(stage: Stage, output: Path) -> Files:
    """Return what a stage is given: what an earlier try brought back, else the stages before it, else what is shipped."""
    start, came_back = output / "state" / "doubled", output / f"{stage.name}.safetensors"
    text = WEIGHTS / "mini-text.safetensors"
    if stage.stage == "ssr":
        spatial, together = output / "ssr.safetensors", output / "state" / "ssr_both.safetensors"
        first = WEIGHTS / "mini-ssr.safetensors"
        if stage.name == "ssr_clips" and spatial.is_file() and not came_back.is_file():
            first = with_layers(spatial, first, together)
        images = str(PHOTOGRAPHS) if PHOTOGRAPHS.is_dir() else None
        return Files(text=text, images=images, init_from=came_back if came_back.is_file() else first)
    image = output / f"{stage.image}.safetensors" if stage.image else None
    return Files(
        text=text,
        image=image if image is None or image.is_file() else start / "image.safetensors",
        init_from=came_back if came_back.is_file() else start / stage.file,
    )


def with_layers(spatial: Path, shipped: Path, target: Path) -> Path:
    """Write the spatial part of one file with the temporal layers of another; returns the file."""
    parts = load_parts([shipped, spatial])
    state = {f"{name}.{k}": v for name in ("image", "temporal") for k, v in getattr(parts, name).items()}
    save_file(state, target, metadata_for("lumiere super-resolution", parts.config))
    return target


def architecture(stage: Stage) -> dict[str, Any]:
    """Return the recipe's architecture."""
    return load_recipe("mini").models["ssr" if stage.stage == "ssr" else "mini"]
