"""`evaluate compare A.json B.json`: two workflows on the same prompts, side by side, with a page for raters.

As in the paper's figures 10 and 11: the same prompts and seed for both, nothing chosen.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..text_files import shown
from .prompts import add_run_arguments, run_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workflows", nargs=2, type=Path, metavar="API.json", help="API-format workflows A and B")
    add_run_arguments(parser)
    parser.add_argument("--labels", nargs=2, help="names of the two; default: of their files")
    parser.add_argument("--output", type=Path, required=True, help="folder: a/, b/, sheets/, study/ and compare.txt")


def main(options: argparse.Namespace) -> int:
    import numpy as np

    from ..clips.media import write_mp4
    from ..files import write_text
    from ..measures.beside import side_by_side
    from .runs import PROMPTS, jobs_of, load_graph, mean_figures, read_prompts, run_workflow, write_results
    from .study.page import write_page
    from .study.verb import show_pairs
    from .video_set import frames_of

    for workflow in options.workflows:
        load_graph(workflow)
    jobs = jobs_of(read_prompts(options.prompts or PROMPTS), options.seed)
    labels = [shown(label) for label in options.labels or [workflow.stem for workflow in options.workflows]]
    folders = [options.output / name for name in "ab"]
    every = [
        run_workflow(workflow, jobs, folder, **run_options(options))
        for workflow, folder in zip(options.workflows, folders, strict=True)
    ]
    names = [line["case"] for line in every[0] if line["case"] in {other["case"] for other in every[1]}]
    if not names:
        sys.stderr.write("no prompt has a clip of both workflows\n")
        return 1
    for lines, folder in zip(every, folders, strict=True):
        write_results(lines, folder)
    for name in names:
        files = [folder / f"{name}.mp4" for folder in folders]
        sheet = options.output / "sheets" / f"{name}.mp4"
        if not sheet.is_file() or sheet.stat().st_mtime_ns < max(file.stat().st_mtime_ns for file in files):
            clips = [frames_of(file) for file in files]
            write_mp4(sheet, np.stack(list(side_by_side(clips[0][0], clips[1][0], tuple(labels)))), clips[0][1])
    text = compared(labels, [mean_figures([line for line in lines if line["case"] in names]) for lines in every])
    sys.stdout.write(f"{len(names)} prompts\n{text}")
    write_text(options.output / "compare.txt", text)
    page = options.output / "study"
    if len(names) > 1:
        write_page(folders[0], folders[1], page, labels=tuple(labels), on_pair=show_pairs)
        sys.stdout.write(f"a page for raters: {page / 'index.html'}; its key: {page}.key.json\n")
    return 0


def compared(labels: list[str], means: list[dict[str, float]]) -> str:
    """Return the means of two models as a table."""
    names = [name for name in means[0] if name in means[1]]
    width = max(map(len, names), default=0)
    lines = [f"{'':<{width}}  {labels[0][:20]:>20}  {labels[1][:20]:>20}"]
    lines += [f"{name:<{width}}  {means[0][name]:20.4f}  {means[1][name]:20.4f}" for name in names]
    return "\n".join(lines) + "\n"
