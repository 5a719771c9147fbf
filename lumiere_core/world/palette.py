"""Colours of the world: fixed bands in HSV that the oracle can tell apart.

Hue in degrees, saturation and value in [0, 1], rgb in [-1, 1].
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import torch
from torch import Tensor

from .dice import Dice


@dataclass(frozen=True)
class Band:
    """The range that a named colour is drawn from."""

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


COLOURS: dict[str, Band] = {
    "red": Band((-5.0, 4.0), (0.85, 0.97), (0.80, 0.95)),
    "orange": Band((25.0, 32.0), (0.90, 1.00), (0.92, 1.00)),
    "yellow": Band((51.0, 57.0), (0.80, 0.95), (0.93, 1.00)),
    "green": Band((118.0, 140.0), (0.70, 0.90), (0.55, 0.75)),
    "blue": Band((216.0, 232.0), (0.78, 0.95), (0.80, 0.95)),
    "purple": Band((274.0, 288.0), (0.65, 0.85), (0.62, 0.80)),
    "white": Band((0.0, 360.0), (0.00, 0.03), (0.96, 1.00)),
    "black": Band((0.0, 360.0), (0.00, 0.20), (0.03, 0.09)),
}


def rgb_from_hsv(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Convert degrees, [0, 1], [0, 1] to rgb in [-1, 1]."""
    red, green, blue = colorsys.hsv_to_rgb((hue % 360.0) / 360.0, saturation, value)
    return red * 2 - 1, green * 2 - 1, blue * 2 - 1


def sample_colour(name: str, dice: Dice) -> tuple[float, float, float]:
    """Draw one rgb in [-1, 1] out of the band of a named colour."""
    band = COLOURS[name]
    return rgb_from_hsv(dice.uniform(*band.hue), dice.uniform(*band.saturation), dice.uniform(*band.value))


def colour_parameters(name: str, dice: Dice, key: str = "colour") -> dict[str, float]:
    """Return the scene parameters `<key>_r`, `<key>_g`, `<key>_b` of a named colour."""
    red, green, blue = sample_colour(name, dice)
    return {f"{key}_r": red, f"{key}_g": green, f"{key}_b": blue}


# What a viewer, or the oracle, still calls by a colour's name: bands widened for blending, shading
# and for what a model draws instead. They do not overlap.
_SEEN_HUE = {
    "red": (-12.0, 12.0),
    "orange": (18.0, 40.0),
    "yellow": (46.0, 66.0),
    "green": (95.0, 155.0),
    "blue": (208.0, 242.0),
    "purple": (262.0, 302.0),
}


def colour_mask(images: Tensor, name: str) -> Tensor:
    """Which pixels have a named colour.

    Args:
        images: (n, 3, h, w) in [-1, 1].

    Returns:
        (n, h, w), bool.
    """
    red, green, blue = ((images + 1.0) / 2.0).clamp(0.0, 1.0).unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    if name == "black":
        return value < 0.16
    if name == "white":
        return (chroma < 0.10) & (value > 0.90)
    low, high = _SEEN_HUE[name]
    # Hue as the direction in the hexagon of colours, degrees.
    safe = chroma.clamp_min(1e-6)
    hue = (
        torch.where(
            value == red,
            (green - blue) / safe % 6.0,
            torch.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
        )
        * 60.0
    )
    inside = ((hue - low) % 360.0) <= high - low
    return inside & (chroma > 0.5 * value) & (value > 0.30)
