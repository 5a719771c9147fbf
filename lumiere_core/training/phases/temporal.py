"""The temporal layers learn from clips, around a frozen image U-Net."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.models import Models
from ...diffusion.noise import mix_noise
from ...diffusion.schedule import Schedule
from ...nets.checkpoint import load_into, metadata_for, save_file, to_half
from ...nets.config import TemporalConfig, UNetConfig
from ...nets.stunet import SpaceTimeUNet
from ...nets.temporal import TemporalLayers, initial_state
from ...nets.text_encoder import TextEncoder
from ...nets.unet import UNet
from ..data import clips_at, window_starts
from ..options import TrainOptions, listed
from .build import Arguments, image_model, start_parts, text_encoder
from .diffusion import PREVIEW_PROMPTS, Batch, DiffusionPhase

DEFAULTS = {"batch_size": 2, "sigma_shift": 4.0}
LESS_SHARED = 0.2  # of the clips


class TemporalPhase(DiffusionPhase):
    """Train the temporal layers on clips; the image U-Net and the text encoder are frozen (§3.1)."""

    name = "temporal"
    conditional = False  # conv_cond, if the layers have one, trains in the phase `condition` only
    preview_prompts = PREVIEW_PROMPTS[2::2] + PREVIEW_PROMPTS[3::4]
    shared_noise = 0.0

    def __init__(
        self, unet: UNet, temporal: TemporalLayers, text: TextEncoder, schedule: Schedule, options: TrainOptions
    ) -> None:
        self.options, self.module = options, temporal.to(options.device)
        self.shared_noise = temporal.config.shared_noise
        if temporal.conv_cond is not None:
            temporal.conv_cond.requires_grad_(self.conditional)
        if options.only:
            choose_parameters(temporal, options.only)
        for frozen in (unet, text):
            frozen.to(options.device).eval().requires_grad_(False)
        self.models = Models(text, unet, temporal, schedule)
        self.network_module = SpaceTimeUNet(unet, temporal)
        self.preview_frames = options.num_frames

    def samples_per_step(self) -> int:
        return self.options.batch_size * self.options.num_frames

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        scenes = self.scenes(steps)
        clips = clips_at(scenes, self.options, steps, masks=self.options.object_weight > 0)
        return [
            Batch(x0, *self.prompts(chosen, step), objects, {"numbers": self.numbers(step)})
            for step, chosen, (x0, objects) in zip(steps, scenes, clips, strict=True)
        ]

    def numbers(self, step: int) -> Tensor:
        """Return (b, t) numbers of the frames of a step's windows in their clips."""
        options = self.options
        starts = window_starts(options, step, options.batch_size).to(options.device)
        return starts[:, None] + torch.arange(options.num_frames, device=options.device)

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, **conditions: Tensor) -> Tensor:
        inputs = x, timestep, context, pooled, self.options.checkpointing
        return self.answer(self.network_module, *inputs, **conditions)

    def noise(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        noise = super().noise(shape, random)
        return training_noise(noise, self.shared_noise, random)

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        config = {"unet": self.models.unet.config.to_dict(), "temporal": self.module.config.to_dict()}
        metadata = metadata_for("lumiere temporal layers", config, **facts)
        weights = to_half({f"temporal.{k}": v for k, v in state.items()})
        save_file(weights, folder / "temporal.safetensors", metadata)


def training_noise(noise: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return (b, c, t, h, w) noise whose frames have the share of the variance in common; in some clips less.

    Less, because samplers that add noise of their own at each step lose the common part as they go.
    """
    if not share or noise.shape[2] == 1:
        return noise
    less, part = torch.rand(2, noise.shape[0], 1, 1, 1, 1, generator=random, device=random.device)
    common = torch.randn(noise[:, :, :1].shape, generator=random, device=random.device)
    return mix_noise(noise, common, share * torch.where(less < LESS_SHARED, part, 1.0))


def choose_parameters(layers: TemporalLayers, words: str) -> None:
    """Freeze the parameters without one of the words, set apart by commas, in their name.

    Raises:
        ValueError: none is left to train.
    """
    chosen = listed(words)
    for name, parameter in layers.named_parameters():
        if not any(word in name for word in chosen):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in layers.parameters()):
        raise ValueError(
            f"only is {words!r}, but no temporal parameter has such a name. Names are like "
            f"{next(iter(layers.state_dict()))}; parts of them are wanted, such as modulation,condition."
        )


def new_temporal(unet_config: UNetConfig, config: TemporalConfig, seed: int) -> TemporalLayers:
    """Return temporal layers at the paper's initialisation."""
    layers = TemporalLayers(unet_config, config)
    layers.load_state_dict(initial_state(layers, torch.Generator().manual_seed(seed)))
    return layers


def start_layers(
    arguments: Arguments, options: TrainOptions, config: dict[str, Any], unet: UNet, **parts: bool
) -> TemporalLayers:
    """Return fresh temporal layers, or those of `--init-from` with the parts that they lack at their start.

    Args:
        config: of the recipe; `coordinates` of its temporal layers is given to layers that lack it.
        parts: what else the layers must have (`conv_cond`).
    """
    start = start_parts(arguments, "temporal")
    asked = TemporalConfig.from_dict(config.get("temporal", {}))
    known = start.temporal_config if start else asked
    known = dataclasses.replace(
        known,
        **parts,
        coordinates=known.coordinates or (asked.coordinates and known.condition_channels > 0),
        shared_noise=asked.shared_noise if "shared_noise" in config.get("temporal", {}) else known.shared_noise,
    )
    layers = new_temporal(unet.config, known, options.seed)
    if start:
        # Zeros, but for the clip position: times zero ramps, a zero would get no gradient at all.
        has = start.temporal_config
        later = {"conv_cond.": has.conv_cond, ".clip_position.": has.coordinates, ".ramps.": has.coordinates}
        lacking = [part for part, there in later.items() if not there]
        fresh = {k: v for k, v in layers.state_dict().items() if any(part in k for part in lacking)}
        load_into(layers, fresh | start.temporal, f"temporal layers of {arguments.init_from.name}")
    return layers


def build(arguments: Arguments, options: TrainOptions, config: dict[str, Any]) -> TemporalPhase:
    """Return the phase with fresh temporal layers, or those of `--init-from`."""
    text, (unet, schedule) = text_encoder(arguments), image_model(arguments)
    layers = start_layers(arguments, options, config, unet)
    return TemporalPhase(unet, layers, text, schedule, options)
