"""Which scenes of the world training samples show; chosen in other processes where a GPU waits for them."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache

import torch

from ... import world
from ...diffusion.noise import mixed_seed
from ..draws import SCENE, Draws
from ..options import TrainOptions, listed

MOST = 6  # processes
APART = 10**9  # scenes between those of two seeds
NARROW = {"rhythms": world.rhythm_scene, "tempi": world.tempo_scene}


def scenes_of(options: TrainOptions, samples: Sequence[int]) -> list[world.Scene]:
    """Return the training scenes of samples; held-out scenes never occur."""
    seeds = [options.seed * APART + sample for sample in samples]
    if options.scenes != "all":
        return [NARROW[options.scenes](seed) for seed in seeds]
    if not options.moving_share:
        return [world.sample_scene(seed, split="train") for seed in seeds]
    chance = Draws(options.seed, samples, SCENE).uniform()[:, 0].tolist()
    return [
        _moving_scene(seed, options.moving) if share < options.moving_share else world.sample_scene(seed, split="train")
        for seed, share in zip(seeds, chance, strict=True)
    ]


def _moving_scene(seed: int, moving: str) -> world.Scene:
    """Return a training scene whose caption says how it moves or which way it goes.

    Args:
        moving: see `TrainOptions.moving`.
    """
    shares = wanted_scenes(moving)
    wanted, turns = set(shares), 64
    if "*" in moving:  # rejection alone would give each as often as the world has it
        names, weights = list(shares), list(shares.values())
        wanted, turns = set(random.Random(mixed_seed(seed)).choices(names, weights)), 512
    for turn in range(turns):
        scene = world.sample_scene(mixed_seed(seed ^ turn << 40) >> 2, split="train")
        motion, direction = scene.attributes["motion"], scene.attributes["direction"]
        if wanted & {motion, scene.family} if wanted else {motion, direction} != {"none"}:
            break
    return scene


@lru_cache
def wanted_scenes(moving: str) -> dict[str, float]:
    """Return the motions and families of `TrainOptions.moving` with their shares; 1 where none is said.

    Raises:
        ValueError: the world has no such motion and no such family, or a share is no number above 0.
    """
    shares = {}
    for entry in listed(moving):
        name, _, share = (part.strip() for part in entry.partition("*"))
        try:
            shares[name] = float(share or 1)
        except ValueError:
            shares[name] = math.nan
        if not 0 < shares[name] < math.inf:
            raise ValueError(f"moving says {entry!r}; a share is a number above 0, as in 'spinning*3,bouncing'.")
    wanted = frozenset(shares)
    known = set(world.FAMILIES) | {
        motion for family in world.FAMILIES.values() for motion in family.attributes.get("motion", ())
    }
    if wanted - known:
        raise ValueError(
            f"moving names {sorted(wanted - known)}; motions and families of the world are {sorted(known)}."
        )
    return shares


def _begin() -> None:
    """An interrupt is for the process that trains: it still needs scenes until its step is over."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Scenes:
    """The training scenes of batches. Choosing is plain Python, one core's work of a tenth of a millisecond each."""

    def __init__(self, options: TrainOptions) -> None:
        wanted_scenes(options.moving)
        self.options = options
        free = (os.cpu_count() or 1) // 2
        on_cpu = torch.device(options.device).type == "cpu"
        self.processes = 0 if on_cpu or free < 2 else min(MOST, free)
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, batches: Sequence[Sequence[int]]) -> list[list[world.Scene]]:
        """Return the scenes of the samples of each batch."""
        if not self.processes:
            return [scenes_of(self.options, samples) for samples in batches]
        if self._pool is None:
            # A fork would copy what CUDA cannot share.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, _begin)
        return list(self._pool.map(scenes_of, [self.options] * len(batches), batches))
