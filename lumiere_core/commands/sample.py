"""`sample`: one clip from a prompt, or a folder of clips from a file of prompts."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..flags import (
    LEAST_FPS,
    MOST_FPS,
    MOST_FRAMES,
    MOST_SCALE,
    MOST_SEED,
    MOST_SIDE,
    MOST_STEPS,
    guidance_flag,
    real,
    whole,
)
from ..text_files import shown

if TYPE_CHECKING:
    from ..diffusion.generate import Request
    from ..diffusion.models import Models
    from ..nets.checkpoint import Parts

logger = logging.getLogger("lumiere")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="text of one clip")
    what.add_argument("--prompts", type=Path, help="text file, one prompt a line")
    parser.add_argument("--output", required=True, type=Path, help="clip.mp4, or a folder (--prompts)")
    parser.add_argument("--negative", default="", help="what the clip must not show")
    parser.add_argument("--seed", type=whole(-MOST_SEED, MOST_SEED), default=0)
    parser.add_argument("--frames", type=whole(1, MOST_FRAMES), default=80)
    parser.add_argument("--height", type=whole(1, MOST_SIDE), help="pixels; default: the trained size")
    parser.add_argument("--width", type=whole(1, MOST_SIDE), help="pixels; default: the trained size")
    parser.add_argument("--steps", type=whole(1, MOST_STEPS), default=20)
    parser.add_argument("--cfg", type=real(0, 100), default=3.0, help="guidance scale; 1 = none")
    guidance_flag(parser)
    parser.add_argument("--sampler", default="ddim", help="ddim or ddpm")
    parser.add_argument("--scheduler", default="karras", help="karras or normal")
    parser.add_argument(
        "--threshold",
        type=real(0, 1),
        default=0.0,
        help="percentile of dynamic thresholding, for example 0.995; 0 = none",
    )
    parser.add_argument("--fps", type=real(LEAST_FPS, MOST_FPS), default=16.0)
    parser.add_argument("--scale", type=whole(1, MOST_SCALE), default=4, help="nearest-neighbour enlargement")
    parser.add_argument("--weights", default="lumiere-mini", help="file, folder, lumiere-mini or lumiere-mini-128")
    parser.add_argument("--style", help="a style of the pack, or a file: a LoRA or an image model")
    parser.add_argument("--alpha", type=real(0, 1), default=0.7, help="of --style: 0 = none, 1 = all of it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet", action="store_true", help="also write NAME.png, a contact sheet")


def main(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..clips.media import check_mp4, contact_sheet, evenly_spaced, save_image, write_mp4
    from ..device import check_device
    from ..diffusion.generate import Request, generate
    from ..diffusion.models import load_models
    from ..files import check_target
    from ..provenance import generated_by
    from ..provenance.credentials import sign_if_wanted, wanted

    prompts, paths = _jobs(options)
    negative = shown(options.negative)
    for path in paths:  # before the work, not after
        check_target(path)
        if options.sheet:
            check_target(path.with_suffix(".png"))
    check_device(options.device)
    wanted()  # a certificate that is not there is said now
    models, parts = load_models(options.weights, options.device)
    if options.style:
        from ..nets.checkpoint import load_into
        from ..nets.interpolate import stylise_parts

        parts = stylise_parts(parts, options.style, options.alpha)
        load_into(models.unet, parts.image, f"image weights in the style {options.style}")
    trained_height, trained_width = parts.config.get("size", [64, 64])
    height = trained_height if options.height is None else options.height
    width = trained_width if options.width is None else options.width
    check_mp4(height * options.scale, width * options.scale, options.fps)
    stamp = generated_by(parts.sha256)
    requests = [
        Request(
            prompt,
            negative,
            seed=options.seed,
            num_frames=options.frames,
            height=height,
            width=width,
            steps=options.steps,
            cfg=options.cfg,
            guidance_end=options.guidance_end,
            sampler=options.sampler,
            scheduler=options.scheduler,
            threshold=options.threshold,
        )
        for prompt in prompts
    ]
    warn_of_cut_prompts([*prompts, negative], models)
    warn_outside_training(requests[0], models, parts)
    for request, path in zip(requests, paths, strict=True):
        started = time.monotonic()
        steps = len(request.sigmas(models.schedule)) - 1
        with tqdm(total=steps, desc=path.stem, unit="step", file=sys.stderr) as bar:
            frames = generate(models, request, on_step=lambda *_, bar=bar: bar.update())
        metadata = {"comment": f"{stamp}; prompt: {request.prompt}; seed: {options.seed}"}
        write_mp4(path, frames, options.fps, metadata=metadata, scale=options.scale)
        sign_if_wanted(path, stamp)
        if options.sheet:
            picked = frames[evenly_spaced(len(frames), 16)]
            save_image(contact_sheet(picked, scale=2), path.with_suffix(".png"))
        sys.stdout.write(f"{path} ({len(frames)} frames, {time.monotonic() - started:.1f} s)\n")
    return 0


def warn_of_cut_prompts(prompts: Sequence[str], models: Models) -> None:
    """Say which prompts are longer than what the text encoder reads."""
    from ..nets.text_encoder import prompt_bytes, tokenize

    most = models.text.config.max_bytes
    for prompt in prompts:
        if (length := len(prompt_bytes(prompt))) > most:
            logger.warning(
                f"the prompt has {length} bytes; the text encoder reads the first "
                f"{len(tokenize(prompt, most)) - 1}: {prompt[:40]!r} …"
            )


def warn_outside_training(request: Request, models: Models, parts: Parts) -> None:
    """Say if a clip is longer, or of another size, than the weights were trained on; as the nodes do."""
    trained = models.temporal.config.frames_per_clip if models.temporal else request.num_frames
    if request.num_frames > trained:
        logger.warning(
            f"a clip of {request.num_frames} frames; these weights were trained on {trained}. "
            "Longer clips may lose their motion."
        )
    height, width = parts.config.get("size") or (request.height, request.width)
    if (request.height, request.width) != (height, width):
        logger.warning(
            f"a clip of {request.width}x{request.height} pixels; these weights were trained on "
            f"{width}x{height}. Other sizes may look worse."
        )


def _jobs(options: argparse.Namespace) -> tuple[list[str], list[Path]]:
    if options.prompt is not None:
        if options.output.suffix != ".mp4":
            raise ValueError(f"--output is {options.output}; with --prompt it must end in .mp4.")
        return [shown(options.prompt)], [options.output]
    from ..text_files import lines_of, read_text

    if not options.prompts.is_file():
        raise ValueError(f"no prompts file at {options.prompts}.")
    prompts = [line.strip() for line in lines_of(read_text(options.prompts)) if line.strip()]
    if not prompts:
        raise ValueError(f"{options.prompts} holds no prompt; one a line is wanted.")
    return prompts, [options.output / f"{i:03d}.mp4" for i in range(len(prompts))]
