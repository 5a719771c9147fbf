"""Group norms over whole clips, as the first motion modules were trained with.

The U-Net of AnimateDiff v1 and of HotshotXL had its frames as an axis of the picture, so its norms saw all frames at
once. AnimateDiff-Evolved does the same for such files, with every norm; diffusers does it with the modules' own norms, for
every file. The host's U-Net has frames as a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

NORMS = ("frame", "module", "clip")  # which see whole clips: none, those of the temporal layers, all


@contextlib.contextmanager
def clip_norms(which: str, unet: torch.nn.Module, layers: torch.nn.Module, frames: int) -> Iterator[None]:
    """Let group norms take `frames` pictures of the batch as one while this context lasts.

    Args:
        which: one of `NORMS`.

    They are hooks around the layers' own calls, so weights that the host casts or moves are none of our business.
    """

    def joined(_: torch.nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = inputs
        return (x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(2, 3),)  # b c (t h) w

    def parted(_: torch.nn.Module, __: tuple[Tensor], x: Tensor) -> Tensor:
        return x.unflatten(2, (frames, -1)).transpose(1, 2).flatten(0, 1).contiguous()

    handles = []
    try:
        for network in {"frame": (), "module": (layers,), "clip": (unet, layers)}[which]:
            for module in network.modules():
                if isinstance(module, torch.nn.GroupNorm):
                    handles += [module.register_forward_pre_hook(joined), module.register_forward_hook(parted)]
        yield
    finally:
        for handle in handles:
            handle.remove()
