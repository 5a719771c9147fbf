"""The temporal layers that a run starts from: fresh ones, or those of a file, with what they lack at its start."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import torch

from ..nets.backbones import check_backbone
from ..nets.checkpoint import Parts, load_into
from ..nets.config import TemporalConfig, UNetConfig
from ..nets.temporal import TemporalLayers, initial_state
from .options import TrainOptions

logger = logging.getLogger("lumiere")
TOKENS = 8  # frames at least that reach the coarsest level, where time is attended to


def new_layers(unet_config: UNetConfig, config: TemporalConfig, seed: int) -> TemporalLayers:
    """Return temporal layers at the paper's initialisation."""
    layers = TemporalLayers(unet_config, config)
    layers.load_state_dict(initial_state(layers, torch.Generator().manual_seed(seed)))
    return layers


def start_layers(
    unet_config: UNetConfig,
    asked: dict[str, Any],
    options: TrainOptions,
    start: Parts | None = None,
    conv_cond: bool = False,
    **clips: Any,
) -> TemporalLayers:
    """Return fresh temporal layers, or those of `start` with the parts that they lack at their start.

    Args:
        unet_config: of the image model.
        asked: what a configuration file says of temporal layers. Of those of `start` it gives `coordinates` to layers
            that lack them, and changes `shared_noise`, `repeat_ends` and `ends_until`.
        start: parts of a file with temporal layers.
        conv_cond: whether the layers must have the convolution of masked conditions.
        clips: frames_per_clip and fps of what is trained on, where the data says so.

    Raises:
        ValueError: the layers of `start` belong to another image model, or `strides` is asked of them.
    """
    if start is None:
        config = TemporalConfig.from_dict({**asked, **clips})
        if "stride" not in asked and "strides" not in asked:
            config = dataclasses.replace(config, strides=strides_for(options, config.frames_per_clip, unet_config))
        config = dataclasses.replace(
            config, conv_cond=conv_cond or config.conv_cond, fresh_noise=options.fresh_noise or config.fresh_noise
        )
        layers = new_layers(unet_config, config, options.seed)
        tokens = -(-config.frames_per_clip // layers.total_stride)
        logger.info(
            "new temporal layers: temporal strides %s; of %d frames %d reach the coarsest level",
            ",".join(map(str, config.resizes(unet_config.num_levels))) or "none",
            config.frames_per_clip,
            tokens,
        )
        return layers
    if options.strides:
        raise ValueError("--strides is for new temporal layers; those of --init-from keep their own. Leave it out.")
    name, has = ", ".join(start.sha256), start.temporal_config
    check_backbone(start.unet_config, unet_config, name)
    known = dataclasses.replace(
        has,
        **clips,
        conv_cond=conv_cond or has.conv_cond,
        coordinates=has.coordinates or (bool(asked.get("coordinates")) and has.condition_channels > 0),
        shared_noise=asked.get("shared_noise", has.shared_noise),
        repeat_ends=asked.get("repeat_ends", has.repeat_ends),
        ends_until=asked.get("ends_until", has.ends_until),
        fresh_noise=options.fresh_noise or has.fresh_noise,
    )
    layers = new_layers(unet_config, known, options.seed)
    # Zeros, but for the clip position: times zero ramps, a zero would get no gradient at all.
    later = {"conv_cond.": has.conv_cond, ".clip_position.": has.coordinates, ".ramps.": has.coordinates}
    lacking = [part for part, there in later.items() if not there]
    fresh = {k: v for k, v in layers.state_dict().items() if any(part in k for part in lacking)}
    load_into(layers, fresh | start.temporal, f"temporal layers of {name}")
    return layers


def own_config(unet_config: UNetConfig) -> dict[str, Any]:
    """Return what new layers around any image model are by default; see docs/training.md for why."""
    # How much noise frames share is the node's to say where a clip is enlarged.
    shared = 0.0 if unet_config.low_channels else 0.8
    return {"condition_channels": min(256, unet_config.model_channels * 2), "coordinates": True, "shared_noise": shared}


def strides_for(options: TrainOptions, frames: int, unet_config: UNetConfig) -> tuple[int, ...]:
    """Return the temporal stride of each resize, from the finest: those that are asked for, else by the clip's length.

    Halved at every resize as in the paper, as long as `TOKENS` frames are left.

    Raises:
        ValueError: what is asked for is no list of strides, one for each resize.
    """
    resizes = unet_config.num_levels - 1
    if options.strides:
        try:
            asked = tuple(int(word) for word in options.strides.split(","))
        except ValueError:
            asked = ()
        if len(asked) != resizes or not set(asked) <= {1, 2, 4}:
            raise ValueError(
                f"--strides is {options.strides!r}; {resizes} numbers of 1, 2 or 4, set apart by commas, are wanted: one "
                "for each spatial resize of this model, from the finest."
            )
        return asked
    found, left = [], frames
    for _ in range(resizes):
        stride = 2 if left >= 2 * TOKENS else 1
        left = -(-left // stride)
        found.append(stride)
    return tuple(found)
