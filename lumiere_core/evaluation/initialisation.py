"""`evaluate initialisation`: temporal layers from scratch, resizes as nearest neighbours or by He et al. (2015).

Lumiere App. B: strided frames on the way down and duplicated frames on the way up are the better start (v2, Fig. 12,
on UCF-101).
"""

from __future__ import annotations

import torch

from ..nets.config import TemporalConfig
from ..nets.temporal import TemporalLayers
from ..nets.unet import UNet
from ..training.layers import new_layers
from .from_scratch import FromScratch, Run


class Initialisation(FromScratch):
    """The paper's first weights of the resizes against ordinary ones."""

    title = "first weights of the temporal resizes: nearest neighbour against He et al."
    starts = ("nearest", "he")
    names = ("nearest-neighbour resizes", "He")
    picture = "initialisation"

    def layers(self, case: Run, unet: UNet, config: TemporalConfig) -> TemporalLayers:
        layers = new_layers(unet.config, config, case.seed)
        if case.start == "he":
            start_by_he(layers, case.seed)
        return layers


@torch.no_grad()
def start_by_he(layers: TemporalLayers, seed: int) -> None:
    """Fill the resizes as ordinary convolutions are: normal, variance 2 / fan-in, no bias (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in layers.named_parameters():
        if ".down.conv." in name or ".up.conv." in name:
            if parameter.ndim > 1:
                std = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
            else:
                parameter.zero_()
