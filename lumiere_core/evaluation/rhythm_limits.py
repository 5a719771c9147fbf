"""What key frames tell at best: a temporal cascade whose every window is filled by one who knows the world.

The paper's argument of figure 2 without a network. Somebody is told all of a scene but its rhythm, and how rhythms are
spread in `world.rhythms`. For each window he draws period and phase from those that fit its true key frames, without a
look at the other windows. What breaks then, breaks for want of information, not of training.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..world import Scene
from ..world.rhythms import FASTEST, SLOWEST, courses

GUESSES = 65_536  # rhythms that are tried
SEEN = 0.01  # sides of the frame that a place in a key frame may be off: a third of a pixel of 32


def ideal_places(scene: Scene, frames: int, every: int, intervals: int, seed: int) -> np.ndarray:
    """Return the (t,) places of the object along its motion, in sides of the frame, as such windows would have it.

    Args:
        frames: of the clip, a whole number of windows.
        every: frames from one key frame to the next.
        intervals: between key frames, in a window; a window knows the key frame that ends it too.
        seed: of what is drawn.
    """
    random = torch.Generator().manual_seed(seed)
    window = every * intervals
    true = courses(
        scene, *(torch.tensor([scene.parameters[name]]) for name in ("periods", "phase")), _keys(frames, every)
    )
    parts = []
    for start in range(0, frames, window):
        chance = torch.rand(GUESSES, generator=random)
        periods, phases = SLOWEST * (FASTEST / SLOWEST) ** chance, torch.rand(GUESSES, generator=random)
        known = true[:, start // every : (start + window) // every + 1]
        off = courses(scene, periods, phases, _keys(window, every)) - known
        fit = -(off / SEEN).square().sum(1) / 2
        chosen = torch.multinomial((fit - fit.max()).exp(), 1, generator=random)
        parts.append(courses(scene, periods[chosen], phases[chosen], torch.arange(window).float())[0])
    return torch.cat(parts).numpy().astype(float)


def _keys(frames: int, every: int) -> Tensor:
    return torch.arange(0, frames + 1, every).float()
