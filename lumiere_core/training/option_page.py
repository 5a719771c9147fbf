"""How the options of training are shown: flags of the command line, and docs/options.md."""

from __future__ import annotations

import argparse
from typing import Any

from ..text_files import shown
from .options import EVERY, FIELDS, SOURCES, flag, kind_of


def described(name: str) -> str:
    """Return the help of an option, with its unit."""
    facts = FIELDS[name].metadata
    return (
        f"{facts['help']} ({facts['unit']})" if facts["unit"] and facts["unit"] not in facts["help"] else facts["help"]
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every option; one that is not given stays None."""
    group = parser.add_argument_group("options of the run (defaults depend on the stage and its source)")
    for name, field in FIELDS.items():
        kind, _ = kind_of(field)
        text = described(name).replace("%", "%%")
        if field.metadata["sources"] != EVERY:
            text += f"; for {', '.join(field.metadata['sources'])}"
        if kind is bool:
            group.add_argument(flag(name), action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            group.add_argument(flag(name), type=kind, help=text)


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that a command line gave."""
    given = {k: v for k in FIELDS if (v := getattr(arguments, k, None)) is not None}
    return {k: shown(v) if isinstance(v, str) else v for k, v in given.items()}  # no option is a path


def page() -> str:
    """Return docs/options.md: what each source is, and the table of options."""
    sources = "".join(f"- `{name}`: {about}\n" for name, about in SOURCES.items())
    return (
        "# Options of training\n\n"
        "Written by `python -m lumiere_core train --list-options`. Batches come from one of these sources, which follows from the\n"
        f"stage and from `--data`, `--checkpoint` and `--images`:\n\n{sources}\n"
        "An option that a source cannot honour (no mark) is refused by name before anything is loaded; a test tries every pair.\n"
        f"Defaults differ from stage to stage.\n\n{table()}"
    )


def table() -> str:
    """Return markdown: every option with its default, and the sources that honour it; the others refuse it by name."""
    lines = ["| option | default | meaning | " + " | ".join(SOURCES) + " |"]
    lines.append("| --- | --- | --- |" + " :-: |" * len(SOURCES))
    for name, field in FIELDS.items():
        default = (
            ""
            if field.default in ("", None)
            else f"{field.default:g}"
            if isinstance(field.default, float)
            else str(field.default)
        )
        marks = ["yes" if source in field.metadata["sources"] else "" for source in SOURCES]
        lines.append(f"| `{flag(name)}` | {default} | {described(name)} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"
