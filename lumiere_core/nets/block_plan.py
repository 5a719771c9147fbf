"""Which temporal part follows which layer of an image U-Net: written once, for core's network and for the host's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class LayerKinds:
    """The classes of one implementation of the U-Net; core and the host have their own."""

    residual: type[nn.Module]
    transformer: type[nn.Module]
    down: type[nn.Module]
    up: type[nn.Module]


@dataclass(frozen=True)
class BlockPlan:
    """What happens in time along the layers of one block.

    Attributes:
        name: as in the state dict, `input_blocks.4`.
        parts: for each layer the method of `TemporalLayers` that runs after it: "inflate" after one of the block's
            residual and transformer layers, "downsample" and "upsample" after a spatial resize, else None.
        level: of the frames that enter the block; 0 is the finest.
        after: level of the frames that leave it.
    """

    name: str
    parts: tuple[str | None, ...]
    level: int
    after: int


def plan_blocks(unet: Any, kinds: LayerKinds, follows: Callable[[Sequence[bool]], int]) -> dict[str, BlockPlan]:
    """Return the plan of every block by its name, in the order in which they run.

    Args:
        unet: with `input_blocks`, `middle_block` and `output_blocks`, each block a sequence of layers.
        kinds: classes of its layers.
        follows: `TemporalLayers.follows`, which of a block's residual and transformer layers is inflated.
    """
    blocks = [(f"input_blocks.{i}", block) for i, block in enumerate(unet.input_blocks)]
    blocks.append(("middle_block", unet.middle_block))
    blocks += [(f"output_blocks.{i}", block) for i, block in enumerate(unet.output_blocks)]
    plans, level = {}, 0
    for name, layers in blocks:
        group = [i for i, layer in enumerate(layers) if isinstance(layer, (kinds.residual, kinds.transformer))]
        inflated = group[follows([isinstance(layers[i], kinds.transformer) for i in group])] if group else None
        parts, before = [], level
        for index, layer in enumerate(layers):
            part = "inflate" if index == inflated else None
            if isinstance(layer, kinds.down):
                part, level = "downsample", level + 1
            elif isinstance(layer, kinds.up):
                part, level = "upsample", level - 1
            parts.append(part)
        plans[name] = BlockPlan(name, tuple(parts), before, level)
    return plans
