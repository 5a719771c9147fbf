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
from .cache import Cache
from .index import Clip
from .shards import read

KEPT = 64  # clips of single files that are held in memory


@dataclass
class Loaded:
    """One clip: its caption, and `latents` (c, t, h, w), `context` (l, d), perhaps `y` (adm,) and `low` (3, t, h, w)."""

    caption: str
    tensors: dict[str, Tensor]


class Clips:
    """All clips of a cache; single files or shards, on disk or behind an address."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
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
            self._kept[clip.key] = Loaded(clip.caption, self.cache.read_clip(clip))
        return self._kept[clip.key]

    def _from_shard(self, clip: Clip) -> dict[str, Tensor]:
        name, held = self._shard
        if name != clip.shard:
            self._shard = ("", {})  # the last one goes before the next one comes
            held = read(self.cache, clip.shard)
            self._shard = (clip.shard, held)
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
    """Open a cache: a folder, or an address of one that fsspec knows, such as https:// (its shards are read one by one).

    Raises:
        ValueError: there is no cache, it is damaged, or one behind an address has no shards.
        OSError: it cannot be read.
    """
    cache = Cache.open(data)
    loose = [clip for clip in cache.clips() if not clip.shard]
    if loose and cache.place.is_remote:
        raise ValueError(
            f"{len(loose)} clips of {data} lie in single files; run `prepare --shards 256` to stream them."
        )
    return Clips(cache)
