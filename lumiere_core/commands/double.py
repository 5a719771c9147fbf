"""`double`: weights of a pixel model for pictures of twice the height and width, to train on from."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..flags import whole

MOST_SCENES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="lumiere-mini", help="a bundled model, a file or a folder of part files")
    parser.add_argument("--output", required=True, type=Path, help="folder for image.safetensors and the other parts")
    parser.add_argument(
        "--scenes", type=whole(1, MOST_SCENES), help="scenes of the world that the components are found on"
    )
    parser.add_argument("--components", type=whole(0, 4096), help="channels of a patch beside the means of 2x2 pixels")


def main(options: argparse.Namespace) -> int:
    from ..diffusion.models import weight_files
    from ..files import check_target, refuse_input
    from ..nets.checkpoint import PREFIXES, load_parts, metadata_for, save_file
    from ..training.double import SCENES, doubled

    files = weight_files(options.weights)
    for part in PREFIXES:  # before the work, not after
        check_target(options.output / f"{part}.safetensors")
        refuse_input(options.output / f"{part}.safetensors", files)
    before = load_parts(files)
    after = doubled(before, options.components, scenes=options.scenes or SCENES)
    sections = {"text": ("text",), "image": ("unet", "schedule", "size"), "temporal": ("unet", "temporal")}
    for part in PREFIXES:
        state = getattr(after, part)
        if state is None:
            continue
        config = {name: after.config[name] for name in sections[part]}
        metadata = metadata_for(f"lumiere {part}", config, doubled=" ".join(sorted(before.sha256)))
        save_file({f"{part}.{k}": v for k, v in state.items()}, options.output / f"{part}.safetensors", metadata)
    height, width = after.config["size"]
    sys.stdout.write(f"{options.output}: {width}x{height} pixels\n")
    return 0
