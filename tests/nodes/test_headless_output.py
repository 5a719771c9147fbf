"""The scripts that the evaluations start answer on any console: a letter that it lacks is spelt out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "nodes" / "headless"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    ("script", "arguments"), [("workflows.py", ["舟.json", "", "1"]), ("context_windows.py", ["lumiere-mini", "1"])]
)
def test_the_reason_is_said_in_any_encoding(tmp_path, script, arguments, encoding):
    """A failure whose message names a file or a host's folder in other letters is an answer, not a traceback."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "COMFYUI_PATH": str(tmp_path / "größe 舟")}
    done = subprocess.run(
        [sys.executable, SCRIPTS / script, *arguments], env=environment, capture_output=True, timeout=100, cwd=tmp_path
    )
    answer = done.stdout.decode(encoding)
    assert done.returncode == 0 and answer.startswith("failed: ") and r"\u821f" in answer, done.stderr[-500:]
