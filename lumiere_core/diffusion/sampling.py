"""Samplers for training-time samples and use without a host; each sees only `denoise(x, sigma)`.

`sigmas` descend and end with 0. `denoise` takes noised data (b, …) and (b,) sigmas and returns the clean
estimate. `on_step(step, sigma, denoised)` is called after each step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, float, Tensor], None]


def sigmas_karras(steps: int, schedule: Schedule, rho: float = 7.0) -> Tensor:
    """Return (steps + 1,) sigmas spaced as Karras et al. (2022), eq. 5, with a final 0."""
    low, high = schedule.sigma_min ** (1 / rho), schedule.sigma_max ** (1 / rho)
    ramp = (high + torch.linspace(0, 1, steps) * (low - high)) ** rho
    return torch.cat([ramp, torch.zeros(1)])


def sigmas_linear(steps: int, schedule: Schedule) -> Tensor:
    """Return (steps + 1,) sigmas at evenly spaced timesteps (the host's "normal"), with a final 0."""
    timesteps = torch.linspace(schedule.steps - 1, 0, steps)
    return torch.cat([schedule.sigma(timesteps), torch.zeros(1)])


SCHEDULERS = {"karras": sigmas_karras, "normal": sigmas_linear}


@torch.no_grad()
def sample_ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
    """Deterministic DDIM (Song et al. 2021); the host's "euler" takes the same steps.

    Args:
        x: (b, …) noise scaled by sigmas[0].
    """
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = _checked(denoise(x, sigma.expand(x.shape[0])), step, sigma)
        x = x + (x - denoised) / sigma * (following - sigma)
        if on_step:
            on_step(step, sigma.item(), denoised)
    return x


@torch.no_grad()
def sample_ddpm(
    denoise: Denoise, x: Tensor, sigmas: Tensor, step_noise: Callable[[int], Tensor], on_step: OnStep | None = None
) -> Tensor:
    """Ancestral DDPM (Ho et al. 2020); the host's "euler_ancestral" takes the same steps.

    x is (b, c, t, h, w), sigmas (steps + 1,).

    Args:
        step_noise: returns standard normal noise like x for step 1, 2, ….
    """
    for step, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = _checked(denoise(x, sigma.expand(x.shape[0])), step, sigma)
        # Posterior of q(x_following | x, denoised): mean shrinks by (following / sigma) squared.
        x = denoised + (x - denoised) * (following / sigma) ** 2
        if following > 0:
            up = (following**2 * (sigma**2 - following**2) / sigma**2).sqrt()
            x = x + step_noise(step + 1).to(x) * up
        if on_step:
            on_step(step, sigma.item(), denoised)
    return x


SAMPLERS = ("ddim", "ddpm")


def _checked(denoised: Tensor, step: int, sigma: Tensor) -> Tensor:
    if not torch.isfinite(denoised).all():
        raise FloatingPointError(
            f"the network gave NaN or infinite values at step {step + 1} (sigma {sigma.item():.4g}). "
            "The weights may be damaged, or half precision may overflow: try float32."
        )
    return denoised
