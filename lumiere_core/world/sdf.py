"""Signed distance functions: negative inside, in the units of the coordinates given.

Every argument broadcasts; x is usually (n, 1, w), y (n, h, 1) and parameters (n, 1, 1), so that
what depends on one axis alone stays one-dimensional until the axes meet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotate(x: Tensor, y: Tensor, angle) -> tuple[Tensor, Tensor]:
    """Return the coordinates in a frame turned anticlockwise by `angle` radians."""
    angle = torch.as_tensor(angle, dtype=x.dtype, device=x.device)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def circle(x, y, radius):
    return torch.sqrt(x * x + y * y) - radius


def ellipse(x, y, radius_x, radius_y):
    """Approximate distance to an ellipse: exact on the outline, first order near it."""
    u, v = x / radius_x, y / radius_y
    length = torch.sqrt(u * u + v * v)
    slope = torch.sqrt((u / radius_x) ** 2 + (v / radius_y) ** 2)
    return length * (length - 1.0) / slope.clamp_min(1e-4)


def box(x, y, half_x, half_y):
    """Distance along the nearer axis; outside corners are sharp."""
    return torch.maximum(x.abs() - half_x, y.abs() - half_y)


def triangle(x, y, radius):
    """Upright equilateral triangle of circumradius `radius`, centred on its centroid."""
    return torch.maximum(x.abs() * (math.sqrt(3) / 2) + y * 0.5, -y) - radius * 0.5


STAR_INNER = 0.5  # inner radius of the star as a fraction of its outer radius


def star(x, y, radius):
    """Upright five-pointed star: the plane is folded into one half-point, bounded by one line."""
    normal_x, normal_y = math.cos(math.radians(36)), -math.sin(math.radians(36))
    for _ in range(2):  # mirror in the axis, then in the line to the next inner corner, twice
        x = x.abs()
        overlap = (x * normal_x + y * normal_y).clamp_min(0.0) * 2.0
        x, y = x - overlap * normal_x, y - overlap * normal_y
    x = x.abs()
    # The edge runs from the tip (0, 1) to the inner corner at 36 degrees.
    corner_x = STAR_INNER * math.sin(math.radians(36))
    corner_y = STAR_INNER * math.cos(math.radians(36))
    length = math.hypot(1.0 - corner_y, corner_x)
    return (x * (1.0 - corner_y) + (y - radius) * corner_x) / length


def segment(x, y, start_x, start_y, end_x, end_y, radius):
    """Capsule between two points."""
    along_x, along_y = end_x - start_x, end_y - start_y
    x, y = x - start_x, y - start_y
    squared = along_x * along_x + along_y * along_y
    share = ((x * along_x + y * along_y) / (squared + 1e-9)).clamp(0.0, 1.0)
    x, y = x - share * along_x, y - share * along_y
    return torch.sqrt(x * x + y * y) - radius


def triangle_wave(x):
    """Periodic zigzag with period 1 and range [0, 1], 0 at whole numbers."""
    return (torch.remainder(x, 1.0) - 0.5).abs().mul(-2.0).add(1.0)


def centred_remainder(x, period):
    """Distance to the nearest multiple of `period`, signed, in [-period / 2, period / 2)."""
    return torch.remainder(x + period * 0.5, period) - period * 0.5
