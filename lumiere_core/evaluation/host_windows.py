"""The host's own context windows, for comparison: run by `nodes/headless/context_windows.py` in a process of its own."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..host_process import Worker, WorkerError

logger = logging.getLogger("lumiere")


class HostWindows:
    """A host that enlarges clips in its own windows; started when first needed, ended with this process.

    Args:
        weights: name or file of the super-resolution stage.
    """

    def __init__(self, weights: str | Path) -> None:
        self.weights = weights
        self._worker: Worker | None = None
        self._missing = False

    def upscale(self, frames: Tensor, prompt: str, seed: int, steps: int, length: int, overlap: int) -> Tensor | None:
        """Return the enlarged (t, h, w, 3) uint8 clip, or None without a host.

        Raises:
            WorkerError: the host started and then failed.
        """
        if self._worker is None and not self._missing:
            self._start()
        if self._missing:
            return None
        with tempfile.TemporaryDirectory() as folder:
            small, large = Path(folder) / "small.npy", Path(folder) / "large.npy"
            np.save(small, frames.numpy())
            job = {
                "small": str(small),
                "large": str(large),
                "prompt": prompt,
                "seed": seed,
                "steps": steps,
                "length": length,
                "overlap": overlap,
            }
            self._worker.ask(job)
            return torch.from_numpy(np.load(large))

    def _start(self) -> None:
        try:
            self._worker = Worker("context_windows", self.weights, torch.get_num_threads())
        except WorkerError as error:
            self._missing = True
            logger.warning("the host's context windows are left out: %s", error)
