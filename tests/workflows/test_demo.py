"""`make demo`'s command in a process of its own, with a very small model."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "api" / "Lumiere 01 - Text to Video.json"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, write_tiny):
    """A base folder with a tiny checkpoint, and the demo's workflow for it: 8 frames of 16x16, 2 steps."""
    base = tmp_path_factory.mktemp("demo")
    (base / "models" / "lumiere").mkdir(parents=True)
    write_tiny(base / "models" / "lumiere" / "tiny.safetensors")
    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    changes = {
        "LumiereLoader": {"checkpoint": "tiny.safetensors"},
        "EmptyLumiereLatentVideo": {"width": 16, "height": 16, "length": 8},
        "LumiereSampler": {"steps": 2},
        "ImageScale": {"width": 64, "height": 64},
    }
    for node in graph.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    workflow = base / "tiny.json"
    workflow.write_text(json.dumps(graph), encoding="utf-8")
    return base, workflow


def run_demo(comfyui, tiny, *arguments, **environment):
    base, workflow = tiny
    command = [sys.executable, str(ROOT / "nodes" / "headless" / "demo.py"), "--cpu", "--base", str(base)]
    return subprocess.run(
        [*command, "--workflow", str(workflow), *arguments],
        env={**os.environ, "COMFYUI_PATH": str(comfyui), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_demo_writes_clip_sheet_and_slice(comfyui, tiny, tmp_path):
    import av
    from PIL import Image

    clip = tmp_path / "new folder" / "clip.mp4"
    # Through the environment, as the Makefile does.
    done = run_demo(comfyui, tiny, PROMPT='a child\'s "green" star', SEED="3", OUT=str(clip))
    assert done.returncode == 0, done.stderr
    assert '"a child\'s "green" star", seed 3: 8 frames' in done.stdout
    assert "step 2/2" in done.stdout and "peak memory" in done.stdout
    names = {"clip.mp4", "clip_sheet.png", "clip_slice.png"}
    assert {path.name for path in clip.parent.iterdir()} == names
    assert all(str(clip.with_name(name)) in done.stdout for name in names)
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 16)
        assert len(list(container.decode(stream))) == 8
    assert Image.open(clip.with_name("clip_slice.png")).height == 8 * 4  # one line of pixels a frame
    assert not list((tiny[0] / "output").rglob("*.mp4")), "the host's own copy stayed behind"


def test_a_refused_run_says_why_and_writes_nothing(comfyui, tiny, tmp_path):
    out = tmp_path / "clip.mp4"
    done = run_demo(comfyui, tiny, "--seed", "-4", "--output", str(out))
    assert done.returncode == 1
    assert "demo failed: " in done.stderr and "seed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_bad_seed_is_refused_before_the_host_starts(comfyui, tiny):
    done = run_demo(comfyui, tiny, SEED="seven")
    assert done.returncode == 1
    assert "SEED=seven must be a whole number" in done.stderr
    assert "starting the host" not in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process")
def test_ctrl_c_ends_the_sampling_at_once_and_writes_nothing(comfyui, tiny, tmp_path):
    base, workflow = tiny
    graph = json.loads(workflow.read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "LumiereSampler":
            node["inputs"]["steps"] = 5000
    endless = tmp_path / "endless.json"
    endless.write_text(json.dumps(graph), encoding="utf-8")
    command = [sys.executable, str(ROOT / "nodes" / "headless" / "demo.py"), "--cpu", "--base", str(base)]
    command += ["--workflow", str(endless), "--output", str(tmp_path / "out" / "clip.mp4")]
    process = subprocess.Popen(
        command,
        env={**os.environ, "COMFYUI_PATH": str(comfyui)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell is started with Ctrl-C ignored, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for line in process.stdout:
            if "step" in line:
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert not list((tmp_path / "out").iterdir())
