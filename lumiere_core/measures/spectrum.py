"""How much of what changes over time changes fast."""

from __future__ import annotations

import torch
from torch import Tensor

from .figure import Figure, Measure
from .walk import Step

BLOCK = 16  # frames of a Fourier transform
LEAST = 8
ROWS = 64  # rows that are transformed at a time


class HighFrequencies(Measure):
    """Share of the temporal energy in the upper half of the spectrum, block by block of 16 frames, half overlapped."""

    frames = LEAST
    figures = (
        Figure(
            "high_frequencies",
            "share",
            (0, 1),
            "energy over time (without the mean) above half the highest frequency; white noise about 0.5, slow motion "
            "near 0, two frames in turn 1",
            source="this pack: Hann window, mean removed",
        ),
    )

    def __init__(self) -> None:
        self._block: list[Tensor] = []
        self._fast = self._all = 0.0
        self._unused = 0

    def see(self, step: Step) -> None:
        self._block.append(step.grey)
        self._unused += 1
        if len(self._block) == BLOCK:
            self._transform()
            self._block = self._block[BLOCK // 2 :]
            self._unused = 0

    def values(self) -> dict[str, float]:
        if self._unused and len(self._block) >= LEAST:
            self._transform()
            self._unused = 0
        return {"high_frequencies": self._fast / self._all if self._all > 0 else 0.0}

    def _transform(self) -> None:
        length = len(self._block)
        window = torch.hann_window(length + 1, periodic=True)[1:, None, None]
        frequencies = torch.fft.rfftfreq(length).double()
        fast = (frequencies > 0.25) + 0.5 * (frequencies == 0.25)
        for top in range(0, self._block[0].shape[0], ROWS):
            rows = torch.stack([frame[top : top + ROWS] for frame in self._block])
            energy = torch.fft.rfft((rows - rows.mean(0)) * window, dim=0).abs().square().sum((1, 2)).double()
            energy[1:-1] *= 2  # the same again at negative frequencies
            self._fast += float((energy * fast).sum())
            self._all += float(energy[1:].sum())
