"""Noise schedules, the same tables as the host keeps.

`sigma` is the standard deviation of the noise over clean data in [-1, 1] (variance-exploding form, x = x0 +
sigma * eps); the network sees x * c_in at an integer timestep 0 … 999. angle = arctan(sigma), so that the
variance-preserving form is cos(angle) x0 + sin(angle) eps. Both are of data over `sigma_data`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..nets.config import is_number

KINDS = ("cosine", "scaled_linear", "linear")
BETAS = (0.00085, 0.012)  # the first and the last of Stable Diffusion
PREDICTIONS = ("v", "eps", "x0")
MOST_SIGMA, MOST_STEPS = 1e5, 100_000  # of a schedule that a file may ask for


class Schedule:
    """A discrete noise schedule with its prediction type.

    Args:
        kind: "cosine" (angle linear in time, clipped to [sigma_min, sigma_max]) or "scaled_linear"
            (Stable Diffusion's betas; sigma_min and sigma_max are then what the betas give) or "linear"
            (AnimateDiff's: evenly between the same ends).
        prediction: what the network predicts: "v" (Salimans & Ho 2022), "eps", or "x0", the clean data
            itself. With large patches only the last one spares the network from carrying the noise of
            p x p pixels through its few channels (Li & He 2025, "Back to basics").
        sigma_min, sigma_max: ends of the cosine schedule, for data over `sigma_data`.
        steps: length of the table.
        sigma_data: what the network sees data and noise divided by (Karras et al. 2022). With 2, a picture of twice
            the height and width keeps as much of what is larger than a pixel at each timestep: the mean of 2x2
            pixels has half of their noise.
        betas: the first and the last of the two kinds that are told by betas.
    """

    def __init__(
        self,
        kind: str = "cosine",
        prediction: str = "v",
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        steps: int = 1000,
        sigma_data: float = 1.0,
        betas: Sequence[float] = BETAS,
    ) -> None:
        if kind not in KINDS or prediction not in PREDICTIONS:
            raise ValueError(
                f"got schedule kind {kind!r} with prediction {prediction!r}; "
                f"kinds are {KINDS}, predictions are {PREDICTIONS}."
            )
        numbers = {"sigma_min": sigma_min, "sigma_max": sigma_max, "sigma_data": sigma_data}
        for name, value in numbers.items():
            if not is_number(value, 0, MOST_SIGMA, whole=False) or value == 0:
                raise ValueError(f"{name} is {value!r:.60}; a number above 0, of at most {MOST_SIGMA:g}, is wanted.")
        if sigma_min >= sigma_max:
            raise ValueError(f"sigma_min is {sigma_min}, sigma_max {sigma_max}; a smaller and a larger one are wanted.")
        if not is_number(steps, 2, MOST_STEPS):
            raise ValueError(f"the schedule has {steps!r:.60} steps; a whole number from 2 to {MOST_STEPS} is wanted.")
        self.kind, self.prediction, self.steps, self.sigma_data = kind, prediction, steps, sigma_data
        self.ends = BETAS
        if kind == "cosine":
            ends = math.atan(sigma_min), math.atan(sigma_max)
            angles = torch.linspace(*ends, steps, dtype=torch.float64)
            alphas_cumprod = angles.cos() ** 2
            before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
            self.betas = 1 - alphas_cumprod / before
        else:
            two = isinstance(betas, (list, tuple)) and len(betas) == 2 and all(isinstance(b, float) for b in betas)
            if not two or not 0 < betas[0] < betas[1] < 1:
                raise ValueError(
                    f"betas are {betas!r:.60}; two numbers between 0 and 1, the smaller first, are wanted."
                )
            self.ends = tuple(betas)
            power = 0.5 if kind == "scaled_linear" else 1.0
            first, last = (beta**power for beta in betas)
            self.betas = torch.linspace(first, last, steps, dtype=torch.float64) ** (1 / power)
            alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        self.sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float() * sigma_data  # ascending
        self.log_sigmas = self.sigmas.log()
        self.sigma_min, self.sigma_max = self.sigmas[0].item(), self.sigmas[-1].item()

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that build this schedule again, as plain JSON types."""
        values = {"kind": self.kind, "prediction": self.prediction, "steps": self.steps}
        if self.kind == "cosine":
            ends = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}
            values |= {name: round(end / self.sigma_data, 6) for name, end in ends.items()}
        elif self.ends != BETAS:
            values["betas"] = list(self.ends)
        return values if self.sigma_data == 1 else values | {"sigma_data": self.sigma_data}

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the index of the table's nearest entry, in log sigma, for sigmas of any shape."""
        table = self.log_sigmas.to(sigma.device)
        distance = sigma.float().log().flatten()[None] - table[:, None]
        return distance.abs().argmin(dim=0).reshape(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return sigma at (fractional) timesteps, log-linear between the table's entries. Any shape, such as (b,)."""
        t = timestep.float().clamp(0, self.steps - 1)
        low = t.floor().long()
        weight = t - low
        table = self.log_sigmas.to(t.device)
        return torch.lerp(table[low], table[t.ceil().long()], weight).exp()

    def angle(self, timestep: Tensor) -> Tensor:
        """Return arctan(sigma / sigma_data) at continuous timesteps; used in training only. Any shape, such as (b,)."""
        if self.kind == "cosine":
            low, high = math.atan(self.sigma_min / self.sigma_data), math.atan(self.sigma_max / self.sigma_data)
            return low + (high - low) * timestep.float() / (self.steps - 1)
        return (self.sigma(timestep) / self.sigma_data).atan()

    def network_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Scale noised data to unit variance, c_in * x; sigma broadcasts from the batch axis.

        x is (b, …), sigma (b,) or ().
        """
        return x * _like(1 / (sigma**2 + self.sigma_data**2).sqrt(), x)

    def denoised(self, x: Tensor, model_output: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean estimate from noised data and the network's answer.

        x and the answer are (b, …), sigma (b,) or ().
        """
        if self.prediction == "x0":
            return model_output * self.sigma_data
        if self.prediction == "eps":
            return x - model_output * _like(sigma, x)
        scale = _like(1 / (sigma**2 + self.sigma_data**2), x)
        return x * scale * self.sigma_data**2 - model_output * _like(sigma, x) * scale.sqrt() * self.sigma_data

    def training_pair(self, x0: Tensor, eps: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return (network input, target) for clean data, noise and (b,) continuous timesteps."""
        angle = self.angle(timestep)
        cos, sin = _like(angle.cos(), x0), _like(angle.sin(), x0)
        x0 = x0 / self.sigma_data
        targets = {"v": lambda: cos * eps - sin * x0, "eps": lambda: eps, "x0": lambda: x0}
        return cos * x0 + sin * eps, targets[self.prediction]()

    def shifted(self, uniform: Tensor, shift: float) -> Tensor:
        """Map (b,) numbers in [0, 1], places on the schedule, to continuous timesteps whose sigma is `shift` times larger.

        Neighbouring pixels and frames of a clip repeat each other, so the average over them shows the clip through more
        noise than a small image's; training sees more of the high noise levels then (Hoogeboom et al. 2023, "simple
        diffusion", §2.1). What would lie beyond the schedule's ends is at its ends.
        """
        angle = self.angle(uniform * (self.steps - 1))
        # atan2, not tan: near a right angle tan is huge, and rounding may change its sign.
        angle = torch.atan2(shift * angle.sin(), angle.cos())
        if self.kind == "cosine":
            low, high = math.atan(self.sigma_min / self.sigma_data), math.atan(self.sigma_max / self.sigma_data)
            return ((angle - low) / (high - low)).clamp(0, 1) * (self.steps - 1)
        wanted, table = (angle.tan() * self.sigma_data).log(), self.log_sigmas.to(uniform.device)
        above = torch.searchsorted(table, wanted).clamp(1, self.steps - 1)
        part = (wanted - table[above - 1]) / (table[above] - table[above - 1])
        return above - 1 + part.clamp(0, 1)

    def loss_weight(self, timestep: Tensor, largest: float = 10.0) -> Tensor:
        """Return the (b,) weights of the squared errors of a batch.

        An error of v weighs 1 / sin(angle)^2 in terms of the clean data; "x0" gets the same weight, cut off
        where hardly any noise is left (Hang et al. 2023, min-SNR). 1 for the other predictions.
        """
        if self.prediction != "x0":
            return torch.ones_like(timestep)
        return (1 / self.angle(timestep).sin() ** 2).clamp(max=largest)


def _like(value: Tensor, x: Tensor) -> Tensor:
    """Give (b,) values the trailing axes of x."""
    return value.to(x.dtype).reshape(-1, *([1] * (x.ndim - 1)))
