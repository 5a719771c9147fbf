"""Captions of the world with what they say, for the text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ... import world
from ...nets.text_encoder import Text, pad_tokens, tokenize
from ..batch import Batch
from ..options import TrainOptions
from .base import Source
from .scenes import Scenes

LABELS = {name: list(values) for name, values in world.attribute_labels().items()}


class Captions(Source):
    """`x0` are token ids (b, l), and `more` has the number of the value of each attribute, (b,) by its name."""

    name = "captions"

    def __init__(self, options: TrainOptions, max_bytes: int) -> None:
        super().__init__(options)
        self.scenes, self.max_bytes = Scenes(options), max_bytes

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        batches, device = [self.samples(number) for number in numbers], self.options.device
        drawn = []
        for number, samples, scenes in zip(numbers, batches, self.scenes(batches), strict=True):
            ids = pad_tokens([tokenize(scene.caption, self.max_bytes) for scene in scenes]).to(device)
            labels = {
                name: torch.tensor([values.index(s.attributes.get(name, "none")) for s in scenes]).to(device)
                for name, values in LABELS.items()
            }
            drawn.append(Batch(number, samples, ids, Text(ids), more=labels))
        return drawn
