"""`prepare`: videos with captions into a cache of latents and text states, again and again, doing only what is missing."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..clips.media import save_image, write_mp4
from ..files import atomic
from .cache import Cache, Clip, Entry, Settings
from .decode import Report, Unusable, frames_at
from .encoders import Encoders
from .segments import Leftover, Segment, buckets, split
from .shards import pack
from .sources import Source, find_sources

INDEX_EVERY = 10.0  # seconds between writes of the index
PREVIEWED = 9  # clips in the contact preview


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
    progress: bool = True,
) -> Summary:
    """Bring the cache in `folder` up to date with the videos at `where`.

    Args:
        caption: for videos without one; None drops them.
        shards: megabytes of a tar file; 0 keeps single files.

    Raises:
        ValueError: nothing to prepare, or the cache was made with other settings.
    """
    from tqdm import tqdm

    sources = find_sources(where, caption)
    cache = Cache.create(folder, settings, encoders.backbone)
    sizes = buckets(settings.size, encoders.backbone["multiple"])
    before, cache.entries = cache.entries, {}
    entries, made, written = [], 0, time.monotonic()
    for source in tqdm(sources, disable=not progress, unit="video", file=sys.stderr):
        entry = _known(cache, before, source)
        if entry is None:
            entry = _make(cache, encoders, source, sizes)
            made += len(entry.clips)
        entry.source = str(source.path)
        entries.append(entry)
        if entry.id in cache.entries:
            other = cache.entries[entry.id].source
            entry.reasons, entry.clips = [f"the same video and caption as {other}"], []
            continue
        cache.entries[entry.id] = entry
        if time.monotonic() - written > INDEX_EVERY:
            _keep_also(cache, before)
            written = time.monotonic()
    forgotten = _forget(cache, before)
    linear_preview(cache, encoders)
    cache.write_index()
    if shards:
        pack(cache, shards)
    summary = Summary(cache, entries, made, forgotten)
    _write_report(cache.folder / "report.csv", entries)
    if made or forgotten or not (cache.folder / "preview.mp4").exists():
        _write_preview(cache, encoders)
    return summary


def _known(cache: Cache, before: dict[str, Entry], source: Source) -> Entry | None:
    """Return what an earlier run made of the same video, if it is all there."""
    if source.problem:
        return Entry(id=f"unused {source.path}", source="", reasons=[source.problem])
    entry = before.get(cache.identity(source.path, source.caption))
    return entry if entry is not None and cache.holds(entry) else None


def _make(cache: Cache, encoders: Encoders, source: Source, sizes: list[tuple[int, int]]) -> Entry:
    """Decode, cut, resize, encode and store one video; whatever is wrong with it becomes a reason."""
    entry = Entry(id=cache.identity(source.path, source.caption), source="")
    settings, report = cache.settings, Report()
    try:
        pieces = split(frames_at(source.path, settings.fps, report), settings.frames, sizes)
        store_pieces(cache, encoders, source.caption, entry, pieces)
    except Unusable as error:
        entry.reasons.append(str(error))
    except (OSError, ValueError, ArithmeticError) as error:
        # One video must not end the preparation of a thousand; a defect of ours keeps its traceback.
        entry.reasons.append(f"failed: {error}")
    entry.notes, entry.decoded, entry.seconds = report.notes, report.decoded, report.seconds
    return entry


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
        entry.clips.append(_store(cache, encoders, caption, entry.id, piece.start, piece.frames))
        entry.size = "{1}x{0}".format(*piece.frames.shape[1:3])


def _store(cache: Cache, encoders: Encoders, caption: str, identity: str, start: int, frames: np.ndarray) -> Clip:
    height, width = frames.shape[1:3]
    latents = encoders.encode(torch.from_numpy(frames))
    if not torch.isfinite(latents).all():
        raise ValueError(f"the VAE gave NaN or infinite values for the clip at frame {start}")
    clip = Clip(f"{identity}-{start:06d}", caption, start, list(latents.shape))
    cache.write_clip(clip, {"latents": latents, **encoders.embed(caption, height, width)})
    if not cache.has_empty(height, width):
        cache.write_empty(height, width, encoders.embed("", height, width))
    return clip


def _keep_also(cache: Cache, before: dict[str, Entry]) -> None:
    """Write an index in the middle of the work that still knows what has not been looked at yet."""
    mine = cache.entries
    cache.entries = {**before, **mine}
    cache.write_index()
    cache.entries = mine


def _forget(cache: Cache, before: dict[str, Entry]) -> int:
    """Delete the clips of videos that are gone; those in shards stay in the tar and are not used."""
    kept = {clip.key for clip in cache.clips()}
    gone = [c for e in before.values() for c in e.clips if c.key not in kept]
    for clip in gone:
        cache.clip_path(clip.key).unlink(missing_ok=True)
    return len(gone)


def linear_preview(cache: Cache, encoders: Encoders) -> None:
    """Fit colour = latents @ matrix + bias on some clips, so that training can show samples without a VAE."""
    if "rgb" in cache.dataset or not cache.clips():
        return
    if encoders.backbone["ratio"] == 1:
        cache.dataset["rgb"] = {"matrix": torch.eye(3).tolist(), "bias": [0.0] * 3}
    else:
        from ..nets.checkpoint import load_file

        rows, colours = [], []
        for clip in [c for c in cache.clips() if not c.shard][:8]:
            latents = load_file(cache.clip_path(clip.key))[0]["latents"].float()
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
            writer.writerow(
                [
                    entry.source,
                    len(entry.clips),
                    entry.decoded,
                    round(entry.seconds, 3),
                    entry.size,
                    "; ".join(entry.reasons),
                    "; ".join(entry.notes),
                ]
            )


def _write_preview(cache: Cache, encoders: Encoders) -> None:
    """Show the first clips side by side, decoded from what was stored, with their captions."""
    from .contact import contact_frames
    from .reader import open_clips

    clips = open_clips(cache.folder)
    count = min(PREVIEWED, len(clips))
    if not count:
        return
    shown = [clips[round(i * (len(clips) - 1) / max(1, count - 1))] for i in range(count)]
    videos = [encoders.decode(clip.tensors["latents"].float()).numpy() for clip in shown]
    frames = contact_frames(videos, [clip.caption for clip in shown])
    write_mp4(cache.folder / "preview.mp4", frames, cache.settings.fps)
    from PIL import Image

    save_image(Image.fromarray(frames[len(frames) // 2]), cache.folder / "preview.png")
