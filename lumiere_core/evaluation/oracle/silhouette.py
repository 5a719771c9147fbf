"""Naming a shape by its outline: the best overlap with templates of equal area at any rotation.

t - frames, n - templates, s - side of a patch in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...world import SHAPES, sdf
from ...world.families.shapes import EXTENT
from .track import NONE, Track

PATCH = 32  # pixels
RADIUS = 9.0  # pixels: of the ball that has the templates' area
STEP = 6  # degrees between templates
SYMMETRY = {"ball": 360, "square": 90, "triangle": 120, "star": 72}  # degrees
CLOSE = 0.72  # overlap (intersection over union) under which an outline is none of the shapes


@dataclass(frozen=True)
class Outline:
    """What the outline over a clip says."""

    shape: str  # NONE: no template fits
    overlap: dict[str, float]  # mean intersection over union with each shape
    angle: np.ndarray  # (t,) rotation of the best template of that shape, degrees; NaN where unseen


@cache
def _templates() -> tuple[tuple[tuple[str, int], ...], Tensor]:
    """Names with angles, and coverages (n, s * s)."""
    fine = 4
    steps = (torch.arange(PATCH * fine) + 0.5) / fine - PATCH / 2
    x, y = steps.view(1, 1, -1), -steps.view(1, -1, 1)
    draw = {"ball": sdf.circle, "triangle": sdf.triangle, "star": sdf.star}
    names, patches = [], []
    for shape in SHAPES:
        for angle in range(0, 1 if shape == "ball" else SYMMETRY[shape], STEP):
            u, v = sdf.rotate(x, y, math.radians(angle))
            radius = RADIUS * EXTENT[shape]
            if shape == "square":
                distance = sdf.box(u, v, radius / math.sqrt(2), radius / math.sqrt(2))
            else:
                distance = draw[shape](u, v, radius)
            inside = (distance.expand(1, PATCH * fine, PATCH * fine) < 0).float()
            names.append((shape, angle))
            patches.append(F.avg_pool2d(inside, fine).flatten())
    return tuple(names), torch.stack(patches)


def outline(track: Track) -> Outline:
    """Compare every mask that the frame's edge does not cut with all templates."""
    names, templates = _templates()
    frames = [index for index in np.flatnonzero(track.found) if not _cut(track.masks[index])]
    nothing = np.full(len(track.x), np.nan)
    if not frames:
        return Outline(NONE, dict.fromkeys(SHAPES, 0.0), nothing)
    patches = _patches(track, frames)
    # Overlap of soft masks: sum of minima over sum of maxima.
    both = torch.stack([torch.minimum(patch, templates).sum(1) for patch in patches])
    overlap = both / (patches.sum(1, keepdim=True) + templates.sum(1) - both)  # (t, n)
    mean, angles = {}, {}
    for shape in SHAPES:
        columns = [index for index, name in enumerate(names) if name[0] == shape]
        best = overlap[:, columns].max(1)
        mean[shape] = float(best.values.mean())
        angles[shape] = nothing.copy()
        angles[shape][frames] = [names[columns[int(i)]][1] for i in best.indices]
    chosen = max(mean, key=mean.get)
    shape = chosen if mean[chosen] >= CLOSE else NONE
    return Outline(shape, {k: round(v, 3) for k, v in mean.items()}, angles[chosen])


def _cut(mask: np.ndarray) -> bool:
    edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return edge > 2


def _patches(track: Track, frames: list[int]) -> Tensor:
    """Masks (t, s * s) centred and enlarged to the area of the templates."""
    masks = torch.from_numpy(track.masks[frames]).float()
    _, height, width = masks.shape
    count = masks.sum((1, 2))
    scale = (count / (math.pi * RADIUS**2)).sqrt().view(-1, 1, 1)  # pixels for one of the patch
    steps = torch.arange(PATCH) + 0.5 - PATCH / 2
    x = steps.view(1, 1, -1) * scale + torch.tensor(track.x[frames]).view(-1, 1, 1) * width
    y = steps.view(1, -1, 1) * scale + torch.tensor(track.y[frames]).view(-1, 1, 1) * height
    x, y = x / width * 2 - 1, y / height * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x, y), -1).float()
    return F.grid_sample(masks[:, None], grid, align_corners=False).flatten(1)


def two_tone_angle(frames: Tensor, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the object's light half and how far it stands out, per frame.

    A spinning object of the world has a dark half, so that a turning ball is seen to turn.

    Returns:
        angle (t,) in degrees, NaN where unseen; contrast (t,), 0.16 for two halves of 1 and 0.45.
    """
    light = frames.float().mean(-1).numpy() / 255
    angle, contrast = np.full(len(light), np.nan), np.zeros(len(light))
    for index in np.flatnonzero(track.found):
        rows, columns = np.nonzero(track.masks[index])
        values = light[index][rows, columns]
        x, y = columns - columns.mean(), rows.mean() - rows
        change = values - values.mean()
        reach = np.sqrt(x * x + y * y).mean() * max(values.mean(), 0.1) * len(values)
        dx, dy = (change * x).sum() / reach, (change * y).sum() / reach
        angle[index], contrast[index] = math.degrees(math.atan2(dy, dx)), math.hypot(dx, dy)
    return angle, contrast
