"""The cache between `prepare` and `train`: one safetensors file a clip, and an index.

    CACHE/dataset.json      settings, backbone, linear preview of latents; what a cache must not change in
    CACHE/index.jsonl       a line for each video: what became of it, and its clips
    CACHE/empty/*.safetensors   the empty prompt for each size
    CACHE/clips/KEY.safetensors  latents, context, y; low: the small clip, for a model that enlarges;
                                 greyed, known: copies with a part greyed before they were encoded, and their masks
    CACHE/shards/NUMBER.tar  instead of single files: see `shards`
    CACHE/report.csv, preview.mp4

A key is a hash of the video's bytes, its caption, the settings, the backbone and the place in the video, so that a
stale clip can never be taken for a new one. Each clip carries a hash of its content. What is read is checked first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import write_text
from ..lock import NAME as LOCK
from ..nets.checkpoint import save_file
from .index import (
    KEY,
    MOST_CHANNELS,
    MOST_TEXT,
    VERSION,
    Clip,
    Entry,
    Settings,
    low_channels,
    parse_clip,
    parse_dataset,
    parse_index,
)
from .place import Damaged, Place, inside

DATASET, INDEX = "dataset.json", "index.jsonl"
MOST_DATASET, MOST_INDEX = 64 * 2**20, 2**30  # bytes
KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DIGEST = "digest"  # metadata field of a clip: see `digest`
Masks = Callable[[int, tuple[int, int, int]], Tensor]  # (seed, (t, height, width)) -> bool, True = known


class Cache:
    """Reads and writes the files of one cache; every file appears whole or not at all."""

    def __init__(self, place: Place | str | Path, dataset: dict[str, Any]) -> None:
        self.place = place if isinstance(place, Place) else Place(place)
        self.dataset = dataset
        self.entries: dict[str, Entry] = {}
        self.wrong: list[str] = []  # lines of the index that cannot be used, and why
        self.written = 0  # clips, by this object
        self.earlier: dict[str, Clip] = {}  # that another run wrote, by key: see `find`
        self.masks: Masks | None = None  # of the greyed copies of a clip that is written

    @classmethod
    def create(cls, folder: Path, settings: Settings, backbone: dict[str, Any]) -> Cache:
        """Open the cache for writing; a cache of other settings or of another backbone is refused.

        Raises:
            ValueError: the folder holds such a cache, or is no cache.
        """
        wanted = {"version": VERSION, "settings": settings.to_dict(), "backbone": backbone}
        wanted = json.loads(json.dumps(wanted))
        folder = Path(folder)
        if (folder / DATASET).is_file():
            cache = cls.open(folder, whole=False)
            found = {k: v for k, v in cache.dataset.items() if k in wanted}
            if found != wanted:
                raise ValueError(
                    f"{folder} was prepared with other settings: {_difference(found, wanted)}. "
                    "Give the same ones, choose another --output, or delete that folder."
                )
            return cache
        if folder.is_dir() and any(file.name != LOCK for file in folder.iterdir()):
            raise ValueError(f"{folder} holds other files. Give a new folder, or a cache.")
        cache = cls(folder, wanted)
        cache.write_dataset()
        return cache

    @classmethod
    def open(cls, place: Place | str | Path, whole: bool = True) -> Cache:
        """Open the cache for reading.

        Args:
            whole: refuse an index with lines that cannot be used; else they are in `wrong`.

        Raises:
            ValueError: there is no cache, or one of another version, or a damaged one.
        """
        place = place if isinstance(place, Place) else Place(place)
        try:
            dataset = parse_dataset(place.read(DATASET, MOST_DATASET), str(place))
        except FileNotFoundError as error:
            raise ValueError(f"{place} is no cache of clips: it has no {DATASET}. Make one with `prepare`.") from error
        cache = cls(place, dataset)
        try:
            entries, cache.wrong = parse_index(place.read(INDEX, MOST_INDEX), dataset)
        except FileNotFoundError:
            entries, cache.wrong = [], ["there is none"]
        cache.entries = {entry.id: entry for entry in entries}
        if whole and cache.wrong:
            raise ValueError(
                f"the {INDEX} of {place} is damaged ({'; '.join(cache.wrong[:3])}). Run `prepare` again: it makes the "
                "index anew from the clips."
            )
        return cache

    @property
    def folder(self) -> Path:
        """Of a cache that is no address."""
        return Path(self.place.base)

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
        return inside(self.folder, f"clips/{key}.safetensors")

    def write_clip(self, clip: Clip, tensors: dict[str, Tensor]) -> None:
        """Store a clip; float16 is finer than the 256 levels of the pixels that it came from.

        See `check_clip` for the tensors: `latents` (c, t, h, w), `context` (l, d).
        """
        tensors = _half(tensors)
        save_file(tensors, self.clip_path(clip.key), {"caption": clip.caption, DIGEST: digest(tensors)})
        self.written += 1

    def read_clip(self, clip: Clip) -> dict[str, Tensor]:
        """Return the tensors of a clip that lies in a single file.

        `latents` (c, t, h, w), `context` (l, d) and perhaps `y` (adm,).

        Raises:
            ValueError: it is damaged, or is not this clip.
            OSError: it cannot be read.
        """
        return check_clip(self.place.read(f"clips/{clip.key}.safetensors", clip.most_bytes), clip, self.backbone)

    def is_intact(self, clip: Clip) -> bool:
        """Whether a single file holds this clip, down to the last bit."""
        try:
            self.read_clip(clip)
        except (FileNotFoundError, ValueError):
            return False
        return True

    def find(self, key: str, caption: str, size: tuple[int, int, int]) -> Clip | None:
        """Return the clip of a key if it is stored whole, so that it need not be encoded again.

        Args:
            size: frames, height and width of its latents.
        """
        clip = self.earlier.get(key)
        if clip is None or not clip.shard:  # shards were looked through before
            try:
                most = 4 * MOST_CHANNELS * math.prod(size) * (1 + 2 * self.settings.conditions) + MOST_TEXT
                clip = self.clip_of(key, self.place.read(f"clips/{key}.safetensors", most))
            except (FileNotFoundError, ValueError):
                return None
        return clip if (clip.caption, tuple(clip.shape[1:])) == (caption, size) else None

    def clip_of(self, key: str, data: bytes, shard: str = "") -> Clip:
        """Return what the index says of a clip, from the clip's own file.

        Raises:
            ValueError: it is damaged, or carries no hash of its content.
        """
        tensors, metadata = parse_tensors(data, key)
        match = KEY.fullmatch(key)
        if match is None or DIGEST not in metadata or "latents" not in tensors:
            raise Damaged(f"{key} carries no hash of its content")
        shape = list(tensors["latents"].shape)
        row = {"key": key, "caption": metadata.get("caption"), "start": int(match[2]), "shape": shape, "shard": shard}
        clip = parse_clip(row, match[1], self.dataset)
        check_clip(data, clip, self.backbone)
        return clip

    def write_empty(self, height: int, width: int, tensors: dict[str, Tensor]) -> None:
        """Store the embedding of the empty prompt for latents of a size: `context` (l, d) and perhaps `y` (adm,)."""
        tensors = _half(tensors)
        save_file(tensors, inside(self.folder, _empty_name(height, width)), {DIGEST: digest(tensors)})

    def has_empty(self, height: int, width: int) -> bool:
        """Whether the embedding of the empty prompt is there, down to the last bit."""
        try:
            self.read_empty(height, width)
        except (FileNotFoundError, ValueError):
            return False
        return True

    def read_empty(self, height: int, width: int) -> dict[str, Tensor]:
        """Return the embedding of the empty prompt for latents of a size. `context` (l, d) and perhaps `y` (adm,).

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        name = _empty_name(height, width)
        tensors, _ = parse_tensors(self.place.read(name, MOST_TEXT), name)
        check_text(tensors, self.backbone, name)
        return tensors

    def write_dataset(self) -> None:
        write_text(self.folder / DATASET, json.dumps(self.dataset, indent=1, sort_keys=True))

    def write_index(self) -> None:
        write_text(self.folder / INDEX, "".join(entry.line() for entry in self.entries.values()))


def _empty_name(height: int, width: int) -> str:
    return f"empty/{height:d}x{width:d}.safetensors"


def digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values. Tensors of any shape."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        value = value.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def parse_tensors(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, whose own hash of them must be right.

    Tensors of any shape.

    Raises:
        Damaged: it is no whole file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise Damaged(f"{name} is no whole safetensors file ({error})") from error
    if odd := [f"{k} ({str(v.dtype).removeprefix('torch.')})" for k, v in tensors.items() if v.dtype not in KINDS]:
        raise Damaged(f"{name} holds numbers of a kind that no cache has: {', '.join(odd[:3])}")
    # Caches of earlier versions have no hash.
    if metadata.get(DIGEST, None) not in (None, digest(tensors)):
        raise Damaged(f"{name} is damaged: its content is not what was written")
    return tensors, metadata


def check_clip(data: bytes, clip: Clip, backbone: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a clip's file. `latents` (c, t, h, w), `context` (l, d) and perhaps `y` (adm,).

    Raises:
        Damaged: the file is damaged, or holds another clip.
    """
    tensors, metadata = parse_tensors(data, clip.key)
    latents = tensors.get("latents")
    if latents is None or list(latents.shape) != clip.shape or not latents.is_floating_point():
        found = None if latents is None else (tuple(latents.shape), str(latents.dtype))
        raise Damaged(f"{clip.key} holds latents {found}, wanted {tuple(clip.shape)}")
    if not torch.isfinite(latents).all():
        raise Damaged(f"{clip.key} holds latents that are NaN or infinite")
    if metadata.get("caption") != clip.caption:
        raise Damaged(f"{clip.key} is of another caption: {metadata.get('caption')!r:.60}")
    check_text(tensors, backbone, clip.key)
    _check_low(tensors.get("low"), clip, backbone)
    _check_greyed(tensors, clip)
    return tensors


def check_text(tensors: dict[str, Tensor], backbone: dict[str, Any], name: str) -> None:
    """Raise Damaged unless there are text states (l, d) and perhaps `y` (adm,) for the backbone."""
    unet = backbone["unet"]
    for key, dimensions, width in (("context", 2, unet.get("context_dim")), ("y", 1, unet.get("adm_in_channels"))):
        value = tensors.get(key)
        if value is None and (key == "y" and not width):
            continue
        fits = value is not None and value.ndim == dimensions and value.is_floating_point()
        if not fits or (width and value.shape[-1] != width) or not torch.isfinite(value).all():
            raise Damaged(f"{name} holds no {key} of {dimensions} dimensions and width {width} in finite numbers")


def _check_low(low: Tensor | None, clip: Clip, backbone: dict[str, Any]) -> None:
    """Raise Damaged unless the small clip is there, as large as the latents, where the backbone enlarges one."""
    if channels := low_channels(backbone):
        wanted = (channels, *clip.shape[1:])
        found = None if low is None else tuple(low.shape)
        if found != wanted or not low.is_floating_point() or not torch.isfinite(low).all():
            raise Damaged(f"{clip.key} holds a small clip {found}, wanted {wanted} in finite numbers")


def _check_greyed(tensors: dict[str, Tensor], clip: Clip) -> None:
    """Raise Damaged unless the greyed copies and their masks are there, as many as the settings say."""
    if clip.conditions:
        for name, channels in (("greyed", clip.shape[0]), ("known", 1)):
            wanted, value = (clip.conditions, channels, *clip.shape[1:]), tensors.get(name)
            if value is None or tuple(value.shape) != wanted or not torch.isfinite(value.float()).all():
                found = None if value is None else tuple(value.shape)
                raise Damaged(f"{clip.key} holds {name} {found}, wanted {wanted} in finite numbers")


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
