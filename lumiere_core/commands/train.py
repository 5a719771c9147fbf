"""`train PHASE`: text, image or temporal."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[1] / "recipes" / "mini-cpu.json"
DEFAULTS = {  # what differs from TrainOptions by phase
    "text": {"learning_rate": 1e-3, "batch_size": 64, "steps": 3000},
    "image": {},
    "temporal": {"batch_size": 2, "sigma_shift": 4.0},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("phase", choices=list(DEFAULTS))
    parser.add_argument("--output", required=True, type=Path, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--init-from", type=Path, help="weights file to start from (not bit-equal)")
    parser.add_argument("--text", type=Path, help="text encoder weights (phases image and temporal)")
    parser.add_argument("--image", type=Path, help="image U-Net weights (phase temporal)")
    parser.add_argument(
        "--config", type=Path, default=RECIPE,
        help="JSON file with unet, temporal, text, schedule; default: lumiere-mini's",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, help="CPU threads; default: all")
    group = parser.add_argument_group("options of the run (defaults depend on the phase)")
    for name, kind, text in (
        ("steps", int, "optimiser steps"),
        ("minutes", float, "stop after this many minutes"),
        ("batch-size", int, "images or clips a step"),
        ("learning-rate", float, "AdamW's rate"),
        ("warmup", int, "steps of linear warm-up"),
        ("decay-from", float, "share of the steps after which the rate falls to zero"),
        ("weight-decay", float, ""),
        ("gradient-clip", float, "largest norm of the gradient"),
        ("ema-decay", float, ""),
        ("text-dropout", float, "share of prompts replaced by the empty one"),
        ("sigma-shift", float, "above 1: more training on high noise"),
        ("height", int, "pixels"),
        ("width", int, "pixels"),
        ("num-frames", int, "frames of a training clip"),
        ("seed", int, ""),
        ("precision", str, "float32 or bfloat16 (autocast)"),
        ("device", str, "for example cpu or cuda"),
        ("save-every", float, "seconds between checkpoints"),
        ("sample-every", int, "steps between sample pictures"),
    ):
        group.add_argument(f"--{name}", type=kind, help=text or None)
    group.add_argument("--checkpointing", action="store_true", help="recompute activations")


def main(options: argparse.Namespace) -> int:
    import torch

    from ..training.loop import train
    from ..training.options import TrainOptions
    from .device import check_device

    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = DEFAULTS[options.phase] | {
        k: v
        for k, v in vars(options).items()
        if k in TrainOptions.__dataclass_fields__ and v is not None and v is not False
    }
    check_device(TrainOptions(**chosen).device)
    phase = build_phase(options, TrainOptions(**chosen))
    train(phase, TrainOptions(**chosen), options.output, options.resume)
    return 0


def build_phase(options: argparse.Namespace, chosen):
    """Return the phase with its networks, loaded or fresh."""
    from ..checkpoint import load_into, load_parts
    from ..config import TemporalConfig, TextConfig, UNetConfig
    from ..schedule import Schedule
    from ..text import TextEncoder
    from ..training import phases
    from ..unet import UNet

    config = _read_config(options.config)
    start = load_parts(options.init_from) if options.init_from else None
    if start:
        start.require(options.phase)
    if options.phase == "text":
        text_config = start.text_config if start else TextConfig.from_dict(config.get("text", {}))
        phase = phases.TextPhase(text_config, chosen)
        if start:
            load_into(phase.module["encoder"], start.text, f"text encoder of {options.init_from.name}")
        return phase

    parts = load_parts(_required(options.text, "--text", "train text"))
    parts.require("text")
    text = TextEncoder(parts.text_config)
    load_into(text, parts.text, f"text encoder of {options.text.name}")
    if options.phase == "image":
        unet_config = start.unet_config if start else UNetConfig.from_dict(config.get("unet", {}))
        unet = phases.new_unet(unet_config, chosen.seed)
        if start:
            load_into(unet, start.image, f"image U-Net of {options.init_from.name}")
        return phases.ImagePhase(unet, text, Schedule(**config.get("schedule", {})), chosen)

    parts = load_parts(_required(options.image, "--image", "train image"))
    parts.require("image")
    unet = UNet(parts.unet_config)
    load_into(unet, parts.image, f"image U-Net of {options.image.name}")
    temporal_config = (
        start.temporal_config if start else TemporalConfig.from_dict(config.get("temporal", {}))
    )
    temporal = phases.new_temporal(parts.unet_config, temporal_config, chosen.seed)
    if start:
        load_into(temporal, start.temporal, f"temporal layers of {options.init_from.name}")
    return phases.TemporalPhase(unet, temporal, text, Schedule(**parts.schedule), chosen)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}).") from error


def _required(path: Path | None, flag: str, verb: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} is missing: give the weights that `{verb}` wrote.")
    return path
