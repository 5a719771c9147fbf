"""The temporal layers and `conv_cond` learn to continue what is known of a clip (Lumiere §4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import world
from ...clips.conditioning import Condition, key_frames
from ...diffusion.generate import Request
from ...world.dice import Dice
from ..data import clips_at, generator_at
from ..masks import draw_known, draw_task
from ..options import TrainOptions
from .build import Arguments, image_model, text_encoder
from .diffusion import Batch
from .temporal import TemporalPhase, start_layers

DEFAULTS = {"batch_size": 2, "sigma_shift": 4.0, "learning_rate": 1e-3}


class ConditionPhase(TemporalPhase):
    """Fine-tune the temporal layers on clips of which something is known; see `masks.SHARES`.

    J is the noised clip, C the clip itself where it is known. The loss covers the whole clip: the network learns to
    copy what is known and to make the rest. The image U-Net stays frozen (the paper does not say).
    """

    name = "condition"
    file = "temporal.safetensors"  # of the export: temporal layers, as any
    conditional = True

    def draw(self, steps: Sequence[int]) -> list[Batch]:
        scenes = self.scenes(steps)
        clips = clips_at(scenes, self.options, steps, masks=True)
        return [
            self._batch(*drawn, *self.prompts(chosen, step), step)
            for step, chosen, drawn in zip(steps, scenes, clips, strict=True)
        ]

    def _batch(self, clips: Tensor, covers: Tensor, context: Tensor, pooled: Tensor, step: int) -> Batch:
        count, size = clips.shape[0], tuple(clips.shape[2:])
        seeds = torch.randint(2**62, (count,), generator=generator_at(self.options, step, 4))
        dice = [Dice(seed) for seed in seeds.tolist()]
        tasks = [draw_task(die) for die in dice]
        with torch.device(clips.device):  # where masks are made
            known = torch.stack(
                [
                    draw_known(task, die, size, lambda row=row: covers[row, 0])
                    for row, (task, die) in enumerate(zip(tasks, dice, strict=True))
                ]
            )
        condition = Condition(clips, known[:, None].to(clips)).tensor()
        objects = covers if self.options.object_weight > 0 else None
        conditions = {"known": condition, "numbers": self.numbers(step)}
        return Batch(clips, context, pooled, objects, conditions)

    def preview_condition(self, index: int, request: Request) -> Condition | None:
        """Every other sample begins with the first frame of the prompt's own scene."""
        if index % 2:
            return None
        scene = world.scene_from_caption(request.prompt, request.seed)
        first = world.render_clip(scene, 1, height=request.height, width=request.width)
        return key_frames(first[None], [0], request.num_frames)


def build(arguments: Arguments, options: TrainOptions, config: dict[str, Any]) -> ConditionPhase:
    """Return the phase with the temporal layers of `--init-from`; a conv_cond that they lack starts at zero."""
    text, (unet, schedule) = text_encoder(arguments), image_model(arguments)
    layers = start_layers(arguments, options, config, unet, conv_cond=True)
    return ConditionPhase(unet, layers, text, schedule, options)
