"""The temporal layers learn from the user's own clips, out of a cache, around any frozen image U-Net.

This is `train temporal --data CACHE`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...dataset.reader import Clips, open_clips
from ...diffusion.noise import mixed_seed
from ...diffusion.schedule import Schedule, shifted_timesteps
from ...nets.backbones import check_backbone, family_name
from ...nets.checkpoint import load_into, load_parts, metadata_for, save_file, to_half
from ...nets.config import TemporalConfig
from ...nets.stunet import SpaceTimeUNet
from ...nets.temporal import TemporalLayers
from ...nets.unet import UNet
from ..backbone import load_backbone
from ..memory import predicted_bytes, readable
from ..options import TrainOptions
from ..samples import write_samples
from .temporal import new_temporal, training_noise

logger = logging.getLogger("lumiere")

DEFAULTS: dict[str, Any] = {
    "batch_size": 1,
    "learning_rate": 1e-4,
    "sigma_shift": 2.0,
    "checkpointing": True,
    "stills": 0.1,
    "steps": 2000,
    "sample_every": 250,
    "save_every": 300.0,
}
GOLDEN = 0.6180339887498949


@dataclasses.dataclass
class Sample:
    """One clip of a step with all its randomness drawn."""

    latents: Tensor  # (c, t, h, w)
    noise: Tensor
    context: Tensor  # (l, d)
    y: Tensor | None
    uniform: float  # its place in the range of noise levels
    number: int  # of the sample in the run

    def shape(self) -> tuple:
        return (*self.latents.shape, *self.context.shape)


class OwnClipsPhase:
    """Train temporal layers on cached latents; everything about sample i of a run follows from (seed, i)."""

    name = "temporal"
    conditional = False  # conv_cond, if the layers have one, trains in the phase `condition` only

    def __init__(
        self,
        unet: UNet,
        temporal: TemporalLayers,
        schedule: Schedule,
        clips: Clips,
        options: TrainOptions,
        started_from: str = "",
    ) -> None:
        if not len(clips):
            raise ValueError("the cache holds no clip to train on; its report.csv says why.")
        self.options, self.clips, self.schedule = options, clips, schedule
        self.unet = unet.to(options.device).eval().requires_grad_(False)
        self.module = temporal.to(options.device)
        if temporal.conv_cond is not None:
            temporal.conv_cond.requires_grad_(self.conditional)
        self.network_module: torch.nn.Module = SpaceTimeUNet(self.unet, self.module)
        self.started_from = started_from

    def samples_per_step(self) -> int:
        return self.options.batch_size * self.clips.cache.settings.frames

    def pieces(self, step: int) -> list[Callable[[], Tensor]]:
        """Return one loss for each shape in the batch; together they are its mean over the clips."""
        first = step * self.options.batch_size
        groups: dict[tuple, list[Sample]] = {}
        for number in range(first, first + self.options.batch_size):
            sample = self.sample(number)
            groups.setdefault(sample.shape(), []).append(sample)
        return [partial(self._loss, group) for group in groups.values()]

    def loss(self, step: int) -> Tensor:
        return torch.stack([piece() for piece in self.pieces(step)]).sum()

    def sample(self, number: int) -> Sample:
        """Draw sample `number` of the run: which clip, its noise, whether its text is dropped or it stands still."""
        options = self.options
        random = torch.Generator().manual_seed(mixed_seed(mixed_seed(options.seed ^ 0x636C6970) ^ number) & (2**63 - 1))
        clip = self.clips[self.clips.at(number, options.seed)]
        drop, still, place = torch.rand(3, generator=random).tolist()
        latents = clip.tensors["latents"].float()
        if still < options.stills and latents.shape[1] > 1:
            # A picture: one frame for a short while, each with noise of its own (one frame alone skips the layers).
            frame = int(place * latents.shape[1])
            length = min(latents.shape[1], max(2, self.module.total_stride))
            latents = latents[:, frame : frame + 1].expand(-1, length, -1, -1)
        embedding = self._empty(latents) if drop < options.text_dropout else clip.tensors
        y = embedding.get("y")
        noise = torch.randn(latents[None].shape, generator=random)
        noise = training_noise(noise, self.module.config.shared_noise, random)[0]
        # Steps of the golden ratio fill the range evenly, however the samples are shared out over batches.
        start = (mixed_seed(options.seed) % 10**6) / 10**6
        return Sample(
            latents,
            noise,
            embedding["context"].float(),
            None if y is None else y.float(),
            (start + number * GOLDEN) % 1.0,
            number,
        )

    def _empty(self, latents: Tensor) -> dict[str, Tensor]:
        ratio = self.clips.cache.backbone["ratio"]
        height, width = latents.shape[-2:]
        return self.clips.cache.read_empty(height * ratio, width * ratio)

    def _loss(self, samples: list[Sample]) -> Tensor:
        """Mean squared error of the network's answers, over the batch size of the whole step."""
        device = self.options.device
        x0 = torch.stack([s.latents for s in samples]).to(device)
        eps = torch.stack([s.noise for s in samples]).to(device)
        context = torch.stack([s.context for s in samples]).to(device)
        y = None if samples[0].y is None else torch.stack([s.y for s in samples]).to(device)
        uniform = torch.tensor([s.uniform for s in samples])
        timestep = shifted_timesteps(uniform, self.schedule.steps, self.options.sigma_shift)
        timestep = timestep.to(device)
        noised, target = self.schedule.training_pair(x0, eps, timestep)
        answer = self.network_module(noised, timestep, context, y, self.options.checkpointing, self.condition(samples))
        error = (answer.float() - target).square().flatten(1).mean(dim=1)
        return (error * self.schedule.loss_weight(timestep)).sum() / self.options.batch_size

    def condition(self, samples: list[Sample]) -> Tensor | None:
        """Return what is known of the clips, (b, c + 1, t, h, w); None for plain text-to-video."""
        return None

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        """Write temporal.safetensors for models/lumiere; neither paths nor captions go into it."""
        cache = self.clips.cache
        config = {"unet": self.unet.config.to_dict(), "temporal": self.module.config.to_dict()}
        shapes = {tuple(clip.shape[2:]) for clip in self.clips.flat}
        if len(shapes) == 1:
            height, width = shapes.pop()
            config["size"] = [height * cache.backbone["ratio"], width * cache.backbone["ratio"]]
        facts = {k: v for k, v in facts.items() if k != "options"}
        metadata = metadata_for(
            f"{family_name(self.unet.config)} temporal layers",
            config,
            **facts,
            base=", ".join(f"{h[:16]}" for h in cache.backbone["sha256"].values()),
            clips=str(len(self.clips)),
            started_from=self.started_from,
        )
        weights = to_half({f"temporal.{k}": v for k, v in state.items()})
        save_file(weights, folder / "temporal.safetensors", metadata)

    def preview(self, folder: Path, step: int) -> None:
        write_samples(self, folder, step)

    def describe(self) -> str:
        """Say what will be trained and how much memory that will take."""
        cache, frozen = self.clips.cache, sum(p.numel() for p in self.unet.parameters())
        largest = max(self.clips.flat, key=lambda c: c.shape[1] * c.shape[2] * c.shape[3])
        trained = sum(p.numel() for p in self.module.parameters())
        context = tuple(self.clips[0].tensors["context"].shape)
        bytes_ = predicted_bytes(self.unet, self.module, largest.shape, context, self.options)
        return (
            f"{family_name(self.unet.config)}: {frozen / 1e6:.0f} M parameters frozen, {trained / 1e6:.0f} M in training; "
            f"{len(self.clips)} clips of {cache.settings.frames} frames at {cache.settings.fps:g} a second; "
            f"predicted peak memory {readable(bytes_)}"
        )


def _condition_channels(unet: UNet) -> int:
    return min(256, unet.config.model_channels * 2)


def build(arguments: Any, options: TrainOptions, config: dict[str, Any]) -> OwnClipsPhase:
    """Return the phase for `--checkpoint` and `--data`, fresh or from the weights of `--init-from`."""
    if arguments.checkpoint is None:
        raise ValueError("--checkpoint is missing: give the model that the cache was prepared with.")
    clips = open_clips(arguments.data)
    # On a GPU the frozen weights may be kept in half precision; a CPU's kernels want one kind.
    half = options.precision == "bfloat16" and torch.device(options.device).type != "cpu"
    dtype = torch.bfloat16 if half else torch.float32
    unet, schedule = load_backbone(arguments.checkpoint, clips.cache.backbone, dtype)
    settings = clips.cache.settings
    if arguments.init_from is None:
        values = {"condition_channels": _condition_channels(unet)}
        chosen = config.get("temporal", {}) if "temporal" in config else values
        temporal_config = TemporalConfig.from_dict({**chosen, "frames_per_clip": settings.frames, "fps": settings.fps})
        layers = new_temporal(unet.config, temporal_config, options.seed)
        return OwnClipsPhase(unet, layers, schedule, clips, options)
    start = load_parts(arguments.init_from)
    start.require("temporal")
    check_backbone(start.unet_config, unet.config, arguments.init_from.name)
    temporal_config = dataclasses.replace(start.temporal_config, frames_per_clip=settings.frames, fps=settings.fps)
    layers = TemporalLayers(unet.config, temporal_config)
    load_into(layers, start.temporal, f"temporal layers of {arguments.init_from.name}")
    return OwnClipsPhase(unet, layers, schedule, clips, options, arguments.init_from.name)
