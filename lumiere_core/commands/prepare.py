"""`prepare`: a folder of captioned videos into a cache that `train temporal --data` reads."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..flags import LEAST_FPS, MOST_FPS, MOST_FRAMES, MOST_SIDE, real, whole
from ..host_process import run_verb
from ..text_files import shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "clips", type=Path, help="folder of videos with .txt captions of the same name, or a .jsonl or .csv list"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="the model that is to be trained: lumiere-mini, a Lumiere file, or an SD1.x, SD2.x, SDXL or SD x4 upscaler checkpoint",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the cache")
    parser.add_argument("--fps", type=real(LEAST_FPS, MOST_FPS), default=16.0, help="frames a second of the clips")
    parser.add_argument("--frames", type=whole(1, MOST_FRAMES), default=16, help="frames of a clip")
    parser.add_argument(
        "--size",
        type=whole(1, MOST_SIDE),
        help="clips have about size x size pixels, in their own aspect ratio; default: 64 for lumiere-mini, else 512",
    )
    parser.add_argument(
        "--conditions",
        type=whole(0, 64),
        default=0,
        metavar="N",
        help="for `train condition` on a model with a VAE: store N copies of each clip of which a part was greyed before it "
        "was encoded, as a workflow does",
    )
    parser.add_argument(
        "--base",
        default="",
        help="folder with custom_nodes, for a checkpoint that another pack teaches ComfyUI to load; default: this pack alone",
    )
    parser.add_argument("--caption", help="text for videos without one; else they are left out")
    parser.add_argument(
        "--shards",
        type=real(0, 65_536),
        default=0.0,
        metavar="MB",
        help="put the clips into WebDataset tar files of about this size, to stream them",
    )


def main(options: argparse.Namespace) -> int:
    from ..dataset.encoders import lumiere_encoders
    from ..files import check_target

    check_target(options.output / "preview.mp4")  # before a model is loaded, not after
    encoders = lumiere_encoders(options.checkpoint)
    if encoders is None:  # its VAE and text encoder are the host's business
        return run_verb(*sys.argv[1:])
    return run(options, encoders)


def run(options: argparse.Namespace, encoders: Any) -> int:
    """Prepare with given encoders and print the table; 1 if not a single clip is left."""
    from ..dataset.cache import Settings
    from ..dataset.prepare import prepare
    from ..training.masks import draw_inside

    size = options.size or (64 if encoders.backbone["ratio"] == 1 else 512)
    summary = prepare(
        options.clips,
        options.output,
        encoders,
        Settings(options.fps, options.frames, size, conditions=options.conditions),
        masks=draw_inside,
        caption=options.caption and shown(options.caption),
        shards=options.shards,
    )
    sys.stdout.write("\n".join(summary.lines()) + "\n")
    if not summary.cache.clips():
        sys.stderr.write("error: no clip is left to train on; the table says why.\n")
        return 1
    sys.stdout.write(f"look at {options.output / 'preview.mp4'} before you train\n")
    return 0
