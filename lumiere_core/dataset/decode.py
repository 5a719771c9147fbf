"""Frames of a video file at the wanted rate, upright and in RGB, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


class Unusable(Exception):
    """A file that holds no usable video; the message is the reason."""


@dataclass
class Report:
    """What was noticed while a file was decoded."""

    decoded: int = 0  # frames in the file, counted
    seconds: float = 0.0
    width: int = 0  # upright
    height: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def frames_at(path: Path, fps: float, report: Report) -> Iterator[np.ndarray]:
    """Yield the (h, w, 3) uint8 frame that is on screen at 0, 1 / fps, 2 / fps, … seconds.

    The presentation times of the frames count, not the rate that the file claims, so variable rates come out right.
    Rotation is applied and transparency is laid over black. Each file is decoded once, frame by frame.

    Raises:
        Unusable: not a video, or damaged before its first frame.
    """
    held, wanted, last = None, 0, 0.0
    steps: list[float] = []
    for time, picture in _frames(path, report):
        if held is not None:
            steps.append(time - last)
            while wanted / fps < time - 1e-6:
                yield held
                wanted += 1
        held, last = picture, time
    if held is None:
        raise Unusable("no frames: the file is empty or cannot be decoded")
    # The last frame stays for as long as its neighbours did.
    end = last + (float(np.median(steps)) if steps else 0.0)
    report.seconds = end
    while wanted == 0 or (wanted + 0.1) / fps < end:  # times are rounded to the file's clock
        yield held
        wanted += 1
    if steps and max(steps) > 1.5 * min(s for s in (*steps, 1e9) if s > 0):
        report.note("variable frame rate")
    if report.decoded < wanted * 0.75:
        report.note(f"{report.decoded / max(end, 1e-6):.3g} frames a second: frames are repeated")


def _frames(path: Path, report: Report) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds from the first frame, picture) of every frame, in order of presentation."""
    import av

    if path.stat().st_size == 0:
        raise Unusable("the file is empty")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise Unusable(f"no video that can be opened ({_first_line(error)})") from error
    with container:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            raise Unusable("no video stream" + (", only sound" if container.streams.audio else ""))
        stream = streams[0]
        stream.thread_type = "AUTO"
        first, before = None, -1.0
        try:
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else before + _duration(stream)
                first = time if first is None else first
                if time - first <= before:  # a clock that stands still or runs back
                    time = first + before + 1e-4
                    report.note("frame times that do not rise")
                before = time - first
                report.decoded += 1
                picture = _picture(frame, report)
                report.height, report.width = picture.shape[:2]
                yield before, picture
        except av.error.FFmpegError as error:
            if not report.decoded:
                raise Unusable(f"damaged: no frame can be decoded ({_first_line(error)})") from error
            report.note(f"damaged after {report.decoded} frames; what came before is used")


def _picture(frame: Any, report: Report) -> np.ndarray:
    """Return the upright (h, w, 3) uint8 picture of a frame of any pixel format."""
    depth = max(component.bits for component in frame.format.components)
    if depth > 8:
        report.note(f"{depth} bits a channel, rounded to 8")
    if any(component.is_alpha for component in frame.format.components):
        report.note("transparent, laid over black")
        rgba = frame.to_ndarray(format="rgba").astype(np.uint16)
        picture = (rgba[..., :3] * rgba[..., 3:] // 255).astype(np.uint8)
    else:
        picture = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    if turns:
        report.note(f"turned by {turns * 90} degrees")
        picture = np.rot90(picture, turns)
    return picture


def _is_cover(stream: Any) -> bool:
    """Tell whether a stream is the picture on a piece of music."""
    import av

    flag = getattr(getattr(av.stream, "Disposition", None), "attached_pic", None)
    return bool(flag and stream.disposition & flag)


def _duration(stream: Any) -> float:
    return 1 / float(stream.average_rate) if stream.average_rate else 1 / 25


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
