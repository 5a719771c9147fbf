"""What a step trains on, but for its noise. Shapes: b - samples, c - channels, t - frames, h, w - height, width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..nets.text_encoder import Text


@dataclass(frozen=True)
class Batch:
    """Samples of one shape. A batch number whose samples differ in shape has several."""

    number: int  # of the batch in the run
    samples: Sequence[int]  # their numbers in the run
    x0: Tensor  # (b, c, t, h, w) clean data; a picture has one frame
    text: Text
    objects: Tensor | None = None  # (b, 1, t, h, w) coverage of the main objects
    known: Tensor | None = None  # (b, c + 1, t, h, w), `Condition.tensor()`
    more: dict[str, Any] = field(default_factory=dict)  # what else the network takes, by its names

    def used(self) -> Batch:
        """Return this batch, made in another queue of a GPU, for use in the current one."""
        for value in (self.x0, *self.text, self.objects, self.known, *self.more.values()):
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(torch.cuda.current_stream(value.device))
        return self
