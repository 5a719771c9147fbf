"""What each phase trains: the text encoder, the image U-Net, the temporal layers."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import world
from ..checkpoint import metadata_for, save_file, to_half
from ..config import TemporalConfig, TextConfig, UNetConfig
from ..media import contact_sheet, evenly_spaced, save_image
from ..pipeline import Models, Request, generate
from ..schedule import Schedule, shifted_timesteps
from ..stunet import SpaceTimeUNet
from ..temporal import TemporalLayers, initial_state
from ..text import TextEncoder, pad_tokens, tokenize
from ..unet import UNet
from .data import clips_at, generator_at, images_at, prompts_of, scenes_at
from .options import TrainOptions

PREVIEW_PROMPTS = (
    "a red ball on grass",
    "a blue square on a white background",
    "a yellow star moving right in front of a night sky",
    "a green triangle bouncing on the street",
    "fireworks over a city at night",
    "a boat sailing left on the ocean at sunset",
    "a campfire burning at night",
    "a stick figure walking right",
)


class TextPhase:
    """Train the text encoder to tell what a caption says: every attribute of its scene, by name.

    It is frozen afterwards, as Imagen freezes its text encoder; motion words, which say nothing about a
    still image, are kept apart this way too.
    """

    name = "text"

    def __init__(self, config: TextConfig, options: TrainOptions) -> None:
        self.options, self.config = options, config
        torch.manual_seed(options.seed)
        self.labels = {k: list(v) for k, v in world.attribute_labels().items()}
        encoder = TextEncoder(config)
        heads = nn.ModuleDict({k: nn.Linear(config.width, len(v)) for k, v in self.labels.items()})
        self.module = nn.ModuleDict({"encoder": encoder, "heads": heads}).to(options.device)

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def loss(self, step: int) -> Tensor:
        scenes = scenes_at(self.options, step)
        ids = pad_tokens([tokenize(scene.caption, self.config.max_bytes) for scene in scenes])
        _, pooled = self.module["encoder"](ids.to(self.options.device))
        losses = []
        for name, values in self.labels.items():
            target = torch.tensor([values.index(s.attributes.get(name, "none")) for s in scenes])
            logits = self.module["heads"][name](pooled)
            losses.append(F.cross_entropy(logits, target.to(logits.device)))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def accuracy(self, count: int = 512) -> dict[str, float]:
        """Return the share of held-out captions whose attribute is read right, by attribute."""
        scenes = [world.sample_scene(10**9 + i, split="held_out") for i in range(count)]
        ids = pad_tokens([tokenize(scene.caption, self.config.max_bytes) for scene in scenes])
        _, pooled = self.module["encoder"](ids.to(self.options.device))
        result = {}
        for name, values in self.labels.items():
            guess = self.module["heads"][name](pooled).argmax(dim=1).tolist()
            right = [values[g] == s.attributes.get(name, "none") for g, s in zip(guess, scenes)]  # noqa: B905
            result[name] = sum(right) / count
        return result

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        weights = {
            f"text.{k.removeprefix('encoder.')}": v
            for k, v in state.items()
            if k.startswith("encoder.")
        }
        metadata = metadata_for("lumiere text encoder", {"text": self.config.to_dict()}, **facts)
        save_file(to_half(weights), folder / "text.safetensors", metadata)

    def preview(self, folder: Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} {value:.4f}" for name, value in self.accuracy().items()]
        (folder / f"accuracy_{step:06d}.txt").write_text("\n".join(lines) + "\n")


class _DiffusionPhase:
    """What the image and the temporal phase share: text, noise and the loss."""

    options: TrainOptions
    models: Models
    preview_frames = 1
    preview_prompts = PREVIEW_PROMPTS

    def prompts(self, step: int) -> tuple[list[world.Scene], Tensor, Tensor]:
        """Return the scenes of a step and their text states."""
        scenes = scenes_at(self.options, step)
        with torch.no_grad():
            context, pooled = self.models.encode(prompts_of(scenes, self.options, step))
        return scenes, context, pooled

    def diffusion_loss(self, x0: Tensor, context: Tensor, pooled: Tensor, step: int) -> Tensor:
        """Mean squared error of the network's answer on freshly noised clean data (b, c, …)."""
        random, schedule = generator_at(self.options, step, 3), self.models.schedule
        # Stratified levels: one in each of b equal parts, so that a batch sees the whole range.
        count = x0.shape[0]
        uniform = (torch.randperm(count, generator=random) + torch.rand(count, generator=random)) / count
        timestep = shifted_timesteps(uniform, schedule.steps, self.options.sigma_shift).to(x0.device)
        eps = torch.randn(x0.shape, generator=random).to(x0.device)
        noised, target = schedule.training_pair(x0, eps, timestep)
        error = (self.network(noised, timestep, context, pooled).float() - target).square()
        return (error.flatten(1).mean(dim=1) * schedule.loss_weight(timestep)).mean()

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        raise NotImplementedError

    def preview(self, folder: Path, step: int) -> None:
        frames = []
        for index, prompt in enumerate(self.preview_prompts):
            request = Request(
                prompt, seed=index, num_frames=self.preview_frames, steps=16,
                height=self.options.height, width=self.options.width,
            )  # fmt: skip
            clip = generate(self.models, request)
            frames.append(clip[evenly_spaced(clip.shape[0], 8)])
        columns = 4 if self.preview_frames == 1 else 8
        sheet = contact_sheet(torch.cat(frames), columns, scale=2)
        save_image(sheet, folder / f"step_{step:06d}.png")


class ImagePhase(_DiffusionPhase):
    """Train the text-to-image U-Net on single frames; the text encoder is frozen."""

    name = "image"

    def __init__(self, unet: UNet, text: TextEncoder, schedule: Schedule, options: TrainOptions):
        self.options, self.module = options, unet.to(options.device)
        text.to(options.device).eval().requires_grad_(False)
        self.models = Models(text, unet, None, schedule)

    def samples_per_step(self) -> int:
        return self.options.batch_size

    def loss(self, step: int) -> Tensor:
        scenes, context, pooled = self.prompts(step)
        return self.diffusion_loss(images_at(scenes, self.options, step), context, pooled, step)

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        return self.module(x, timestep, context, pooled)

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        config = {
            "unet": self.module.config.to_dict(),
            "schedule": self.models.schedule.to_dict(),
            "size": [self.options.height, self.options.width],
        }
        metadata = metadata_for("lumiere text-to-image U-Net", config, **facts)
        weights = to_half({f"image.{k}": v for k, v in state.items()})
        save_file(weights, folder / "image.safetensors", metadata)


class TemporalPhase(_DiffusionPhase):
    """Train the temporal layers on clips; the image U-Net and the text encoder are frozen (§3.1)."""

    name = "temporal"
    preview_prompts = PREVIEW_PROMPTS[2::2] + PREVIEW_PROMPTS[3::4]

    def __init__(
        self, unet: UNet, temporal: TemporalLayers, text: TextEncoder, schedule: Schedule,
        options: TrainOptions,
    ) -> None:  # fmt: skip
        self.options, self.module = options, temporal.to(options.device)
        for frozen in (unet, text):
            frozen.to(options.device).eval().requires_grad_(False)
        self.models = Models(text, unet, temporal, schedule)
        self.network_module = SpaceTimeUNet(unet, temporal)
        self.preview_frames = options.num_frames

    def samples_per_step(self) -> int:
        return self.options.batch_size * self.options.num_frames

    def loss(self, step: int) -> Tensor:
        scenes, context, pooled = self.prompts(step)
        return self.diffusion_loss(clips_at(scenes, self.options, step), context, pooled, step)

    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        return self.network_module(x, timestep, context, pooled, self.options.checkpointing)

    def export(self, state: dict[str, Tensor], folder: Path, facts: dict[str, str]) -> None:
        config = {
            "unet": self.models.unet.config.to_dict(),
            "temporal": self.module.config.to_dict(),
        }
        metadata = metadata_for("lumiere temporal layers", config, **facts)
        weights = to_half({f"temporal.{k}": v for k, v in state.items()})
        save_file(weights, folder / "temporal.safetensors", metadata)


def new_unet(config: UNetConfig, seed: int) -> UNet:
    """Return an image U-Net with fresh weights; its last convolution is zero, so it starts at v = 0."""
    torch.manual_seed(seed)
    unet = UNet(config)
    nn.init.zeros_(unet.out[2].weight)
    nn.init.zeros_(unet.out[2].bias)
    return unet


def new_temporal(unet_config: UNetConfig, config: TemporalConfig, seed: int) -> TemporalLayers:
    """Return temporal layers at the paper's initialisation."""
    layers = TemporalLayers(unet_config, config)
    layers.load_state_dict(initial_state(layers, torch.Generator().manual_seed(seed)))
    return layers
