"""Text to clip without a host: load, encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..clips.conditioning import Condition, hold_known
from ..clips.video import to_uint8
from ..nets.checkpoint import Parts, bundled_files, bundled_names, load_into, load_parts
from ..nets.stunet import SpaceTimeUNet
from ..nets.temporal import TemporalLayers
from ..nets.text_encoder import TextEncoder, pad_tokens, tokenize
from ..nets.unet import UNet
from .guidance import classifier_free, dynamic_threshold
from .noise import frame_noise
from .sampling import SAMPLERS, SCHEDULERS, OnStep, sample_ddim, sample_ddpm
from .schedule import Schedule

BUNDLED = "lumiere-mini"


@dataclass
class Models:
    """The networks of one Lumiere; without temporal layers it makes single images."""

    text: TextEncoder
    unet: UNet
    temporal: TemporalLayers | None
    schedule: Schedule

    def encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Return text states (n, k, d) and pooled vectors (n, d)."""
        rows = [tokenize(prompt, self.text.config.max_bytes) for prompt in prompts]
        device = next(self.text.parameters()).device
        return self.text(pad_tokens(rows).to(device))

    def network(self) -> Callable[..., Tensor]:
        """Return the function (x (b, c, t, h, w), timesteps, context, pooled) that samplers call."""
        if self.temporal is not None:
            return SpaceTimeUNet(self.unet, self.temporal)

        def one_frame(x: Tensor, *rest: Tensor) -> Tensor:
            if x.shape[2] != 1:
                raise ValueError(
                    f"{x.shape[2]} frames are wanted, but the checkpoint has no temporal layers: it can "
                    "make single images only. Load temporal weights too, or ask for 1 frame."
                )
            return self.unet(x[:, :, 0], *rest)[:, :, None]

        return one_frame


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

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.steps < 1:
            raise ValueError(f"got {self.num_frames} frames and {self.steps} steps; both must be at least 1.")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"the size is {self.width}x{self.height} pixels; at least 1x1 is wanted.")
        if not 0 < self.denoise <= 1:
            raise ValueError(f"denoise is {self.denoise}; more than 0 and at most 1 is wanted.")
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
        """Return the noise levels of the steps and a final 0, on the CPU."""
        # As the host: for less denoising, the last steps of a longer run.
        longer = int(self.steps / self.denoise)
        return SCHEDULERS[self.scheduler](longer, schedule)[-self.steps - 1 :]


def load_models(weights: str | Path = BUNDLED, device: str = "cpu") -> tuple[Models, Parts]:
    """Load a Lumiere from one file, a folder of part files, or the bundled set by its name.

    Raises:
        FileNotFoundError, ValueError: see `checkpoint.load_parts`.
    """
    parts = load_parts(weight_files(weights))
    parts.require("text", "image")
    text, unet = TextEncoder(parts.text_config), UNet(parts.unet_config)
    name = ", ".join(parts.sha256)
    load_into(text, parts.text, f"text encoder weights of {name}")
    load_into(unet, parts.image, f"image U-Net weights of {name}")
    temporal = None
    if parts.temporal is not None:
        temporal = TemporalLayers(parts.unet_config, parts.temporal_config)
        load_into(temporal, parts.temporal, f"temporal layers of {name}")
    models = Models(text, unet, temporal, Schedule(**parts.schedule))
    for module in (text, unet, temporal):
        if module is not None:
            module.to(device).eval().requires_grad_(False)
    return models, parts


def weight_files(weights: str | Path) -> list[Path]:
    """Return the files that a name (lumiere-mini, lumiere-mini-STYLE), a file or a folder of parts stands for."""
    name = str(weights).removeprefix("lumiere-")
    if name != str(weights) and name in bundled_names():
        return bundled_files(name)
    path = Path(weights)
    return sorted(path.glob("*.safetensors")) if path.is_dir() else [path]


@torch.no_grad()
def generate(
    models: Models,
    request: Request,
    on_step: OnStep | None = None,
    keep_float: Callable[[Tensor], None] | None = None,
    condition: Condition | None = None,
    source: Tensor | None = None,
    keep_copy: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Make one clip; returns (t, h, w, 3) uint8.

    Args:
        on_step: called with (step, sigma, clean estimate (1, c, t, h, w)) after each step.
        keep_float: called with the (1, c, t, h, w) result before it is rounded to 256 levels.
        condition: what is known of the clip, of one clip and the request's size; it is in the result as it is.
        source: (1, c, t, h, w), the clip that `request.denoise` keeps some of (SDEdit, Lumiere §4).
        keep_copy: called at each step with the clean estimate before what is known is put in.

    Raises:
        ValueError: the condition has another size, or the temporal layers were not trained for one; a `denoise`
            below 1 without a source.
    """
    device = next(models.unet.parameters()).device
    context, pooled = models.encode([request.prompt, request.negative])
    network = models.network()
    schedule = models.schedule
    clip = models.temporal is not None and request.num_frames > 1
    shared = models.temporal.config.shared_noise if clip else 0.0
    shape = (models.unet.config.in_channels, request.height, request.width)
    known: dict[str, Tensor] = {}
    if condition is not None:
        wanted = (1, shape[0], request.num_frames, *shape[1:])
        if tuple(condition.clip.shape) != wanted:
            raise ValueError(f"the condition clip is {tuple(condition.clip.shape)}, but {wanted} is wanted.")
        condition = Condition(condition.clip.to(device), condition.known.to(device))
        if request.num_frames > 1:  # one frame is the image model alone
            known["known"] = condition.tensor()

    def noise(step: int) -> Tensor:
        frames = frame_noise(request.seed, request.num_frames, shape, step, shared)
        return frames.transpose(0, 1)[None].to(device)

    def estimate(x: Tensor, sigma: Tensor, which: int) -> Tensor:
        timestep = schedule.timestep(sigma).to(x.dtype)
        text = context[which : which + 1], pooled[which : which + 1]
        return schedule.denoised(x, network(schedule.network_input(x, sigma), timestep, *text, **known), sigma)

    start = noise(0)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        # The network sees what is known as noisy as the rest, always with the noise of the start.
        if condition is not None:
            x = hold_known(x, condition, start * sigma.reshape(-1, *[1] * (x.ndim - 1)))
        denoised = estimate(x, sigma, 0)
        if request.cfg != 1.0:
            denoised = classifier_free(denoised, estimate(x, sigma, 1), request.cfg)
        if request.threshold:
            denoised = dynamic_threshold(denoised, request.threshold)
        if keep_copy is not None:
            keep_copy(denoised)
        return denoised if condition is None else hold_known(denoised, condition)

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
        x = sample_ddpm(denoise, x, sigmas, noise, on_step)
    if keep_float is not None:
        keep_float(x)
    return to_uint8(x[0])
