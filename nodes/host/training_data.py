"""Videos of the graph as training data: clips in a cache, or pictures of a style."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.v0_0_2 import InputImpl
from torch import Tensor

from ...lumiere_core.dataset.cache import Cache, Entry, Settings, digest
from ...lumiere_core.dataset.decode import Report, Unusable, frames_at
from ...lumiere_core.dataset.prepare import linear_preview, store_pieces
from ...lumiere_core.dataset.segments import buckets, split
from ...lumiere_core.training.latent_pictures import encode_pictures
from ...lumiere_core.training.masks import draw_inside
from ...lumiere_core.training.pictures import MOST, Picture, with_room
from .device import stop_if_interrupted
from .encoders import HostEncoders


def clips_of(encoders: HostEncoders, videos: list, captions: list[str], settings: Settings) -> Cache:
    """Encode the clips of all videos into a cache in the host's temporary folder.

    Raises:
        ValueError: no video gives a clip; the reasons are named.
    """
    key = hashlib.sha256(repr((settings, encoders.backbone["sha256"], captions)).encode())
    for video in videos:
        key.update(_fingerprint(video))
    folder = Path(folder_paths.get_temp_directory()) / "lumiere" / key.hexdigest()[:16]
    cache = Cache.create(folder, settings, encoders.backbone)
    cache.masks = draw_inside
    sizes = buckets(settings.size, encoders.backbone["multiple"])
    bar = comfy.utils.ProgressBar(len(videos))
    reasons = []
    for number, (video, caption) in enumerate(zip(videos, captions, strict=True)):
        entry = Entry(id=f"{key.hexdigest()[:16]}{number:05d}", source=f"video {number}")
        report = Report()
        try:
            frames = _frames(video, settings.fps, report)
            with torch.inference_mode():  # what is stored is read back without it
                store_pieces(cache, encoders, caption, entry=entry, pieces=split(frames, settings.frames, sizes))
        except Unusable as error:
            entry.reasons.append(str(error))
        entry.notes = report.notes
        reasons += [f"video {number}: {reason}" for reason in (*entry.reasons, *entry.notes)]
        cache.entries[entry.id] = entry
        bar.update(1)
    cache.write_index()
    for reason in reasons:
        logging.info(f"Lumiere: {reason}")
    if not cache.clips():
        raise ValueError(
            f"no video gives a clip of {settings.frames} frames at {settings.fps:g} a second: {'; '.join(reasons[:5])}. "
            "Use longer videos, or a smaller length."
        )
    with torch.inference_mode():
        linear_preview(cache, encoders)
    return cache


def _file_of(video: Any) -> str | None:
    """Return the file of a whole VIDEO, or None if it was made or cut in the graph, whose frames are taken as they are."""
    whole = isinstance(video, InputImpl.VideoFromFile) and not any(video.get_active_trim_window())
    source = video.get_stream_source() if whole else None
    return source if isinstance(source, str) else None


def _fingerprint(video: Any) -> bytes:
    source = _file_of(video)
    if source is not None:
        facts = Path(source).stat()
        return f"{source} {facts.st_size} {facts.st_mtime_ns}".encode()
    parts = video.get_components()
    return f"{digest({'images': parts.images})} {parts.frame_rate}".encode()


def _frames(video: Any, fps: float, report: Report) -> Iterator[np.ndarray]:
    """Yield (h, w, 3) uint8 frames at a rate; files by their presentation times. Stop is heard between them."""
    source = _file_of(video)
    for frame in _frames_in_memory(video, fps, report) if source is None else frames_at(Path(source), fps, report):
        stop_if_interrupted()
        yield frame


def _frames_in_memory(video: Any, fps: float, report: Report) -> Iterator[np.ndarray]:
    parts = video.get_components()
    if not parts.images.numel():
        raise Unusable("no frames: the VIDEO is empty")
    images, rate = parts.images, Fraction(parts.frame_rate)
    report.decoded = len(images)
    for number in range(int(len(images) * fps / rate + 1e-6)):
        index = min(len(images) - 1, int(number * rate / Fraction(fps) + Fraction(1, 10**6)))
        yield (images[index, ..., :3] * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def pictures_of(encoders: HostEncoders, videos: list, captions: list[str], size: int, words: str, file: Path) -> None:
    """Encode every frame of videos, which are pictures of a style, into a file that the trainer reads.

    Args:
        captions: one for each video.
        size: of the crops, in pixels; brought to what the model takes.
        words: how captions name the style.

    Raises:
        ValueError: there are more than 20 pictures.
    """
    pictures = []
    for video, caption in zip(videos, captions, strict=True):
        images: Tensor = video.get_components().images
        count = len(pictures) + len(images)
        if count > MOST:
            raise ValueError(
                f"the videos have {count} frames or more, and each is a picture of the style; it is learnt from 1 to {MOST}. "
                "Choose the most typical ones."
            )
        pictures += [
            Picture(with_room(frame.permute(2, 0, 1) * 2 - 1, size, size), caption) for frame in images[..., :3]
        ]
    with torch.inference_mode():
        encode_pictures(pictures, encoders, file, height=size, width=size, words=words)
