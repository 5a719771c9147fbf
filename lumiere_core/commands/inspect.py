"""`inspect FILE …`: what made a picture or a clip, as far as the file says it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pictures or videos, of any program")
    parser.add_argument("--watermark", action="store_true", help="look for this pack's invisible mark too")


def main(options: argparse.Namespace) -> int:
    from ..provenance.read import read_origin

    for number, file in enumerate(options.files):
        lines = read_origin(file, options.watermark).lines()
        sys.stdout.write("\n" * bool(number) + "\n".join(lines) + "\n")
    return 0
