"""Runs that are killed or interrupted from outside, as processes of the command line."""

import json
import random
import signal
import time

import pytest

from lumiere_core.commands.cli import main
from lumiere_core.nets.checkpoint import load_file, load_parts
from lumiere_core.training.log import Log

STATE = "state.safetensors"


@pytest.fixture
def arguments(tiny, tmp_path):
    """A function: the command line of a text run in one of the test's folders."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"text": tiny.text_config().to_dict()}))

    def train(folder, *more):
        options = "--batch-size 2 --steps 100000 --save-every 0 --threads 1"
        return [
            "train",
            "text",
            "--config",
            str(config),
            "--output",
            str(tmp_path / folder),
            *options.split(),
            *map(str, more),
        ]

    return train


@pytest.fixture
def start(spawn):
    """A function that starts a run and waits until it has saved more than `after` steps."""

    def begin(arguments, folder, after=0):
        process = spawn(*arguments)
        deadline = time.monotonic() + 300
        while not (folder / STATE).exists() or saved_steps(folder) <= after:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no state was saved within 5 minutes"
            time.sleep(0.02)
        return process

    return begin


def saved_steps(folder):
    return int(load_file(folder / STATE)[1]["step"])


def finish_and_compare(arguments, tmp_path, assert_same_files):
    """Resume the run in `killed` for two more steps, here, and compare with one that never stopped."""
    steps = saved_steps(tmp_path / "killed") + 2
    assert main(arguments("killed", "--resume", "--steps", steps)) == 0
    assert main(arguments("whole", "--steps", steps)) == 0
    for file in (STATE, "text.safetensors"):
        assert_same_files(tmp_path / "killed" / file, tmp_path / "whole" / file)
    losses = [[(r["step"], r["loss"]) for r in Log(tmp_path / f).read()] for f in ("killed", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == steps


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_any_moment_can_be_resumed(
    arguments, start, tmp_path, assert_same_files, monkeypatch, kills
):
    monkeypatch.setattr("lumiere_core.training.previews.readings", lambda *_: None)
    folder, after = tmp_path / "killed", 0
    for attempt in range(kills):
        process = start(arguments("killed", *["--resume"] * bool(attempt)), folder, after)
        time.sleep(random.random() * 0.3)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        after = saved_steps(folder)  # whatever the moment, the state is whole
    finish_and_compare(arguments, tmp_path, assert_same_files)


def test_a_run_that_is_interrupted_saves_and_ends_well(arguments, start, tmp_path, assert_same_files, monkeypatch):
    monkeypatch.setattr("lumiere_core.training.previews.readings", lambda *_: None)
    folder = tmp_path / "killed"
    process = start(arguments("killed"), folder)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    records = Log(folder).read()
    assert saved_steps(folder) == records[-1]["step"]  # no step is lost
    assert load_parts(folder / "text.safetensors").metadata["lumiere.step"] == str(len(records))
    assert not list(folder.glob(".*"))
    finish_and_compare(arguments, tmp_path, assert_same_files)
