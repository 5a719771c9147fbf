"""Texts that people wrote, in whatever program: prompts, captions, lists, configurations."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

MOST = 256 * 2**20  # bytes
# The line ends of files. Python's splitlines knows more (U+2028, U+0085, \x0b, …), which are text inside a line.
LINE_END = re.compile(r"\r\n|\n|\r")
# Longer marks first: that of UTF-32 begins as that of UTF-16 does.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_text(path: str | Path, most: int = MOST) -> str:
    """Return a text in UTF-8, or in UTF-16 or UTF-32 with a mark at its beginning, as Notepad writes them.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is in another encoding (the line is named), or too large for a text.
    """
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} is larger than {most:,} bytes: no text that can be meant here.")
    mark, encoding = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", "utf-8"))
    data = data[len(mark) :]
    if not mark and b"\0" in data[:4096]:  # UTF-16 without a mark: half of the bytes of plain letters are zeros
        encoding = "utf-16-le" if data[1:4096:2].count(0) > data[0:4096:2].count(0) else "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(LINE_END.findall(data[: error.start].decode(encoding, "replace"))) + 1
        raise ValueError(
            f"{path.name} line {line} is not {encoding.upper()} text (byte {data[error.start]:#04x}); "
            "save the file as UTF-8."
        ) from None
    if "\0" in text:
        line = len(LINE_END.findall(text[: text.index("\0")])) + 1
        raise ValueError(f"{path.name} line {line} holds a zero byte: it is no text. Save the file as UTF-8.")
    return text


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file; its text is read as `read_text` does.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text or no JSON; the file and the place are named.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of 10,000 digits and brackets in brackets too
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{Path(path).name}{line} is no JSON that can be read ({str(error)[:120]}).") from error


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends."""
    lines = LINE_END.split(text)
    return lines[:-1] if lines and not lines[-1] else lines


def shown(value: str | Path) -> str:
    """Return a path or text as UTF-8 can write it: bytes of a file name that are no characters are spelt out.

    What a command line in the C locale gave as bytes is text again.
    """
    try:
        return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other halves of characters
        return str(value).encode("utf-8", "backslashreplace").decode()
