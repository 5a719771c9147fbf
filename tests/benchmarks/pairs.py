"""Fair timing on a noisy machine: the things compared take turns, and only ratios within a turn count."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Run = Callable[[], object]


class Clock:
    """Wall time on all threads; on a machine with other work, the CPU time of one thread instead.

    A thread that waits for a busy core makes wall time meaningless; its CPU time still counts the work.
    """

    BUSY = 0.9  # share of the cores that we get, below which the machine counts as busy

    def __init__(self, kind: str = "auto") -> None:
        share = _share_of_cores()
        if kind == "auto":
            kind = "wall" if share >= self.BUSY else "cpu"
        self.kind = kind
        if kind == "cpu":
            torch.set_num_threads(1)
        self.description = (
            f"wall time, {torch.get_num_threads()} threads"
            if kind == "wall"
            else f"CPU time of 1 thread ({share:.0%} of the cores were free)"
        )

    def time(self, run: Run) -> float:
        """Seconds that one call takes."""
        now = time.perf_counter if self.kind == "wall" else time.process_time
        _synchronise()
        began = now()
        run()
        _synchronise()
        return now() - began

    def turns(self, runs: Mapping[str, Run], count: int, warm_up: bool = True) -> Turns:
        """Call every function once a turn, every other turn in the opposite order."""
        if warm_up:
            for run in runs.values():
                run()
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(count):
            gc.collect()
            for name in list(runs) if turn % 2 == 0 else reversed(list(runs)):
                seconds[name].append(self.time(runs[name]))
        return Turns(seconds)


class Turns:
    """Times of functions that took turns: name to one number a turn, in seconds."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds = seconds

    def median(self, name: str) -> float:
        """Return the median time in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """Return the median over the turns of `name` over `other` within a turn."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return statistics.median(a / b for a, b in pairs)


def weighted_sum(parts: list[tuple[Turns, int]]) -> Turns:
    """Add the times of several comparisons turn by turn, each so many times."""
    names = parts[0][0].seconds
    return Turns(
        {
            name: [
                sum(s * times for s, (_, times) in zip(row, parts, strict=True))
                for row in zip(*(turns.seconds[name] for turns, _ in parts), strict=True)
            ]
            for name in names
        }
    )


def _share_of_cores(seconds: float = 1.0) -> float:
    """Return how much of the time torch's threads really ran while they all had work."""
    matrix = torch.randn(1024, 1024)
    matrix @ matrix
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        matrix @ matrix
    ran = time.process_time() - cpu
    return ran / (time.perf_counter() - began) / torch.get_num_threads()


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
