"""Signed distance functions: negative inside, in the units of the coordinates given.

Every argument broadcasts; x is usually (n, 1, w), y (n, h, 1) and parameters (n, 1, 1), so that
what depends on one axis alone stays one-dimensional until the axes meet.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotate(x: Tensor, y: Tensor, angle) -> tuple[Tensor, Tensor]:
    """Return (n, h, w) coordinates in a frame turned anticlockwise by `angle` radians."""
    angle = torch.as_tensor(angle, dtype=x.dtype, device=x.device)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def circle(x, y, radius):
    return torch.sqrt(x * x + y * y) - radius


def ellipse(x, y, radius_x, radius_y):
    """Approximate distance to an ellipse: first order, so right near the outline."""
    across, up = (x / radius_x) ** 2, (y / radius_y) ** 2
    slope = across / radius_x**2 + up / radius_y**2
    return (across + (up - 1.0)) * (0.5 * torch.rsqrt(slope + 1e-6))


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
    return capsules(x, y, [(start_x, start_y, end_x, end_y)], radius)


def capsules(x, y, segments, radius):
    """Union of capsules of one radius; each segment is (start_x, start_y, end_x, end_y).

    The squared distance |p|^2 + h (h - 2 p.s) |s|^2, with s the segment, p measured from its start
    and p.s over |s|^2, needs few operations per pixel while x and y are one-dimensional.
    """
    nearest = None
    for start_x, start_y, end_x, end_y in segments:
        along_x, along_y = end_x - start_x, end_y - start_y
        squared = along_x * along_x + along_y * along_y + 1e-9
        local_x, local_y = x - start_x, y - start_y
        share = local_x * (along_x / squared) + local_y * (along_y / squared)
        held = share.clamp(0.0, 1.0)
        distance = share.mul_(-2.0).add_(held).mul_(held).mul_(squared)
        distance = distance.add_(local_x * local_x).add_(local_y * local_y)
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
    return nearest.clamp_min(0.0).sqrt() - radius


def triangle_wave(x):
    """Periodic zigzag with period 1 and range [0, 1], 0 at whole numbers."""
    return (x - torch.floor(x) - 0.5).abs().mul(-2.0).add(1.0)


def centred_remainder(x, period):
    """Distance to the nearest multiple of `period`, signed, in [-period / 2, period / 2)."""
    # Rounding is several times faster than torch.remainder.
    return x - torch.round(x / period) * period


def petals(x, y):
    """cos(6 a) of the direction a of (x, y), and the distance from the centre."""
    across, up = x * x, y * y
    squared = across + up
    double = (across - up) / (squared + 1e-6)  # cos(2 a)
    return double * (4.0 * double * double - 3.0), squared.sqrt()
