"""The plans for the minutes with a GPU, at small size on the CPU: that they run, keep what they have, and go on."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("plan", "bench", "pack", "gpu")


@pytest.fixture(scope="module")
def gpu():
    """The modules of tests/gpu, as when gpu.py is run as a script."""
    folders, before = [str(ROOT / "tests" / "gpu"), str(ROOT / "tests" / "benchmarks")], list(sys.path)
    names = (*MODULES, "figures", "sd15", "checkpoints", "reference_lumiere")  # other tests may know such modules
    kept = {name: sys.modules.pop(name, None) for name in names}
    sys.path[:0] = folders
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path[:] = before
    for name, module in kept.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def test_the_benchmark_measures_every_task_on_a_cpu(gpu, tmp_path, monkeypatch):
    bench = gpu.bench

    def absent():
        raise bench.reference_lumiere.Unavailable("it is not installed")

    monkeypatch.setattr(bench.reference_lumiere, "load", absent)
    tasks = bench.Bench("cpu", small=True).tasks()
    kept = gpu.plan.Kept(tmp_path / "bench.json", gpu.plan.machine("cpu"))
    assert gpu.plan.run(tasks, kept, gpu.plan.Deadline(60)) == []
    figures = {figure.name: figure for figure in kept.figures()}
    missing = {name for name, figure in figures.items() if figure.value is None}
    assert missing == {f"gpu.sd15.{n}.forward.ours_over_lumiere_pytorch" for n in (4, 8)}
    shares = [f.value for name, f in figures.items() if name.endswith("share_of_peak")]
    assert len(shares) == 3 * 2 * 2 and all(0 < share < 1 for share in shares)
    assert "gpu.windows.8_to_64.time" in figures and "gpu.sd15.8.forward.compiled_over_plain" in figures
    table = gpu.plan.table(kept)
    assert table.splitlines()[0] == gpu.plan.machine("cpu") and table.count("\n| gpu.") == len(figures)


def test_a_plan_goes_on_where_its_time_ended_and_survives_a_task_that_fails(gpu, tmp_path):
    plan, ran = gpu.plan, []

    def task(name, fail=False):
        def run():
            ran.append(name)
            if fail:
                raise RuntimeError("the card is on fire\nfor reasons")
            yield plan.Figure(f"x.{name}", 1.0, "s")

        return name, run

    tasks = [task("a", fail=True), task("b"), task("c")]
    first = plan.Kept(tmp_path / "x.json", "card")
    assert plan.run(tasks[:2], first, plan.Deadline(1)) == []
    assert plan.run(tasks, first, plan.Deadline(0)) == ["c"]
    again = plan.Kept(tmp_path / "x.json", "card")
    assert plan.run(tasks, again, plan.Deadline(1)) == []
    assert ran == ["a", "b", "c"]
    notes = {figure.name: (figure.value, figure.note) for figure in again.figures()}
    assert notes == {"a": (None, "RuntimeError: the card is on fire"), "x.b": (1.0, ""), "x.c": (1.0, "")}
    assert plan.Kept(tmp_path / "x.json", "another card").tasks == {}  # figures of two cards are not mixed
    assert not list(tmp_path.glob("*.partial"))


def test_the_pack_leaves_out_what_would_not_fit(gpu, tmp_path, capsys):
    host = tmp_path / "host"
    for name in ("main.py", "comfy/sd.py", "comfy/text_encoders/t5.py", "comfy/text_encoders/vocabulary/v.json"):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text("x")
    (host / "tests").mkdir()
    (host / "tests" / "t.py").write_text("x")
    assert gpu.pack.main(["--host", str(host), "--target", str(tmp_path / "out")]) == 0
    kept = {p.relative_to(tmp_path / "out" / "ComfyUI").as_posix() for p in (tmp_path / "out").rglob("*.py")}
    assert kept == {"main.py", "comfy/sd.py", "comfy/text_encoders/t5.py"}
    assert not list((tmp_path / "out").rglob("v.json"))
    assert "tracked" in capsys.readouterr().out
    assert gpu.pack.tracked_bytes() <= gpu.pack.TREE


def test_the_pack_says_when_it_is_too_large(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.pack, "LIMIT", 10)
    assert gpu.pack.main(["--target", str(tmp_path)]) == 1


def test_the_command_writes_figures_and_their_table(gpu, tmp_path, monkeypatch):
    only = lambda self: [("peak", self.matrix_peak)]  # noqa: E731
    bench = gpu.bench
    monkeypatch.setattr(bench.Bench, "tasks", only)
    assert gpu.gpu.main(["bench", "--small", "--output", str(tmp_path), "--device", "cpu"]) == 0
    assert "gpu.matrix_peak" in (tmp_path / "bench.md").read_text()
    assert list(json.loads((tmp_path / "bench.json").read_text())["tasks"]) == ["peak"]
    assert gpu.gpu.main(["bench", "--small", "--output", str(tmp_path / "b"), "--device", "cpu", "--minutes", "0"]) == 1
