"""`train STAGE`: see `training.stages`; or `train --recipe NAME`: all stages of a shipped model, see `training.recipes`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from ..flags import threads_flag, use_threads

logger = logging.getLogger("lumiere")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..training.defaults import STAGES
    from ..training.option_page import add_options

    parser.add_argument("stage", nargs="?", choices=list(STAGES))
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of the run; or NAME.safetensors for the weights, with the run in the folder NAME",
    )
    parser.add_argument(
        "--list-options", action="store_true", help="print which source honours which option, as markdown"
    )
    recipe = parser.add_argument_group("a whole recipe")
    recipe.add_argument("--recipe", help="name or JSON file: all stages of a model, each going on where it stopped")
    recipe.add_argument("--stage", dest="line", help="only this stage of the recipe, on the shipped files if need be")
    recipe.add_argument(
        "--from", dest="start", type=Path, help="weights that the recipe's first stage here starts from"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--init-from", type=Path, help="weights file to start from (not bit-equal)")
    parser.add_argument("--text", type=Path, help="text encoder weights (all stages of the world but text)")
    parser.add_argument(
        "--image", type=Path, help="image U-Net weights (stages details, temporal, condition and style)"
    )
    parser.add_argument(
        "--config", type=Path, help="JSON file with unet, temporal, text, schedule; default: lumiere-mini's"
    )
    own = parser.add_argument_group("your own clips and pictures")
    own.add_argument(
        "--data", help="cache made by `prepare`: a folder, or an address of one (temporal, condition, ssr, motion-lora)"
    )
    own.add_argument("--checkpoint", help="the model that the cache was prepared with; an SD-type model (style)")
    own.add_argument(
        "--images", help="folder of 1 to 20 pictures, with captions in .txt files (style); of photographs (ssr)"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--strategy", default="ddp", help="with torchrun: ddp, or fsdp to spread the weights too")
    threads_flag(machine)
    add_options(parser)


def main(arguments: argparse.Namespace) -> int:
    from ..training.given import Files, options_for
    from ..training.memory import measured_bytes, readable
    from ..training.option_page import given_options, page
    from ..training.parallel import training_on
    from ..training.stages import build

    stage, output = arguments.stage, arguments.output
    if arguments.list_options:
        sys.stdout.write(page())
        return 0
    use_threads(arguments.threads)
    if arguments.recipe is not None:
        return cook(arguments)
    if stage is None or output is None:
        raise ValueError("give a stage and --output: `train image --output runs/image`; or --recipe mini.")
    files = Files(
        *(getattr(arguments, name) for name in ("text", "image", "init_from", "data", "checkpoint", "images")),
        encoded=run_folder(output) / "pictures.safetensors",
    )
    given = given_options(arguments)
    source = files.source(stage)
    options_for(stage, source, given)  # before anything is loaded, and before others are waited for
    with training_on(arguments.device or "cpu") as device:
        options = options_for(stage, source, given | {"device": device})
        before = measured_bytes(device)
        if source == "encoded-pictures" and not (arguments.resume and files.encoded.is_file()):
            encode(files, options)
        run = build(stage, files, options, read_config(arguments.config, stage, source))
        if run.about:
            logger.info(run.about)
        train_into(run, output, arguments.resume, arguments.strategy)
        if run.about:
            peak = readable(measured_bytes(device))
            logger.info(f"measured peak memory {peak}, {readable(before)} of it before the model")
    return 0


def cook(arguments: argparse.Namespace) -> int:
    """Train the stages of a recipe.

    Raises:
        ValueError: something was given that is not for a recipe.
    """
    from ..training.option_page import given_options
    from ..training.options import FIELDS, flag
    from ..training.parallel import training_on
    from ..training.recipes import Kitchen, load_recipe

    given, recipe = given_options(arguments), load_recipe(arguments.recipe)
    others = ("stage", "text", "image", "init_from", "data", "checkpoint", "images", "config")
    idle = [name for name in others if getattr(arguments, name) is not None] + ["resume"] * arguments.resume
    if arguments.line is None:
        idle += [name for name in given if not FIELDS[name].metadata["free"] or name == "steps"]
    if idle:
        raise ValueError(
            f"{', '.join(map(flag, idle))} with --recipe: its stages say that themselves. Leave it out, or give options "
            "with --stage."
        )
    output = arguments.output or Path("runs") / Path(arguments.recipe).stem
    with training_on(arguments.device or "cpu") as device:
        minutes = given.pop("minutes", None)
        given["device"] = device
        kitchen = Kitchen(recipe, output, given, start=arguments.start, minutes=minutes, strategy=arguments.strategy)
        kitchen.run(arguments.line or "")
    return 0


def train_into(run: Any, output: Path, resume: bool, strategy: str = "ddp") -> int:
    """Train a run in the folder of an output, and write its weights where the output is a file; returns the last step."""
    from ..files import check_target, copy
    from ..training.loop import train
    from ..training.parallel import Team, joined

    weights = output if output.suffix == ".safetensors" else None
    if weights:
        check_target(weights)
    if joined():
        run.share(strategy)
    step = train(run, run_folder(output), resume)
    if weights and Team.of(run.network).first:
        copy(run_folder(output) / run.part.file, weights)
    return step


def run_folder(output: Path) -> Path:
    """Return the folder of the run of an --output."""
    return output.with_suffix("") if output.suffix == ".safetensors" else output


def encode(files: Any, options: Any) -> None:
    """Let the host make latents of the pictures of a style.

    Raises:
        ValueError: it cannot.
    """
    from ..host_process import run_verb

    size = "--height", options.height, "--width", options.width
    status = run_verb(
        *("pictures", files.images, "--checkpoint", files.checkpoint, "--output", files.encoded),
        *(*size, "--words", options.words),
    )
    if status:
        raise ValueError("the host could not encode the pictures; the lines above say why.")


def read_config(path: Path | None, stage: str, source: str) -> dict[str, Any]:
    """Return the architecture of what is new: of a file, else of lumiere-mini; none for own clips without a file."""
    from ..text_files import read_json
    from ..training.given import check_config
    from ..training.recipes import architecture

    if path is None:
        return {} if source.startswith("cached") else architecture("ssr" if stage == "ssr" else "mini")
    return check_config(read_json(path), path.name)
