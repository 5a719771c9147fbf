"""The plans for the minutes with a GPU, at small size on the CPU: that they run, keep what they have, and go on."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("plan", "bench", "pack", "gpu", "train")


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


def test_the_pack_s_photographs_are_small(gpu, tmp_path, monkeypatch):
    from lumiere_core.dataset import public

    def gathered(name, target):
        target.mkdir(parents=True)
        Image.new("RGB", (3000, 1000)).save(target / "a.png")
        return [target / "a.png"]

    monkeypatch.setattr(public, "gather", gathered)
    assert gpu.pack.main(["--photographs", "--target", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out" / "photographs" / "a.jpg") as picture:
        assert picture.size[0] == gpu.pack.WIDEST
    assert not (tmp_path / "out" / "photographs" / "a.png").exists()


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


@pytest.mark.parametrize("plan", ["bench", "nodes"])
def test_the_script_finds_its_own_modules(plan, tmp_path):
    """Run by its path, as `make gpu` does: the repository has a folder `nodes`, and the host a module."""
    script = ROOT / "tests" / "gpu" / "gpu.py"
    command = [
        sys.executable,
        str(script),
        plan,
        "--small",
        "--device",
        "cpu",
        "--minutes",
        "0",
        "--output",
        str(tmp_path),
    ]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 1 and "# no time was left for: " in result.stdout, result.stderr
    assert (tmp_path / f"{plan}.md").is_file()


def test_training_runs_every_stage_and_puts_down_what_it_learnt(gpu, tmp_path, capsys, monkeypatch):
    from lumiere_core.nets.checkpoint import load_parts

    photographs = tmp_path / "photographs"
    photographs.mkdir()
    Image.new("RGB", (300, 280), "red").save(photographs / "red.png")
    monkeypatch.setattr(gpu.train, "PHOTOGRAPHS", photographs)
    arguments = ["train", "--small", "--minutes", "60", "--device", "cpu", "--output", str(tmp_path)]
    assert gpu.gpu.main(arguments) == 0
    files = {file.stem: file for file in tmp_path.glob("*.safetensors")}
    assert set(files) == {stage.name for stage in gpu.train.STAGES}
    assert all(file.stat().st_size <= gpu.train.LARGEST for file in files.values())
    assert len(list(tmp_path.glob("*.*"))) <= 8  # files that come back
    clips = load_parts([files["image128"], files["clips128"]])
    assert clips.temporal_config.repeat_ends and clips.unet_config.patch_channels == 64
    assert clips.schedule["sigma_data"] == 2
    shipped = load_parts(gpu.train.WEIGHTS / "mini-ssr.safetensors")
    enlarging = load_parts(files["ssr_clips"])
    assert enlarging.temporal.keys() == shipped.temporal.keys()  # trained further, not afresh
    assert "steps" in capsys.readouterr().out


def test_a_stage_goes_on_and_its_rate_falls_at_the_end(gpu, tmp_path, monkeypatch):
    """A leg of a minute makes 50 steps here."""
    train, legs, now = gpu.train, [], [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])

    def leg(stage, output, device, more, small):
        made = legs[-1][0] if legs else 0
        minutes = more["minutes"]
        now[0] += 60 * minutes
        legs.append((min(made + round(50 * minutes), more.get("steps", 10**9)), more))
        return legs[-1][0]

    monkeypatch.setattr(train, "one_leg", leg)
    assert train.learn(train.STAGES[0], tmp_path, "cpu", 4.0, small=False) == 200
    flat = [more for _, more in legs if "steps" not in more]
    falling = [more for _, more in legs if "steps" in more]
    assert sum(more["minutes"] for more in flat) == pytest.approx(2.6) and len(falling) == 2
    assert {more["steps"] for more in falling} == {200}
    assert falling[0]["decay_from"] == pytest.approx(130 / 200)


def test_what_came_back_is_gone_on_from(gpu, tmp_path):
    train = gpu.train
    image, clips = train.STAGES[:2]
    start = tmp_path / "state" / "doubled"
    assert train.files(clips, tmp_path).init_from == start / "temporal.safetensors"
    assert train.files(clips, tmp_path).image == start / "image.safetensors"
    for name in ("image128", "clips128"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert (
        train.files(image, tmp_path).init_from
        == train.files(clips, tmp_path).image
        == tmp_path / "image128.safetensors"
    )
    assert train.files(clips, tmp_path).init_from == tmp_path / "clips128.safetensors"
