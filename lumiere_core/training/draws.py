"""Random numbers of training samples: each sample's follow from the run's seed and its own number alone.

So a resumed run, a run of two processes and a run of one with the doubled batch see the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..diffusion.noise import mixed_seed

GOLDEN = 0.6180339887498949
# One for each use, so that a use more or less changes no other.
TEXT, MOMENT, LOSS, PICTURE, SCENE, MASK, CROP, LEVEL, LENGTH, FRESH, PHOTO, COPY = range(1, 13)


class Draws:
    """The randomness of one use of some samples.

    Args:
        seed: of the run.
        samples: their numbers in the run.
        stream: the use, one of this module's constants.
    """

    def __init__(self, seed: int, samples: Sequence[int], stream: int) -> None:
        self.seed, self.samples = seed, samples
        self.generators = [
            torch.Generator().manual_seed(mixed_seed(mixed_seed(mixed_seed(seed) ^ sample) ^ stream) & (2**63 - 1))
            for sample in samples
        ]

    def uniform(self, count: int = 1) -> Tensor:
        """Return (b, count) numbers in [0, 1)."""
        return torch.stack([torch.rand(count, generator=generator) for generator in self.generators])

    def integers(self) -> list[int]:
        """Return a whole number of 62 bits for each sample."""
        return [int(torch.randint(2**62, (), generator=generator)) for generator in self.generators]

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Return (b, *shape) standard normal numbers.

        Elsewhere than on a CPU they are the device's own: a processor takes longer to draw the noise of a batch of
        clips than a GPU to train on it.
        """
        device = torch.device(device)
        out = torch.empty(len(self.generators), *shape, device=device)
        if device.type == "cpu":
            for row, generator in zip(out, self.generators, strict=True):
                row.normal_(generator=generator)
            return out
        there = torch.Generator(device)
        for row, number in zip(out, self.integers(), strict=True):
            row.normal_(generator=there.manual_seed(number))
        return out

    def spread(self) -> Tensor:
        """Return (b,) numbers in [0, 1): steps of the golden ratio fill the range evenly, however samples are batched."""
        start = (mixed_seed(self.seed) % 10**6) / 10**6
        return torch.tensor([(start + number * GOLDEN) % 1.0 for number in self.samples])
