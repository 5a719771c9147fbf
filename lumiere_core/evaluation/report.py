"""docs/results.md: every table that stored lines of the shipped weights give, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..files import Record
from .store import Store
from .stored import RESULTS
from .table import Bar

INTRODUCTION = """# What lumiere-mini does, measured

Written by `python -m lumiere_core evaluate --markdown` from the lines in `lumiere_core/evaluation/results/`, one for each
case; a test holds this page to them and them to the shipped weights. **Bold** falls short of its bar. Each verb run
plainly (`evaluate mini`) makes a few random cases again and compares them with what is stored.
"""


def results_page(evaluations: Iterable[tuple[str, object, str]]) -> str:
    """Return the page.

    Args:
        evaluations: (command that makes the lines, evaluation, name of its file of lines) each.
    """
    parts = [INTRODUCTION]
    for command, evaluation, name in evaluations:
        records = stored_records(evaluation, name)
        if records:
            parts.append(chapter(command, evaluation, records))
    return "\n".join(parts)


def stored_records(evaluation, name: str) -> list[Record]:
    """Return the lines of the evaluation's own cases, weights and settings."""
    known = Store(RESULTS / name).of_run(evaluation.run)
    return [known[case.id] for case in evaluation.cases() if case.id in known]


def chapter(command: str, evaluation, records: Sequence[Record]) -> str:
    """Return one evaluation's heading, how it was made, and its table."""
    dates = sorted({str(record["date"]) for record in records})
    devices = sorted({str(record["device"]) for record in records if "device" in record})
    days = dates[0] + (f" to {dates[-1]}" if len(dates) > 1 else "")
    where = f", on {', '.join(devices)}" if devices else ""
    weights = evaluation.run.get("weights")
    made = f"`{command} --all`: {len(records)} of {len(evaluation.cases())} cases, {days}{where}"
    made += f", weights {weights[:8]}." if weights else "."
    title = evaluation.title[0].upper() + evaluation.title[1:]
    notes = getattr(evaluation, "notes", "")
    return "\n".join(
        [f"## {title}", "", made, *([notes] if notes else []), "", *table(evaluation.bars(list(records))), ""]
    )


def table(bars: Sequence[Bar]) -> list[str]:
    """Return the lines of a Markdown table of bars; lines without a bar are indented under the one before."""
    lines = ["| measure | wanted | got | note |", "| --- | --- | --- | --- |"]
    for bar in bars:
        name = "&nbsp;&nbsp;" + bar.name.strip() if bar.name.startswith(" ") else bar.name
        got = " ".join(bar.got.split())
        got = f"**{got}**" if bar.held is False else got
        lines.append(f"| {name} | {bar.wanted} | {got} | {bar.note} |")
    counted = [bar.held for bar in bars if bar.held is not None]
    return [*lines, "", f"{sum(counted)} of {len(counted)} bars hold."] if counted else lines
