"""Clips in tar files, in the layout of WebDataset: KEY.safetensors and KEY.json beside each other.

They are read from the front, so they may lie on a web server or come from any stream: only one shard is held at a
time, and a set may be larger than the disk.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from ..files import atomic
from .cache import Cache, Clip

FOLDER = "shards"


def pack(cache: Cache, megabytes: float) -> list[str]:
    """Move the clips that lie as single files into new tar files of about this size; returns the tars' names."""
    loose = [clip for clip in cache.clips() if not clip.shard]
    folder = cache.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    number, made = len(list(folder.glob("*.tar"))), []
    while loose:
        group, size = [], 0
        while loose and (not group or size < megabytes * 2**20):
            group.append(loose.pop(0))
            size += cache.clip_path(group[-1].key).stat().st_size
        name = f"{number + len(made):06d}.tar"
        _write(folder / name, cache, group)
        places = {clip.key for clip in group}
        for entry in cache.entries.values():
            for clip in entry.clips:
                if clip.key in places:
                    clip.shard = name
        cache.write_index()  # first the index, then the single files: a kill in between loses nothing
        for clip in group:
            cache.clip_path(clip.key).unlink(missing_ok=True)
        made.append(name)
    return made


def _write(path: Path, cache: Cache, clips: list[Clip]) -> None:
    with atomic(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            _add(tar, f"{clip.key}.safetensors", cache.clip_path(clip.key).read_bytes())
            facts = {**asdict(clip), "shard": path.name}
            _add(tar, f"{clip.key}.json", json.dumps(facts, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read(place: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (key, tensors) of a shard: a path or an http(s) address, read once from front to end.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no tar file of clips, or ends too early.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with closing(_open(place)) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".safetensors"):
                    data = tar.extractfile(member).read()
                    yield member.name.removesuffix(".safetensors"), load(data)
    except (tarfile.TarError, SafetensorError, EOFError) as error:
        raise ValueError(f"{place} is no complete tar file of clips ({error}). Copy or prepare it again.") from error


def _open(place: str) -> BinaryIO:
    if place.startswith(("http://", "https://")):
        from urllib.request import urlopen

        return urlopen(place, timeout=60)
    return open(place, "rb")
