"""What `make bench` calls held: figures, the verdict of a run, a demo that fails."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("figures", "run", "demo", "world")  # other tests may know modules of these names


@pytest.fixture
def bench(monkeypatch):
    """The modules of tests/benchmarks, as when run.py is run as a script."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with monkeypatch.context() as path:
        path.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
        loaded = SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    yield loaded
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (dict(value=2.0), "x.y 2 s"),
        (dict(value=2.0, bar=2), "x.y 2 s (bar <= 2) ok"),
        (dict(value=2.5, bar=2), "x.y 2.5 s (bar <= 2) short"),
        (dict(value=2.0, bar=2, at_least=True), "x.y 2 s (bar >= 2) ok"),
        (dict(value=1.5, bar=2, at_least=True), "x.y 1.5 s (bar >= 2) short"),
        (dict(value=None, bar=2, note="why"), "x.y not measured (bar <= 2) short  # why"),
        (dict(value=None, bar=2, at_least=True), "x.y not measured (bar >= 2) short"),
        (dict(value=None, note="why"), "x.y not measured short  # why"),
    ],
)
def test_a_figure_s_line_and_verdict(bench, values, line):
    figure = bench.figures.Figure("x.y", unit="s", **values)
    assert figure.line() == line
    assert figure.holds == ("short" not in line)


def test_the_last_line_counts_bars_and_the_status_is_0_only_when_all_hold(bench, capsys):
    figure = bench.figures.Figure
    held, free = figure("a", 1.0, "s", 2), figure("b", 1.0, "s")
    assert bench.run.report([held, free, held]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bars held: 2/2"
    for bad in (figure("c", 3.0, "s", 2), figure("c", None, "s", 2), figure("c", None, "s")):
        assert bench.run.report([held, bad, free]) == 1
        assert capsys.readouterr().out.splitlines()[-2:] == ["# short: c", "bars held: 1/2"]


def test_steps_and_frames_are_the_workflow_s(bench):
    graph = json.loads((ROOT / "workflows" / "api" / "Lumiere 01 - Text to Video.json").read_text())
    (sampler,) = (n["inputs"] for n in graph.values() if n["class_type"] == "LumiereSampler")
    assert (bench.demo.FRAMES, bench.demo.STEPS) == (80, sampler["steps"])


def answer(monkeypatch, code, output="", errors=""):
    """Let every process that is started end like this; return the list of their commands."""
    commands = []

    def run(command, **_options):
        commands.append(command)
        return subprocess.CompletedProcess(command, code, output, errors)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_processes_that_fail_hold_no_bar(bench, monkeypatch):
    answer(monkeypatch, 1, errors="Traceback\nout of luck\n")
    figures = [*bench.demo.measure("wall", {}, 1), *bench.world.measure(1)]
    assert [f.name for f in figures] == [
        "demo.peak_memory",
        "demo.seconds",
        "demo.hd_seconds",
        "mini.sampled",
        "world.drawn",
    ]
    assert not any(f.holds for f in figures) and {f.note for f in figures} == {"out of luck"}


def test_the_demo_s_time_and_memory_have_bars(bench, monkeypatch):
    commands = answer(monkeypatch, 0, "took 181 s (…); peak memory 1.20 GiB\n{}\n")
    lines = [f.line() for f in bench.demo._demo({})]
    assert lines[0].startswith("demo.peak_memory 1.2 GiB (bar <= 4) ok")
    assert lines[1].startswith("demo.seconds 181 s (bar <= 180) short")
    (hd,) = bench.demo._demo_hd({})
    assert hd.line().startswith("demo.hd_seconds 181 s (bar <= 360) ok")
    assert "--hd" not in commands[0] and "--hd" in commands[1]
