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
    return torch.cat([_ramp(schedule.sigma_max, schedule.sigma_min, steps, rho), torch.zeros(1)])


def _ramp(high: float, low: float, count: int, rho: float = 7.0) -> Tensor:
    """Return (count,) sigmas from high to low whose rho-th roots are evenly spaced."""
    low, high = low ** (1 / rho), high ** (1 / rho)
    return (high + torch.linspace(0, 1, count) * (low - high)) ** rho


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


def count_steps(sigmas: Tensor) -> int:
    """Return how many steps sampling takes over sigmas that may rise."""
    return int((sigmas.diff() < 0).sum())


SAMPLERS = ("ddim", "ddpm")
RESTART_HIGH, RESTART_LOW, RESTART_STEPS = 25.0, 8.0, 3


def with_restarts(
    sigmas: Tensor, count: int, high: float = RESTART_HIGH, low: float = RESTART_LOW, steps: int = RESTART_STEPS
) -> Tensor:
    """Return (n,) sigmas that, once down at `low`, rise to `high` and come down again `count` times.

    What a clip is to have in common over all its frames, such as the phase of a swing, is decided where noise is
    strong, and one way down decides too little. Each restart takes up what the last one decided, and adds to it (Xu et
    al. 2023, "Restart Sampling for Improving Generative Processes"; not in the Lumiere paper).

    Args:
        sigmas: descending, at least one of them above `low`, else there is nothing to restart and they are returned.
        count: restarts; 0 = none. steps: of each.
        high: no higher than sigmas[0], where sampling starts.
    """
    high = min(high, float(sigmas[0]))
    if not count or high <= low:
        return sigmas
    ramp = _ramp(high, low, steps + 1).to(sigmas)
    # A step from `low` to just below it would be wasted.
    above, below = sigmas[sigmas > low], sigmas[sigmas < 0.9 * low]
    return torch.cat([above, ramp[-1:], ramp.repeat(count), below])


def sample_restarted(
    sample: Callable[[Tensor, Tensor, int], Tensor], x: Tensor, sigmas: Tensor, noise: Callable[[int], Tensor]
) -> Tensor:
    """Run any sampler over sigmas that may rise; where they do, noise is added.

    Args:
        sample: called with (x, descending sigmas, number of steps taken before).
        x: (b, …) noised data. The data may be scaled in no other way: x is clean data + sigma * noise.
        noise: returns the standard normal noise, like x, of rise 1, 2, ….
    """
    rises = ((sigmas.diff() > 0).nonzero().flatten() + 1).tolist()
    begin = 0
    for number, end in enumerate([*rises, len(sigmas)]):
        part = sigmas[begin:end]
        if number:
            up = (part[0] ** 2 - sigmas[begin - 1] ** 2).sqrt()
            x = x + noise(number).to(x) * up
        x = sample(x, part, begin - number)
        begin = end
    return x


def _checked(denoised: Tensor, step: int, sigma: Tensor) -> Tensor:
    if not torch.isfinite(denoised).all():
        raise FloatingPointError(
            f"the network gave NaN or infinite values at step {step + 1} (sigma {sigma.item():.4g}). "
            "The weights may be damaged, or half precision may overflow: try float32."
        )
    return denoised
