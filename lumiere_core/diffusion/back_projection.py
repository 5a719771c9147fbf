"""Keeping an enlarged clip to the small one: iterative back-projection (Irani & Peleg 1991; not in the paper).

A network that enlarges leaves errors in what the small clip says for certain, its means. They cost more than the detail
that it adds gains, most of all on clips that are unlike those it was trained on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nets.ssr import upsample

PART = 16  # frames at a time, which bounds the memory


def back_project(large: Tensor, small: Tensor, iterations: int) -> Tensor:
    """Return frames whose means of scale x scale pixels come near to the small frames.

    Each iteration makes them small by averaging, as `train ssr` makes its small clips, enlarges what is missing as `upsample`
    does, and adds it. Coarse errors go first and what is as fine as a small pixel last: few iterations take less of a small
    clip's noise and compression over than many.

    Args:
        large: (n, c, scale h, scale w).
        small: (n, c, h, w), in the same unit.
        iterations: 0 = none.
    """
    if not iterations:
        return large
    scale = large.shape[-1] // small.shape[-1]
    parts = []
    for part, wanted in zip(large.split(PART), small.split(PART), strict=True):
        for _ in range(iterations):
            part = part + upsample(wanted - F.avg_pool2d(part, scale), scale)
        parts.append(part)
    return torch.cat(parts)
