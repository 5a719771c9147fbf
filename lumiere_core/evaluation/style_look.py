"""How far a clip's look has gone from the plain world towards a style: statistics of colour and edges.

t - frames, n - pictures, h, w - pixels, f - features.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clips.media import evenly_spaced
from ..world import Scene, render_frames, sample_scene, scene_from_caption
from ..world.styles import STYLES, stylise

PLAIN = "plain"
SIDE = 64  # pixels, of the frames that statistics are made from
SEEDS = 6  # scenes of a prompt that a look is the mean of
TIMES = (0.6, 1.6, 2.6, 3.6, 4.6)  # seconds


def features(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, f): colours, contrast, edges at two scales, flatness."""
    x = (pictures + 1) / 2
    grey = x.mean(1, keepdim=True)
    chroma = x.amax(1) - x.amin(1)
    columns = [x.mean((2, 3)), x.std((2, 3)), chroma.mean((1, 2))[:, None], chroma.std((1, 2))[:, None]]
    columns += [((grey < low) & (grey >= low - 0.25)).float().mean((1, 2, 3))[:, None] for low in (0.25, 0.5, 0.75)]
    columns.append((grey >= 0.75).float().mean((1, 2, 3))[:, None])
    for scale in (1, 2):
        small = F.avg_pool2d(grey, scale) if scale > 1 else grey
        across = (small[..., 1:, :-1] - small[..., :-1, :-1]).abs()
        down = (small[..., :-1, 1:] - small[..., :-1, :-1]).abs()
        edge = (across + down).flatten(1)
        columns += [edge.mean(1)[:, None], edge.quantile(0.9, 1)[:, None], (edge < 0.02).float().mean(1)[:, None]]
    return torch.cat(columns, 1)


@cache
def spread() -> Tensor:
    """(f,) standard deviation of each feature over pictures of the world."""
    scenes = [sample_scene(seed) for seed in range(160)]
    return features(render_frames(scenes, torch.linspace(0.3, 4.7, 160), SIDE, SIDE)).std(0) + 1e-3


@cache
def looks(prompt: str) -> dict[str, Tensor]:
    """The mean features (f,) of what a prompt asks for, plain and in every style."""
    scenes = [scene_from_caption(prompt, seed) for seed in range(SEEDS) for _ in TIMES]
    times = torch.tensor(TIMES * SEEDS)
    images, masks = render_frames(scenes, times, SIDE, SIDE, masks=True)
    found = {PLAIN: features(images).mean(0)}
    for style in STYLES:
        found[style] = features(stylise(images, style, masks)).mean(0)
    return found


def measure_look(frames: Tensor, prompt: str, style: str) -> tuple[float, str]:
    """How a clip looks, against real clips of its prompt.

    Args:
        frames: (t, h, w, 3) uint8.
        style: one of world.styles.STYLES.

    Returns:
        (place on the line from plain, 0, to the style, 1; the nearest look of all: a style's name or "plain").
    """
    picked = frames[evenly_spaced(len(frames), 10)].permute(0, 3, 1, 2).float() / 127.5 - 1
    seen = features(picked).mean(0) / spread()
    means = {name: value / spread() for name, value in looks(prompt).items()}
    way = means[style] - means[PLAIN]
    place = float((seen - means[PLAIN]) @ way / (way @ way))
    nearest = min(means, key=lambda name: float((seen - means[name]).square().sum()))
    return round(place, 3), nearest


def real_clip(scene: Scene, style: str, num_frames: int, fps: float, side: int) -> Tensor:
    """A clip of the world in a style, (t, h, w, 3) uint8: what a perfect model would make."""
    from ..clips.video import to_uint8
    from ..world import render_clip

    clip, masks = render_clip(scene, num_frames, fps, height=side, width=side, masks=True)
    drawn = stylise(clip.transpose(0, 1), style, masks.transpose(0, 1), one_clip=True)
    return to_uint8(drawn.transpose(0, 1))
