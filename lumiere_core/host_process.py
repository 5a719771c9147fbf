"""Scripts of `nodes/` that boot the host, started as processes of their own: core never imports them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NODES = Path(__file__).resolve().parents[1] / "nodes"


def script_command(name: str, *arguments: object) -> list[str]:
    """Return the command that runs nodes/`name`.py with this Python."""
    return [sys.executable, str(NODES / f"{name}.py"), *map(str, arguments)]


def run_verb(*arguments: object) -> int:
    """Run a verb of `nodes/cli.py`, which prints for itself; returns its exit status."""
    return subprocess.run(script_command("cli", *arguments), check=False).returncode
