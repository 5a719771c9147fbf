"""Whether light, contrast and colour wander off while a clip plays."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .figure import Figure, Measure
from .walk import Step


class Drift(Measure):
    """Straight lines through each frame's mean and contrast; what a line says is how far it gets over the clip."""

    frames = 3
    figures = (
        Figure("drift_mean", "levels", (-255, 255), "how much brighter the end is than the start"),
        Figure("drift_contrast", "levels", (-255, 255), "the same of each frame's standard deviation"),
        Figure("drift_colour", "levels", (0, 510), "largest change of a channel's mean against the mean of all three"),
    )

    def __init__(self) -> None:
        self._means: list[list[float]] = []  # of each channel
        self._contrasts: list[float] = []

    def see(self, step: Step) -> None:
        self._means.append(step.frame.mean((1, 2)).tolist())
        self._contrasts.append(float(step.grey.std(correction=0)))

    def values(self) -> dict[str, float]:
        means = np.array(self._means)
        light = means.mean(1)
        return {
            "drift_mean": over_the_clip(light),
            "drift_contrast": over_the_clip(np.array(self._contrasts)),
            "drift_colour": max(abs(over_the_clip(channel - light)) for channel in means.T),
        }

    def curves(self) -> dict[str, list[float]]:
        return {"mean": np.array(self._means).mean(1).tolist(), "contrast": self._contrasts}


def over_the_clip(curve: np.ndarray) -> float:
    """Return how far a straight line through the curve (least squares) gets from its first point to its last."""
    slope = np.polyfit(np.arange(len(curve)), curve, 1)[0]
    return float(slope * (len(curve) - 1))


def apart(first: Tensor, later: Tensor) -> dict[str, float]:
    """Return how far mean and contrast (standard deviation) of one clip are from another's, in levels.

    The mean of the three channels' distances; clips are (3, t, h, w) in levels.
    """
    return {
        "mean": (later.mean((1, 2, 3)) - first.mean((1, 2, 3))).abs().mean().item(),
        "contrast": (later.std((1, 2, 3)) - first.std((1, 2, 3))).abs().mean().item(),
    }
