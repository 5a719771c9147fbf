"""A person's own pictures: as pixels, or in the latents of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...nets.checkpoint import sha256
from ...nets.text_encoder import Text
from ..batch import Batch
from ..draws import PICTURE, Draws
from ..latent_pictures import TEXTS, read_pictures
from ..options import TrainOptions
from ..pictures import WORDS_SHARE, crop, load_pictures, named
from .base import Source
from .worlds import Encode


class Pictures(Source):
    """Random crops of 1 to 20 pictures, half of them mirrored; half of the captions name the style."""

    name = "pictures"

    def __init__(self, options: TrainOptions, encode: Encode, folder: Path) -> None:
        super().__init__(options)
        self._encode, self.pictures = encode, load_pictures(folder, options.height, options.width)

    def facts(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(picture.pixels.numpy().tobytes() + picture.caption.encode())
        return {"data": digest.hexdigest()[:16]}

    def describe(self) -> str:
        return f"{len(self.pictures)} pictures"

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        return [self._batch(number) for number in numbers]

    @torch.no_grad()
    def _batch(self, number: int) -> Batch:
        options, samples = self.options, self.samples(number)
        x0, captions = self.pictured(samples)
        text = self._encode(self.drop(captions, samples))
        return Batch(number, samples, x0[:, :, None].to(options.device), text)

    def pictured(self, samples: Sequence[int]) -> tuple[Tensor, list[str]]:
        """Return (b, 3, h, w) crops and their captions."""
        options, random = self.options, Draws(self.options.seed, samples, PICTURE)
        chosen = [self.pictures[number % len(self.pictures)] for number in random.integers()]
        cuts = [
            crop(picture, options.height, options.width, generator)
            for picture, generator in zip(chosen, random.generators, strict=True)
        ]
        return torch.stack(cuts), named([picture.caption for picture in chosen], options.words, random)


class EncodedPictures(Source):
    """Crops that the host's VAE made latents of beforehand; see `latent_pictures`."""

    name = "encoded-pictures"

    def __init__(self, options: TrainOptions, file: Path) -> None:
        """Read the file.

        Raises:
            ValueError: it holds no encoded pictures.
        """
        super().__init__(options)
        self.tensors, self.backbone, self.count = read_pictures(file)
        self._sha256 = sha256(file)

    def facts(self) -> dict[str, str]:
        return {"data": self._sha256[:16]}

    def describe(self) -> str:
        return f"{self.count} pictures"

    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        return [self._batch(number) for number in numbers]

    def _batch(self, number: int) -> Batch:
        """Text states of one batch are as long as the longest; shorter ones repeat their last state."""
        device, samples = self.options.device, self.samples(number)
        random = Draws(self.options.seed, samples, PICTURE)
        says, dropped = (random.uniform()[:, 0] < WORDS_SHARE).tolist(), self.dropped(samples).tolist()
        latents, contexts, pooled = [], [], []
        for say, drop, chosen, cut in zip(says, dropped, random.integers(), random.integers(), strict=True):
            picture = chosen % self.count
            cuts = self.tensors[f"latents.{picture}"]
            latents.append(cuts[cut % len(cuts)])
            text = "empty" if drop else f"{TEXTS[say]}.{picture}"
            contexts.append(self.tensors[f"{text}.context"])
            pooled.append(self.tensors.get(f"{text}.y"))
        longest = max(len(context) for context in contexts)
        context = torch.stack([torch.cat([c, c[-1:].expand(longest - len(c), -1)]) for c in contexts])
        text = Text(context, None if pooled[0] is None else torch.stack(pooled))
        return Batch(number, samples, torch.stack(latents)[:, :, None].to(device), text.to(device))
