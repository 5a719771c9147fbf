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
    """

    name: str
    value: float | None
    unit: str
    bar: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the bar holds; a bar that was not measured does not."""
        return self.bar is None or (self.value is not None and self.value <= self.bar)

    def line(self) -> str:
        """Return `name value unit (bar …) ok|short`."""
        value = "not measured" if self.value is None else f"{self.value:.4g} {self.unit}"
        verdict = (
            "" if self.bar is None else f" (bar <= {self.bar:g}) {'ok' if self.holds else 'short'}"
        )
        return f"{self.name} {value}{verdict}{'  # ' + self.note if self.note else ''}"
