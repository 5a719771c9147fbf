"""What a training run tells the user's page: its losses, the time that is left, and its newest samples."""

from __future__ import annotations

import base64
import time
from io import BytesIO
from pathlib import Path

from . import live

EVERY = 1.0  # seconds between two messages
SIDE = 768  # pixels of the samples' longer side


class TrainingNews:
    """Collects the losses of a run and sends them now and then.

    Args:
        name: of the file that is trained.
        steps: of the run.
    """

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.began = self.sent = time.monotonic()
        self.first: int | None = None  # the step that this run began with: it may go on from an earlier one
        self.losses: list[tuple[int, float]] = []
        self.sheet: Path | None = None

    def __call__(self, step: int, loss: float, sheet: Path | None = None) -> None:
        """Take one step's loss, and the newest picture of samples if there is one."""
        self.losses.append((step, loss))
        if self.first is None:
            self.first, self.began = step, time.monotonic()
        now = time.monotonic()
        if step < self.steps and step > self.first and now - self.sent < EVERY:
            return
        done = step - self.first
        news = {
            "name": self.name,
            "step": step,
            "steps": self.steps,
            "losses": self.losses,
            "left": (now - self.began) / done * (self.steps - step) if done else None,
        }
        if sheet is not None and sheet != self.sheet:
            self.sheet, news["samples"] = sheet, _jpeg(sheet)
        live.send("training", news)
        self.losses, self.sent = [], now


def _jpeg(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        file = BytesIO()
        small.save(file, "JPEG", quality=live.QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")
