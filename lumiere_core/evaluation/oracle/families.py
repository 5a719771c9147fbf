"""A small network that names the scene family of a clip, or says that it is none of them.

It is trained on the world (train_families.py) and looks at a few frames in no order, so it knows what
a clip shows and whether that changes, and leaves motion to the tracker. Besides the families it has
learnt "none": empty landscapes, blends of two scenes, scrambled and noisy pictures.

k - frames looked at, n - clips.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...clips.media import evenly_spaced
from ...nets.checkpoint import load_file
from .track import NONE

WEIGHTS = Path(__file__).with_name("families.safetensors")
LOOKS = 5  # frames looked at
SIDE = 64  # pixels that a frame is brought to
SURE = 0.4  # probability under which the answer is NONE


class FamilyNet(nn.Module):
    """Three convolutions a frame, then the mean and the spread of what they found over the clip."""

    def __init__(self, classes: int, widths: tuple[int, int, int] = (24, 40, 64)):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels = 12
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if width != widths[-1]:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.look = nn.Sequential(*layers)
        self.answer = nn.Linear(4 * channels, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (n, k, 3, side, side) in [-1, 1] -> logits (n, classes)."""
        n, k = frames.shape[:2]
        maps = self.look(frames.flatten(0, 1))
        found = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1).view(n, k, -1)
        return self.answer(torch.cat([found.mean(1), found.std(1, unbiased=False)], 1))


def looks_at(frames: Tensor) -> Tensor:
    """Clip (t, h, w, 3) uint8 -> what the network sees, (k, 3, SIDE, SIDE) in [-1, 1]."""
    picked = frames[evenly_spaced(len(frames), LOOKS)].permute(0, 3, 1, 2).float() / 127.5 - 1
    if picked.shape[-2:] != (SIDE, SIDE):
        picked = F.interpolate(picked, (SIDE, SIDE), mode="bilinear", antialias=True)
    return picked


@lru_cache(maxsize=1)
def load_network() -> tuple[FamilyNet, tuple[str, ...]]:
    """The trained network and the names of its classes (the last is NONE)."""
    state, metadata = load_file(WEIGHTS)
    classes = tuple(json.loads(metadata["classes"]))
    network = FamilyNet(len(classes))
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return network.eval().requires_grad_(False), classes


def name_family(frames: Tensor) -> tuple[str, float]:
    """Family of a clip (t, h, w, 3) uint8 and its probability; NONE where nothing is likely."""
    network, classes = load_network()
    odds = network(looks_at(frames)[None])[0].softmax(0)
    best = int(odds.argmax())
    sure = float(odds[best])
    return (classes[best] if sure >= SURE else NONE), round(sure, 3)
