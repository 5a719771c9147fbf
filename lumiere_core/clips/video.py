"""Frame arithmetic and layouts: the only place that folds, pads and converts clips.

Shapes: b - clips, t - frames, c - channels, h, w - height, width. Core's layout is b c t h w in [-1, 1].
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor


def fold(video: Tensor) -> Tensor:
    """(b, c, t, h, w) -> ((b t), c, h, w): frames as a batch of images."""
    return rearrange(video, "b c t h w -> (b t) c h w")


def unfold(images: Tensor, num_frames: int) -> Tensor:
    """((b t), c, h, w) -> (b, c, t, h, w).

    Raises:
        ValueError: the batch is no whole number of clips.
    """
    clip_count(images.shape[0], num_frames)
    return rearrange(images, "(b t) c h w -> b c t h w", t=num_frames)


def clip_count(batch: int, num_frames: int) -> int:
    """Return how many clips of `num_frames` frames a batch of images holds.

    Raises:
        ValueError: the batch is empty or no whole number of clips.
    """
    if num_frames < 1 or batch < 1 or batch % num_frames:
        legal = [n for n in range(1, batch + 1) if batch % n == 0]
        raise ValueError(
            f"a batch of {batch} frames is no whole number of clips of {num_frames} frames. "
            f"Set the frames per clip to one of {legal}, or to 0 for one clip."
        )
    return batch // num_frames


def padded_frames(num_frames: int, multiple: int) -> Tensor:
    """Return the frame numbers (padded length,) that extend a clip to the next multiple.

    The end is reflected in time (t-2, t-3, …), back and forth for clips shorter than the padding.
    """
    length = num_frames + -num_frames % multiple
    frames = torch.arange(length)
    if num_frames == 1:
        return torch.zeros_like(frames)
    period = 2 * (num_frames - 1)
    folded = frames % period
    return torch.minimum(folded, period - folded)


def take_frames(value: Tensor, numbers: Tensor, clips: int = 1, dim: int = 0) -> Tensor:
    """Return the frames `numbers` of every clip: the one way by which a per-frame thing is put on other frames.

    A window, the padding and the stride of a level are each a list of frame numbers, composed by indexing
    (`window[padding][::stride]`), so whatever comes per frame (text, noise level, control, masks, places) is taken, never
    averaged or resampled.

    Args:
        value: clips * frames rows on axis `dim`, clip after clip.
        numbers: (k,) frame numbers within a clip, in any order, any of them repeated or left out.
        clips: that `value` holds.

    Returns:
        `value` with clips * k rows on axis `dim`.

    Raises:
        ValueError: the rows are no whole number of clips.
    """
    clip_count(value.shape[dim], value.shape[dim] // max(clips, 1))
    numbers = numbers.to(value.device)
    if clips == 1:
        return value.index_select(dim, numbers)
    dim %= value.ndim
    return value.unflatten(dim, (clips, -1)).index_select(dim + 1, numbers).flatten(dim, dim + 1)


def to_uint8(video: Tensor) -> Tensor:
    """(c, t, h, w) in [-1, 1] -> (t, h, w, c) uint8, for files and pictures."""
    levels = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "c t h w -> t h w c")


def from_uint8(frames: Tensor) -> Tensor:
    """(t, h, w, c) uint8 -> (c, t, h, w) in [-1, 1]."""
    return rearrange(frames.float() / 127.5 - 1, "t h w c -> c t h w")


def check_pixels(images: Tensor, name: str = "images") -> None:
    """Raise ValueError if a host IMAGE (t, h, w, c) holds no frame, no pixel or what is no number; `name` is the input's."""
    if not images.numel():
        frames, height, width = images.shape[:3]
        raise ValueError(
            f"{name} holds {frames} frames of {width}x{height} pixels; at least one frame of 1x1 is wanted. Look at the node "
            "that it comes from."
        )
    if not all(math.isfinite(end) for end in torch.aminmax(images)):  # NaN passes through
        frame = int((~images.isfinite().flatten(1).all(1)).nonzero()[0])
        raise ValueError(
            f"frame {frame} of {name} holds values that are no numbers (NaN or infinity): the model that made it failed. Sample "
            "it again in fp32, or with another VAE precision."
        )


def images_to_video(images: Tensor) -> Tensor:
    """Host IMAGE (t, h, w, c) in [0, 1] -> one clip (1, c, t, h, w) in [-1, 1]."""
    return rearrange(images.float() * 2 - 1, "t h w c -> 1 c t h w")  # a host may keep images in half precision


def video_to_images(video: Tensor) -> Tensor:
    """(b, c, t, h, w) in [-1, 1] -> host IMAGE ((b t), h, w, c) in [0, 1], clipped."""
    return rearrange((video + 1) / 2, "b c t h w -> (b t) h w c").clamp(0, 1)
