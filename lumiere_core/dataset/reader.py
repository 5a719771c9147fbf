"""Clips of a cache in a fixed random order: sample number i of a run is the same clip on every machine.

A step's data follows from its number alone, so that a resumed run, a run of two processes and a run of one see the
same clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..diffusion.noise import mixed_seed
from ..nets.checkpoint import load_file
from .cache import DATASET, INDEX, Cache, Clip
from .shards import FOLDER, read

KEPT = 64  # clips of single files that are held in memory


@dataclass
class Loaded:
    """One clip: its caption, and `latents` (c, t, h, w), `context` (l, d) and perhaps `y` (adm,)."""

    caption: str
    tensors: dict[str, Tensor]


class Clips:
    """All clips of a cache; single files or shards, on disk or behind an address."""

    def __init__(self, cache: Cache, base: str) -> None:
        self.cache, self.base = cache, base
        groups: dict[str, list[Clip]] = {}
        for clip in cache.clips():
            groups.setdefault(clip.shard, []).append(clip)
        # Single files are one group: any of them is at hand. A shard is read as a whole.
        self.groups = [groups[name] for name in sorted(groups)]
        self.flat = [clip for group in self.groups for clip in group]
        self._kept: dict[str, Loaded] = {}
        self._shard: tuple[str, dict[str, dict[str, Tensor]]] = ("", {})

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, index: int) -> Loaded:
        clip = self.flat[index]
        if clip.shard:
            return Loaded(clip.caption, self._from_shard(clip))
        if clip.key not in self._kept:
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            tensors = load_file(self.cache.clip_path(clip.key))[0]
            self._kept[clip.key] = Loaded(clip.caption, tensors)
        return self._kept[clip.key]

    def _from_shard(self, clip: Clip) -> dict[str, Tensor]:
        name, held = self._shard
        if name != clip.shard:
            self._shard = ("", {})  # the last one goes before the next one comes
            held = dict(read(f"{self.base}/{FOLDER}/{clip.shard}"))
            self._shard = (clip.shard, held)
        if clip.key not in held:
            raise ValueError(f"{clip.shard} holds no clip {clip.key}; prepare the cache again.")
        return held[clip.key]

    def at(self, sample: int, seed: int) -> int:
        """Return the index of sample number `sample` of a run: every clip once in each round, shard by shard."""
        turn, position = divmod(sample, len(self))
        generator = torch.Generator().manual_seed(mixed_seed(mixed_seed(seed) ^ turn) & (2**63 - 1))
        for number in torch.randperm(len(self.groups), generator=generator).tolist():
            order = torch.randperm(len(self.groups[number]), generator=generator)
            if position < len(order):
                first = sum(len(group) for group in self.groups[:number])
                return first + int(order[position])
            position -= len(order)
        raise AssertionError("a round has as many samples as there are clips")


def open_clips(data: str | Path) -> Clips:
    """Open a cache: a folder, or an http(s) address of one (its index is read now, shards one by one).

    Raises:
        ValueError: there is no cache, or it holds no clip.
    """
    if str(data).startswith(("http://", "https://")):
        clips = Clips(_remote(str(data).rstrip("/")), str(data).rstrip("/"))
    else:
        clips = Clips(Cache.open(Path(data)), str(data))
    return clips


def _remote(address: str) -> Cache:
    """Fetch the small files of a cache into a temporary folder; the clips must be in shards."""
    import tempfile
    from urllib.request import urlopen

    folder = Path(tempfile.mkdtemp(prefix="lumiere-cache-"))
    names = [DATASET, INDEX]
    for name in names:
        with urlopen(f"{address}/{name}", timeout=60) as answer:
            (folder / name).write_bytes(answer.read())
    cache = Cache.open(folder)
    loose = [clip for clip in cache.clips() if not clip.shard]
    if loose:
        raise ValueError(
            f"{len(loose)} clips of {address} lie in single files; run `prepare --shards 256` to stream them."
        )
    ratio = cache.backbone["ratio"]
    for height, width in {(c.shape[2] * ratio, c.shape[3] * ratio) for c in cache.clips()}:
        name = f"empty/{height}x{width}.safetensors"
        (folder / "empty").mkdir(exist_ok=True)
        with urlopen(f"{address}/{name}", timeout=60) as answer:
            (folder / name).write_bytes(answer.read())
    return cache
