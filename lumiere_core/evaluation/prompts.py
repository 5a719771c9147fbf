"""`evaluate prompts --workflow API.json`: clips of any model for the paper's 113 prompts, with captions and figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..flags import LEAST_FPS, MANY, MOST_FPS, MOST_SEED, real, threads_flag, whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workflow", type=Path, required=True, help="API-format workflow of any model and any packs")
    add_run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder of the clips; one that `prepare` takes")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What every verb has that runs workflows."""
    parser.add_argument("--prompts", type=Path, help="text file, one prompt a line; default: the paper's 113")
    parser.add_argument(
        "--seed", type=whole(0, MOST_SEED), default=0, help="of every clip; the paper fixes one for all"
    )
    parser.add_argument("--limit", type=whole(1, MANY), metavar="N", help="make at most N clips now")
    parser.add_argument("--minutes", type=real(0, MANY), metavar="M", help="stop after M minutes; run again to go on")
    parser.add_argument(
        "--base", default="", help="folder with models and custom_nodes; default: the ComfyUI around this pack"
    )
    parser.add_argument(
        "--fps", type=real(LEAST_FPS, MOST_FPS), default=16.0, help="frames a second where a workflow saves pictures"
    )
    threads_flag(parser)


def run_options(options: argparse.Namespace) -> dict:
    """Return the options of `runs.run_workflow`."""
    return {name: getattr(options, name) for name in ("base", "fps", "limit", "minutes", "threads")}


def main(options: argparse.Namespace) -> int:
    from .runs import PROMPTS, jobs_of, load_graph, read_prompts, run_workflow, write_results

    load_graph(options.workflow)
    jobs = jobs_of(read_prompts(options.prompts or PROMPTS), options.seed)
    lines = run_workflow(options.workflow, jobs, options.output, **run_options(options))
    if not lines:
        sys.stderr.write("no clip was made\n")
        return 1
    sys.stdout.write(write_results(lines, options.output))
    if len(lines) < len(jobs):
        sys.stdout.write(f"{len(lines)} of {len(jobs)} clips; run it again to go on.\n")
    return 0
