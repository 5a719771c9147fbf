"""`pictures`: pictures of a style into latents and text states; `train style --checkpoint` starts it on the host."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..flags import MOST_SIDE, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="folder of pictures with .txt captions")
    parser.add_argument("--checkpoint", required=True, help="an SD1.x, SD2.x or SDXL checkpoint with VAE and text")
    parser.add_argument("--output", required=True, type=Path, help="safetensors file")
    parser.add_argument("--height", type=whole(1, MOST_SIDE), default=512, help="pixels of a crop")
    parser.add_argument("--width", type=whole(1, MOST_SIDE), default=512, help="pixels of a crop")
    parser.add_argument("--words", default="", help="how captions name the style")


def run(options: argparse.Namespace, encoders: Any) -> int:
    """Encode with the encoders of the host."""
    from ..files import check_target
    from ..training.latent_pictures import encode_pictures
    from ..training.pictures import load_pictures

    check_target(options.output)  # before the work, not after
    pictures = load_pictures(options.images, options.height, options.width)
    size = options.height, options.width
    encode_pictures(pictures, encoders, options.output, *size, options.words)
    sys.stdout.write(f"{len(pictures)} pictures encoded: {options.output}\n")
    return 0
