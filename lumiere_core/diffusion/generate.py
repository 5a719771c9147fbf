"""Text to clip without a host: encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..clips.conditioning import Condition, hold_known
from ..clips.video import to_uint8
from ..flags import GUIDANCE_END
from ..nets.text_encoder import Text
from .guidance import check_guidance_end, dynamic_threshold, guidance_ends, guidance_scale_at, guided
from .models import Models
from .noise import frame_noise
from .sampling import SAMPLERS, SCHEDULERS, OnStep, sample_ddim, sample_ddpm
from .schedule import Schedule


@dataclass(frozen=True)
class Request:
    """One clip that is wanted."""

    prompt: str
    negative: str = ""
    seed: int = 0
    num_frames: int = 80
    height: int = 64  # pixels
    width: int = 64
    steps: int = 20
    cfg: float = 3.0  # guidance scale; 1 = none
    sampler: str = "ddim"
    scheduler: str = "karras"
    threshold: float = 0.0  # percentile of dynamic thresholding, for example 0.995; 0 = none
    denoise: float = 1.0  # less keeps that much of a source clip's structure (SDEdit)
    closed: bool = False  # a loop: the last frame is followed by the first
    guidance_end: float = GUIDANCE_END  # share of the noise levels, from the strongest on, at which cfg counts

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.steps < 1:
            raise ValueError(f"got {self.num_frames} frames and {self.steps} steps; both must be at least 1.")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"the size is {self.width}x{self.height} pixels; at least 1x1 is wanted.")
        if not 0 < self.denoise <= 1:
            raise ValueError(f"denoise is {self.denoise}; more than 0 and at most 1 is wanted.")
        check_guidance_end(self.guidance_end)
        if not 0 <= self.threshold <= 1:
            raise ValueError(
                f"the threshold is {self.threshold}; a percentile from 0 (none) to 1 is wanted, such as 0.995."
            )
        if self.sampler not in SAMPLERS or self.scheduler not in SCHEDULERS:
            raise ValueError(
                f"got sampler {self.sampler!r} and scheduler {self.scheduler!r}; "
                f"wanted one of {SAMPLERS} and one of {tuple(SCHEDULERS)}."
            )

    def sigmas(self, schedule: Schedule) -> Tensor:
        """Return the noise levels of the steps and a final 0, on the CPU. (steps + 1,)."""
        # As the host: for less denoising, the last steps of a longer run.
        longer = int(self.steps / self.denoise)
        return SCHEDULERS[self.scheduler](longer, schedule)[-self.steps - 1 :]


@torch.no_grad()
def generate(
    models: Models,
    request: Request,
    on_step: OnStep | None = None,
    keep_float: Callable[[Tensor], None] | None = None,
    known: Condition | None = None,
    source: Tensor | None = None,
    keep_copy: Callable[[Tensor], None] | None = None,
    numbers: Tensor | None = None,
) -> Tensor:
    """Make one clip; returns (t, h, w, 3) uint8.

    Args:
        on_step: called with (step, sigma, clean estimate (1, c, t, h, w)) after each step.
        keep_float: called with the (1, c, t, h, w) result before it is rounded to 256 levels.
        known: what is known of the clip, of one clip and the request's size; it is in the result as it is.
        source: (1, c, t, h, w), the clip that `request.denoise` keeps some of (SDEdit, Lumiere §4).
        keep_copy: called at each step with the clean estimate before what is known is put in.
        numbers: (t,) of the frames in the clip that they are key frames or a window of; None = 0, 1, ….

    Raises:
        ValueError: what is known has another size, or the temporal layers were not trained for one; a `denoise`
            below 1 without a source.
    """
    device = next(models.unet.parameters()).device
    texts = models.encode([request.prompt, request.negative])
    text, negative = texts.at(slice(0, 1)), texts.at(slice(1, 2))
    denoiser, schedule = models.denoiser(), models.schedule
    moving = request.num_frames > 1  # one frame is the image model alone
    shared = denoiser.shared_noise if moving else 0.0
    shape = (models.unet.config.in_channels, request.height, request.width)
    seen, more = None, {}
    if moving and request.closed and models.temporal is not None:
        more["closed"] = True
    if moving and numbers is not None:
        more["numbers"] = numbers
    if known is not None:
        wanted = (1, shape[0], request.num_frames, *shape[1:])
        if tuple(known.clip.shape) != wanted:
            raise ValueError(f"the known clip is {tuple(known.clip.shape)}, but {wanted} is wanted.")
        known = Condition(known.clip.to(device), known.known.to(device))
        if moving:
            seen = known.tensor()

    def noise(step: int) -> Tensor:
        frames = frame_noise(request.seed, request.num_frames, shape, step=step, share=shared)
        return frames.transpose(0, 1)[None].to(device)

    start, unguided = noise(0), guidance_ends(schedule, request.guidance_end)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        # The network sees what is known as noisy as the rest, always with the noise of the start.
        if known is not None:
            x = hold_known(x, known, start * sigma.reshape(-1, *[1] * (x.ndim - 1)))

        def estimate(words: Text) -> Tensor:
            return denoiser(x, sigma, words, seen, **more)

        denoised = guided(estimate, text, negative, guidance_scale_at(sigma, request.cfg, unguided))
        if request.threshold:
            denoised = dynamic_threshold(denoised, request.threshold)
        if keep_copy is not None:
            keep_copy(denoised)
        return denoised if known is None else hold_known(denoised, known)

    sigmas = request.sigmas(schedule).to(device)
    if request.denoise < 1:
        if source is None:
            raise ValueError(f"denoise is {request.denoise}, but there is no source clip to keep.")
        x = source.to(device) + start * sigmas[0]
    else:
        x = start * (1 + sigmas[0] ** 2).sqrt()

    if request.sampler == "ddim":
        x = sample_ddim(denoise, x, sigmas, on_step)
    else:
        x = sample_ddpm(denoise, x, sigmas, step_noise=noise, on_step=on_step)
    if keep_float is not None:
        keep_float(x)
    return to_uint8(x[0])
