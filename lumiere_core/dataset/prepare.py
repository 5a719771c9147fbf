"""`prepare`: videos with captions into a cache of latents and text states, again and again, doing only what is missing."""

from __future__ import annotations

import csv
import hashlib
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..clips.masks import known_cells
from ..clips.media import evenly_spaced, save_image, write_mp4
from ..files import atomic
from ..lock import only_writer
from ..nets.low import small_frames
from ..text_files import shown
from .cache import Cache, Masks
from .decode import Report, Unusable, frames_at
from .encoders import Encoders
from .heal import heal
from .index import Clip, Entry, Settings, low_channels
from .segments import Leftover, Segment, buckets, split
from .shards import pack
from .sources import Source, find_sources

INDEX_EVERY = 10.0  # seconds between writes of the index
GREY = 128  # of 255: what stands for nothing
PREVIEWED = 9  # clips in the contact preview
MOST_SHARD = 65_536.0  # megabytes


@dataclass
class Summary:
    """What a run did."""

    cache: Cache
    entries: list[Entry]
    made: int  # clips that were encoded in this run
    forgotten: int  # clips of videos that are no longer there

    def lines(self) -> list[str]:
        """Return the table of kept and dropped clips."""
        rows = [("video", "clips", "frames", "seconds", "size", "left out, and notes")]
        for entry in self.entries:
            words = "; ".join([*entry.reasons, *(f"({note})" for note in entry.notes)])
            rows.append(
                (entry.source, str(len(entry.clips)), str(entry.decoded), f"{entry.seconds:.1f}", entry.size, words)
            )
        widths = [min(40, max(len(row[i]) for row in rows)) for i in range(5)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row[:5], widths, strict=True)), row[5]]) for row in rows]
        clips, dropped = self.cache.clips(), [e for e in self.entries if not e.clips]
        lines.append(
            f"{len(clips)} clips of {len(self.entries) - len(dropped)} videos kept, {self.made} of them new; "
            f"{len(dropped)} videos gave none"
        )
        if self.forgotten:
            lines.append(f"{self.forgotten} clips of videos that are no longer there were left out")
        return lines


def prepare(
    where: Path,
    folder: Path,
    encoders: Encoders,
    settings: Settings,
    *,
    caption: str | None = None,
    shards: float = 0.0,
    masks: Masks | None = None,
    progress: bool = True,
) -> Summary:
    """Bring the cache in `folder` up to date with the videos at `where`.

    What is there is checked down to the last bit, and made again where it is damaged; an interruption loses nothing
    that was encoded.

    Args:
        caption: for videos without one; None drops them.
        shards: megabytes of a tar file; 0 keeps single files.
        masks: what draws the masks of `settings.conditions` greyed copies.

    Raises:
        ValueError: nothing to prepare, copies that are of no use, a cache of other settings, or another process is writing it.
    """
    if not 0 <= shards <= MOST_SHARD:
        raise ValueError(f"shards of {shards} megabytes; 0 (single files) to {MOST_SHARD:g} are possible.")
    _check_conditions(settings.conditions, encoders.backbone, masks)
    sources = find_sources(where, caption)
    sizes = buckets(settings.size, encoders.backbone["multiple"])
    with only_writer(folder, "prepare"):
        cache = Cache.create(folder, settings, encoders.backbone)
        cache.masks = masks
        heal(cache)
        before, cache.entries = cache.entries, {}
        cache.earlier = {clip.key: clip for entry in before.values() for clip in entry.clips}
        try:
            entries = _look_at(cache, encoders, sources, sizes, before=before, progress=progress)
        except BaseException:  # Ctrl-C too: what was encoded stays known
            cache.entries = {**before, **cache.entries}
            cache.write_index()
            raise
        forgotten = _forget(cache, before)
        linear_preview(cache, encoders)
        cache.write_index()
        if shards:
            pack(cache, shards)
        summary = Summary(cache, entries, cache.written, forgotten)
        _write_report(cache.folder / "report.csv", entries)
        if cache.written or forgotten or not (cache.folder / "preview.mp4").exists():
            _write_preview(cache, encoders)
    return summary


def _check_conditions(count: int, backbone: dict[str, Any], masks: Masks | None) -> None:
    """Raise ValueError if greyed copies are asked for that nothing would use, or that nothing draws the masks of."""
    if not count:
        return
    why = "nothing that draws their masks was given" if masks is None else ""
    if backbone["ratio"] == 1:
        why = "this model works on pixels, which training masks by itself"
    elif low_channels(backbone):
        why = "this model enlarges clips, and no part of them is masked"
    if why:
        raise ValueError(f"--conditions is {count}, but {why}. Leave it out.")


def _look_at(
    cache: Cache,
    encoders: Encoders,
    sources: list[Source],
    sizes: list[tuple[int, int]],
    before: dict[str, Entry],
    progress: bool,
) -> list[Entry]:
    """Make an entry for each source, from what an earlier run made or from the video; returns those of the table."""
    from tqdm import tqdm

    entries, written = [], time.monotonic()
    for source in tqdm(sources, disable=not progress, unit="video", file=sys.stderr):
        name = shown(source.path)
        if source.problem:
            entries.append(Entry(id="", source=name, reasons=[source.problem]))
            if source.passing:
                _keep_earlier(cache, before, name)
            continue
        try:
            entry = _known(cache, before, source)
        except OSError as error:
            entries.append(Entry(id="", source=name, reasons=[f"cannot be read ({error.strerror or error})"]))
            _keep_earlier(cache, before, name)
            continue
        if entry.id in cache.entries:
            words = f"the same video and caption as {cache.entries[entry.id].source}"
            entries.append(Entry(id="", source=name, reasons=[words]))
            continue
        entry.source = name
        cache.entries[entry.id] = entry
        entries.append(entry)
        if entry.again:
            _make(cache, encoders, source, entry=entry, sizes=sizes)
        if time.monotonic() - written > INDEX_EVERY:
            _keep_also(cache, before)
            written = time.monotonic()
    return entries


def _known(cache: Cache, before: dict[str, Entry], source: Source) -> Entry:
    """Return what an earlier run made of the same video, if it is all there; else a new entry, to be made."""
    identity = cache.identity(source.path, source.caption)
    entry = before.get(identity)
    if entry is not None and not entry.again:
        if all(clip.shard or cache.is_intact(clip) for clip in entry.clips):
            if all(cache.has_empty(*size) for size in {_pixels(cache, clip) for clip in entry.clips}):
                return entry
    return Entry(id=identity, source="", again=True)


def _pixels(cache: Cache, clip: Clip) -> tuple[int, int]:
    ratio = cache.backbone["ratio"]
    return clip.shape[2] * ratio, clip.shape[3] * ratio


def _keep_earlier(cache: Cache, before: dict[str, Entry], name: str) -> None:
    """Keep what was made of a file that cannot be read just now."""
    for entry in before.values():
        if entry.source == name:
            cache.entries.setdefault(entry.id, entry)


def _make(cache: Cache, encoders: Encoders, source: Source, entry: Entry, sizes: list[tuple[int, int]]) -> None:
    """Decode, cut, resize, encode and store one video; whatever is wrong with it becomes a reason.

    Only what is wrong with the video itself is remembered. A full disk, a missing permission, a VAE that fails: the
    next run tries again, and finds the clips that were stored.
    """
    settings, report = cache.settings, Report()
    try:
        pieces = split(frames_at(source.path, settings.fps, report), settings.frames, sizes)
        store_pieces(cache, encoders, source.caption, entry=entry, pieces=pieces)
        entry.again = False
    except Unusable as error:
        entry.again = False
        entry.reasons.append(str(error))
    except (OSError, EOFError, ValueError, ArithmeticError, MemoryError) as error:
        # One video must not end the preparation of a thousand; a defect of ours keeps its traceback.
        entry.reasons.append(f"failed, and is tried again the next time: {error}")
    entry.notes, entry.decoded, entry.seconds = report.notes, report.decoded, report.seconds


def store_pieces(
    cache: Cache, encoders: Encoders, caption: str, entry: Entry, pieces: Iterable[Segment | Leftover]
) -> None:
    """Encode and store the clips of one video and add them to its entry, with reasons for what is left over."""
    settings = cache.settings
    for piece in pieces:
        if isinstance(piece, Leftover):
            at = f"{piece.start / settings.fps:.2f} s"
            entry.reasons.append(f"{piece.length} frames from {at} on: a clip has {settings.frames}")
            continue
        entry.clips.append(_store(cache, encoders, caption, identity=entry.id, start=piece.start, frames=piece.frames))
        entry.size = "{1}x{0}".format(*piece.frames.shape[1:3])


def _store(cache: Cache, encoders: Encoders, caption: str, identity: str, start: int, frames: np.ndarray) -> Clip:
    """Return the clip of some frames, encoded unless it lies there whole."""
    height, width = frames.shape[1:3]
    if not cache.has_empty(height, width):
        cache.write_empty(height, width, encoders.embed("", height, width))
    ratio, key = encoders.backbone["ratio"], f"{identity}-{start:06d}"
    there = cache.find(key, caption, (len(frames), height // ratio, width // ratio))
    if there is not None:
        return there
    latents = encoders.encode(torch.from_numpy(frames))
    if not torch.isfinite(latents).all():
        raise ValueError(f"the VAE gave NaN or infinite values for the clip at frame {start}")
    clip = Clip(key, caption, start, shape=list(latents.shape), conditions=cache.settings.conditions)
    low = {"low": small_frames(torch.from_numpy(frames))} if low_channels(encoders.backbone) else {}
    cache.write_clip(
        clip,
        {"latents": latents, **low, **_greyed(cache, encoders, clip, frames), **encoders.embed(caption, height, width)},
    )
    return clip


def _greyed(cache: Cache, encoders: Encoders, clip: Clip, frames: np.ndarray) -> dict[str, Tensor]:
    """Return `greyed` (n, c, t, h, w) and `known` (n, 1, t, h, w): copies of a clip with a part greyed, encoded as a workflow does.

    What lies behind a mask shows in the latents around it, so it must be grey before the VAE sees it.
    """
    found: dict[str, list[Tensor]] = {"greyed": [], "known": []}
    for number in range(clip.conditions):
        seed = int(hashlib.sha256(f"{clip.key} {number}".encode()).hexdigest()[:15], 16)
        known = cache.masks(seed, frames.shape[:3])
        grey = torch.where(known[..., None], torch.from_numpy(frames), GREY)
        found["greyed"].append(encoders.encode(grey.to(torch.uint8)))
        found["known"].append(known_cells(known[None, None].float(), *clip.shape[2:])[0])
    return {name: torch.stack(values) for name, values in found.items() if values}


def _keep_also(cache: Cache, before: dict[str, Entry]) -> None:
    """Write an index in the middle of the work that still knows what has not been looked at yet."""
    mine = cache.entries
    cache.entries = {**before, **mine}
    cache.write_index()
    cache.entries = mine


def _forget(cache: Cache, before: dict[str, Entry]) -> int:
    """Delete the clips of videos that are gone; those in shards stay in the tar and are not used."""
    kept = {clip.key for clip in cache.clips()}
    gone = {clip.key for entry in before.values() for clip in entry.clips} - kept
    for key in gone:
        cache.clip_path(key).unlink(missing_ok=True)
    return len(gone)


def linear_preview(cache: Cache, encoders: Encoders) -> None:
    """Fit colour = latents @ matrix + bias on some clips, so that training can show samples without a VAE."""
    if "rgb" in cache.dataset or not cache.clips():
        return
    if encoders.backbone["ratio"] == 1:
        cache.dataset["rgb"] = {"matrix": torch.eye(3).tolist(), "bias": [0.0] * 3}
    else:
        from .reader import Clips

        rows, colours = [], []
        clips = Clips(cache)
        for number in range(min(8, len(clips))):
            latents = clips[number].tensors["latents"].float()
            latents = latents[:, :: max(1, latents.shape[1] // 2)]
            pixels = encoders.decode(latents).float().permute(0, 3, 1, 2) / 127.5 - 1
            small = torch.nn.functional.adaptive_avg_pool2d(pixels, latents.shape[-2:])
            rows.append(latents.flatten(1).T)
            colours.append(small.permute(1, 0, 2, 3).flatten(1).T)
        x = torch.cat(rows)
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        # A little of ridge: a clip of one colour must not give an unbounded matrix.
        gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1])
        solution = torch.linalg.solve(gram, x.T @ torch.cat(colours))
        cache.dataset["rgb"] = {"matrix": solution[:-1].tolist(), "bias": solution[-1].tolist()}
    cache.write_dataset()


def to_pixels(latents: Tensor, rgb: dict[str, Any]) -> Tensor:
    """Return (t, h, w, 3) uint8 colours of (c, t, h, w) latents, by the cache's linear preview."""
    matrix = torch.tensor(rgb["matrix"], device=latents.device)
    bias = torch.tensor(rgb["bias"], device=latents.device)
    colours = latents.float().permute(1, 2, 3, 0) @ matrix + bias
    return ((colours + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _write_report(path: Path, entries: list[Entry]) -> None:
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "clips", "frames_decoded", "seconds", "size", "left_out", "notes"])
        for entry in entries:
            facts = entry.source, len(entry.clips), entry.decoded, round(entry.seconds, 3), entry.size
            writer.writerow([*facts, "; ".join(entry.reasons), "; ".join(entry.notes)])


def _write_preview(cache: Cache, encoders: Encoders) -> None:
    """Show the first clips side by side, decoded from what was stored, with their captions."""
    from .contact import contact_frames
    from .reader import open_clips

    clips = open_clips(cache.folder)
    if not len(clips):
        return
    shown = [clips[number] for number in evenly_spaced(len(clips), PREVIEWED)]
    videos = [encoders.decode(clip.tensors["latents"].float()).numpy() for clip in shown]
    frames = contact_frames(videos, [clip.caption for clip in shown])
    write_mp4(cache.folder / "preview.mp4", frames, cache.settings.fps)
    from PIL import Image

    save_image(Image.fromarray(frames[len(frames) // 2]), cache.folder / "preview.png")
