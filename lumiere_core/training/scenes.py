"""Choosing the scenes of batches, in other processes where a GPU waits for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from .. import world
from .data import scenes_at
from .options import TrainOptions

MOST = 6  # processes


def _begin() -> None:
    """An interrupt is for the process that trains: it still needs scenes until its step is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Scenes:
    """The training scenes of steps. Choosing is plain Python, one core's work of a tenth of a millisecond each."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        free = (os.cpu_count() or 1) // 2
        on_cpu = torch.device(options.device).type == "cpu"
        self.processes = 0 if on_cpu or free < 2 else min(MOST, free)
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, steps: Sequence[int]) -> list[list[world.Scene]]:
        """Return the scenes of each step."""
        if not self.processes:
            return [scenes_at(self.options, step) for step in steps]
        if self._pool is None:
            # A fork would copy what CUDA cannot share.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, _begin)
        return list(self._pool.map(scenes_at, [self.options] * len(steps), steps))
