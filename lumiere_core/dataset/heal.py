"""Putting a cache in order before it is brought up to date: a lost index, lost or damaged shards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import BinaryIO

from .cache import Cache
from .index import KEY, Clip, Entry
from .place import Damaged, inside
from .shards import FOLDER, checked, existing, key_of, members, read, take

logger = logging.getLogger("lumiere")
MOST_CLIP = 8 * 2**30  # bytes of a clip of which nothing is known
MOST_SHARD = 1 << 40


def heal(cache: Cache) -> None:
    """Mend what can be mended, and mark the rest to be made again; each is named in the log."""
    if cache.wrong and (cache.entries or cache.wrong != ["there is none"] or _has_clips(cache)):
        logger.warning(
            "the index of %s is damaged (%s): it is made anew from the clips", cache.place, "; ".join(cache.wrong[:3])
        )
        _rebuild(cache)
    for name in sorted({clip.shard for clip in cache.clips() if clip.shard}):
        _check_shard(cache, name)


def _has_clips(cache: Cache) -> bool:
    folder = inside(cache.folder, "clips")
    return bool(existing(cache)) or (folder.is_dir() and any(folder.iterdir()))


def _rebuild(cache: Cache) -> None:
    """Find the clips that no line of the index names. Their videos are looked at again, and not encoded again."""
    known = {clip.key for clip in cache.clips()}
    for clip in _stored(cache):
        identity = KEY.fullmatch(clip.key)[1]
        if clip.key not in known:
            known.add(clip.key)
            entry = cache.entries.setdefault(identity, Entry(id=identity, source=""))
            entry.again = True
            entry.clips.append(clip)
    cache.write_index()


def _stored(cache: Cache) -> Iterator[Clip]:
    """Every whole clip in the folder, single files first."""
    folder = inside(cache.folder, "clips")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if key := key_of(path.name):
            try:
                yield cache.clip_of(key, cache.place.read(f"clips/{path.name}", MOST_CLIP))
            except (OSError, ValueError) as error:
                logger.warning("%s is left out: %s", path.name, error)
    for name in existing(cache):
        try:
            yield from cache.place.use(
                f"{FOLDER}/{name}", MOST_SHARD, lambda file, name=name: _in_shard(cache, file, name)
            )
        except (OSError, ValueError) as error:
            logger.warning("%s is left out: %s", name, error)


def _in_shard(cache: Cache, file: BinaryIO, name: str) -> list[Clip]:
    found = []
    for member, size in members(file, name):
        key = key_of(member)
        if size > MOST_CLIP:
            raise Damaged(f"{name} claims {size:,} bytes for {member}")
        data = take(file, size, name, wanted=key is not None)
        if key is not None:
            found.append(cache.clip_of(key, data, name))
    return found


def _check_shard(cache: Cache, name: str) -> None:
    """Take the whole clips out of a shard that is damaged, and mark those that are lost, to be made again."""
    clips = {clip.key: clip for clip in cache.clips() if clip.shard == name}
    try:
        read(cache, name)
        return
    except FileNotFoundError:
        reason = f"{name} is missing"
    except ValueError as error:
        reason = str(error)
    logger.warning("%s: what is whole is kept, the other clips are made again", reason)
    saved = set()

    def save(file: BinaryIO) -> None:
        for key, tensors in checked(file, clips, cache, name, whole=False):
            cache.write_clip(clips[key], tensors)
            saved.add(key)

    try:
        cache.place.use(f"{FOLDER}/{name}", MOST_SHARD, save)
    except (FileNotFoundError, ValueError):
        pass
    cache.written -= len(saved)
    for entry in cache.entries.values():
        mine = [clip for clip in entry.clips if clip.shard == name]
        entry.again = entry.again or any(clip.key not in saved for clip in mine)
        entry.clips = [clip for clip in entry.clips if clip.shard != name or clip.key in saved]
        for clip in mine:
            clip.shard = ""
    cache.write_index()
    inside(cache.folder, f"{FOLDER}/{name}").unlink(missing_ok=True)
