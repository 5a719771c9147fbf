"""One JSON line for each case that was run, in a file that is kept with the code."""

from __future__ import annotations

import hashlib

from ..files import JsonLines, Record


def fingerprint(names: dict[str, str]) -> str:
    """One hash for the hashes of several files, whatever their names."""
    return hashlib.sha256("|".join(sorted(names.values())).encode()).hexdigest()


class Store(JsonLines):
    """Records by (case, run), where a run is the weights and the settings of the sampling."""

    def of_run(self, run: Record) -> dict[str, Record]:
        """The latest record of every case under the same weights and settings, by case id."""
        return {
            record["case"]: record
            for record in self.read()
            if isinstance(record.get("case"), str) and all(record.get(name) == value for name, value in run.items())
        }
