"""What a measure is, and how its figures are described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from .walk import Step


class Unmeasurable(Exception):
    """One measure cannot say anything of this clip; the message is the reason, and the others go on."""


@dataclass(frozen=True)
class Figure:
    """One number that is said of a clip.

    Attributes:
        unit: "levels" are of 255.
        bounds: the least and the most; None = no bound.
        text: what it is, and what a high one means.
        source: who defined it.
    """

    name: str
    unit: str
    bounds: tuple[float | None, float | None]
    text: str
    source: str = "this pack"


class Measure(ABC):
    """Figures of one kind; sees every frame of a clip once, in order, and keeps a few numbers of each at most.

    Attributes:
        frames: how many frames a clip must have at least.
        needs: fields of `Step` that must be given, such as "reference".
    """

    figures: ClassVar[tuple[Figure, ...]]
    frames: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def see(self, step: Step) -> None:
        """Take in one frame."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Return the figures by name; called after at least `frames` frames."""

    def curves(self) -> dict[str, list[float]]:
        """Return what can be drawn over time: name -> one number a frame or pair of frames."""
        return {}
