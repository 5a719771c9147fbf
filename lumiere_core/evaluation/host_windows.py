"""The host's own context windows, for comparison: run by `nodes/headless/context_windows.py` in a process of its own."""

from __future__ import annotations

import atexit
import json
import logging
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..commands.host_process import script_command

logger = logging.getLogger("lumiere")


class HostWindows:
    """A host that enlarges clips in its own windows; started when first needed, ended with this process.

    Args:
        weights: name or file of the super-resolution stage.
    """

    def __init__(self, weights: str | Path) -> None:
        self.weights = weights
        self._process: subprocess.Popen | None = None
        self._missing = False

    def upscale(self, frames: Tensor, prompt: str, seed: int, steps: int, length: int, overlap: int) -> Tensor | None:
        """Return the enlarged (t, h, w, 3) uint8 clip, or None without a host.

        Raises:
            RuntimeError: the host started and then failed.
        """
        if self._process is None and not self._missing:
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
            self._process.stdin.write(f"{json.dumps(job)}\n")
            self._process.stdin.flush()
            line = self._wait_for("done", "failed")
            if not line.startswith("done"):
                raise RuntimeError(f"the host's context windows: {line}")
            return torch.from_numpy(np.load(large))

    def _start(self) -> None:
        self._process = subprocess.Popen(
            script_command("context_windows", self.weights, torch.get_num_threads()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ,
        )
        atexit.register(self._process.kill)
        line = self._wait_for("ready", "failed")
        if not line.startswith("ready"):
            self._missing = True
            logger.warning("the host's context windows are left out: %s", line)

    def _wait_for(self, *words: str) -> str:
        """Return the next line that begins with one of the words; the host prints others."""
        for line in self._process.stdout:
            if line.startswith(words):
                return line.strip()
        return "failed: the process ended"
