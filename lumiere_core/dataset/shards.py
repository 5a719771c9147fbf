"""Clips in tar files, in the layout of WebDataset: KEY.safetensors and KEY.json beside each other.

They are read from the front, so they may lie on a web server or come from any stream: only one shard is held at a
time, and a set may be larger than the disk. Headers are read one by one, and a member's size is checked before its
content is: Python's tarfile takes memory for whatever a long-name header claims.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from ..files import atomic
from .cache import Cache, check_clip
from .index import KEY, MOST_TEXT, SHARD, Clip
from .place import Damaged, inside

FOLDER = "shards"
BLOCK = tarfile.BLOCKSIZE
USUAL_TEXT = 8 * 2**20  # bytes of a clip's text states, at most, on the average of a shard
SPARE = 2**30  # bytes of a shard beyond what its clips need: those that were forgotten since


def pack(cache: Cache, megabytes: float) -> list[str]:
    """Move the clips that lie as single files into new tar files of about this size; returns the tars' names."""
    loose = [clip for clip in cache.clips() if not clip.shard]
    folder = inside(cache.folder, FOLDER)
    number, made = _next_number(cache), []
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


def _next_number(cache: Cache) -> int:
    """One more than the highest that the index or the folder knows: a number is never used twice."""
    names = {clip.shard for clip in cache.clips()} | set(existing(cache))
    return max((int(match[1]) for name in names if (match := SHARD.fullmatch(name))), default=-1) + 1


def existing(cache: Cache) -> list[str]:
    """Return the names of the tar files that lie in the cache's folder."""
    folder = inside(cache.folder, FOLDER)
    return sorted(path.name for path in folder.iterdir() if SHARD.fullmatch(path.name)) if folder.is_dir() else []


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


def read(cache: Cache, name: str) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of all clips that the index has in a shard, by their keys; read once from front to end.

    `latents` (c, t, h, w), `context` (l, d).

    Raises:
        OSError: it cannot be read.
        ValueError: it is no tar file of clips, is damaged, or lacks one.
    """
    clips = {clip.key: clip for clip in cache.clips() if clip.shard == name}

    def parse(file: BinaryIO) -> dict[str, dict[str, Tensor]]:
        found = dict(checked(file, clips, cache, name))
        missing = sorted(clips.keys() - found.keys())
        if missing:
            raise Damaged(f"{name} holds no clip {missing[0]}")
        return found

    most = SPARE + sum(clip.most_bytes - MOST_TEXT + USUAL_TEXT for clip in clips.values())
    try:
        return cache.place.use(f"{FOLDER}/{name}", most, parse)
    except Damaged as error:
        raise ValueError(f"{error}. Copy {name} again, or run `prepare`, which makes its clips anew.") from error


def checked(
    file: BinaryIO, clips: dict[str, Clip], cache: Cache, name: str, whole: bool = True
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (key, tensors) of those members of a tar file that are wanted clips, down to the last bit.

    Args:
        whole: raise at a clip that is not what the index says; else pass it over.

    Raises:
        Damaged: the file ends too early or is no tar file; see `whole`.
    """
    for member, size in members(file, name):
        key = key_of(member)
        if key not in clips:
            take(file, size, name, wanted=False)
            continue
        if size > clips[key].most_bytes:
            raise Damaged(f"{name} claims {size:,} bytes for {key}, which has at most {clips[key].most_bytes:,}")
        data = take(file, size, name)
        try:
            tensors = check_clip(data, clips[key], cache.backbone)
        except Damaged:
            if whole:
                raise
            continue
        yield key, tensors


def members(file: BinaryIO, name: str) -> Iterator[tuple[str, int]]:
    """Yield (name, size) of each member; the caller takes its content, padded to whole blocks, before the next.

    Raises:
        Damaged: what is read is no header, or there is none at the end.
    """
    while True:
        block = _exactly(file, BLOCK, name)
        if block == bytes(BLOCK):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Damaged(f"{name} is no complete tar file of clips ({error})") from error
        if header.size < 0:
            raise Damaged(f"{name} is no complete tar file of clips (a member of {header.size} bytes)")
        yield header.name if header.isreg() else "", header.size


def _exactly(file: BinaryIO, size: int, name: str) -> bytes:
    parts, left = [], size
    while left:
        part = file.read(left)
        if not part:
            raise Damaged(f"{name} is no complete tar file of clips (it ends too early)")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def take(file: BinaryIO, size: int, name: str, wanted: bool = True) -> bytes:
    """Return the content of the member whose header was just read, or nothing, and go on to the next header."""
    data = _exactly(file, size, name) if wanted else b""
    left = -size % BLOCK if wanted else size + -size % BLOCK
    while left:
        left -= len(_exactly(file, min(left, 1 << 20), name))
    return data


def key_of(member: str) -> str | None:
    """Return the key of a member's name, if it is a clip's."""
    key = member.removesuffix(".safetensors")
    return key if key != member and KEY.fullmatch(key) else None
