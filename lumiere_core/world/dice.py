"""Random numbers from explicit hashing: the same seed gives the same scene everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

_MASK = (1 << 64) - 1
T = TypeVar("T")


def mix(value: int) -> int:
    """Scramble a 64-bit integer (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def hash_text(text: str) -> int:
    """Return a 64-bit hash of a text that does not depend on the process or the platform."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Dice:
    """A small counter-based stream of random numbers; cheaper than a torch.Generator per scene."""

    def __init__(self, seed: int, stream: int = 0):
        self._state = mix(mix(seed & _MASK) ^ mix(stream + 0x5EED))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        self._state = mix(self._state)
        return low + (high - low) * ((self._state >> 11) / float(1 << 53))

    def choice(self, options: Sequence[T]) -> T:
        if not options:
            raise ValueError("got no options to choose from, want at least one")
        return options[int(self.uniform() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def sign(self) -> float:
        return 1.0 if self.uniform() < 0.5 else -1.0
