"""The text-to-image U-Net learns from single frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.models import Models
from ...diffusion.schedule import Schedule
from ...nets.checkpoint import load_into, metadata_for, save_file, to_half
from ...nets.config import UNetConfig
from ...nets.text_encoder import TextEncoder
from ...nets.unet import UNet
from ..data import images_at
from ..options import TrainOptions
from .build import Arguments, start_parts, text_encoder
from .diffusion import Batch, DiffusionPhase

DEFAULTS: dict[str, Any] = {}


class ImagePhase(DiffusionPhase):
    """Train the text-to-image U-Net on single frames; the text encoder is frozen."""

    name = "image"

    def __init__(self, unet: UNet, text: TextEncoder, schedule: Schedule, options: TrainOptions):
        self.options, self.module = options, unet.to(options.device)
        text.to(options.device).eval().requires_grad_(False)
        self.models = Models(text, unet, None, schedule)

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        scenes = self.scenes(steps)
        images = images_at(scenes, self.options, steps, masks=self.options.object_weight > 0)
        return [
            Batch(x0, *self.prompts(chosen, step), objects)
            for step, chosen, (x0, objects) in zip(steps, scenes, images, strict=True)
        ]

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        return self.answer(self.module, x, timestep, context, pooled)

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        config = {
            "unet": self.module.config.to_dict(),
            "schedule": self.models.schedule.to_dict(),
            "size": [self.options.height, self.options.width],
        }
        metadata = metadata_for("lumiere text-to-image U-Net", config, **facts)
        weights = to_half({f"image.{k}": v for k, v in {**self.module.state_dict(), **state}.items()})
        save_file(weights, folder / "image.safetensors", metadata)


def new_unet(config: UNetConfig, seed: int) -> UNet:
    """Return an image U-Net with fresh weights; its last convolution is zero, so it starts at v = 0."""
    torch.manual_seed(seed)
    unet = UNet(config)
    nn.init.zeros_(unet.out[2].weight)
    nn.init.zeros_(unet.out[2].bias)
    return unet


def build(arguments: Arguments, options: TrainOptions, config: dict[str, Any]) -> ImagePhase:
    """Return the phase with a fresh U-Net, or the one of `--init-from`."""
    text, start = text_encoder(arguments), start_parts(arguments, "image")
    unet_config = start.unet_config if start else UNetConfig.from_dict(config.get("unet", {}))
    unet = new_unet(unet_config, options.seed)
    if start:
        load_into(unet, start.image, f"image U-Net of {arguments.init_from.name}")
    return ImagePhase(unet, text, Schedule(**config.get("schedule", {})), options)
