"""Text that all frames of a clip have in common is turned into keys and values once for the clip, not for every frame.

The host repeats a prompt for each picture of the batch, so each cross-attention projects the same text as often as there
are frames: for 16 frames of 128x128 pixels 4 % of SD1.5's products, 13 % of SDXL's. The projections stay the host's own
layers, with whatever weights, casts and LoRAs they have; hooks hand them the rows that differ.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator

import torch
from comfy.ldm.modules.attention import CrossAttention
from torch import Tensor

_projections: weakref.WeakKeyDictionary[torch.nn.Module, list[torch.nn.Module]] = weakref.WeakKeyDictionary()


class SharedText:
    """The text states of a call, one row for each clip of each prompt.

    Args:
        unique: (clips, l, d).
    """

    def __init__(self, unique: Tensor) -> None:
        self.unique = unique
        self._made: dict[int, Tensor] = {}

    def at(self, frames: int) -> Tensor:
        """Return ((clips frames), l, d), the same tensor whenever it is asked for, so that it is known again."""
        if frames not in self._made:
            self._made[frames] = self.unique.repeat_interleave(frames, dim=0)
        return self._made[frames]

    def frames_of(self, x: object) -> int:
        """Return how many frames each row of a tensor (n, l, d) was repeated for; 0 if it is none of `at`."""
        return next((frames for frames, made in self._made.items() if made is x), 0)


def shared_text(context: Tensor | None, frames: int) -> SharedText | None:
    """Return the text of ((clips frames), l, d) states if it is the same for all frames of each clip, else None."""
    if context is None or frames < 2 or len(context) % frames:
        return None
    rows = context.unflatten(0, (-1, frames))
    if not torch.equal(rows[:, 1:], rows[:, :1].expand(-1, frames - 1, *rows.shape[2:])):
        return None
    return SharedText(rows[:, 0])


@contextlib.contextmanager
def projected_once(text: SharedText | None, unet: torch.nn.Module) -> Iterator[None]:
    """Let the U-Net's cross-attention project the rows of a text once each while this context lasts."""
    if text is None:
        yield
        return
    repeated: list[int] = []

    def once(_: torch.nn.Module, inputs: tuple) -> tuple | None:
        repeated.append(text.frames_of(inputs[0]))
        return (text.unique, *inputs[1:]) if repeated[-1] else None

    def again(_: torch.nn.Module, __: tuple, out: Tensor) -> Tensor | None:
        frames = repeated.pop()
        return out.repeat_interleave(frames, dim=0) if frames else None

    handles = []
    try:
        for layer in _layers(unet):
            handles += [layer.register_forward_pre_hook(once), layer.register_forward_hook(again)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(unet: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a U-Net that make keys and values, those of text among them."""
    if unet not in _projections:
        attentions = [module for module in unet.modules() if isinstance(module, CrossAttention)]
        _projections[unet] = [layer for a in attentions for layer in (a.to_k, a.to_v)]
    return _projections[unet]
