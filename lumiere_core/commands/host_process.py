"""Scripts of `nodes/headless/` that boot the host, started as processes of their own: core never imports them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "nodes" / "headless"


def script_command(name: str, *arguments: object) -> list[str]:
    """Return the command that runs nodes/headless/`name`.py with this Python."""
    return [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]


def run_verb(*arguments: object) -> int:
    """Run a verb of `nodes/headless/verbs.py`, which prints for itself; returns its exit status."""
    return subprocess.run(script_command("verbs", *arguments), check=False).returncode
