"""A file of JSON lines that survives a kill at any moment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class JsonLines:
    """Records in a file, one a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Return all complete lines; one that a kill cut short is left out."""
        records = []
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def append(self, record: Record, durable: bool = False) -> None:
        """Add one line in a single write, so that two writers do not mix.

        Args:
            durable: wait until the disk has it; for records that took long to make.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _line(record)
        if self._cut_short():
            line = "\n" + line
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)

    def keep(self, records: list[Record]) -> None:
        """Replace the file's lines, by way of a temporary name."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        partial.write_text("".join(map(_line, records)), "utf-8")
        os.replace(partial, self.path)

    def _cut_short(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
