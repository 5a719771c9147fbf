"""What the phases that train a denoiser share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ... import world
from ...clips.conditioning import Condition
from ...clips.framing import grown
from ...clips.media import contact_sheet, evenly_spaced, save_image
from ...diffusion.generate import Request, generate
from ...diffusion.models import Models
from ...diffusion.schedule import shifted_timesteps
from ..data import generator_at, on_device, prompts_of
from ..options import TrainOptions
from ..parallel import joined
from ..precision import Lowered
from ..prefetch import Ahead
from ..scenes import Scenes

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


# Noise levels (sigma) up to which errors near an object weigh more: the object can still be made out there. Above,
# the weight would follow what the network cannot know, and objects would be drawn where there are none.
OBJECTS_UNTIL = 3.0


def object_weights(objects: Tensor, near: Tensor, weight: float) -> Tensor:
    """Return (b, 1, …, h, w) weights with a mean of 1 for each sample.

    An object covers a few percent of a picture, and a small model would learn its surroundings first.

    Args:
        objects: (b, 1, …, h, w) coverage in [0, 1]; an eighth of the height around it counts too.
        near: (b,) whether a sample is weighted at all.
        weight: of the region, over 1 elsewhere; 0 = none.
    """
    region = grown(objects, objects.shape[-2] // 8)
    weights = 1 + weight * region * near.reshape(-1, *([1] * (objects.ndim - 1)))
    return weights / weights.flatten(1).mean(dim=1).reshape(-1, *([1] * (objects.ndim - 1)))


def _in(dtype: torch.dtype, value: Any) -> Any:
    """Return features in a dtype; numbers of whole samples, such as noise levels, as they are."""
    features = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1
    return value.to(dtype) if features else value


@dataclass(frozen=True)
class Batch:
    """What one step trains on, but for its noise."""

    x0: Tensor  # (b, c, …) clean data
    context: Tensor  # (b, l, d) text states
    pooled: Tensor  # (b, adm)
    objects: Tensor | None = None  # (b, 1, …) coverage of the main objects, for `options.object_weight`
    conditions: dict[str, Tensor] = field(default_factory=dict)  # what else `network` is given

    def used(self) -> Batch:
        """Return this batch, made in another queue of a GPU, for use in the current one."""
        for value in (*vars(self).values(), *self.conditions.values()):
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(torch.cuda.current_stream(value.device))
        return self


class DiffusionPhase(ABC):
    """What the phases that train a denoiser share: text, noise, the loss and the sample pictures."""

    options: TrainOptions
    models: Models
    _lowered: Lowered | None = None
    preview_frames = 1
    preview_prompts = PREVIEW_PROMPTS

    @cached_property
    def batches(self) -> Ahead[Batch]:
        """The batches by number; for a GPU they are drawn ahead."""
        return Ahead(self.draw, self.options.device)

    @cached_property
    def scenes(self) -> Scenes:
        """The scenes of the batches; for a GPU other processes choose them."""
        return Scenes(self.options)

    @abstractmethod
    def draw(self, steps: Sequence[int]) -> list[Batch]:
        """Return the batches of these numbers; each follows from (options.seed, its number) alone."""

    def loss(self, step: int) -> Tensor:
        batch = self.batches(step).used()
        return self.diffusion_loss(batch.x0, batch.context, batch.pooled, step, batch.objects, **batch.conditions)

    def prompts(self, scenes: list[world.Scene], step: int) -> tuple[Tensor, Tensor]:
        """Return the text states of a step's scenes."""
        with torch.no_grad():
            return self.models.encode(prompts_of(scenes, self.options, step))

    @property
    def lowered(self) -> bool:
        """Whether the network runs in bfloat16 as a whole, and not by autocast."""
        # Recomputed layers would see the weights themselves, and DDP wants to see its own call.
        return self.options.precision == "bfloat16" and not (self.options.checkpointing or joined())

    def answer(self, network: nn.Module, *inputs: Any, **named: Any) -> Tensor:
        """Call the network, in the precision that is asked for.

        Args:
            named: `weights`, by name, stand in for the network's own; None = none.
        """
        if self.lowered:
            if self._lowered is None:
                self._lowered = Lowered(network)
            inputs = tuple(_in(torch.bfloat16, value) for value in inputs)
            named = {k: v if k == "weights" else _in(torch.bfloat16, v) for k, v in named.items()}
            return self._lowered(*inputs, **named)
        weights = named.pop("weights", None)
        return functional_call(network, weights, inputs, named) if weights else network(*inputs, **named)

    def diffusion_loss(
        self,
        x0: Tensor,
        context: Tensor,
        pooled: Tensor,
        step: int,
        objects: Tensor | None = None,
        **conditions: Tensor,
    ) -> Tensor:
        """Mean squared error of the network's answer on freshly noised clean data (b, c, …).

        Args:
            objects: (b, 1, …) coverage of the main objects, for `options.object_weight`.
            conditions: what else `network` is given.
        """
        random, schedule = generator_at(self.options, step, 3), self.models.schedule
        # Stratified levels: one in each of b equal parts, so that a batch sees the whole range.
        count = x0.shape[0]
        uniform = (torch.randperm(count, generator=random) + torch.rand(count, generator=random)) / count
        timestep = shifted_timesteps(uniform, schedule.steps, self.options.sigma_shift).to(x0.device)
        eps = self.noise(x0.shape, on_device(random, x0.device))
        alone = torch.zeros(count, dtype=torch.bool)
        if self.options.pure_noise:
            alone = torch.rand(count, generator=random) < self.options.pure_noise
            timestep = timestep.where(~alone.to(x0.device), schedule.steps - 1)
        noised, target = schedule.training_pair(x0, eps, timestep)
        if alone.any():
            # The last level still shows a clip to who can average 80 frames; sampling starts without one
            # (Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed").
            noised[alone] = eps[alone]
        answer = self.network(noised, timestep, context, pooled, **conditions)
        off = answer.float() - target
        error = off.square()
        if objects is not None:
            near = schedule.angle(timestep).tan() <= OBJECTS_UNTIL
            error = error * object_weights(objects, near, self.options.object_weight)
        error = error.flatten(1).mean(dim=1)
        if off.ndim == 5 and off.shape[2] > 1:
            changes, moving = off.diff(dim=2), off - off.mean(dim=2, keepdim=True)
            weights = self.options.change_weight, self.options.motion_weight
            for weight, part in zip(weights, (changes, moving), strict=True):
                if weight:
                    error = error + weight * part.square().flatten(1).mean(dim=1)
        return (error * schedule.loss_weight(timestep)).mean()

    def noise(self, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
        """Return the (b, c, …) noise of a batch."""
        return torch.randn(shape, generator=random, device=random.device)

    @abstractmethod
    def network(self, x: Tensor, timestep: Tensor, context: Tensor, pooled: Tensor, **conditions: Tensor) -> Tensor:
        """Return the network's answer for the noised (b, c, …) data."""

    def preview_condition(self, index: int, request: Request) -> Condition | None:
        """Return what is known of the sample of a prompt, or None."""
        return None

    def preview(self, folder: Path, step: int) -> None:
        frames = []
        for index, prompt in enumerate(self.preview_prompts):
            request = Request(
                prompt,
                seed=index,
                num_frames=self.preview_frames,
                steps=16,
                height=self.options.height,
                width=self.options.width,
            )
            clip = generate(self.models, request, known=self.preview_condition(index, request))
            frames.append(clip[evenly_spaced(clip.shape[0], 8)])
        columns = 4 if self.preview_frames == 1 else 8
        sheet = contact_sheet(torch.cat(frames), columns, scale=2)
        save_image(sheet, folder / f"step_{step:06d}.png")
