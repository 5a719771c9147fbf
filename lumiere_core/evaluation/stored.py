"""Evaluations with stored lines: run what is missing, run some again, and make the table from the file.

An evaluation is a class with `run` (what the lines of one model and one setting share), `title`, `cases()`,
`measure(case)` and `bars(records)`; `in_order`, `tolerances` and `write_sheets(folder)` are optional.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import Record
from ..world.dice import hash_text
from .cases import Case
from .store import Store
from .table import Bar, print_table

logger = logging.getLogger("lumiere")
RESULTS = Path(__file__).parent / "results"
NEAR = 2.0  # levels of 255 that the mean colours of a clip made again may differ by


def run_stored(evaluation, options: argparse.Namespace) -> int:
    """Run the evaluation as the options say and print its table; returns the exit status.

    Args:
        options: what, all, split, check, limit, minutes, part, only, results; and clips, where there is such an option.
    """
    store = Store(options.results or RESULTS / lines_of(options))
    cases = evaluation.cases()
    if options.all:
        run_missing(evaluation, store, cases, options)
        clips = getattr(options, "clips", None)
        if clips and hasattr(evaluation, "write_sheets"):
            for path in evaluation.write_sheets(clips):
                sys.stdout.write(f"{path}\n")
    records = store.of_run(evaluation.run)
    known = [records[case.id] for case in cases if case.id in records]
    if not known:
        raise ValueError(
            f"{store.path} has no lines for these weights and settings; run "
            f"`python -m lumiere_core evaluate {options.what} --all` first."
        )
    damaged = [case for case, record in records.items() if not _is_whole(record)]
    if not damaged:
        checks = [] if options.all else check_again(evaluation, records, cases, options.check)
        try:
            bars = [*checks, *evaluation.bars(known)]
        except (KeyError, TypeError, AttributeError):  # bars are made of nothing but lines
            damaged = [record["case"] for record in known]
            logger.debug("the bars cannot be made", exc_info=True)
    if damaged:
        raise ValueError(
            f"{store.path} holds lines that are not whole, such as that of {damaged[0]}. Remove them, and run "
            f"`python -m lumiere_core evaluate {options.what} --all`, which makes them again."
        )
    if len(known) < len(cases):
        bars.insert(0, Bar("all cases run", str(len(cases)), str(len(known)), False))
    dates = sorted({record["date"] for record in known})
    title = f"{evaluation.title}, {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "")
    return 0 if print_table(title, bars, sys.stdout.write) else 1


def lines_of(options: argparse.Namespace) -> str:
    """Return the file of a verb's lines; those of the tuning split and of another size are in files of their own."""
    tuning = "_tuning" if getattr(options, "split", "") == "tuning" else ""
    size = re.fullmatch(r"lumiere-mini-(\d+)", str(getattr(options, "weights", "")))
    return f"{options.what.replace('-', '_')}{tuning}{f'_{size[1]}' if size else ''}.jsonl"


def _is_whole(record: Record) -> bool:
    """Whether a line has what the lines of every evaluation have."""
    kinds = {"seen": dict, "right": dict, "date": str}
    return all(isinstance(record.get(name), kind) for name, kind in kinds.items())


def run_missing(evaluation, store: Store, cases: list[Case], options: argparse.Namespace) -> None:
    """Run the cases without a line; each is stored as soon as it is done.

    They come in the order of their hashes, so that a part of the set is a fair sample of the whole; an
    evaluation that has an order for that itself says so (`in_order`).
    """
    done = store.of_run(evaluation.run)
    if not getattr(evaluation, "in_order", False):
        cases = sorted(cases, key=lambda case: hash_text(case.id))
    number, count = options.part
    missing = [case for case in cases[number - 1 :: count] if case.id not in done]
    if options.only:
        missing = [case for case in missing if options.only in case.prompt]
    missing = missing[: options.limit]
    started = time.monotonic()
    for number, case in enumerate(missing):
        record = evaluation.measure(case)
        store.append(record, durable=True)
        _report(f"{number + 1}/{len(missing)} ({time.monotonic() - started:.0f} s)", record)
        if options.minutes and time.monotonic() - started > options.minutes * 60:
            break
    records = store.of_run(evaluation.run)
    if all(case.id in records for case in cases):
        # The set is whole: lines of other weights, settings and prompts are history.
        store.keep([records[case.id] for case in cases])


def check_again(evaluation, records: dict[str, Record], cases: list[Case], count: int) -> list[Bar]:
    """Run some stored cases again; a bar that holds if all come out as stored."""
    stored = [case for case in cases if case.id in records]
    chosen = random.SystemRandom().sample(stored, min(count, len(stored)))
    same = []
    for case in chosen:
        again = evaluation.measure(case)
        reason = difference(records[case.id], again, getattr(evaluation, "tolerances", {}))
        _report("again", again)
        if reason:
            sys.stdout.write(f"      not as stored: {reason}\n")
        same.append(not reason)
    if not chosen:
        return []
    got = f"{sum(same)}/{len(same)}"
    return [Bar("stored lines come out again", "all", got, all(same))]


def difference(stored: Record, again: Record, tolerances: dict[str, float] | None = None) -> str:
    """What differs between a stored line and the same case run again; "" for nothing.

    Args:
        tolerances: how far the numbers below an entry of the line may be from the stored ones.
    """
    for name, value in stored["seen"].items():
        if again["seen"].get(name) != value:
            return f"{name} was {value!r}, is {again['seen'].get(name)!r}"
    pairs = zip(stored.get("levels", ()), again.get("levels", ()), strict=True)
    worst = max((abs(a - b) for a, b in pairs), default=0.0)
    if worst > NEAR:
        return f"mean colours differ by {worst:.1f} levels"
    for entry, tolerance in (tolerances or {}).items():
        before, now = dict(_numbers(stored[entry], entry)), dict(_numbers(again[entry], entry))
        for name in sorted(before.keys() & now.keys()):  # a measure may need a host
            if not abs(before[name] - now[name]) <= tolerance:
                return f"{name} was {before[name]}, is {now[name]}"
    return ""


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Give the numbers in nested dictionaries with their names."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        yield from _numbers(inner, f"{name}, {key}")


def _report(place: str, record: Record) -> None:
    wrong = [f"{k}: {record['seen'][k]}" for k, right in record["right"].items() if not right]
    verdict = f"wrong ({', '.join(wrong)})" if wrong else "right"
    sys.stdout.write(f"{place}  {record['case']}  {record['prompt']}: {verdict}\n")
    sys.stdout.flush()
