"""What is known of a clip: the condition clip C and its mask M for each task (Lumiere §4.2).

The network sees <J, C, M>: the noisy clip, the masked clip and the mask. Masks here follow the paper, 1 = known and
0 = to generate; the host's mean the opposite and are turned over in `nodes/`. What the paper leaves open (what a blank
is, whether C is masked in a cinemagraph too) is decided once: the network always gets C * M, so a blank is 0, the
middle grey, and nothing known at all *is* plain text-to-video.

Shapes: b - clips, c - channels, t - frames, h, w - height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .masks import is_known


@dataclass(frozen=True)
class Condition:
    """A condition clip and what of it is known.

    Attributes:
        clip: (b, c, t, h, w), C; what lies where nothing is known does not matter.
        known: (b, 1, t, h, w), M; 1 = known, 0 = to generate; between, `masks.is_known` decides.
    """

    clip: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        wanted = (self.clip.shape[0], 1, *self.clip.shape[2:])
        if tuple(self.known.shape) != wanted:
            raise ValueError(
                f"the mask is {tuple(self.known.shape)} for a clip of {tuple(self.clip.shape)}; wanted {wanted}: "
                "one channel, and the clip's own frames and size."
            )

    def tensor(self) -> Tensor:
        """Return [C * M, M], (b, c + 1, t, h, w): what `conv_cond` takes."""
        known = is_known(self.known).to(self.clip.dtype)
        return torch.cat([self.clip * known, known], dim=1)


def key_frames(
    images: Tensor, frames: Sequence[int], length: int, known: Tensor | None = None, blank: float = 0.0
) -> Condition:
    """Some frames of a clip are given: the first (image-to-video), first and last, or any.

    Args:
        images: (b, c, k, h, w), the k given frames.
        frames: their k numbers in the clip; negative ones count from its end.
        length: frames of the clip.
        known: (b, 1, k, h, w) if not all of the images is known.
        blank: value of what is not given; 0 where images are in [-1, 1].

    Raises:
        ValueError: the numbers do not match the images, lie outside the clip or occur twice.
    """
    places = [n + length if n < 0 else n for n in frames]
    if len(places) != images.shape[2]:
        raise ValueError(f"got {images.shape[2]} images for {len(places)} frame numbers; one each is wanted.")
    outside = [n for n, place in zip(frames, places, strict=True) if not 0 <= place < length]
    if outside or len(set(places)) < len(places):
        raise ValueError(
            f"the frame numbers are {list(frames)} in a clip of {length} frames; different numbers from {-length} to "
            f"{length - 1} are wanted."
        )
    b, c, _, h, w = images.shape
    clip = images.new_full((b, c, length, h, w), blank)
    mask = images.new_zeros(b, 1, length, h, w)
    clip[:, :, places], mask[:, :, places] = images, 1.0 if known is None else known
    return Condition(clip, mask)


def inpaint(video: Tensor, known: Tensor, length: int = 0, blank: float = 0.0) -> Condition:
    """A clip is given but for a region, or but for its end.

    Args:
        video: (b, c, t, h, w).
        known: (b or 1, 1, t or 1, h, w), 0 in the region to complete.
        length: frames of the clip that is wanted; 0 = t. What the video lacks is not known.
        blank: value of what is not given; 0 where the video is in [-1, 1].
    """
    b, c, t, h, w = video.shape
    known = known.expand(b, 1, t, h, w).to(video.dtype)
    length = length or t
    if length <= t:
        return Condition(video[:, :, :length], known[:, :, :length])
    rest = length - t
    return Condition(
        torch.cat([video, video.new_full((b, c, rest, h, w), blank)], dim=2),
        torch.cat([known, known.new_zeros(b, 1, rest, h, w)], dim=2),
    )


def cinemagraph(image: Tensor, still: Tensor, length: int, first: Tensor | None = None) -> Condition:
    """One region of a picture moves: C is the picture in every frame, M all of frame 0 and else what stays still.

    Args:
        image: (b, c, h, w).
        still: (b or 1, 1, h, w), 0 in the region that is to move.
        length: frames of the clip.
        first: (b or 1, 1, h, w), what is known of frame 0; None = all.
    """
    b, c, h, w = image.shape
    clip = image[:, :, None].expand(b, c, length, h, w)
    known = still.to(image.dtype)[:, :, None].expand(b, 1, length, h, w).clone()
    known[:, :, 0] = 1.0 if first is None else first
    return Condition(clip, known)


def hold_known(x: Tensor, condition: Condition, noise: Tensor | float = 0.0) -> Tensor:
    """Put what is known into a clip, as the host's samplers do with a noise mask.

    They do it to the noisy clip before each call of the network, and to the clean estimate after it.

    Args:
        x: (b, c, t, h, w).
        noise: like x; the noise that x has at this step, 0 for a clean estimate.
    """
    return torch.where(is_known(condition.known), condition.clip + noise, x)
