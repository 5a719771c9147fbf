"""`evaluate WHAT`: run cases, compare some with the stored lines, print the table.

Run plainly, a few random stored cases are run again and must come out as stored; the table is made from
the file. `--all` runs what the file lacks and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..evaluation.cases import Case
from ..evaluation.store import Store
from ..evaluation.table import Bar, print_table
from ..files import Record
from ..world.dice import hash_text

RESULTS = Path(__file__).parents[1] / "evaluation" / "results"
WHAT = {  # name -> module and class with cases(), measure(case), bars(records), run, title
    "mini": ("lumiere_core.evaluation.mini", "Mini"),
    "oracle": ("lumiere_core.evaluation.oracle_check", "OracleCheck"),
    "conditioning": ("lumiere_core.evaluation.conditioning", "Conditioning"),
    "style": ("lumiere_core.evaluation.style", "StyleEvaluation"),
    "seams": ("lumiere_core.evaluation.seams", "Seams"),
    "initialisation": ("lumiere_core.evaluation.initialisation", "Initialisation"),
}
NEAR = 2.0  # levels of 255 that the mean colours of a clip made again may differ by


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--all", action="store_true", help="run every case that the file lacks")
    parser.add_argument(
        "--check", type=int, default=4, metavar="N", help="run N random stored cases again and compare (without --all)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="with --all: run at most N cases now")
    parser.add_argument("--minutes", type=float, metavar="M", help="with --all: stop after M minutes")
    parser.add_argument(
        "--part",
        type=part,
        default=(1, 1),
        metavar="K/N",
        help="with --all: the K-th of N equal parts of the cases; start N processes to share the work",
    )
    parser.add_argument("--only", metavar="TEXT", help="with --all: cases whose prompt holds TEXT")
    parser.add_argument("--weights", default="lumiere-mini", help="file, folder, or lumiere-mini")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cfg", type=float, default=3.0, help="guidance scale; 1 = none")
    parser.add_argument("--sampler", default="ddim", help="ddim or ddpm")
    parser.add_argument("--scheduler", default="karras", help="karras or normal")
    parser.add_argument("--results", type=Path, help="file of JSON lines; default: kept with the code")
    parser.add_argument("--clips", type=Path, help="folder that keeps the clips, and is read first")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all")
    parser.add_argument("--train", action="store_true", help="oracle: train its network anew first")


def part(text: str) -> tuple[int, int]:
    """Read "2/3", the second of three parts."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"got {text!r}; K/N is wanted, such as 1/2 and 2/2 for two processes")
    return int(number), int(count)


def main(options: argparse.Namespace) -> int:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.all:
        options.clips = None  # a check makes its clips anew
    if options.train:
        _train(options.what)
    module, name = WHAT[options.what]
    evaluation = getattr(importlib.import_module(module), name)(options)
    store = Store(options.results or RESULTS / f"{options.what.replace('-', '_')}.jsonl")
    cases = evaluation.cases()
    if options.all:
        run_missing(evaluation, store, cases, options)
        if options.clips and hasattr(evaluation, "write_sheets"):
            for path in evaluation.write_sheets(options.clips):
                sys.stdout.write(f"{path}\n")
    records = store.of_run(evaluation.run)
    known = [records[case.id] for case in cases if case.id in records]
    if not known:
        raise ValueError(
            f"{store.path} has no lines for these weights and settings; run "
            f"`python -m lumiere_core evaluate {options.what} --all` first."
        )
    checks = [] if options.all else check_again(evaluation, records, cases, options.check)
    bars = [*checks, *evaluation.bars(known)]
    if len(known) < len(cases):
        bars.insert(0, Bar("all cases run", str(len(cases)), str(len(known)), False))
    dates = sorted({str(record["date"]) for record in known})
    title = f"{evaluation.title}, {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "")
    return 0 if print_table(title, bars, sys.stdout.write) else 1


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


def _train(what: str) -> None:
    if what != "oracle":
        raise ValueError(f"--train is for `evaluate oracle`; got `evaluate {what}`.")
    from ..evaluation.oracle.train_families import train_families

    write: Callable[[str], object] = lambda text: sys.stdout.write(text + "\n")  # noqa: E731
    accuracy = train_families(write)
    write(f"scene family on held-out scenes: {100 * accuracy:.1f} %")
