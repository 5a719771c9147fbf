"""Guidance: what is done to the clean estimates before a sampler uses them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..nets.text_encoder import Text
from .schedule import Schedule


def classifier_free(cond: Tensor, uncond: Tensor, guidance_scale: float) -> Tensor:
    """Extrapolate from the unconditional estimate through the conditional one (Ho & Salimans 2022).

    All are (b, c, t, h, w).

    1 is the conditional estimate itself.
    """
    return uncond + guidance_scale * (cond - uncond)


def check_guidance_end(end: float) -> None:
    """Raise ValueError for a share of the noise levels, see `guidance_ends`, that is none."""
    if not 0 <= end <= 1:
        raise ValueError(f"guidance_end is {end}; from 0 (never) to 1 (at every step) is wanted.")


def guidance_ends(schedule: Schedule, end: float) -> float:
    """Return the sigma at and below which there is no guidance.

    Guidance is needed where the prompt decides what there is; at weak noise it only exaggerates: light that changes from
    frame to frame, edges (Kynkäänniemi et al. 2024, "Applying guidance in a limited interval").

    Args:
        end: share of the noise levels, from the strongest on, with guidance, as the host's `end_percent`; 1 = all, 0 = none.
    """
    if end <= 0:
        return math.inf
    return 0.0 if end >= 1 else schedule.sigma(torch.tensor((1 - end) * (schedule.steps - 1))).item()


def guidance_scale_at(sigma: Tensor, guidance_scale: float, ends: float) -> float:
    """Return the guidance scale at (b,) sigmas, with guidance down to `ends`."""
    return guidance_scale if sigma.max() > ends else 1.0


def guided(estimate: Callable[[Text], Tensor], text: Text, negative: Text, guidance_scale: float) -> Tensor:
    """Return the guided estimate of what `estimate` makes of a text; it is asked once where the scale is 1.

    Estimates are (b, c, t, h, w).
    """
    cond = estimate(text)
    return cond if guidance_scale == 1.0 else classifier_free(cond, estimate(negative), guidance_scale)


def dynamic_threshold(denoised: Tensor, percentile: float) -> Tensor:
    """Pull clean estimates back into [-1, 1] (Imagen §2.3).

    s is the percentile of |denoised| of each clip, at least 1; values are clipped to [-s, s] and divided
    by s. Call it once for a whole clip, after windows were put together.

    Args:
        denoised: (b, …).
        percentile: in (0, 1], for example 0.995.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"percentile is {percentile}; it must be above 0 and at most 1.")
    flat = denoised.float().abs().flatten(1)
    rank = max(1, round(percentile * flat.shape[1]))  # kthvalue has no size limit; quantile has
    s = flat.kthvalue(rank, dim=1).values.clamp(min=1)
    s = s.reshape(-1, *([1] * (denoised.ndim - 1))).to(denoised.dtype)
    return torch.minimum(torch.maximum(denoised, -s), s) / s
