"""`world`: draw one clip of the procedural world, or a sheet of many scenes."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from ..flags import LEAST_FPS, MOST_FPS, MOST_FRAMES, MOST_SCALE, MOST_SEED, real, whole
from ..text_files import shown

SHEET_COLUMNS = 8  # frames of one scene, a row each
MOST_SIZE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--caption", help="what to draw; default: the scene of the seed")
    parser.add_argument("--family", help="kind of scene when there is no caption")
    parser.add_argument("--seed", type=whole(-MOST_SEED, MOST_SEED), default=0)
    parser.add_argument("--frames", type=whole(1, MOST_FRAMES), default=80)
    parser.add_argument("--fps", type=real(LEAST_FPS, MOST_FPS), default=16.0)
    parser.add_argument("--size", default="64", help="pixels: 64, or WIDTHxHEIGHT such as 96x64")
    parser.add_argument("--scale", type=whole(1, MOST_SCALE), default=4, help="nearest-neighbour enlargement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="clip.mp4")
    parser.add_argument("--sheet", type=Path, help="sheet.png: frames of many scenes, a row each")
    parser.add_argument("--count", type=whole(1, MOST_FRAMES), default=16, help="scenes on the sheet")


def main(options: argparse.Namespace) -> int:
    from ..clips.media import check_mp4, contact_sheet, save_image, write_mp4
    from ..files import check_target
    from ..world.scene import sample_scene, scene_from_caption

    if options.output is None and options.sheet is None:
        raise ValueError("got neither --output nor --sheet; name a file to draw to, or both")
    width, height = parse_size(options.size)
    options.caption = None if options.caption is None else shown(options.caption)
    if max(width, height) > MOST_SIZE:
        raise ValueError(f"got {width}x{height} pixels; at most {MOST_SIZE} to a side are drawn.")
    for path in filter(None, (options.output, options.sheet)):  # before the work, not after
        check_target(path)
    check_mp4(height * options.scale, width * options.scale, options.fps)

    def scene_of(seed: int):
        if options.caption is None:
            return sample_scene(seed, "all", options.family)
        return scene_from_caption(options.caption, seed)

    if options.output is not None:
        scene = scene_of(options.seed)
        frames = _frames(scene, options, height, width)
        comment = f"lumiere procedural world; caption: {scene.caption}; seed: {options.seed}"
        write_mp4(options.output, frames, options.fps, metadata={"comment": comment}, scale=options.scale)
        sys.stdout.write(f"{options.output}: {scene.caption} ({scene.family})\n")
    if options.sheet is not None:
        rows = []
        for seed in range(options.seed, options.seed + options.count):
            scene = scene_of(seed)
            rows.extend(_frames(scene, options, height, width=width, picked=SHEET_COLUMNS))
            sys.stdout.write(f"{scene.caption} ({scene.family})\n")
        save_image(contact_sheet(rows, SHEET_COLUMNS, scale=2), options.sheet)
        sys.stdout.write(f"{options.sheet}: {options.count} scenes\n")
    return 0


def parse_size(text: str) -> tuple[int, int]:
    """Read "64" or "96x64" as (width, height) in pixels."""
    match = re.fullmatch(r"(\d+)(?:[x*](\d+))?", text.strip().lower())
    if match is None or "0" in (match[1], match[2]):
        raise ValueError(f"got size {text!r}, want pixels such as 64, or WIDTHxHEIGHT such as 96x64")
    return int(match[1]), int(match[2] or match[1])


def _frames(scene, options: argparse.Namespace, height: int, width: int, picked: int | None = None):
    """All frames of the clip, or `picked` ones spread over it, uint8 (t, h, w, 3)."""
    from ..clips.media import evenly_spaced
    from ..world.render import render_frames, to_uint8

    numbers = range(options.frames) if picked is None else evenly_spaced(options.frames, picked)
    times = [number / options.fps for number in numbers]
    return to_uint8(render_frames([scene] * len(times), times, height, width=width, device=options.device)).numpy()
