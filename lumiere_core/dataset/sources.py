"""Which videos there are, and their captions: a folder with .txt files, a JSONL file or a CSV file."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
PATH_NAMES = ("video_path", "path", "video", "file")
CAPTION_NAMES = ("caption", "text")


@dataclass(frozen=True)
class Source:
    """One video file with its caption; `problem` says why it cannot be used."""

    path: Path
    caption: str = ""
    problem: str = ""


def find_sources(where: Path, caption: str | None = None) -> list[Source]:
    """Return the videos of a folder (and of the folders in it), or those that a .jsonl or .csv file lists.

    A folder's captions lie beside the videos: `boat.mp4` and `boat.txt`. Lists have a path, relative to the list's
    folder, under `video_path` or `path`, and a text under `caption` or `text`.

    Args:
        caption: of videos that have none; without it they get a `problem`.

    Raises:
        ValueError: there is nothing of that kind at `where`.
    """
    where = Path(where)
    if where.is_dir():
        files = sorted(p for p in where.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        sources = [_beside(path) for path in files]
    elif where.suffix.lower() in (".jsonl", ".csv") and where.is_file():
        rows = _jsonl(where) if where.suffix.lower() == ".jsonl" else _csv(where)
        sources = [_listed(row, where, number) for number, row in rows]
    else:
        raise ValueError(f"{where} is no folder of videos and no .jsonl or .csv list. Give one of them.")
    if not sources:
        raise ValueError(
            f"{where} holds no video; wanted are files that end in {', '.join(SUFFIXES)}, "
            "or a list with a path and a caption in each row."
        )
    return [_captioned(source, caption) for source in sources]


def _beside(path: Path) -> Source:
    text = path.with_suffix(".txt")
    try:
        return Source(path, text.read_text("utf-8-sig") if text.is_file() else "")
    except UnicodeDecodeError:
        return Source(path, problem=f"{text.name} is not UTF-8 text")


def _jsonl(path: Path) -> list[tuple[int, object]]:
    rows = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                rows.append((number, f"no JSON ({error})"))
    return rows


def _csv(path: Path) -> list[tuple[int, object]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [(number, dict(row)) for number, row in enumerate(csv.DictReader(file), 2)]


def _listed(row: object, where: Path, number: int) -> Source:
    unknown = Path(f"{where.name}:{number}")
    if not isinstance(row, dict):
        return Source(unknown, problem=row if isinstance(row, str) else "no JSON object")
    name = next((row[k] for k in PATH_NAMES if row.get(k)), None)
    if not isinstance(name, str):
        return Source(unknown, problem=f"no path: wanted one of the fields {', '.join(PATH_NAMES)}")
    text = next((row[k] for k in CAPTION_NAMES if isinstance(row.get(k), str)), "")
    path = Path(name) if Path(name).is_absolute() else where.parent / name
    return Source(path, text, "" if path.is_file() else "no such file")


def _captioned(source: Source, caption: str | None) -> Source:
    text = " ".join(source.caption.split()) or (caption or "")
    problem = source.problem
    if not problem and not text and caption is None:
        problem = "no caption: write a .txt of the same name, or give --caption for all of them"
    return Source(source.path, text, problem)
