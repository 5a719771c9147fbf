"""Batches of the procedural world. Everything about a batch follows from (seed, step) alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from .. import world
from ..diffusion.noise import mixed_seed
from .options import TrainOptions, listed


def generator_at(options: TrainOptions, step: int, stream: int) -> torch.Generator:
    """Return the random generator of one use (`stream`) in one step."""
    return torch.Generator().manual_seed(mixed_seed(mixed_seed(mixed_seed(options.seed) ^ step) ^ stream) & (2**63 - 1))


def on_device(random: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator for large draws: the given one on a CPU, elsewhere one of the device with a seed from it.

    A processor takes longer to draw the noise of a batch of clips than a GPU to train on it.
    """
    if device.type == "cpu":
        return random
    seed = int(torch.randint(2**62, (), generator=random))
    return torch.Generator(device).manual_seed(seed)


def scenes_at(options: TrainOptions, step: int) -> list[world.Scene]:
    """Return the training scenes of a step; held-out scenes never occur."""
    first = (options.seed * 1_000_003 + step) * options.batch_size
    seeds = range(first, first + options.batch_size)
    if not options.moving_share:
        return [world.sample_scene(seed, split="train") for seed in seeds]
    chance = torch.rand(options.batch_size, generator=generator_at(options, step, 5)).tolist()
    return [
        _moving_scene(seed, options.moving) if share < options.moving_share else world.sample_scene(seed, split="train")
        for seed, share in zip(seeds, chance, strict=True)
    ]


def _moving_scene(seed: int, moving: str) -> world.Scene:
    """Return a training scene whose caption says how it moves or which way it goes.

    Args:
        moving: see `TrainOptions.moving`.
    """
    wanted = _wanted_scenes(moving)
    for turn in range(64):
        scene = world.sample_scene(mixed_seed(seed ^ turn << 40) >> 2, split="train")
        motion, direction = scene.attributes["motion"], scene.attributes["direction"]
        if wanted & {motion, scene.family} if wanted else {motion, direction} != {"none"}:
            break
    return scene


@lru_cache
def _wanted_scenes(moving: str) -> frozenset[str]:
    """Return the motions and families of `TrainOptions.moving`.

    Raises:
        ValueError: the world has no such motion and no such family.
    """
    wanted = frozenset(listed(moving))
    known = set(world.FAMILIES) | {
        motion for family in world.FAMILIES.values() for motion in family.attributes.get("motion", ())
    }
    if wanted - known:
        raise ValueError(
            f"moving names {sorted(wanted - known)}; motions and families of the world are {sorted(known)}."
        )
    return wanted


def prompts_of(scenes: list[world.Scene], options: TrainOptions, step: int) -> list[str]:
    """Return the captions, some of them dropped to "" for classifier-free guidance."""
    return drop_prompts([scene.caption for scene in scenes], options, step)


def drop_prompts(captions: list[str], options: TrainOptions, step: int) -> list[str]:
    """Return the captions of a step, some of them "" for classifier-free guidance."""
    chance = torch.rand(len(captions), generator=generator_at(options, step, 1))
    return [
        "" if dropped else caption
        for caption, dropped in zip(captions, (chance < options.text_dropout).tolist(), strict=True)
    ]


def images_at(
    scenes: Sequence[list[world.Scene]], options: TrainOptions, steps: Sequence[int], masks: bool = False
) -> list[tuple[Tensor, Tensor | None]]:
    """Return (b, 3, h, w) of each step, each scene at a random moment, and with `masks` its object (b, 1, h, w)."""
    moments = torch.cat(
        [
            torch.rand(len(chosen), generator=generator_at(options, step, 2))
            for chosen, step in zip(scenes, steps, strict=True)
        ]
    )
    drawn = world.render_frames(
        [scene for chosen in scenes for scene in chosen],
        moments * world.CLIP_SECONDS,
        options.height,
        options.width,
        options.device,
        masks,
    )
    images, objects = drawn if masks else (drawn, None)
    return _by_step(images, objects, [len(chosen) for chosen in scenes])


def _by_step(drawn: Tensor, objects: Tensor | None, counts: Sequence[int]) -> list[tuple[Tensor, Tensor | None]]:
    parts = [None] * len(counts) if objects is None else objects.split(counts)
    return list(zip(drawn.split(counts), parts, strict=True))


def window_starts(options: TrainOptions, step: int, count: int) -> Tensor:
    """Return (count,) frames, not whole numbers, after which the windows of a step's clips begin."""
    slack = max(0.0, world.CLIP_SECONDS * options.fps - options.num_frames)
    return torch.rand(count, generator=generator_at(options, step, 2)) * slack


def clips_at(
    scenes: Sequence[list[world.Scene]], options: TrainOptions, steps: Sequence[int], masks: bool = False
) -> list[tuple[Tensor, Tensor | None]]:
    """Return (b, 3, t, h, w) of each step, a window of each scene, and with `masks` its object (b, 1, t, h, w).

    The window is the whole clip where that fits.
    """
    starts = torch.cat([window_starts(options, step, len(chosen)) for chosen, step in zip(scenes, steps, strict=True)])
    times = starts[:, None] / options.fps + torch.arange(options.num_frames) / options.fps
    drawn = world.render_frames(
        [s for chosen in scenes for scene in chosen for s in [scene] * options.num_frames],
        times.flatten(),
        options.height,
        options.width,
        options.device,
        masks,
    )
    frames, objects = drawn if masks else (drawn, None)
    objects = None if objects is None else _clips(objects, options)
    return _by_step(_clips(frames, options), objects, [len(chosen) for chosen in scenes])


def _clips(frames: Tensor, options: TrainOptions) -> Tensor:
    return rearrange(frames, "(b t) c h w -> b c t h w", t=options.num_frames)
