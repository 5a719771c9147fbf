"""Small clip to large clip without a host: windows in time, one noise for the whole clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clips.video import fold, from_uint8, to_uint8, unfold
from ..flags import GUIDANCE_END
from ..nets.config import TemporalConfig
from ..nets.ssr import NOISE_STREAM, augment, pooled_with_level, upsample
from ..nets.text_encoder import Text
from .back_projection import back_project
from .guidance import check_guidance_end, guidance_ends, guidance_scale_at, guided
from .models import Models
from .multidiffusion import OVERLAP, Window, denoise_in_windows, plan_windows, window_weights
from .noise import frame_noise
from .sampling import SCHEDULERS, sample_ddim

# What a frame's noise is: with the same in all frames, what stands still comes out still.
NOISES = ("same in all frames", "new in each frame")


def noise_numbers(noise: str, frames: int) -> list[int]:
    """Return the frame numbers, for `frame_noise`, whose noise each frame of a clip gets."""
    return [0] * frames if noise == NOISES[0] else list(range(frames))


def check_noise(noise: str, layers: TemporalConfig | None, window: int) -> None:
    """Raise ValueError where temporal layers would see noise that is unlike what they were trained with.

    Args:
        layers: of the super-resolution stage; None = it has none.
        window: frames that the network sees at once.
    """
    if noise == NOISES[0] or layers is None or window == 1 or layers.kind != "lumiere" or layers.fresh_noise:
        return
    raise ValueError(
        f"noise is {noise!r}, but the temporal layers of this model were trained with the same noise in all frames of a "
        f"clip; with any other their clip flickers. Choose {NOISES[0]!r}, load layers that were trained with "
        "--fresh-noise, or set context_length to 1: frames are then enlarged one by one."
    )


@dataclass(frozen=True)
class UpscaleRequest:
    """How one clip is to be enlarged."""

    prompt: str = ""
    negative: str = ""
    seed: int = 0
    steps: int = 4
    cfg: float = 1.0  # guidance scale; 1 = none
    context_length: int = 16  # frames of a window
    context_overlap: int = OVERLAP  # frames that neighbouring windows share
    weighting: str = "uniform"
    noise: str = NOISES[0]
    noise_augmentation: float = 0.0  # share of the largest trained noise on the small clip
    scheduler: str = "karras"
    back_projection: int | None = None  # iterations, see `back_project`; None = as the weights' configuration says
    guidance_end: float = GUIDANCE_END  # share of the noise levels, from the strongest on, at which cfg counts

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"got {self.steps} steps; at least 1 is wanted.")
        check_guidance_end(self.guidance_end)
        if self.noise not in NOISES:
            raise ValueError(f"noise is {self.noise!r}; one of {NOISES} is wanted.")
        if not 0 <= self.noise_augmentation <= 1:
            raise ValueError(f"noise_augmentation is {self.noise_augmentation}; a share from 0 to 1 is wanted.")
        if self.back_projection is not None and self.back_projection < 0:
            raise ValueError(f"back_projection is {self.back_projection}; 0 (none) or more iterations are wanted.")


@torch.no_grad()
def upscale(models: Models, frames: Tensor, request: UpscaleRequest) -> Tensor:
    """Enlarge one clip: (t, h, w, 3) uint8 -> (t, scale h, scale w, 3) uint8."""
    device = next(models.unet.parameters()).device
    schedule, config, denoiser = models.schedule, models.ssr, models.denoiser()
    low = from_uint8(frames)[None].to(device)
    _, c, t, h, w = low.shape
    windows = plan_windows(t, request.context_length, request.context_overlap)
    weights = window_weights(len(windows[0]), request.context_overlap, request.weighting)
    check_noise(request.noise, models.temporal and models.temporal.config, len(windows[0]))
    small, numbers = fold(low), noise_numbers(request.noise, t)
    low = small
    level = torch.full((1,), request.noise_augmentation, device=device)
    if request.noise_augmentation:
        noise = frame_noise(request.seed, numbers, (c, h, w), NOISE_STREAM).to(device)
        low = augment(low, noise, level.expand(t), config)
    context, pooled = models.encode([request.prompt, request.negative])
    texts = Text(context, pooled_with_level(pooled, level.expand(2), config))
    text, negative = texts.at(slice(0, 1)), texts.at(slice(1, 2))
    size = (c, h * config.scale, w * config.scale)

    unguided = guidance_ends(schedule, request.guidance_end)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        scale = guidance_scale_at(sigma, request.cfg, unguided)

        def one_window(part: Tensor, window: Window) -> Tensor:
            enlarged = unfold(upsample(low[list(window)], config.scale), len(window))
            place = {"numbers": torch.tensor(window), "clip_frames": t}

            def estimate(words: Text) -> Tensor:
                return denoiser(part, sigma, words, low=enlarged, **place)

            return guided(estimate, text, negative, scale)

        return denoise_in_windows(one_window, x, windows, weights)

    sigmas = SCHEDULERS[request.scheduler](request.steps, schedule).to(device)
    noise = frame_noise(request.seed, numbers, size).transpose(0, 1)[None].to(device)
    x = sample_ddim(denoise, noise * (1 + sigmas[0] ** 2).sqrt(), sigmas)
    iterations = config.back_projection if request.back_projection is None else request.back_projection
    return to_uint8(back_project(x[0].transpose(0, 1).clamp(-1, 1), small, iterations).transpose(0, 1))
