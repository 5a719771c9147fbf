"""One JSON line for each case that was run, in a file that is kept with the code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

Record = dict[str, object]


def fingerprint(names: dict[str, str]) -> str:
    """One hash for the hashes of several files, whatever their names."""
    return hashlib.sha256("|".join(sorted(names.values())).encode()).hexdigest()


class Store:
    """Records by (case, run), where a run is the weights and the settings of the sampling."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All complete lines; one that a kill cut short is left out."""
        records = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def of_run(self, run: Record) -> dict[str, Record]:
        """The latest record of every case under the same weights and settings, by case id."""
        return {
            str(record["case"]): record
            for record in self.read()
            if all(record.get(name) == value for name, value in run.items())
        }

    def append(self, record: Record) -> None:
        """Add one line in a single write, so that two writers do not mix."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, ensure_ascii=False) + "\n"
        if self._cut_short():
            line = "\n" + line
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def keep(self, records: list[Record]) -> None:
        """Replace the file's lines, by way of a temporary name."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        partial.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
        os.replace(partial, self.path)

    def _cut_short(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
