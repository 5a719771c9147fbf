"""A clip against the one that it should be, or whose part it should have kept."""

from __future__ import annotations

import math
from statistics import mean

import torch
from torch import Tensor

from .figure import Figure, Measure, Unmeasurable
from .walk import Step

WINDOW = 11  # pixels of SSIM's Gaussian window, sigma 1.5
LEAST_ERROR = 1e-6  # squared levels: identical clips have 108 dB, not infinitely many


class Fidelity(Measure):
    """PSNR against a reference of the same length."""

    needs = ("reference",)
    figures = (
        Figure(
            "psnr", "dB", (0, None), "of the squared error over all frames; 108.13 = identical", source="signal theory"
        ),
        Figure("change_psnr", "dB", (0, None), "the same of the changes from frame to frame: the motion's own error"),
    )

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._changes: list[float] = []
        self._before: Tensor | None = None

    def see(self, step: Step) -> None:
        error = step.frame - step.reference
        self._errors.append(float(error.square().double().mean()))
        if self._before is not None:
            self._changes.append(float((error - self._before).square().double().mean()))
        self._before = error

    def values(self) -> dict[str, float]:
        found = {"psnr": decibels(mean(self._errors))}
        if self._changes:
            found["change_psnr"] = decibels(mean(self._changes))
        return found


class Similarity(Measure):
    """SSIM against a reference of the same length."""

    needs = ("reference",)
    figures = (
        Figure("ssim", "share", (-1, 1), "mean over the frames; 1 = identical", source="Wang et al. 2004, by kornia"),
    )

    def __init__(self) -> None:
        self._ssim: list[float] = []

    def see(self, step: Step) -> None:
        if min(step.frame.shape[1:]) < WINDOW:
            raise Unmeasurable(f"SSIM needs frames of {WINDOW} pixels at least")
        self._ssim.append(ssim(step.frame, step.reference))

    def values(self) -> dict[str, float]:
        return {"ssim": mean(self._ssim)}


class Kept(Measure):
    """Whether what was given is there still, bit for bit."""

    needs = ("reference", "known")
    figures = (
        Figure("outside_exact", "share", (0, 1), "known pixels that equal the reference's (within half a level)"),
        Figure("outside_error", "levels", (0, 255), "mean absolute difference of the known pixels"),
        Figure("outside_worst", "levels", (0, 255), "largest difference of a known pixel"),
    )

    def __init__(self) -> None:
        self._pixels, self._exact, self._sum, self._worst = 0, 0, 0.0, 0.0

    def see(self, step: Step) -> None:
        error = (step.frame - step.reference).abs()[:, step.known]
        if error.numel():
            largest = error.amax(0)
            self._pixels += largest.numel()
            self._exact += int((largest < 0.5).sum())
            self._sum += float(error.mean(0).double().sum())
            self._worst = max(self._worst, float(largest.max()))

    def values(self) -> dict[str, float]:
        if not self._pixels:
            return {}
        return {
            "outside_exact": self._exact / self._pixels,
            "outside_error": self._sum / self._pixels,
            "outside_worst": self._worst,
        }


def decibels(error: float) -> float:
    """Return the PSNR in dB of a mean squared error in levels of 255."""
    return 10 * math.log10(255**2 / max(error, LEAST_ERROR))


def ssim(frame: Tensor, reference: Tensor) -> float:
    """Return the structural similarity of two (3, h, w) frames in levels, the borders left out as in the paper."""
    try:
        from kornia.metrics import ssim as map_of
    except ImportError as error:
        raise Unmeasurable("SSIM needs the package kornia, which ComfyUI installs.") from error

    similarity = map_of(frame[None], reference[None], WINDOW, max_val=255.0, padding="valid")
    return float(torch.as_tensor(similarity).mean())
