"""Making the clips that are measured, or taking them from a folder that kept them.

t - frames, h, w - pixels.
"""

from __future__ import annotations

import argparse
import logging
import time
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..files import Record, atomic
from .store import fingerprint

if TYPE_CHECKING:
    from ..diffusion.generate import Request
    from ..diffusion.models import Models


logger = logging.getLogger("lumiere")


@dataclass(frozen=True)
class Clip:
    """A clip with what its line in the results says about how it was made."""

    frames: Tensor  # (t, h, w, 3) uint8
    device: str
    seconds: float


class ClipMaker:
    """One model with the settings of the sampling; the networks are loaded when first needed."""

    def __init__(self, options: argparse.Namespace) -> None:
        from ..diffusion.generate import Request
        from ..diffusion.models import weight_files
        from ..nets.checkpoint import load_parts

        parts = load_parts(weight_files(options.weights))
        height, width = parts.config.get("size", (64, 64))
        self.weights, self.device, self.sha256 = options.weights, options.device, parts.sha256
        self.folder = getattr(options, "clips", None)
        self.request = Request(
            "",
            num_frames=options.frames,
            height=height,
            width=width,
            steps=options.steps,
            cfg=options.cfg,
            guidance_end=options.guidance_end,
            sampler=options.sampler,
            scheduler=options.scheduler,
        )
        self.run: Record = {
            "weights": fingerprint(self.sha256),
            "steps": options.steps,
            "cfg": options.cfg,
            "guidance_end": options.guidance_end,
            "sampler": options.sampler,
            "scheduler": options.scheduler,
            "frames": options.frames,
            "size": [height, width],
        }
        self._models = None

    def make(self, name: str, prompt: str, seed: int, request: Request | None = None) -> Clip:
        """The clip of a case; with a folder it is kept there under the case's name.

        Args:
            request: how it is made, for another way than this maker's own.
        """
        import numpy as np

        path = self.path(name)
        kept = path and self._kept(path)
        if kept:
            return kept
        clip = self._generate(replace(request or self.request, prompt=prompt, seed=seed))
        if path:
            with atomic(path) as partial:
                np.savez_compressed(partial, frames=clip.frames.numpy(), device=clip.device, seconds=clip.seconds)
        return clip

    def _kept(self, path: Path) -> Clip | None:
        """Read a clip that was kept; None where there is none, or a damaged one, which is made again."""
        import numpy as np

        try:
            with np.load(path) as kept:
                frames, device, seconds = kept["frames"], str(kept["device"]), float(kept["seconds"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logger.warning("%s cannot be read (%s) and is made again", path, error)
            return None
        if frames.dtype != np.uint8 or frames.ndim != 4 or not frames.size or frames.shape[-1] != 3:
            logger.warning("%s holds no frames and is made again", path)
            return None
        return Clip(torch.from_numpy(frames), device, seconds)

    def path(self, name: str) -> Path | None:
        """Where the clip of a case is kept; None without a folder."""
        return Path(self.folder) / self._run_name() / f"{name}.npz" if self.folder else None

    def _generate(self, request: Request) -> Clip:
        from ..diffusion.generate import generate

        models, started = self.models(), time.monotonic()
        frames = generate(models, request).cpu()
        return Clip(frames, device_name(self.device), round(time.monotonic() - started, 1))

    def models(self) -> Models:
        """The networks, loaded once."""
        from ..diffusion.models import load_models

        if self._models is None:
            self._models, _ = load_models(self.weights, self.device)
        return self._models

    def _run_name(self) -> str:
        return fingerprint({name: f"{name}={value}" for name, value in self.run.items()})[:16]


def device_name(device: str) -> str:
    """cpu, or the accelerator's own name."""
    kind = torch.device(device)
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type


def mean_levels(frames: Tensor) -> list[float]:
    """Mean red, green and blue of each quarter of a (t, h, w, 3) clip, in levels of 255: what `--check` compares."""
    return [round(float(v), 2) for part in frames.float().chunk(4) for v in part.mean((0, 1, 2))]
