"""Masked conditions learnt from the user's own clips, around any frozen image U-Net (Lumiere §4.2).

This is `train condition --data CACHE`. C and M are made of the cached latents: C is masked after the VAE.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...clips.conditioning import Condition
from ...diffusion.noise import mixed_seed
from ...nets.checkpoint import load_into
from ...nets.temporal import TemporalLayers
from ...world.dice import Dice
from ..masks import draw_known, draw_task
from ..options import TrainOptions
from . import own_clips
from .own_clips import OwnClipsPhase, Sample
from .temporal import new_temporal

DEFAULTS = own_clips.DEFAULTS


class OwnConditionPhase(OwnClipsPhase):
    """Train the temporal layers and conv_cond; what is known of sample i follows from (seed, i).

    The shares of the tasks are those of `masks.SHARES`. Nothing says where an object is, so any shape stands for it.
    """

    name = "condition"
    file = "temporal.safetensors"
    conditional = True

    def condition(self, samples: list[Sample]) -> Tensor:
        clips = torch.stack([sample.latents for sample in samples])
        known = torch.stack([self._known(sample) for sample in samples])
        return Condition(clips, known[:, None].to(clips)).tensor().to(self.options.device)

    def _known(self, sample: Sample) -> Tensor:
        dice = Dice(mixed_seed(self.options.seed ^ 0x6D61736B) ^ sample.number)
        size = tuple(sample.latents.shape[1:])
        return draw_known(draw_task(dice), dice, size, lambda: torch.zeros(size))


def build(arguments: Any, options: TrainOptions, config: dict[str, Any]) -> OwnConditionPhase:
    """Return the phase that `train temporal --data` would, with a conv_cond that starts at zero if it is new."""
    plain = own_clips.build(arguments, options, config)
    layers = with_conv_cond(plain.module, options.seed)
    return OwnConditionPhase(plain.unet, layers, plain.schedule, plain.clips, options, plain.started_from)


def with_conv_cond(layers: TemporalLayers, seed: int) -> TemporalLayers:
    """Return the same layers with a conv_cond; a new one is zero, so that nothing changes yet."""
    config = dataclasses.replace(layers.config, conv_cond=True)
    widened = new_temporal(layers.unet_config, config, seed)
    load_into(widened, widened.state_dict() | layers.state_dict(), "temporal layers")
    return widened
