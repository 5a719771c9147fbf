"""Running one workflow on many prompts, case by case, so that it can be stopped and goes on."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..files import Record, check_target, write_text
from ..host_process import Worker, WorkerError
from ..lock import only_writer
from ..measures import measure_clip
from ..text_files import lines_of, read_json, read_text
from .store import Store
from .video_set import frames_of

PROMPTS = Path(__file__).parent / "data" / "prompts_113.txt"
SHEET_FRAMES, SHEET_CLIPS = 4, 400  # of a clip, and clips at most, on the contact sheet
CELL, GAP = 160, 8  # pixels
MOST_SIDE = 1 << 16  # pixels that a line may say of a clip


@dataclass(frozen=True)
class Job:
    """One clip that is wanted."""

    name: str  # of its files
    prompt: str
    seed: int


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a file that are neither empty nor comments (#).

    Raises:
        ValueError: there are none.
    """
    lines = [line.strip() for line in lines_of(read_text(path))]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise ValueError(f"{path} holds no prompts; one a line is wanted.")
    return prompts


def jobs_of(prompts: list[str], seed: int) -> list[Job]:
    """One job a prompt, all with the same seed, as the paper does."""
    return [Job(f"{index:03d}_{slug(prompt)}", prompt, seed) for index, prompt in enumerate(prompts)]


def slug(prompt: str) -> str:
    words = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in prompt.lower())
    return "_".join(filter(None, words.split("_")))[:48] or "clip"


def run_workflow(
    workflow: Path,
    jobs: list[Job],
    output: Path,
    *,
    base: str = "",
    fps: float = 16.0,
    limit: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
    start: Callable[..., Any] | None = None,
) -> list[Record]:
    """Make the clips that the folder lacks, each with its caption beside it, measure them, and return all lines.

    The folder is one that `prepare` takes. A line names the workflow by its hash: another workflow makes all anew.

    Args:
        base: folder of models and packs of the host; "" = the ComfyUI around this pack.
        fps: of the mp4 where the workflow saves pictures.
        limit, minutes: stop after so many clips or minutes.
        threads: of the CPU; None = all.
        start: starts the process that runs workflows; default: `Worker`.

    Raises:
        ValueError: the host cannot run the workflow, or another process makes clips in this folder.
        OSError: the folder cannot be written to.
    """
    for name in ("clips.jsonl", "measures.csv", "sheet.jpg"):
        check_target(output / name)
    text = read_text(workflow)
    store = Store(output / "clips.jsonl")
    run = {"workflow": hashlib.sha256(text.encode()).hexdigest()[:16]}
    with only_writer(output, f"evaluate, clips of {workflow.name}"):
        done = store.of_run(run)
        lacking = [job for job in jobs if _line_of(done, job, output) is None]
        wanted = lacking[:limit]
        if len(lacking) < len(jobs):
            sys.stdout.write(f"{output}: {len(jobs) - len(lacking)} of {len(jobs)} clips are there\n")
        deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
        make = start or Worker
        _make(
            wanted,
            output,
            store,
            run=run,
            fps=fps,
            deadline=deadline,
            workflow=workflow,
            start=lambda: make("workflows", workflow.resolve(), base, threads or 0),
        )
    lines = store.of_run(run)
    found = [_line_of(lines, job, output) for job in jobs]
    return [line for line in found if line is not None]


def _make(
    jobs: list[Job],
    output: Path,
    store: Store,
    run: Record,
    fps: float,
    deadline: float,
    workflow: Path,
    start: Callable[[], Any],
) -> None:
    """Make clips one after the other; each has its line as soon as it is measured."""
    worker = None
    try:
        for number, job in enumerate(jobs):
            if time.monotonic() > deadline:
                break
            worker = worker or start()
            clip, started = output / f"{job.name}.mp4", time.monotonic()
            worker.ask({"prompt": job.prompt, "seed": job.seed, "output": str(clip.resolve()), "fps": fps})
            seconds = time.monotonic() - started
            write_text(clip.with_suffix(".txt"), job.prompt + "\n")
            store.append(_line(job, clip, run, seconds), durable=True)
            sys.stdout.write(f"{number + 1}/{len(jobs)}  {clip}  {seconds:.0f} s\n")
            sys.stdout.flush()
    except WorkerError as error:
        raise ValueError(f"{workflow.name}: {error}") from error
    finally:
        if worker is not None:
            worker.close()


def _line_of(lines: dict[str, Record], job: Job, output: Path) -> Record | None:
    """Return the line of a clip that is there as it was measured; None where it is to be made (again)."""
    line = lines.get(job.name)
    if line is None or (line.get("prompt"), line.get("seed")) != (job.prompt, job.seed) or not _is_whole(line):
        return None
    try:
        same = (output / f"{job.name}.mp4").stat().st_size == line["bytes"]
    except OSError:
        return None
    return line if same else None


def _is_whole(line: Record) -> bool:
    """Whether a line says everything that tables and sheets are made of."""

    def number(value: Any, least: float) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least

    size, figures = line.get("size"), line.get("figures")
    return (
        all(number(line.get(name), 1) and type(line[name]) is int for name in ("frames", "bytes"))
        and number(line.get("fps"), 0)
        and isinstance(size, list)
        and len(size) == 2
        and all(number(side, 1) and side <= MOST_SIDE for side in size)
        and isinstance(figures, dict)
        and all(isinstance(value, float) for value in figures.values())
        and len(figures) > 0
    )


def _line(job: Job, clip: Path, run: Record, seconds: float) -> Record:
    frames, rate = frames_of(clip)
    report = measure_clip(frames)
    return {
        "case": job.name,
        "prompt": job.prompt,
        "seed": job.seed,
        **run,
        "seconds": round(seconds, 1),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "bytes": clip.stat().st_size,
        "frames": report.frames,
        "fps": rate,
        "size": list(report.size),
        "figures": {name: round(float(value), 5) for name, value in report.values.items()},
    }


def table_of(lines: list[Record]) -> str:
    """Return the figures as CSV: a row a clip, and their means in the last."""
    names = list(dict.fromkeys(name for line in lines for name in line["figures"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "prompt", "seed", "frames", "fps", *names])
    for line in lines:
        facts = [line[name] for name in ("case", "prompt", "seed", "frames", "fps")]
        writer.writerow([*facts, *(line["figures"].get(name, "") for name in names)])
    means = mean_figures(lines)
    writer.writerow(["mean", "", "", "", "", *(round(means[name], 5) for name in names)])
    return text.getvalue()


def mean_figures(lines: list[Record]) -> dict[str, float]:
    """Return the mean of each figure over the clips that have it."""
    names = list(dict.fromkeys(name for line in lines for name in line["figures"]))
    return {
        name: float(np.mean([line["figures"][name] for line in lines if name in line["figures"]])) for name in names
    }


def write_sheet(lines: list[Record], folder: Path, path: Path) -> None:
    """Write a picture with some frames of every clip, about as wide as high; of very many clips some, evenly spaced."""
    from PIL import Image, ImageDraw, ImageOps

    from ..clips.media import evenly_spaced, save_image

    lines = [lines[index] for index in evenly_spaced(len(lines), SHEET_CLIPS)]
    height, width = lines[0]["size"]
    cell = (CELL, min(4 * CELL, max(2, round(CELL * height / width))))
    wide, high = SHEET_FRAMES * CELL + GAP, cell[1] + 16
    columns = max(1, round(math.sqrt(len(lines) * high / wide)))
    sheet = Image.new("RGB", (columns * wide - GAP, math.ceil(len(lines) / columns) * high), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for index, line in enumerate(lines):
        left, top = index % columns * wide, index // columns * high
        frames, _ = frames_of(folder / f"{line['case']}.mp4")
        wanted = evenly_spaced(line["frames"], SHEET_FRAMES)
        for number, frame in enumerate(islice(frames, line["frames"])):
            if number in wanted:
                picture = ImageOps.pad(Image.fromarray(frame), cell, color=(24, 24, 24))
                sheet.paste(picture, (left + wanted.index(number) * CELL, top))
        printable = line["prompt"].encode("ascii", "replace").decode()
        draw.text((left + 3, top + cell[1] + 2), printable[: SHEET_FRAMES * CELL // 6], fill=(220, 220, 220))
    save_image(sheet, path)


def write_results(lines: list[Record], folder: Path) -> str:
    """Write measures.csv and sheet.jpg into the folder of the clips; returns what is printed."""
    write_text(folder / "measures.csv", table_of(lines))
    write_sheet(lines, folder, folder / "sheet.jpg")
    means = mean_figures(lines)
    width = max(map(len, means))
    rows = [f"{name:<{width}}  {value:10.4f}" for name, value in means.items()]
    return "\n".join([f"means of {len(lines)} clips in {folder}:", *rows]) + "\n"


def load_graph(path: Path) -> dict:
    """Read an API-format workflow, to refuse another file before a host is started.

    Raises:
        ValueError: it is none.
    """
    try:
        graph = read_json(path)
        if graph and all(
            isinstance(node["class_type"], str) and isinstance(node["inputs"], dict) for node in graph.values()
        ):
            return graph
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the workflow {path}: {error}") from error
    except (AttributeError, TypeError, KeyError):
        pass
    raise ValueError(f"{path} is no API-format workflow; use File > Export (API) in ComfyUI.")
