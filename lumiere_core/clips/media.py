"""Clips as files and pictures. Frames are (t, h, w, 3) uint8, a tensor or an array."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..files import atomic
from ..flags import LEAST_FPS, MOST_FPS, MOST_SIDE
from ..text_files import shown

if TYPE_CHECKING:
    from PIL import Image

Frames = Tensor | np.ndarray


def write_mp4(
    path: str | Path,
    frames: Frames,
    fps: float = 16.0,
    metadata: dict[str, str] | None = None,
    scale: int = 1,
    crf: int = 12,
) -> None:
    """Write an H.264 mp4, atomically.

    Args:
        metadata: container fields, for example {"comment": "…"}.
        scale: whole-number nearest-neighbour enlargement (half the colour of a small clip is lost else).
        crf: quality of the encoder, 0 (lossless) to 51.
    """
    import av

    path, frames = Path(path), enlarge(_array(frames), scale)
    _, height, width, _ = frames.shape
    check_mp4(height, width, fps)
    options = {"movflags": "use_metadata_tags"}  # keeps fields that mp4 has no atom for
    with atomic(path) as partial, av.open(str(partial), mode="w", format="mp4", options=options) as container:
        container.metadata.update({key: shown(text) for key, text in (metadata or {}).items()})
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": str(crf)}
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def check_mp4(height: int, width: int, fps: float) -> None:
    """Raise ValueError unless H.264 can hold frames of this size at this rate."""
    if height % 2 or width % 2:
        raise ValueError(f"frames are {width}x{height} pixels; H.264 needs even sizes. Use an even scale, or pad.")
    if max(height, width) > MOST_SIDE:
        raise ValueError(f"frames are {width}x{height} pixels; H.264 has at most {MOST_SIDE:,} to a side.")
    if not LEAST_FPS <= fps <= MOST_FPS:  # not NaN either
        raise ValueError(f"fps is {fps}; a number from {LEAST_FPS} to {MOST_FPS:g} is wanted.")


def read_video(path: str | Path) -> tuple[np.ndarray, Fraction, dict[str, str]]:
    """Return (frames, frames a second, container metadata) of a video file."""
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate, dict(container.metadata)


def contact_sheet(frames: Frames, columns: int = 8, scale: int = 1, gap: int = 2) -> Image.Image:
    """Return all frames in reading order on one picture."""
    from PIL import Image

    frames = enlarge(_array(frames), scale)
    count, height, width, _ = frames.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 32, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return Image.fromarray(sheet)


def xt_slice(frames: Frames, row: int | None = None, scale: int = 4) -> Image.Image:
    """Return one row of pixels over time: x to the right, time downwards (Lumiere fig. 2)."""
    from PIL import Image

    return Image.fromarray(line_over_time(frames, "row", row, scale))


def line_over_time(frames: Frames, direction: str, place: int | None = None, scale: int = 1) -> np.ndarray:
    """Return one line of pixels over time, (t, h or w, 3): along the line to the right, time downwards.

    Args:
        direction: "row" or "column".
        place: number of the row or column; None = the middle one.
        scale: whole-number enlargement.

    Raises:
        ValueError: there is no such line.
    """
    frames = _array(frames)
    axis = {"row": 1, "column": 2}[direction]
    place = frames.shape[axis] // 2 if place is None else place
    if not 0 <= place < frames.shape[axis]:
        raise ValueError(f"there is no {direction} {place}; the frames have 0 to {frames.shape[axis] - 1}.")
    return enlarge(frames.take(place, axis)[None], scale)[0]


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` frame numbers of a clip, first and last included."""
    wanted = min(wanted, count)
    return [round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)]


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Repeat pixels `scale` times in both directions."""
    if scale < 1:
        raise ValueError(f"scale is {scale}; a whole number of at least 1 is wanted.")
    return frames if scale == 1 else frames.repeat(scale, axis=1).repeat(scale, axis=2)


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a picture, atomically."""
    with atomic(path) as partial:
        image.save(partial)


def _array(frames: Frames) -> np.ndarray:
    return frames.cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
