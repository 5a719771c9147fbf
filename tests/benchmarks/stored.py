"""What `make bench` measured last, one entry a figure, and the page docs/measured.md that is made of it."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from pathlib import Path

from figures import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "measured.md"
# Figures of other scripts that the page shows too: {"title", "command", "date", "rows": [[what, figure], …]} each.
OTHERS = [file for name in ("robustness", "gpu") for file in sorted((ROOT / "tests" / name).glob("*.json"))]

INTRODUCTION = """# Speed, memory and robustness, measured

Written by `make bench` from `tests/benchmarks/results.json` and by `make fuzz`; a test holds this page to them. Figures are
ratios wherever two things could be run side by side, in turns, in one process. **Bold** falls short of its bar.
"""


def store(figures: list[Figure], machine: str) -> None:
    """Put figures in the place of those of the same names, and write the page anew."""
    known = read()
    date = datetime.now(timezone.utc).date().isoformat()
    for figure in figures:
        known[figure.name] = {**dataclasses.asdict(figure), "machine": machine, "date": date}
    RESULTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")


def read() -> dict[str, dict]:
    """Return the stored figures by name."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def page() -> str:
    """Return the Markdown of all stored figures, a chapter for each group and a table for each machine in it."""
    lines = [INTRODUCTION]
    figures = read()
    for group in dict.fromkeys(name.partition(".")[0] for name in figures):
        mine = {name: entry for name, entry in figures.items() if name.partition(".")[0] == group}
        lines.append(f'## {group}\n\n`make bench ARGS="--only {group}"`\n')
        for machine in dict.fromkeys(entry["machine"] for entry in mine.values()):
            lines += [f"{machine}\n", "| figure | value | bar | date | note |", "| --- | --- | --- | --- | --- |"]
            lines += [row(name, entry) for name, entry in mine.items() if entry["machine"] == machine]
            lines.append("")
    for path in OTHERS:
        lines += other(json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines)


def row(name: str, entry: dict) -> str:
    """Return one line of a table."""
    figure = Figure(**{field.name: entry[field.name] for field in dataclasses.fields(Figure)})
    value = "not measured" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
    value = value if figure.holds else f"**{value}**"
    bar = "" if figure.bar is None else f"{'≥' if figure.at_least else '≤'} {figure.bar:g}"
    return f"| {name.partition('.')[2]} | {value} | {bar} | {entry['date']} | {figure.note} |"


def other(facts: dict) -> list[str]:
    """Return the chapter of another script's figures."""
    rows = [f"| {what} | {figure} |" for what, figure in facts["rows"]]
    return [
        f"## {facts['title']}\n\n`{facts['command']}`, {facts['date']}\n",
        "| what | figure |",
        "| --- | --- |",
        *rows,
        "",
    ]
