"""`evaluate study DIR_A DIR_B --output page/` makes the page; `evaluate study --analyse *.csv --key FILE` reads answers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...flags import real, whole
from . import page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="two folders of clips of the same names")
    parser.add_argument("--output", type=Path, help="folder of the page, or of the results")
    parser.add_argument("--labels", nargs=2, help="names of the two; default: of their folders")
    parser.add_argument(
        "--pairs", type=whole(1, 10_000), default=page.PAIRS, help="pairs that a rater judges; the paper: 10"
    )
    parser.add_argument(
        "--wait", type=real(0, 3600), default=page.WAIT, help="seconds after both clips; the paper: at least 3"
    )
    parser.add_argument("--side", type=whole(16, 4096), default=page.SIDE, help="pixels of the clips; the paper: 512")
    parser.add_argument("--container", choices=list(page.CODECS), default="mp4", help="webm where H.264 is missing")
    parser.add_argument("--analyse", nargs="+", type=Path, metavar="CSV", help="read the raters' files instead")
    parser.add_argument("--key", type=Path, help="with --analyse: the page's key")
    parser.add_argument(
        "--tolerate", type=whole(0, 10_000), default=0, help="with --analyse: failed checks that a rater may have"
    )


def main(options: argparse.Namespace) -> int:
    if options.analyse:
        if options.folders:
            raise ValueError("--analyse reads answers; give no folders with it.")
        return _analyse(options)
    if len(options.folders) != 2 or options.output is None:
        raise ValueError("two folders of clips and --output are wanted, or --analyse with the raters' files.")
    labels = options.labels or [folder.resolve().name for folder in options.folders]
    key = page.write_page(
        *options.folders,
        options.output,
        labels=tuple(labels),
        pairs=options.pairs,
        wait=options.wait,
        side=options.side,
        container=options.container,
        on_pair=show_pairs,
    )
    compared = sum(pair["kind"] == "compared" for pair in key["pairs"].values())
    sys.stdout.write(
        f"{options.output / 'index.html'}: {compared} pairs. Send the folder to the raters and keep "
        f"{options.output.name}.key.json.\n"
    )
    return 0


def show_pairs(done: int, total: int) -> None:
    sys.stderr.write(f"\rpairs of the page for raters: {done}/{total}" + "\n" * (done == total))


def _analyse(options: argparse.Namespace) -> int:
    from ...clips.media import save_image
    from ...files import write_text
    from .analysis import analyse, bar_chart, load_key, read_answers

    if options.key is None:
        raise ValueError("--analyse needs --key, the file that lies beside the page's folder.")
    result = analyse(read_answers(options.analyse), load_key(options.key), options.tolerate)
    sys.stdout.write(result.text())
    if options.output:
        write_text(options.output / "study.txt", result.text())
        save_image(bar_chart(result), options.output / "study.png")
    return 0
