"""A pixel model's weights for pictures of twice the height and width, at the same cost.

Untrained it is the old one with its pixels repeated 2x2 (see `nets.details`); training goes on from there.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .. import world
from ..nets.checkpoint import DETAILS, Parts
from ..nets.details import means_of_pixels, new_details, with_basis, with_large_patches
from ..nets.unet import patchify

COMPONENTS = 16
DETAIL_WIDTH = 80
SCENES = 2048  # of the training split; a frame of each says which components lead


def doubled(
    parts: Parts,
    components: int | None = None,
    frames: Tensor | None = None,
    scenes: int = SCENES,
    detail_width: int = 0,
) -> Parts:
    """Return the image model, and temporal layers if there are any, for twice the size.

    Args:
        components: channels beside the means; None = COMPONENTS, or what there is.
        frames: (n, c, 2 h, 2 w) pictures that the components are found on; None = of the world.
        scenes: of the world, a picture each.
        detail_width: of a network that answers the components, which begins at zero; 0 = none.

    Raises:
        ValueError: the parts hold no image model, or their patches leave fewer components.
    """
    parts.require("image")
    old = parts.unet_config
    if old.patch_channels:
        raise ValueError("these weights were doubled before; double a model whose patches are plain pixels.")
    most = old.in_channels * (2 * old.patch_size) ** 2 * 3 // 4  # what the means leave of a patch
    components = min(COMPONENTS, most) if components is None else components
    if not 0 <= components <= most:
        raise ValueError(f"{components} components are wanted; a patch of this model leaves {most} beside the means.")
    height, width = (2 * side for side in parts.config.get("size", (64, 64)))
    frames = world_frames(height, width, scenes) if frames is None else frames
    basis = patch_basis(frames, 2 * old.patch_size, components)
    new = dataclasses.replace(old, patch_size=2 * old.patch_size, patch_channels=len(basis), detail_width=detail_width)
    schedule = parts.schedule
    # Four pixels of a half each: a mean keeps its value if data and noise are seen divided by twice as much.
    config = parts.config | {
        "unet": new.to_dict(),
        "schedule": {**schedule, "sigma_data": 2 * schedule.get("sigma_data", 1.0)},
        "size": [height, width],
    }
    if detail_width:
        details = new_details(new)
        for values in details.layers[-1].parameters():
            torch.nn.init.zeros_(values)
        fresh = {f"{DETAILS}.{key}": value for key, value in details.state_dict().items()}
        image = parts.image | {"patch_basis": basis} | fresh
    else:
        image = with_basis(parts.image, basis)
    temporal = None if parts.temporal is None else with_large_patches(parts.temporal, new.in_channels, new.patch_size)
    return dataclasses.replace(parts, config=config, image=image, temporal=temporal)


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
