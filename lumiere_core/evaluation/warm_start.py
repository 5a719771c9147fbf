"""`evaluate warm-start`: does temporal attention that starts from AnimateDiff's kind of motion modules learn faster?

Public files are far larger than lumiere-mini, so the modules are trained first, here: AnimateDiff's kind, at the full
frame rate, on other clips of the same world. That is the friendliest case: the same image model, the same kind of clips.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging

import torch
from torch import Tensor

from ..animatediff import warm_config, warm_start
from ..config import TemporalConfig
from ..schedule import Schedule
from ..temporal import TemporalLayers
from ..training.loop import step_once
from ..training.optimizers import make_optimizer
from ..training.phases.temporal import new_temporal
from ..unet import UNet
from .from_scratch import FromScratch, Run
from .motion_modules import MotionModules, MotionPhase

logger = logging.getLogger("lumiere")


class WarmStart(FromScratch):
    """Attention from trained motion modules against fresh attention of the same shape."""

    title = "first weights of the coarsest attention: motion modules of AnimateDiff's kind against fresh ones"
    starts = ("warm", "fresh")
    names = ("from motion modules", "fresh")
    picture = "warm_start"
    schooling = dataclasses.replace(
        FromScratch.settings, steps=400, seed=100
    )  # of the motion modules

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.run["motion_steps"] = self.schooling.steps
        self._motion: dict[str, Tensor] | None = None

    def layers(self, case: Run, unet: UNet, config: TemporalConfig) -> TemporalLayers:
        config = warm_config(unet.config, config)
        layers = new_temporal(unet.config, config, case.seed)
        if case.start == "warm":
            state = warm_start(layers.state_dict(), self.motion(), unet.config, config)
            layers.load_state_dict(state)
        return layers

    def motion(self) -> dict[str, Tensor]:
        """Return motion modules that have learnt the world's motion for a while; trained once."""
        if self._motion is None:
            options = dataclasses.replace(self.schooling, device=self.device)
            unet, text = self.frozen()
            torch.manual_seed(options.seed)
            modules = MotionModules(unet, options.num_frames)
            phase = MotionPhase(unet, modules, text, Schedule(**self.parts.schedule), options)
            optimizer = make_optimizer(modules, options)
            losses = [step_once(phase, options, optimizer, s)[0] for s in range(options.steps)]
            part = max(1, len(losses) // 5)
            logger.info(
                f"motion modules trained for {options.steps} steps: loss {sum(losses[:part]) / part:.4f} at first, "
                f"{sum(losses[-part:]) / part:.4f} at last"
            )
            self._motion = modules.file_state()
        return self._motion
