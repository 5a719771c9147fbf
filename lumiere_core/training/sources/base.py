"""What all sources have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ..batch import Batch
from ..draws import TEXT, Draws
from ..options import TrainOptions


class Source(ABC):
    """Draws batches; a source has no state, so that any process may draw any batch at any time."""

    name: ClassVar[str]  # one of options.SOURCES

    def __init__(self, options: TrainOptions) -> None:
        self.options = options

    @abstractmethod
    def draw(self, numbers: Sequence[int]) -> list[Batch]:
        """Return the batches of these numbers, in their order; one for each shape that its samples have."""

    def samples(self, number: int) -> range:
        """Return the numbers of the samples of a batch."""
        first = number * self.options.batch_size
        return range(first, first + self.options.batch_size)

    def frames(self) -> int:
        """Return how many frames a sample has."""
        return 1

    def facts(self) -> dict[str, str]:
        """Return what names the data, without paths or captions; a run is resumed on the same only."""
        return {}

    def describe(self) -> str:
        """Return what is drawn, for the log."""
        return ""

    def drop(self, captions: list[str], samples: Sequence[int]) -> list[str]:
        """Return captions, some of them "" for classifier-free guidance."""
        dropped = self.dropped(samples).tolist()
        return ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]

    def dropped(self, samples: Sequence[int]) -> Tensor:
        """Return (b,) bool, whose text is replaced by the empty prompt."""
        return Draws(self.options.seed, samples, TEXT).uniform()[:, 0] < self.options.text_dropout
