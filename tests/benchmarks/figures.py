"""What a benchmark reports: one named number, with the bar it must hold where there is one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the output.

    Attributes:
        name: group, then what was measured, joined by dots.
        value: the number; None where it could not be measured, with the reason in `note`.
        unit: "ratio", "s", "TFLOP", "MiB", "frames/s".
        bar: the most that `value` may be; None = reported only.
        note: said after the line.
        at_least: the bar is the least that `value` may be instead.
    """

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def counts(self) -> bool:
        """Whether the figure is one of those that hold or do not; a figure that failed always is."""
        return self.bar is not None or self.value is None

    @property
    def holds(self) -> bool:
        """Whether the bar holds, if there is one; what was not measured does not hold."""
        if self.value is None or self.bar is None:
            return self.value is not None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def line(self) -> str:
        """Return `name value unit (bar …) ok|short`."""
        value = "not measured" if self.value is None else f"{self.value:.4g} {self.unit}"
        sign = ">=" if self.at_least else "<="
        bar = "" if self.bar is None else f" (bar {sign} {self.bar:g})"
        verdict = (" ok" if self.holds else " short") if self.counts else ""
        return f"{self.name} {value}{bar}{verdict}{'  # ' + self.note if self.note else ''}"
