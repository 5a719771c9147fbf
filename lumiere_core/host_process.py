"""Scripts of `nodes/headless/` that boot the host, started as processes of their own: core never imports them."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
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

    It answers "done" or "failed: …"; what else the host prints is passed over.

    Raises:
        WorkerError: it is not ready.
    """

    def __init__(self, name: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            script_command(name, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ,
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
        except BrokenPipeError:
            raise WorkerError("the host's process has ended") from None
        return self._wait_for("done")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        atexit.unregister(self._process.kill)

    def _wait_for(self, word: str) -> str:
        for line in self._process.stdout:
            if line.startswith("failed"):
                raise WorkerError(line.removeprefix("failed:").strip())
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise WorkerError("the host's process ended without an answer")
