"""Crops of a person's own clips with their small clips, in the latents of the SD x4 upscaler (Lumiere §3.2)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...dataset.index import Clip
from ...dataset.reader import Clips, Loaded
from ...nets.low import MOST_LEVEL, SCALE, noised
from ...nets.text_encoder import Text
from ..batch import Batch
from ..draws import CROP, LEVEL, Draws
from ..options import TrainOptions
from .cached import CachedClips, Sample

PLAIN = 0.5  # share of the clips whose small clip has no noise, which is what a workflow begins with


class CachedCrops(CachedClips):
    """Windows of the clips, cut out of the frame alike in the latents and in the small clip, which has as many pixels.

    Half of the small clips have noise of a level from 1 to 350, new in each frame as the host draws it; the level is
    the network's class.

    Args:
        options: whose height and width are the crop's in pixels; a smaller clip is taken whole.

    Raises:
        ValueError: the crops are no multiples of the scale; see `CachedClips`.
    """

    name = "cached-crops"

    def __init__(self, options: TrainOptions, clips: Clips, total_stride: int = 1) -> None:
        super().__init__(options, clips, total_stride)
        for name in ("height", "width"):
            if getattr(options, name) % SCALE:
                raise ValueError(f"--{name} is {getattr(options, name)} pixels; crops must be multiples of {SCALE}.")

    def seen(self, clip: Loaded, number: int) -> Tensor:
        """Return (c + 3, t, h, w): latents, and the small clip behind them."""
        return torch.cat([clip.tensors[name].float() for name in ("latents", "low")])

    def size_of(self, clip: Clip) -> tuple[int, int]:
        wanted = self.options.height // SCALE, self.options.width // SCALE
        return tuple(min(both) for both in zip(wanted, clip.shape[2:], strict=True))

    def sample(self, number: int) -> Sample:
        found = super().sample(number)
        height, width = self.size_of(self.clips.flat[self.clips.at(number, self.options.seed)])
        free = torch.tensor(found.latents.shape[2:]) - torch.tensor([height, width])
        top, left = (Draws(self.options.seed, [number], CROP).uniform(2)[0] * (free + 1)).long().tolist()
        found.latents = found.latents[:, :, top : top + height, left : left + width]
        return found

    def _batch(self, number: int, group: list[Sample]) -> Batch:
        batch = super()._batch(number, group)
        low = batch.x0[:, -3:]
        random = Draws(self.options.seed, batch.samples, LEVEL)
        strength = ((random.uniform()[:, 0] - PLAIN) / (1 - PLAIN)).clamp(min=0)
        level = (strength * MOST_LEVEL).ceil().long().to(low.device)
        low = noised(low, random.normal(low.shape[1:], low.device), level)
        text = Text(batch.text.context, level)
        return dataclasses.replace(batch, x0=batch.x0[:, :-3], text=text, more={**batch.more, "low": low})

    def shown(self, clip: Loaded, device: str) -> tuple[Text, Text, dict[str, Any]]:
        *texts, more = super().shown(clip, device)
        level = torch.zeros(1, dtype=torch.long, device=device)
        low = clip.tensors["low"].float()[None].to(device)
        return *(Text(text.context, level) for text in texts), {**more, "low": low}
