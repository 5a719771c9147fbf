"""The record of a run: JSONL, CSV and a picture of the loss curve."""

from __future__ import annotations

import contextlib
import csv
import math
from pathlib import Path

from ..clips.media import save_image
from ..files import JsonLines, Record, atomic


class Log(JsonLines):
    """Append records to `log.jsonl`; `write_tables` makes log.csv and loss.png from it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "log.jsonl")
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> list[Record]:
        """Return all whole records; what says no step or loss is none."""
        return [r for r in super().read() if type(r.get("step")) is int and isinstance(r.get("loss"), (int, float))]

    def rewind(self, step: int) -> None:
        """Forget records after `step`, when a run resumes from an earlier state."""
        self.keep([record for record in self.read() if record["step"] <= step])

    def write_tables(self, title: str) -> None:
        records = self.read()
        if len(records) < 2:
            return
        with atomic(self.folder / "log.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(records[-1]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(records)
        points = [(r["step"], r["loss"]) for r in records if math.isfinite(r["loss"])]
        save_image(draw_curve(points, title), self.folder / "loss.png")


class Board:
    """The same records for TensorBoard, where it is installed; closed at the end, so that the folder may be moved.

    Args:
        folder: of the run; None = nothing is written.
    """

    def __init__(self, folder: Path | None) -> None:
        self.writer = None
        if folder is not None:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, record: Record) -> None:
        if self.writer is not None:
            for name in ("loss", "gradient_norm", "learning_rate"):
                self.writer.add_scalar(name, record[name], record["step"])


def draw_curve(points: list[tuple[float, float]], title: str, size: tuple[int, int] = (800, 420)):
    """Return a picture of (step, loss) points on a logarithmic loss axis, with a running mean."""
    from PIL import Image, ImageDraw

    width, height = size
    left, top, right, bottom = 70, 34, 16, 40
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    xs = [p[0] for p in points]
    ys = [math.log10(max(p[1], 1e-8)) for p in points]
    low, high = min(ys), max(ys) + 1e-6

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - xs[0]) / max(1, xs[-1] - xs[0]) * (width - left - right),
            top + (high - y) / (high - low) * (height - top - bottom),
        )

    for i in range(5):
        y = low + (high - low) * i / 4
        draw.line([place(xs[0], y), place(xs[-1], y)], fill=(225, 225, 225))
        draw.text((8, place(xs[0], y)[1] - 6), f"{10**y:.4f}", fill="black")
        x = xs[0] + (xs[-1] - xs[0]) * i / 4
        draw.text((place(x, low)[0] - 14, height - 30), f"{x:.0f}", fill="black")
    draw.point([place(x, y) for x, y in zip(xs, ys, strict=True)], fill=(150, 180, 220))
    mean, smooth = ys[0], []
    for x, y in zip(xs, ys, strict=True):
        mean += (y - mean) * 0.05
        smooth.append(place(x, mean))
    draw.line(smooth, fill=(200, 60, 40), width=2)
    draw.text((left, 10), f"{title}: loss over steps (points; line = running mean)", fill="black")
    return image
