"""`train PHASE`: see `training.phases`."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from ..training.phases import PHASES

logger = logging.getLogger("lumiere")
RECIPE = Path(__file__).parents[1] / "recipes" / "mini-cpu.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        help="folder of the run; or NAME.safetensors for the weights, with the run in the folder NAME",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--init-from", type=Path, help="weights file to start from (not bit-equal)")
    parser.add_argument("--text", type=Path, help="text encoder weights (all phases but text)")
    parser.add_argument("--image", type=Path, help="image U-Net weights (phases temporal, condition and style)")
    parser.add_argument(
        "--config", type=Path, help="JSON file with unet, temporal, text, schedule; default: lumiere-mini's"
    )
    own = parser.add_argument_group("your own clips (phase temporal)")
    own.add_argument("--data", help="cache made by `prepare`: a folder, or an http address of one")
    own.add_argument("--checkpoint", help="the model that the cache was prepared with; an SD-type model (phase style)")
    own.add_argument("--strategy", default="ddp", help="with torchrun: ddp, or fsdp to spread the weights too")
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
        ("object-weight", float, "how much more errors near the main object weigh; 0: no more"),
        ("change-weight", float, "of errors in changes from frame to frame; 0: frames alone count"),
        ("motion-weight", float, "of errors in how frames differ from their mean: slow motion, too"),
        ("moving-share", float, "share of the scenes whose caption at least names how it moves"),
        ("moving", str, "motions or families of those scenes, such as bouncing,swinging; default: any"),
        ("pure-noise", float, "share of the samples that are noise alone, as sampling starts"),
        ("only", str, "train only temporal parameters with one of these words in their name"),
        ("height", int, "pixels"),
        ("width", int, "pixels"),
        ("num-frames", int, "frames of a training clip"),
        ("seed", int, ""),
        ("precision", str, "float32 or bfloat16"),
        ("device", str, "for example cpu or cuda"),
        ("save-every", float, "seconds between checkpoints"),
        ("sample-every", int, "steps between sample pictures; 0: at the end; -1: none (minutes, on a CPU)"),
        ("accumulate", int, "batches whose gradients are added up before a step"),
        ("optimizer", str, "AdamW, Muon, a name of torch.optim, or a dotted path to any installed class"),
        ("stills", float, "share of clips that are one frame, repeated (own clips)"),
    ):
        group.add_argument(f"--{name}", type=kind, help=text or None)
    style = parser.add_argument_group("options of the phase style")
    style.add_argument("--style", help="a style of the world, or a name for that of --images")
    style.add_argument("--images", help="folder of 1 to 20 pictures, with captions in .txt files")
    style.add_argument("--words", help='what captions call the style, for example "in oils"')
    style.add_argument("--rank", type=int, help="of the LoRA; 0 = fine-tune all weights")
    style.add_argument("--layers", help="layers that the LoRA changes: all or attention")
    group.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="recompute activations: less memory, about a third slower",
    )


def main(options: argparse.Namespace) -> int:
    import torch

    from ..training.loop import train
    from ..training.memory import measured_bytes, readable
    from ..training.options import TrainOptions
    from ..training.parallel import Team, join, joined, leave, share
    from .device import check_device, tune

    if options.threads:
        torch.set_num_threads(options.threads)
    device = join(options.device or "cpu") if joined() else options.device
    module = phase_module(phase_name(options))
    kind = getattr(module, "Options", TrainOptions)
    chosen = kind(
        **module.DEFAULTS
        | {
            k: v
            for k, v in {**vars(options), "device": device}.items()
            if k in kind.__dataclass_fields__ and v is not None
        }
    )
    check_device(chosen.device)
    tune(chosen.device)
    weights = options.output if options.output.suffix == ".safetensors" else None
    folder = options.output.with_suffix("") if weights else options.output
    before = measured_bytes(chosen.device)
    try:
        phase = build_phase(options, chosen)
        if hasattr(phase, "describe"):
            logger.info(phase.describe())
        if joined():
            share(phase, options.strategy)
        train(phase, chosen, folder, options.resume)
        if weights and Team.of(phase).first:
            copy_whole(folder / getattr(phase, "file", f"{phase.name}.safetensors"), weights)
        if hasattr(phase, "describe"):
            peak = readable(measured_bytes(chosen.device))
            logger.info(f"measured peak memory {peak}, {readable(before)} of it before the model")
    finally:
        leave()
    return 0


def phase_name(options: argparse.Namespace) -> str:
    """Return the module of the phase: some have another one for a person's own clips or checkpoint."""
    if options.phase == "temporal" and options.data is not None:
        return "own_clips"
    if options.phase == "condition" and options.data is not None:
        return "own_condition"
    if options.phase == "style" and options.checkpoint is not None:
        return "style_latent"
    return options.phase


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that the target is there as a whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def phase_module(name: str) -> ModuleType:
    """Return the module of a phase: its DEFAULTS and its `build`."""
    return importlib.import_module(f"..training.phases.{name}", __package__)


def build_phase(options: argparse.Namespace, chosen: Any) -> Any:
    """Return the phase with its networks, loaded or fresh."""
    name = phase_name(options)
    config = options.config or (None if name in ("own_clips", "own_condition") else RECIPE)
    return phase_module(name).build(options, chosen, _read_config(config) if config else {})


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}).") from error
