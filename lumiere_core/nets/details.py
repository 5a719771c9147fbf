"""Twice the height and width for a pixel model whose patches are plain pixels, on as many places of its features.

A patch becomes twice as high and wide. Its channels are the means of 2x2 pixels, which the old weights know as their
pixels, and the leading principal components of what the means leave out: the details. Either the first and last
convolution get channels for them, whose weights are zero; or the U-Net goes on to see means alone, and a small network
after it answers the details, so that the means stay what they were, and all of the old weights too. Either way the new
model, untrained, is the old one with its pixels repeated 2x2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .config import UNetConfig

MEAN = 0.5  # a row of the basis has unit length: four pixels of a half each


class Details(nn.Module):
    """Answers what a patch holds beside the means of its pixels.

    Args:
        means, details: channels of a patch.
        width: of the convolutions.
        operations: namespace with Conv2d.
    """

    def __init__(self, means: int, details: int, width: int, operations: Any = nn) -> None:
        super().__init__()
        ops = operations
        layers = [
            ops.Conv2d(2 * means + details, width, 3, padding=1),
            nn.SiLU(),
            ops.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            ops.Conv2d(width, details, 3, padding=1),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, answer: Tensor, patches: Tensor) -> Tensor:
        """Return (n, means + details, h, w): the answer with its details.

        Args:
            answer: (n, means, h, w) of the U-Net.
            patches: (n, means + details, h, w), noised, whose means it was made from.
        """
        return torch.cat([answer, self.layers(torch.cat([answer, patches], dim=1))], dim=1)


def new_details(config: UNetConfig, operations: Any = nn) -> Details | None:
    """Return the network of a configuration's details; None where it has none."""
    if not config.detail_width:
        return None
    return Details(config.first_channels, config.detail_channels, config.detail_width, operations)


def without_details(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a state dict without what only a model of twice the size has: styles of the one before fit it so."""
    own = f"{prefix}patch_basis", f"{prefix}details."
    return {key: value for key, value in state.items() if not key.startswith(own)}


def means_of_pixels(channels: int, patch_size: int) -> Tensor:
    """Return (c p p / 4, c p p), the rows that average 2x2 pixels, in the order of a patch of half the size."""
    half = patch_size // 2
    numbers = torch.arange(channels * half * half).view(1, channels, half, half)
    enlarged = numbers.repeat_interleave(2, 2).repeat_interleave(2, 3).flatten()
    return MEAN * torch.nn.functional.one_hot(enlarged).T.float()


def with_basis(state: dict[str, Tensor], basis: Tensor) -> dict[str, Tensor]:
    """Return the state dict of an image U-Net with channels for the basis after those of the means.

    Args:
        basis: (k, c, p, p), the means first.
    """
    new = dict(state)
    first, last = "input_blocks.0.0.weight", "out.2"
    for key in (first, f"{last}.weight", f"{last}.bias"):
        axis = 1 if key == first else 0
        old = state[key]
        shape = list(old.shape)
        shape[axis] = len(basis) - old.shape[axis]
        new[key] = torch.cat([old, old.new_zeros(shape)], axis)
    return {**new, "patch_basis": basis}


def with_large_patches(state: dict[str, Tensor], channels: int, patch_size: int) -> dict[str, Tensor]:
    """Return the state dict of temporal layers; what is known of a clip reaches them in whole pixels.

    Args:
        channels: of an image.
        patch_size: the new one.
    """
    new = dict(state)
    if "conv_cond.weight" in state:
        weight = state["conv_cond.weight"]
        means = means_of_pixels(channels + 1, patch_size) * MEAN
        new["conv_cond.weight"] = torch.einsum("ochw,cp->ophw", weight.float(), means)
    return new
