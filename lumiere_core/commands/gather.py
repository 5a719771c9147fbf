"""`gather`: photographs to train super-resolution on, or clips to measure it with, out of public packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..dataset.public import SETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(SETS))
    parser.add_argument("--output", required=True, type=Path, help="folder; CREDITS.txt in it names the licences")


def main(options: argparse.Namespace) -> int:
    from ..dataset.public import gather

    files = gather(options.what, options.output)
    sys.stdout.write(f"{options.output}: {len(files)} files, licences in CREDITS.txt\n")
    return 0
