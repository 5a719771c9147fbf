"""Which videos there are, and their captions: a folder with .txt files, a JSONL file or a CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..text_files import lines_of, read_text, shown
from .index import MOST_WORDS

# A file of one of these without a caption is a video that lacks one; any other is tried if it has a caption.
SUFFIXES = {
    *(
        ".mp4 .mov .mkv .webm .avi .m4v .gif .mpg .mpeg .ts .m2ts .mts .m2t .wmv .flv .3gp .3g2 .ogv .ogg .mjpeg".split()
    ),
    *(".mjpg .apng .webp .mxf .vob .asf .divx .f4v .y4m .dv .rm .rmvb .h264 .hevc .avif .heic".split()),
}
LISTS = (".jsonl", ".csv")
PATH_NAMES = ("video_path", "path", "video", "file")
CAPTION_NAMES = ("caption", "text")
# What tells a folder of ours: a cache has both, a run has a state.
CACHE, RUN = ("dataset.json", "index.jsonl"), "state.safetensors"
BESIDE = {"clips.jsonl", "measures.csv", "sheet.jpg"}  # what `evaluate prompts` lays beside its clips


@dataclass(frozen=True)
class Source:
    """One video file with its caption.

    Attributes:
        problem: why it cannot be used.
        passing: the problem may be gone the next time, as that of a missing file.
    """

    path: Path
    caption: str = ""
    problem: str = ""
    passing: bool = False


def find_sources(where: Path, caption: str | None = None) -> list[Source]:
    """Return the videos of a folder (and of the folders in it), or those that a .jsonl or .csv file lists.

    A folder's captions lie beside the videos: `boat.mp4` and `boat.txt`. Lists have a path, relative to the list's
    folder, under `video_path` or `path`, and a text under `caption` or `text`. Every file and every row is in the
    answer, but for figures of `evaluate prompts`; what cannot be used has a `problem`.

    Args:
        caption: of videos that have none; without it they get a `problem`.

    Raises:
        ValueError: there is nothing of that kind at `where`, or the list is no text.
    """
    where = Path(where)
    if where.is_dir():
        sources = list(_beside(where))
    elif where.suffix.lower() in LISTS and where.is_file():
        rows = _jsonl(where) if where.suffix.lower() == ".jsonl" else _csv(where)
        sources = [_listed(row, where, number) for number, row in rows]
    else:
        raise ValueError(f"{shown(where)} is no folder of videos and no .jsonl or .csv list. Give one of them.")
    sources = [_captioned(source, caption) for source in sources]
    if not sources:
        raise ValueError(
            f"{shown(where)} holds no video; wanted is a folder of video files with a .txt caption of the same name "
            "each, or a list with a path and a caption in each row."
        )
    return sources


def _beside(folder: Path) -> Iterator[Source]:
    """Every file below a folder: a video with its caption, or why it is none."""
    for files in _folders(folder):
        if isinstance(files, Source):
            yield files
            continue
        if BESIDE <= {path.name for path in files}:
            files = [path for path in files if path.name not in BESIDE]
        stems = {path.stem for path in files if not _is_caption(path)}
        for path in files:
            if _is_caption(path):
                if path.stem not in stems:
                    yield Source(path, problem="a caption without a video of the same name")
                continue
            if path.name.startswith("."):
                yield Source(path, problem="a hidden file")
                continue
            text = path.with_suffix(".txt")
            words, problem = _caption_in(text) if text in files else ("", "")
            if path.suffix.lower() not in SUFFIXES and not words:
                problem = problem or f"not a known kind of video ({path.suffix or 'no suffix'}), and it has no caption"
            yield Source(path, words, problem)


def _folders(top: Path) -> Iterator[list[Path] | Source]:
    """Yield the sorted files of each folder; linked ones too, none twice; ours and those that cannot be read with why."""
    waiting, seen = [top], set()
    while waiting:
        folder = waiting.pop(0)
        try:
            real = folder.resolve()
            entries = sorted(folder.iterdir())
            folders = [entry for entry in entries if entry.is_dir()]
        except OSError as error:
            yield Source(folder, problem=f"a folder that cannot be read ({error.strerror or error})", passing=True)
            continue
        if real in seen:
            yield Source(folder, problem="a link to a folder that is looked through already")
            continue
        seen.add(real)
        names = {entry.name for entry in entries}
        if folder != top and (set(CACHE) <= names or RUN in names):
            yield Source(folder, problem="a cache or a run of this pack: what it made is no source")
            continue
        odd = [entry for entry in entries if entry.exists() and not (entry.is_file() or entry.is_dir())]
        yield from (Source(entry, problem="a pipe or a device, no file") for entry in odd)
        hidden = [entry for entry in folders if entry.name.startswith(".")]
        yield from (Source(entry, problem="a hidden folder") for entry in hidden)
        waiting += [entry for entry in folders if entry not in hidden]
        yield [entry for entry in entries if entry not in folders and entry not in odd]


def _is_caption(path: Path) -> bool:
    return path.suffix.lower() == ".txt"


def _caption_in(path: Path) -> tuple[str, str]:
    """Return (text, problem) of a caption's file."""
    try:
        return read_text(path, 1 << 20), ""
    except (OSError, ValueError) as error:
        return "", str(error)


def _jsonl(path: Path) -> list[tuple[int, object]]:
    rows = []
    for number, line in enumerate(lines_of(read_text(path)), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (ValueError, RecursionError) as error:  # numbers of 10,000 digits too
                rows.append((number, f"no JSON ({str(error)[:120]})"))
    return rows


def _csv(path: Path) -> list[tuple[int, object]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    rows: list[tuple[int, object]] = []
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return rows
        except csv.Error as error:  # a field of more than 128 KiB
            rows.append((reader.reader.line_num, f"no CSV row ({error})"))
        else:
            rows.append((reader.line_num, row))


def _listed(row: object, where: Path, number: int) -> Source:
    unknown = Path(f"{where.name}:{number}")
    if not isinstance(row, dict):
        return Source(unknown, problem=row if isinstance(row, str) else "no JSON object")
    name = next((row[k] for k in PATH_NAMES if row.get(k)), None)
    if not isinstance(name, str):
        return Source(unknown, problem=f"no path: wanted one of the fields {', '.join(PATH_NAMES)}")
    text = next((row[k] for k in CAPTION_NAMES if isinstance(row.get(k), str)), "")
    try:
        path = where.parent / name  # an absolute name stands for itself
        there = path.is_file()
    except (OSError, ValueError) as error:  # too long, a zero byte, half a character
        reason = getattr(error, "strerror", None) or str(error)
        return Source(unknown, problem=f"the path {shown(name[:40])!r} cannot be one ({reason})")
    return Source(path, text, "" if there else "no such file", passing=not there)


def _captioned(source: Source, caption: str | None) -> Source:
    text = " ".join(source.caption.split()) or (caption or "")
    problem = source.problem
    if not problem and not text and caption is None:
        problem = "no caption: write a .txt of the same name, or give --caption for all of them"
    if not problem and len(text) > MOST_WORDS:
        problem = f"a caption of {len(text):,} characters; at most {MOST_WORDS:,} are read"
    if not problem and shown(text) != text:
        problem = "the caption holds half a character (a surrogate), which no text can"
    return Source(source.path, text if not problem else "", problem, source.passing)
