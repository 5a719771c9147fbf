"""Noise whose frame i depends on the seed and on i only, never on the clip's length."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
COMMON = -1  # the number of the frame whose noise the frames of a clip have in common


def frame_noise(
    seed: int, frames: int | Iterable[int], shape: tuple[int, int, int], step: int = 0, share: float = 0.0
) -> Tensor:
    """Return (t, c, h, w) standard normal noise on the CPU, float32.

    Args:
        seed: of the clip.
        frames: a number of frames, or the frame numbers wanted (a window of the clip).
        shape: (c, h, w) of one frame.
        step: 0 for the initial noise, 1, 2, … for the noise added at each sampling step.
        share: of the variance, what all frames of a clip have in common (`TemporalConfig.shared_noise`).
    """
    numbers = range(frames) if isinstance(frames, int) else frames
    generator = torch.Generator()
    noise = []
    for frame in numbers:
        generator.manual_seed(frame_seed(seed, frame, step))
        noise.append(torch.randn(shape, generator=generator))
    own = torch.stack(noise)
    return mix_noise(own, frame_noise(seed, [COMMON], shape, step), share) if share else own


def mix_noise(own: Tensor, common: Tensor, share: float | Tensor) -> Tensor:
    """Return standard normal noise of whose variance `share` is that of `common`.

    With `common` the same for all frames, any two of them correlate by `share` (the "mixed noise" of PYoCo,
    Ge et al. 2023).
    """
    return own * (1 - share) ** 0.5 + common * share**0.5


def frame_seed(seed: int, frame: int, step: int = 0) -> int:
    """Return the 64-bit seed of one frame's noise at one step."""
    return mixed_seed(mixed_seed(mixed_seed(seed & _MASK) ^ step) ^ frame)


def mixed_seed(value: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64), so that near seeds give unrelated noise."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
