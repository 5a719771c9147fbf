"""A prepared plan for a few minutes with a GPU: figures in order of worth, kept as they come, taken up again later."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "benchmarks"):
    sys.path.insert(0, str(folder))

from figures import Figure  # noqa: E402

Task = tuple[str, Callable[[], Iterable[Figure]]]


class Deadline:
    """Minutes that are left; a task is begun only while there are any."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Return the seconds until the end; below zero after it."""
        return self.end - time.monotonic()


class Kept:
    """Figures in one JSON file, written whole after each task.

    Args:
        file: taken up again where it is there: tasks in it are not run twice.
        machine: what the figures are of; those of another machine are measured again.
    """

    def __init__(self, file: Path, machine: str) -> None:
        self.file, self.machine = file, machine
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        self.tasks: dict[str, list[dict]] = known.get("tasks", {}) if known.get("machine") == machine else {}

    def put(self, task: str, figures: list[Figure]) -> None:
        self.tasks[task] = [dataclasses.asdict(figure) for figure in figures]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f".{self.file.name}.{os.getpid()}.partial")
        partial.write_text(
            json.dumps({"machine": self.machine, "tasks": self.tasks}, indent=1) + "\n", encoding="utf-8"
        )
        partial.replace(self.file)

    def figures(self) -> list[Figure]:
        return [Figure(**figure) for figures in self.tasks.values() for figure in figures]


def run(tasks: Iterable[Task], kept: Kept, deadline: Deadline) -> list[str]:
    """Run what is not kept yet, one task after the other; returns the names for which no time was left."""
    waiting = []
    for name, task in tasks:
        if name in kept.tasks:
            continue
        if deadline.left() <= 0:
            waiting.append(name)
            continue
        try:
            figures = list(task())
        except torch.OutOfMemoryError:
            figures = [Figure(name, None, "", note="out of memory")]
        except Exception as error:  # the minutes are few: what comes after it is still worth measuring
            figures = [Figure(name, None, "", note=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        kept.put(name, figures)
        for figure in figures:
            print(figure.line(), flush=True)
    return waiting


def machine(device: str) -> str:
    """Return the card's name, or that of the processor's instruction set."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name() if kind == "cuda" else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, torch {torch.__version__}"


def seconds(call: Callable[[], object], device: str, turns: int) -> float:
    """Return the median time of one call, after one that is not counted."""
    times = []
    for _ in range(turns + 1):
        synchronise(device)
        began = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[turns // 2]


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_gib(call: Callable[[], object], device: str) -> float | None:
    """Return the most memory that the card held during a call, in GiB; None on a CPU."""
    if torch.device(device).type != "cuda":
        call()
        return None
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def table(kept: Kept) -> str:
    """Return the figures as Markdown, with the card's name."""
    lines = [f"{kept.machine}", "", "| figure | value | bar | note |", "| --- | --- | --- | --- |"]
    for figure in kept.figures():
        value = "not measured" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        bar = "" if figure.bar is None else f"{'≥' if figure.at_least else '≤'} {figure.bar:g}"
        lines.append(f"| {figure.name} | {value if figure.holds else f'**{value}**'} | {bar} | {figure.note} |")
    return "\n".join(lines) + "\n"
