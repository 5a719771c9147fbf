"""Scripts of `nodes/headless/` that boot the host, started as processes of their own: core never imports them."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1] / "nodes" / "headless"


def script_command(name: str, *arguments: object) -> list[str]:
    """Return the command that runs nodes/headless/`name`.py with this Python."""
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]


def run_verb(*arguments: object) -> int:
    """Run a verb of `nodes/headless/verbs.py`, which prints for itself; returns its exit status."""
    return subprocess.run(script_command("verbs", *arguments), check=False).returncode


class WorkerError(RuntimeError):
    """The script could not start, or failed at a job; the message is its own."""


class Worker:
    """A script of `nodes/headless/` that says "ready" and then does jobs, one JSON object a line, until this process ends.

    It answers "done" or "failed: …" in UTF-8; what else the host and its packs print goes elsewhere (`boot.take_stdout`).

    Raises:
        WorkerError: it is not ready.
    """

    def __init__(self, name: str, *arguments: object) -> None:
        self._said = tempfile.TemporaryFile()  # what it prints besides, for the message where it ends without an answer
        self._process = subprocess.Popen(
            script_command(name, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            encoding="utf-8",
            errors="replace",
        )
        atexit.register(self._process.kill)
        self._wait_for("ready")

    def ask(self, job: dict[str, Any]) -> str:
        """Do a job and return what follows "done".

        Raises:
            WorkerError: the job failed, or the process ended.
        """
        try:
            self._process.stdin.write(f"{json.dumps(job)}\n")
            self._process.stdin.flush()
        except OSError:  # a broken pipe; Windows calls it an invalid argument
            raise WorkerError(self._end()) from None
        return self._wait_for("done")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._said.close()
        atexit.unregister(self._process.kill)

    def _wait_for(self, word: str) -> str:
        for line in self._process.stdout:
            if line.startswith("failed"):
                raise WorkerError(line.removeprefix("failed:").strip())
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise WorkerError(self._end())

    def _end(self) -> str:
        """Say how the process ended, with the last that it printed."""
        status = self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f"the host's process ended without an answer (exit status {status}). {said[-1][:300] if said else ''}".strip()
