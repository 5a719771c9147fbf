"""A pixel model's weights for pictures of twice the height and width, at the same cost.

A patch becomes twice as high and wide. Its channels are the means of 2x2 pixels, which the old weights know as their
pixels, and the leading principal components of what the means leave out. Weights of new channels are zero, so that the
new model, untrained, is the old one with its pixels repeated 2x2; training goes on from there.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .. import world
from ..nets.checkpoint import Parts, StateDict
from ..nets.config import UNetConfig
from ..nets.unet import patchify

COMPONENTS = 16
SCENES = 2048  # of the training split; a frame of each says which components lead
MEAN = 0.5  # a row of the basis has unit length: four pixels of a half each


def doubled(parts: Parts, components: int = COMPONENTS, frames: Tensor | None = None, scenes: int = SCENES) -> Parts:
    """Return the image model, and temporal layers if there are any, for twice the size.

    Args:
        components: channels beside the means.
        frames: (n, c, 2 h, 2 w) pictures that the components are found on; None = of the world.
        scenes: of the world, a picture each.

    Raises:
        ValueError: the parts hold no image model, or their patches leave fewer components.
    """
    parts.require("image")
    old = parts.unet_config
    if old.patch_channels:
        raise ValueError("these weights were doubled before; double a model whose patches are plain pixels.")
    most = old.in_channels * (2 * old.patch_size) ** 2 * 3 // 4  # what the means leave of a patch
    if not 0 <= components <= most:
        raise ValueError(f"{components} components are wanted; a patch of this model leaves {most} beside the means.")
    height, width = (2 * side for side in parts.config.get("size", (64, 64)))
    frames = world_frames(height, width, scenes) if frames is None else frames
    basis = patch_basis(frames, 2 * old.patch_size, components)
    new = dataclasses.replace(old, patch_size=2 * old.patch_size, patch_channels=len(basis))
    schedule = parts.schedule
    # Four pixels of a half each: a mean keeps its value if data and noise are seen divided by twice as much.
    config = parts.config | {
        "unet": new.to_dict(),
        "schedule": {**schedule, "sigma_data": 2 * schedule.get("sigma_data", 1.0)},
        "size": [height, width],
    }
    temporal = None if parts.temporal is None else _with_large_patches(parts.temporal, old)
    return dataclasses.replace(parts, config=config, image=_with_basis(parts.image, basis), temporal=temporal)


def world_frames(height: int, width: int, count: int) -> Tensor:
    """Return (n, 3, height, width): one moment of each of `count` training scenes."""
    scenes = [world.sample_scene(seed, split="train") for seed in range(count)]
    moments = torch.rand(count, generator=torch.Generator().manual_seed(0)) * world.CLIP_SECONDS
    return world.render_frames(scenes, moments, height, width)


def patch_basis(frames: Tensor, patch_size: int, components: int) -> Tensor:
    """Return (c p p / 4 + components, c, p, p), orthonormal: means of 2x2 pixels, then components of the rest."""
    channels = frames.shape[1]
    means = means_of_pixels(channels, patch_size).double()
    patches = patchify(frames, patch_size).movedim(1, -1).flatten(0, 2).double()
    rest = patches - patches @ means.T @ means
    _, directions = torch.linalg.eigh(rest.T @ rest)  # ascending
    leading = directions.flip(1).T[:components]
    # The sign of an eigenvector is anybody's; the largest element is made positive.
    largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
    return torch.cat([means, leading * largest.sign()]).float().unflatten(1, (channels, patch_size, patch_size))


def means_of_pixels(channels: int, patch_size: int) -> Tensor:
    """Return (c p p / 4, c p p), the rows that average 2x2 pixels, in the order of a patch of half the size."""
    half = patch_size // 2
    numbers = torch.arange(channels * half * half).view(1, channels, half, half)
    enlarged = numbers.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten()
    return MEAN * torch.nn.functional.one_hot(enlarged).T.float()


def _with_basis(state: StateDict, basis: Tensor) -> StateDict:
    """Return the image weights with channels for the basis after those of the means."""
    new = dict(state)
    first, last = "input_blocks.0.0.weight", "out.2"
    for key in (first, f"{last}.weight", f"{last}.bias"):
        axis = 1 if key == first else 0
        old = state[key]
        shape = list(old.shape)
        shape[axis] = len(basis) - old.shape[axis]
        new[key] = torch.cat([old, old.new_zeros(shape)], axis)
    return {**new, "patch_basis": basis}


def _with_large_patches(state: StateDict, old: UNetConfig) -> StateDict:
    """Return the temporal weights; what is known of a clip reaches them in whole pixels."""
    new = dict(state)
    if "conv_cond.weight" in state:
        weight = state["conv_cond.weight"].float()
        means = means_of_pixels(old.in_channels + 1, 2 * old.patch_size) * MEAN
        new["conv_cond.weight"] = torch.einsum("ochw,cp->ophw", weight, means)
    return new
