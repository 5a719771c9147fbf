"""Clips out of photographs: a camera that moves over one and comes nearer, or does not."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nets.checkpoint import sha256
from .pictures import SUFFIXES, open_picture, picture_files

LARGEST = 2048  # pixels of a side that is kept of a photograph; all of them stay in memory, at 8 bits
SHARPER = 2.0  # photograph's pixels for one of the clip, at most: a photograph at its own size is soft
FASTEST = 2.0  # pixels of the clip that the camera moves from frame to frame
BORDER = 2  # pixels around what is seen, for the interpolation
NEARER = 0.004  # largest change of the scale from frame to frame


class Photographs:
    """The photographs of a folder, as clips.

    Args:
        folder: with pictures; other files in it are named in the log.

    Raises:
        ValueError: it holds none, or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        folder = Path(folder)
        self.files = picture_files(folder)
        if not self.files:
            raise ValueError(
                f"{folder} holds no photographs ({', '.join(SUFFIXES)}); `gather photographs` fetches some."
            )
        for file in self.files:  # all of them are wanted in the end: one that cannot be read is named now
            _picture(file)

    def digest(self) -> str:
        """Return a hash of all photographs, whatever they are called."""
        return hashlib.sha256(" ".join(sorted(map(sha256, self.files))).encode()).hexdigest()[:16]

    def clip(self, generator: torch.Generator, frames: int, height: int, width: int) -> Tensor:
        """Return (3, t, h, w) in [-1, 1]: a photograph under a moving camera; the generator decides everything.

        A photograph that is smaller than the clip is enlarged to fill it.
        """
        chance = torch.rand(8, generator=generator).tolist()
        picture = _picture(self.files[int(chance[0] * len(self.files))])
        full = torch.tensor(picture.shape[-2:], dtype=torch.float32)
        size = torch.tensor([height, width], dtype=torch.float32)
        most = (full / size).min().item()  # photograph's pixels for one of the clip
        step = max(min(1 + chance[1] * (SHARPER - 1), most), min(1.0, most))
        times = torch.arange(frames) - (frames - 1) / 2
        scales = (step * torch.exp((2 * chance[2] - 1) * NEARER * times)).clamp(max=most)
        speed, angle = FASTEST * chance[3] * step, 2 * math.pi * chance[4]
        way = torch.tensor([math.sin(angle), math.cos(angle)]) * speed
        room = (full - size * step) / 2
        middle = full / 2 + room * torch.tensor([2 * chance[5] - 1, 2 * chance[6] - 1])
        centres = middle + times[:, None] * way
        half = size * scales[:, None] / 2
        centres = torch.minimum(torch.maximum(centres, half), full - half)
        # Only what the camera sees becomes numbers.
        low = (centres - half).amin(0).floor().int().sub(BORDER).clamp(min=0)
        high = torch.minimum((centres + half).amax(0).ceil().int() + BORDER, full.int())
        seen = picture[:, low[0] : high[0], low[1] : high[1]].float() / 127.5 - 1
        views = [_view(seen, c - low, s, height=height, width=width) for c, s in zip(centres, scales, strict=True)]
        clip = torch.cat(views, dim=1)
        return clip.flip(-1) if chance[7] < 0.5 else clip


def _view(picture: Tensor, centre: Tensor, scale: Tensor, height: int, width: int) -> Tensor:
    """Return (3, 1, h, w): the picture around a place, `scale` of its pixels for each, averaged where they are many."""
    rows, columns = (
        centre[axis] + (torch.arange(count) + 0.5 - count / 2) * scale for axis, count in enumerate((height, width))
    )
    full_h, full_w = picture.shape[-2:]
    y, x = 2 * rows / full_h - 1, 2 * columns / full_w - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]
    view = F.grid_sample(picture[None], grid, mode="bicubic", padding_mode="border", align_corners=False)
    return view[0, :, None].clamp(-1, 1)


@cache
def _picture(file: Path) -> Tensor:
    """Return a photograph (3, h, w) in uint8, upright, no side longer than `LARGEST`."""
    import numpy as np

    pixels = torch.from_numpy(np.asarray(open_picture(file, LARGEST)).copy())
    return pixels.movedim(-1, 0).contiguous()
