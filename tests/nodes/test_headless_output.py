"""The scripts that the evaluations start answer in UTF-8 on any console, and nothing that a host prints is taken for an answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lumiere_core import host_process
from lumiere_core.host_process import Worker, WorkerError

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
    answer = done.stdout.decode("utf-8")
    assert done.returncode == 0 and answer.startswith("failed: ") and "舟" in answer, done.stderr[-500:]


TALKER = """
import sys; sys.path.insert(0, {folder!r})
from boot import take_stdout
say = take_stdout()
print("failed: a pack's own words"); print("done"); print("\\udcff")
say("ready")
for line in sys.stdin:
    print("done"); sys.stdout.flush()
    if "end" in line:
        sys.stderr.write("killed by the weather"); sys.exit(3)
    say("done with 舟\\nand more")
"""


def test_what_packs_print_is_no_answer(tmp_path, monkeypatch):
    (tmp_path / "talker.py").write_text(TALKER.format(folder=str(SCRIPTS)), encoding="utf-8")
    monkeypatch.setattr(host_process, "SCRIPTS", tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:backslashreplace")
    worker = Worker("talker")
    assert worker.ask({"prompt": "舟"}) == "with 舟 and more"
    with pytest.raises(WorkerError, match="ended without an answer .exit status 3.. killed by the weather"):
        worker.ask({"prompt": "end"})
    with pytest.raises(WorkerError, match="ended without an answer"):
        worker.ask({"prompt": "more"})
    worker.close()
