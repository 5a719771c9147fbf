"""A folder with one static page that works offline: pairs of clips, two questions, answers as a CSV to download.

The names of the files say nothing; the key beside the folder does, and stays with who runs the study.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ...files import atomic, check_target, write_text
from ...text_files import shown
from ..video_set import frames_of, sources_in

SIDE = 512  # pixels; the paper's
PAIRS = 10  # that a rater sees; the paper's
WAIT = 3.0  # seconds before the answer; the paper's
QUESTIONS = (
    "Which video matches the following text?",
    # The paper's wording of the second is only known by way of a translation.
    "Which video is better? Judge by more motion and better visual quality.",
)
TEMPLATE = Path(__file__).with_name("page.html")
CODECS = {"mp4": ("libx264", {"crf": "16"}), "webm": ("libvpx-vp9", {"crf": "24", "b": "0", "cpu-used": "8"})}


def write_page(
    first: Path,
    second: Path,
    output: Path,
    *,
    labels: tuple[str, str] = ("A", "B"),
    pairs: int = PAIRS,
    wait: float = WAIT,
    side: int = SIDE,
    container: str = "mp4",
    on_pair: Callable[[int, int], None] | None = None,
) -> dict:
    """Write index.html and its clips, and output.key.json beside the folder; returns the key.

    Clips of a pair have the same name in both folders. Both are trimmed at both ends to the length of the shorter one,
    cropped to the centre square and scaled. Two pairs to check attention are added: a clip against noise, and a
    clip against its own first frame.

    Args:
        first, second: folders of clips with captions, as `evaluate prompts` makes them.
        labels: what the two are called in the results; raters do not see them.
        pairs: how many a rater judges.
        wait: seconds after both clips were seen.
        container: "mp4" plays everywhere, "webm" also in browsers without H.264.

    Raises:
        ValueError: the folders have fewer than two clips in common.
    """
    for path in (output / "index.html", output.with_name(f"{output.name}.key.json")):
        check_target(path)
    found = [{source.path.stem: source for source in sources_in(folder)} for folder in (first, second)]
    names = sorted(set(found[0]) & set(found[1]))
    if len(names) < 2:
        raise ValueError(
            f"{first} and {second} have {len(names)} clips of the same name; at least 2 are wanted. Make both with "
            "`evaluate prompts` from the same prompts."
        )
    writer = _Writer(output, side, container)
    pages, key = [], {"labels": list(map(shown, labels)), "pairs": {}, "files": {}}
    for number, stem in enumerate(names):
        name = shown(stem)
        prompt = found[0][stem].caption.strip() or found[1][stem].caption.strip() or name
        clips = trimmed(*(_read(sources[stem].path) for sources in found))
        pair = _id(f"pair|{name}")
        files = [writer.write(f"{pair}|{label}", *clip) for label, clip in zip("ab", clips, strict=True)]
        pages.append({"id": pair, "prompt": prompt, "files": files})
        key["pairs"][pair] = {"name": name, "prompt": prompt, "kind": "compared"}
        key["files"] |= {files[0]: "a", files[1]: "b"}
        if number < 2:
            kind = ("noise", "still")[number]
            check = _id(f"check|{kind}|{name}")
            lively = max(clips, key=lambda clip: np.abs(np.diff(clip[0].astype(np.int16), axis=0)).mean())
            frames, rate = lively if kind == "still" and len(clips[0][0]) > 1 else clips[0]
            wrong = _noise(frames) if kind == "noise" else np.repeat(frames[:1], len(frames), 0)
            pictures = [
                writer.write(f"{check}|{right}", *clip) for right, clip in (("r", (frames, rate)), ("w", (wrong, rate)))
            ]
            pages.append({"id": check, "prompt": prompt, "files": pictures, "check": True})
            key["pairs"][check] = {"name": name, "prompt": prompt, "kind": kind}
            key["files"] |= {pictures[0]: "right", pictures[1]: "wrong"}
        if on_pair is not None:
            on_pair(number + 1, len(names))
    study = {"questions": QUESTIONS, "pairs": min(pairs, len(names)), "wait": wait, "shown": pages}
    data = json.dumps(study).replace("<", "\\u003c")
    write_text(output / "index.html", TEMPLATE.read_text("utf-8").replace('"STUDY"', data))
    write_text(output.with_name(f"{output.name}.key.json"), json.dumps(key, indent=1) + "\n")
    return key


def _id(what: str) -> str:
    """Return a name that tells nothing, and that a spreadsheet does not take for a number such as 12345e67."""
    return f"p{hashlib.sha256(what.encode()).hexdigest()[:10]}"


def trimmed(first, second):
    """Cut the longer of two (frames, rate) at both ends, so that they last equally long."""
    seconds = min(len(frames) / rate for frames, rate in (first, second))
    cut = []
    for frames, rate in (first, second):
        count = max(1, round(seconds * rate))
        start = (len(frames) - count) // 2
        cut.append((frames[start : start + count], rate))
    return cut


def square(frame: np.ndarray, side: int) -> np.ndarray:
    """Crop a (h, w, 3) frame to its centre square and scale it."""
    from PIL import Image

    height, width = frame.shape[:2]
    small = min(height, width)
    top, left = (height - small) // 2, (width - small) // 2
    picture = Image.fromarray(frame[top : top + small, left : left + small])
    # Whole pixels stay whole where a small clip is enlarged.
    filtering = Image.Resampling.NEAREST if side % small == 0 else Image.Resampling.LANCZOS
    return np.asarray(picture.resize((side, side), filtering))


class _Writer:
    """Clips under names that tell nothing."""

    def __init__(self, folder: Path, side: int, container: str) -> None:
        if container not in CODECS:
            raise ValueError(f"got {container!r}; one of {', '.join(CODECS)} is wanted.")
        if side < 16 or side % 2:
            raise ValueError(f"the side is {side} pixels; an even number of at least 16 is wanted.")
        self.folder, self.side, self.container = folder, side, container

    def write(self, what: str, frames: np.ndarray, rate: float) -> str:
        import av

        name = f"{hashlib.sha256(what.encode()).hexdigest()[:12]}.{self.container}"
        codec, options = CODECS[self.container]
        with atomic(self.folder / name) as partial, av.open(str(partial), "w", format=self.container) as container:
            stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
            stream.width = stream.height = self.side
            stream.pix_fmt, stream.options = "yuv420p", options
            for frame in frames:
                picture = av.VideoFrame.from_ndarray(square(frame, self.side), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return name


def _read(path: Path) -> tuple[np.ndarray, float]:
    frames, rate = frames_of(path)
    return np.stack(list(frames)), rate


def _noise(frames: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, frames.shape, dtype=np.uint8)
