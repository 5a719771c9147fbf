"""A folder of videos as a set of features; what is done is kept, so that ten thousand clips can be measured in parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..dataset.decode import Report, Unusable, frames_at
from ..dataset.sources import SUFFIXES, Source, find_sources
from ..files import JsonLines, Record
from ..flags import MOST_FPS
from ..measures.features import Network
from ..measures.sets.report import ClipSet


@dataclass(frozen=True)
class Protocol:
    """How features are taken of a clip; every entry changes the figures.

    Attributes:
        frames: from the first one on; 0 = as many as the network takes at least.
        fps: frames a second that clips are brought to; 0 = their own.
        resize, size: see `Network.features`; size 0 = the network's own.
    """

    frames: int = 16
    fps: float = 0.0
    resize: str = "crop"
    size: int = 0

    def text(self, network: Network) -> dict[str, str]:
        """Return what is printed with the figures."""
        return {
            "features": f"{network.name}, weights sha256 {network.sha256}",
            "frames": f"first {self.frames or network.frames}, at {f'{self.fps:g} a second' if self.fps else 'their own rate'}",
            "resizing": f"{self.resize} to {self.size or network.size} pixels",
        }


def videos_in(folder: Path) -> list[Path]:
    """Return the videos of a folder and of the folders in it, by name; captions do not matter."""
    return sorted(source.path for source in sources_in(folder))


def sources_in(folder: Path) -> list[Source]:
    """Return the videos of a folder with the captions that they have; other files are passed over.

    Raises:
        ValueError: there is no video.
    """
    found = find_sources(folder, caption="")
    videos = [s for s in found if s.path.suffix.lower() in SUFFIXES and s.path.is_file() and s.path.name[0] != "."]
    if not videos:
        raise ValueError(f"{folder} holds no video.")
    return videos


def read_set(
    files: list[Path],
    name: str,
    network: Network,
    protocol: Protocol,
    cache: Path | None = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> ClipSet:
    """Return the features of the clips; those that the cache holds are not made again.

    Args:
        cache: JSON lines, one a clip; clips are known by path, size and time of change.
        on_clip: called with (done, of how many) after each; it may raise to stop.
    """
    store = JsonLines(cache) if cache else None
    key = hashlib.sha256(f"{protocol}|{network.sha256}".encode()).hexdigest()[:16]
    known = {record["clip"]: record for record in store.read() if _is_of(record, key)} if store else {}
    rows: list[Tensor] = []
    found = ClipSet(name, torch.empty(0))
    for number, file in enumerate(files):
        facts = file.stat()
        clip = f"{file.resolve()}|{facts.st_size}|{facts.st_mtime_ns}"
        record = known.get(clip)
        if record is None:
            record = {"clip": clip, "key": key, **_measured(file, network, protocol)}
            if store and "skipped" not in record:  # a drive that was away is there the next time
                store.append(record)
        if "skipped" in record:
            found.skipped[file.name] = record["skipped"]
        else:
            rows.append(_features(record["features"]))
            found.sizes[record["size"]] += 1
            found.rates[record["fps"]] += 1
            found.codecs[record["codec"]] += 1
        if on_clip is not None:
            on_clip(number + 1, len(files))
    if len(rows) < 2:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in list(found.skipped.items())[:3])
        raise ValueError(f"{len(rows)} clips of {name} can be used; at least 2 are wanted. {reasons}".rstrip())
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"{cache} is damaged: its clips have features of different lengths. Remove it, and run again.")
    found.features = torch.stack(rows)
    return found


def _is_of(record: Record, key: str) -> bool:
    """Whether a line of the cache is whole, and of these features."""
    if record.get("key") != key or not all(
        isinstance(record.get(name), str) for name in ("clip", "features", "size", "fps", "codec")
    ):
        return False
    try:
        features = _features(record["features"])
    except ValueError:
        return False
    return len(features) > 0 and bool(torch.isfinite(features).all())


def _features(packed: str) -> Tensor:
    """Return the (f,) numbers of a line."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(packed, validate=True), dtype="<f4").copy())


def _measured(file: Path, network: Network, protocol: Protocol) -> dict[str, str]:
    try:
        codec, rate = facts_of(file)
        count = protocol.frames or network.frames
        frames = list(islice(frames_at(file, protocol.fps or rate, Report(), ours=True), count))
        clip = torch.from_numpy(np.stack(frames))
        if len(clip) < count:
            return {"skipped": f"{len(clip)} frames, {count} are wanted"}
        vector = network.features(clip, protocol.resize, protocol.size or None)
    except (Unusable, ValueError) as error:
        return {"skipped": str(error)}
    height, width = clip.shape[1:3]
    packed = base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
    return {"features": packed, "size": f"{width}x{height}", "fps": f"{rate:.4g}", "codec": codec}


def facts_of(file: Path) -> tuple[str, float]:
    """Return codec and frames a second of a video.

    Raises:
        Unusable: not a video.
    """
    import av

    try:
        with av.open(str(file), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            return stream.codec_context.name, min(MOST_FPS, float(stream.average_rate or 25))
    except (av.error.FFmpegError, IndexError, OSError, ValueError) as error:
        raise Unusable(f"no video that can be opened ({error})") from error


def frames_of(file: Path) -> tuple[Iterator[np.ndarray], float]:
    """Return the (h, w, 3) uint8 frames of a video one by one, as they are in the file, and its frames a second."""
    _, rate = facts_of(file)
    return frames_at(file, rate, Report(), ours=True), rate
