"""Which frames a call of the network computes, and what of a per-frame thing they get.

The host's samplers see the whole batch; a network sees a window of it (ours, the host's or AnimateDiff-Evolved's),
padded in time, and each level of it every stride-th frame. All of these are lists of row numbers, composed here, and
applied by core's `take_frames`.
"""

from __future__ import annotations

from dataclasses import dataclass

import comfy.utils
import torch
from torch import Tensor

from ...lumiere_core.clips.video import clip_count, take_frames
from .keys import FRAMES, HOST_WINDOW, WINDOW, WINDOWS


@dataclass(frozen=True)
class Rows:
    """The rows of one prompt's part of a call.

    Attributes:
        rows: (clips, frames) rows of the whole batch that is sampled.
        total: rows of that batch.
        clip_frames: frames of a whole clip in it.
    """

    rows: Tensor
    total: int
    clip_frames: int

    @property
    def numbers(self) -> Tensor:
        """Numbers (clips, frames) of the frames in their clips."""
        return self.rows % self.clip_frames

    def padded(self, padding: Tensor) -> Rows:
        """Return the rows with `padded_frames`'s frames. `padding` is (k,)."""
        return Rows(take_frames(self.rows, padding, dim=1), self.total, self.clip_frames)

    def published(self, numbers: Tensor) -> dict:
        """Return what the layers of a level are told; `numbers` are its frames, `TemporalState.numbers`. (k,)."""
        return published(take_frames(self.rows, numbers, dim=1), self.total)


def published(rows: Tensor, total: int) -> dict:
    """Return what AnimateDiff-Evolved publishes of its windows and IPAdapter_plus reads, for `FRAMES` in the options.

    Args:
        rows: (clips, frames) rows that are seen. total: of the whole batch.
    """
    return {"sub_idxs": rows.flatten().tolist(), "full_length": total, "context_length": rows.shape[1]}


def rows_of_call(options: dict, count: int, frames_per_clip: int) -> Rows:
    """Return which rows of the sampled batch one prompt's part of a call holds.

    Args:
        options: transformer_options of the call.
        count: rows of that part.
        frames_per_clip: 0 = the whole batch is one clip.

    Raises:
        ValueError: a window of the host reaches over the end of a clip into the next.
    """
    rows, total = _rows(options, count)
    clip_frames = frames_per_clip or total
    frames = min(clip_frames, count)
    rows = torch.tensor(rows).reshape(clip_count(count, frames), frames)
    clips = rows // clip_frames
    if (clips != clips[:, :1]).any():
        raise ValueError(
            f"a window of the host's Context Windows holds frames of several clips of {clip_frames} frames. Use Lumiere "
            "Temporal Multidiffusion, which cuts every clip of a batch by itself, or sample one clip."
        )
    return Rows(rows, total, clip_frames)


def _rows(options: dict, count: int) -> tuple[list[int], int]:
    run, window = options.get(WINDOWS), options.get(WINDOW)
    if run is not None and window is not None:
        return list(window), run.frames * run.clips
    window = options.get(HOST_WINDOW)
    if window is not None:
        rows, anchor = list(window.index_list), getattr(window, "causal_anchor_index", None)
        if anchor is not None and anchor >= 0:  # a frame before the window, which its answer leaves out
            rows.insert(0, anchor)
        if len(rows) == count:
            return rows, window.total_frames
    others = options.get(FRAMES) or {}
    if others.get("sub_idxs") is not None and len(others["sub_idxs"]) == count:
        return list(others["sub_idxs"]), others["full_length"]
    return list(range(count)), count


def fitted(value: Tensor, total: int) -> Tensor:
    """Return a per-frame thing with a row for each of `total` frames, as the host fits it: repeated, then cut.

    (n, …) -> (total, …). One row, which is for all frames, stays one.
    """
    return value if len(value) == 1 else comfy.utils.repeat_to_batch_size(value, total)


def row_numbers(count: int, total: int) -> list[int]:
    """Return which of `count` rows each of `total` frames gets by the same rule. For lists, which are no tensors."""
    return [number % count for number in range(total)]
