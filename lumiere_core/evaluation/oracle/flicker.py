"""How still the background is, against a real clip of the world.

t - frames, h, w - pixels.
"""

from __future__ import annotations

from torch import Tensor

LEVEL = 1.0  # levels of 255: what rounding to bytes may change in a background that stands still


def flicker(frames: Tensor, region: Tensor) -> float:
    """Mean |frame t+1 - frame t| over a region, in levels of 255 (VBench's temporal flickering).

    Args:
        frames: (t, h, w, 3) uint8.
        region: (h, w) bool; an empty one counts as the whole frame.
    """
    pixels = frames[:, region] if bool(region.any()) else frames.flatten(1, 2)
    pixels = pixels.float()
    return float((pixels[1:] - pixels[:-1]).abs().mean())


def flicker_ratio(generated: float, real: float) -> float:
    """Flicker against the real clip's; most real backgrounds are exactly still, hence the floor."""
    return generated / max(real, LEVEL)
