"""`average`: the weighted mean of weights files of one architecture, such as those of two runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..flags import real


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, help="two or more; the last one gives the metadata")
    parser.add_argument("--shares", required=True, nargs="+", type=real(0, 1), help="of each file, for example 0.3 0.7")
    parser.add_argument("--output", required=True, type=Path, help="file to write")


def main(options: argparse.Namespace) -> int:
    from ..files import check_target, refuse_input
    from ..nets.checkpoint import average_files

    check_target(options.output)  # before the work, not after
    refuse_input(options.output, options.files)
    average_files(options.files, options.shares, options.output)
    sys.stdout.write(f"{options.output}\n")
    return 0
