"""Bars and how they are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One line of the table; without `held` it informs and asks for nothing."""

    name: str
    wanted: str
    got: str
    held: bool | None = None
    note: str = ""


def share_bar(name: str, answers: Iterable[bool], at_least: float | None = None, note: str = "") -> Bar:
    """Share of right answers; no answers at all hold nothing."""
    answers = list(answers)
    right = sum(answers)
    share = right / len(answers) if answers else 0.0
    got = f"{100 * share:5.1f} % ({right}/{len(answers)})" if answers else "no cases"
    if at_least is None:
        return Bar(name, "", got, held=None, note=note)
    return Bar(name, f">= {100 * at_least:.0f} %", got, held=bool(answers) and share >= at_least, note=note)


def print_table(title: str, bars: Sequence[Bar], write: Callable[[str], object]) -> bool:
    """Print the table and the count of bars held; returns whether every bar holds."""
    widths = [max([len(getattr(bar, column)) for bar in bars] + [6]) for column in ("name", "wanted", "got")]
    write(f"\n{title}\n\n")
    head = ("", "wanted", "got")
    write("  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True)) + "  held   note\n")
    for bar in bars:
        cells = zip((bar.name, bar.wanted, bar.got), widths, strict=True)
        held = {None: "", True: "yes", False: "NO"}[bar.held]
        row = "  ".join(text.ljust(width) for text, width in cells) + f"  {held:<5}  {bar.note}"
        write(row.rstrip() + "\n")
    counted = [bar.held for bar in bars if bar.held is not None]
    write(f"\nbars held: {sum(counted)}/{len(counted)}\n")
    return all(counted)
