"""An invisible mark in the pixels of every frame, by the package invisible-watermark where it is installed.

Which of its methods, and how often it is found again, was measured: tests/benchmarks/watermarks.py, docs/measuring.md.
A new encoding leaves the mark, a crop does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np

METHOD = "dwtDctSvd"
BITS = tuple(int(bit) for bit in f"{0x4C756D69:032b}")  # "Lumi"
THRESHOLD = 27  # of 32 bits right; chance alone does it once in 16,000
SIDE = 256  # pixels; the method wants as many as a square of this side has
MOST_PIXELS = 1 << 25  # of a frame: 8K video
LOOKED_AT = 16  # frames that a mark is looked for in


def mark(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield (h, w, 3) uint8 frames with the mark in them.

    Raises:
        ValueError: frames of too few pixels, or the library is missing.
    """
    library = _library()
    encoder = library.WatermarkEncoder()
    encoder.set_watermark("bits", list(BITS))
    for frame in frames:
        if frame.shape[0] * frame.shape[1] < SIDE * SIDE:
            raise ValueError(
                f"frames of {frame.shape[1]}x{frame.shape[0]} pixels are too small for a watermark; {SIDE}x{SIDE} "
                "pixels at least are wanted. Enlarge them first."
            )
        yield np.ascontiguousarray(encoder.encode(frame[..., ::-1].copy(), METHOD)[..., ::-1])


def right_bits(frames: Iterable[np.ndarray]) -> int:
    """Return how many of the 32 bits agree, averaged over the frames; 16 by chance."""
    decoder = _library().WatermarkDecoder("bits", len(BITS))
    found = [np.asarray(decoder.decode(frame[..., ::-1].copy(), METHOD), dtype=float) for frame in frames]
    return int(((np.mean(found, 0) > 0.5) == np.array(BITS)).sum())


def find_in_file(path: Path) -> str:
    """Say whether a video or picture carries the mark."""
    try:
        frames = list(islice(_frames(path), LOOKED_AT))
        # The blocks of the mark have the size that they were made with: a clip at half its size is enlarged again.
        tries = [frames, [_doubled(frame) for frame in frames]]
        tries = [some for some in tries if some and some[0].shape[0] * some[0].shape[1] >= SIDE * SIDE]
        if not tries:
            return f"not looked for: fewer than {SIDE // 2}x{SIDE // 2} pixels"
        bits = max(map(right_bits, tries))
    except ValueError as error:
        return f"not looked for: {error}"
    return f"{'found' if bits >= THRESHOLD else 'not found'}, {bits} of {len(BITS)} bits ({THRESHOLD} wanted)"


def _frames(path: Path) -> Iterator[np.ndarray]:
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            for frame in container.decode(video=0):
                if frame.width * frame.height > MOST_PIXELS:
                    raise ValueError(f"frames of {frame.width}x{frame.height} pixels, which would take minutes each")
                yield frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"no frames in {path.name} ({error})") from error


def _doubled(frame: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = frame.shape[:2]
    return np.asarray(Image.fromarray(frame).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))


def _library() -> ModuleType:
    try:
        import imwatermark
    except ImportError as error:
        raise ValueError(
            "a watermark needs the package invisible-watermark; install it, or switch the mark off."
        ) from error
    return imwatermark
