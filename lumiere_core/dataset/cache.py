"""The cache between `prepare` and `train`: one safetensors file a clip, and an index.

    CACHE/dataset.json      settings, backbone, linear preview of latents; what a cache must not change in
    CACHE/index.jsonl       a line for each video: what became of it, and its clips
    CACHE/empty/*.safetensors   the empty prompt for each size
    CACHE/clips/KEY.safetensors  latents, context, y
    CACHE/report.csv, preview.mp4

A key is a hash of the video's bytes, its caption, the settings, the backbone and the place in the video, so that a
stale clip can never be taken for a new one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import write_text
from ..nets.checkpoint import load_file, save_file

DATASET, INDEX = "dataset.json", "index.jsonl"
VERSION = 1


@dataclass(frozen=True)
class Settings:
    """The one rule that makes clips of all videos alike."""

    fps: float = 16.0
    frames: int = 16  # of a clip
    size: int = 512  # pixels; clips have about size x size, in the aspect ratio of their video

    def __post_init__(self) -> None:
        if not self.fps > 0 or self.frames < 1 or self.size < 1:
            raise ValueError(
                f"got {self.fps:g} frames a second, {self.frames} frames and size {self.size}; all must be above 0."
            )


@dataclass
class Clip:
    """One training clip in the index."""

    key: str
    caption: str
    start: int  # frame of the resampled video
    shape: list[int]  # of the latents: c, t, h, w
    shard: str = ""  # tar file that holds it; "" = clips/KEY.safetensors


@dataclass
class Entry:
    """What became of one video."""

    id: str  # hash of bytes, caption, settings and backbone
    source: str
    clips: list[Clip] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why something, or all of it, was left out
    notes: list[str] = field(default_factory=list)
    decoded: int = 0
    seconds: float = 0.0
    size: str = ""


class Cache:
    """Reads and writes the files of one cache; every file appears whole or not at all."""

    def __init__(self, folder: Path, dataset: dict[str, Any]) -> None:
        self.folder, self.dataset = Path(folder), dataset
        self.entries: dict[str, Entry] = {}

    @classmethod
    def create(cls, folder: Path, settings: Settings, backbone: dict[str, Any]) -> Cache:
        """Open the cache for writing; a cache of other settings or of another backbone is refused.

        Raises:
            ValueError: the folder holds such a cache, or is no cache.
        """
        wanted = {"version": VERSION, "settings": asdict(settings), "backbone": backbone}
        wanted = json.loads(json.dumps(wanted))
        folder = Path(folder)
        if (folder / DATASET).is_file():
            cache = cls.open(folder)
            found = {k: v for k, v in cache.dataset.items() if k in wanted}
            if found != wanted:
                raise ValueError(
                    f"{folder} was prepared with other settings: {_difference(found, wanted)}. "
                    "Give the same ones, choose another --output, or delete that folder."
                )
            return cache
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds other files. Give a new folder, or a cache.")
        cache = cls(folder, wanted)
        cache.write_dataset()
        return cache

    @classmethod
    def open(cls, folder: Path) -> Cache:
        """Open the cache for reading.

        Raises:
            ValueError: the folder is no cache, or of another version.
        """
        folder = Path(folder)
        try:
            dataset = json.loads((folder / DATASET).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder} is no cache of clips ({error}). Make one with `python -m lumiere_core prepare`."
            ) from error
        if dataset.get("version") != VERSION:
            raise ValueError(f"{folder} is of version {dataset.get('version')}, wanted {VERSION}. Prepare it again.")
        cache = cls(folder, dataset)
        cache.entries = {entry.id: entry for entry in cache._read_index()}
        return cache

    @property
    def backbone(self) -> dict[str, Any]:
        return self.dataset["backbone"]

    @property
    def settings(self) -> Settings:
        return Settings(**self.dataset["settings"])

    def clips(self) -> list[Clip]:
        """Return all clips, in an order that follows from their content only."""
        found = [clip for entry in self.entries.values() for clip in entry.clips]
        return sorted({clip.key: clip for clip in found}.values(), key=lambda clip: clip.key)

    def identity(self, path: Path, caption: str) -> str:
        """Return the id of a video: of its bytes, its caption and all that decides what is made of it."""
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        rest = {"caption": caption, **{k: self.dataset[k] for k in ("settings", "backbone")}}
        digest.update(json.dumps(rest, sort_keys=True).encode())
        return digest.hexdigest()[:24]

    def clip_path(self, key: str) -> Path:
        return self.folder / "clips" / f"{key}.safetensors"

    def write_clip(self, clip: Clip, tensors: dict[str, Tensor]) -> None:
        """Store a clip; float16 is finer than the 256 levels of the pixels that it came from."""
        save_file(_half(tensors), self.clip_path(clip.key), {"caption": clip.caption})

    def holds(self, entry: Entry) -> bool:
        """Whether every clip of an entry is on disk."""
        return all(clip.shard or self.clip_path(clip.key).is_file() for clip in entry.clips)

    def write_empty(self, height: int, width: int, tensors: dict[str, Tensor]) -> None:
        save_file(_half(tensors), self._empty_path(height, width), {})

    def has_empty(self, height: int, width: int) -> bool:
        return self._empty_path(height, width).is_file()

    def read_empty(self, height: int, width: int) -> dict[str, Tensor]:
        """Return the embedding of the empty prompt for latents of a size."""
        return load_file(self._empty_path(height, width))[0]

    def write_dataset(self) -> None:
        write_text(self.folder / DATASET, json.dumps(self.dataset, indent=1, sort_keys=True))

    def write_index(self) -> None:
        lines = (json.dumps(asdict(entry), ensure_ascii=False) for entry in self.entries.values())
        write_text(self.folder / INDEX, "".join(line + "\n" for line in lines))

    def _read_index(self) -> list[Entry]:
        path = self.folder / INDEX
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        rows = [json.loads(line) for line in lines]
        return [Entry(**{**row, "clips": [Clip(**clip) for clip in row["clips"]]}) for row in rows]

    def _empty_path(self, height: int, width: int) -> Path:
        return self.folder / "empty" / f"{height}x{width}.safetensors"


def _half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.to(torch.float16) for k, v in tensors.items()}


def _difference(found: dict[str, Any], wanted: dict[str, Any], name: str = "") -> str:
    """Name the first values that differ."""
    words = []
    for key in wanted:
        ours, theirs = wanted[key], found.get(key)
        if ours != theirs:
            both = isinstance(ours, dict) and isinstance(theirs, dict)
            words.append(
                _difference(theirs, ours, f"{name}{key}.") if both else f"{name}{key} was {theirs!r}, now {ours!r}"
            )
    return "; ".join(words[:4])
