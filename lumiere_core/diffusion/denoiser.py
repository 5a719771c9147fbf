"""The one denoiser: noised data, noise level, text and what is known in; the clean estimate out.

Samplers, the upscaler, previews, evaluations and the training loss call it; guidance, thresholding and windows are put
around it. Shapes: b - clips, c - channels, t - frames, h, w - height, width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..nets.text_encoder import Text
from .schedule import Schedule


class Denoiser:
    """A network with its noise schedule.

    Args:
        network: called with (input (b, c, t, h, w), timesteps (b,), context, pooled) and names of its own.
        schedule: whose prediction the network makes.
        shared_noise: share of the noise's variance that all frames of a clip have in common.
    """

    def __init__(self, network: Callable[..., Tensor], schedule: Schedule, shared_noise: float = 0.0) -> None:
        self.network, self.schedule, self.shared_noise = network, schedule, shared_noise

    def __call__(self, x: Tensor, sigma: Tensor, text: Text, known: Tensor | None = None, **more: Any) -> Tensor:
        """Return the (b, c, t, h, w) clean estimate of x = clean data + sigma * noise.

        Args:
            sigma: (b,).
            text: of b prompts.
            known: (b, c + 1, t, h, w), `Condition.tensor()`; None = nothing is known.
            more: what else the network takes: places in the clip, the small clip of a super-resolution stage.
        """
        schedule = self.schedule
        timestep = schedule.timestep(sigma).to(x.dtype)
        answer = self.predict(schedule.network_input(x, sigma), timestep, text, known, **more)
        return schedule.denoised(x, answer, sigma)

    def predict(self, noised: Tensor, timestep: Tensor, text: Text, known: Tensor | None = None, **more: Any) -> Tensor:
        """Return what the network itself predicts (v, the noise or the clean data); the loss compares this.

        Args:
            noised: (b, c, t, h, w) at unit variance; timestep: (b,), not only whole numbers.
            known, more: as in `__call__`.
        """
        if known is not None:
            more["known"] = known
        return self.network(noised, timestep, text.context, text.pooled, **more)
