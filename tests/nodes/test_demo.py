"""The demo's own logic; the whole demo runs in tests/workflows."""

import io
import json
import os
from pathlib import Path

import pytest

from lumiere_core import files

ROOT = Path(__file__).resolve().parents[2]

GRAPH = {
    "1": {"class_type": "LumiereTextEncode", "inputs": {"text": "a ball"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "3": {"class_type": "SomeCondition", "inputs": {"positive": ["1", 0], "negative": ["2", 0]}},
    "4": {"class_type": "KSampler", "inputs": {"positive": ["3", 0], "negative": ["3", 1], "seed": 5, "steps": 2}},
}


@pytest.fixture(scope="module")
def demo(script):
    return script("demo")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def steps_of(demo, stream, seconds_per_step, total=4):
    now = [0.0]
    bar = demo.ProgressBar(stream, clock=lambda: now[0])
    bar("executing", {"node": "4"})
    for value in range(1, total + 1):
        now[0] += seconds_per_step
        for preview in (False, True):  # the host may report a step twice
            bar("progress", {"value": value, "max": total, "node": None, "preview": preview})
    bar("executing", {"node": None})
    return stream.getvalue()


def test_prompt_is_the_positive_one_even_through_a_conditioning_node(demo):
    assert demo.find_prompt(GRAPH) == ("1", "text")


def test_every_seed_is_set(demo):
    graph = json.loads(json.dumps(GRAPH))
    graph["5"] = {"class_type": "LumiereSuperResolution", "inputs": {"seed": 3, "noise_seed": 4}}
    assert demo.find_seeds(graph) == [("4", "seed"), ("5", "seed"), ("5", "noise_seed")]
    assert demo.fill_in(graph, None, None) == ("a ball", 5)
    assert graph["5"]["inputs"] == {"seed": 3, "noise_seed": 4}
    assert demo.fill_in(graph, "a star", 0) == ("a star", 0)
    assert graph["4"]["inputs"]["seed"] == 0 and graph["1"]["inputs"]["text"] == "a star"
    assert graph["5"]["inputs"] == {"seed": 0, "noise_seed": 0}


@pytest.mark.parametrize(
    ("environment", "arguments", "enlarged"), [("", [], False), ("0", [], False), ("1", [], True), ("", ["--hd"], True)]
)
def test_hd_chooses_the_workflow_with_super_resolution(demo, monkeypatch, environment, arguments, enlarged):
    monkeypatch.setenv("HD", environment)
    path = demo.read_options(arguments).workflow
    graph = demo.read_workflow(path)
    classes = [node["class_type"] for node in graph.values()]
    assert ("LumiereSuperResolution" in classes) == enlarged
    assert path.stem == f"Lumiere 0{1 + enlarged} - Text to Video{' HD' * enlarged}"
    demo.fill_in(graph, "a star", 11)
    seeds = [n["inputs"]["seed"] for n in graph.values() if "seed" in n["inputs"]]
    assert seeds == [11] * (1 + enlarged)
    given = demo.read_options([*arguments, "--workflow", "own.json"]).workflow
    assert given == Path("own.json")


class Media:
    """As much of lumiere_core.media as `publish` uses; one of its calls may fail."""

    def __init__(self, error=None):
        self.error = error

    def contact_sheet(self, frames, columns):
        return b"sheet"

    def xt_slice(self, frames):
        if self.error is not None:
            raise self.error
        return b"slice"

    def save_image(self, data, path):
        Path(path).write_bytes(data)


def published(demo, folder, media):
    import numpy as np

    folder.mkdir()
    clip = folder.with_suffix(".mp4")
    clip.write_bytes(b"clip")
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    return demo.publish(clip, frames, folder / "clip.mp4", media, files)


def test_clip_and_pictures_appear_together(demo, tmp_path):
    paths = published(demo, tmp_path / "out", Media())
    assert [p.name for p in paths] == ["clip.mp4", "clip_sheet.png", "clip_slice.png"]
    assert [p.read_bytes() for p in paths] == [b"clip", b"sheet", b"slice"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [p.name for p in paths]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_nothing(demo, tmp_path, error):
    with pytest.raises(type(error)):
        published(demo, tmp_path / "out", Media(error))
    assert not list((tmp_path / "out").iterdir())


def test_a_failure_while_renaming_leaves_nothing(demo, tmp_path, monkeypatch):
    def replace(path, target, really=os.replace):
        if target.name == "clip.mp4":  # the last of the three
            raise PermissionError(13, "Permission denied")
        really(path, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        published(demo, tmp_path / "out", Media())
    assert not list((tmp_path / "out").iterdir())


def test_a_full_disk_is_one_line_without_a_traceback(demo, monkeypatch, capsys):
    def run(options):
        raise OSError(28, "No space left on device", "clip.mp4")

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr("sys.argv", ["demo.py"])
    assert demo.main() == 1
    assert capsys.readouterr().err == "demo failed: [Errno 28] No space left on device: 'clip.mp4'\n"


def test_a_graph_without_prompt_or_seed_is_refused(demo):
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    with pytest.raises(demo.DemoError, match="positive"):
        demo.find_prompt(graph)
    with pytest.raises(demo.DemoError, match="seed"):
        demo.find_seeds(graph)


@pytest.mark.parametrize("content", ["{", "[]", "3", json.dumps({"nodes": [], "links": []})])
def test_what_is_no_api_workflow_is_refused(demo, tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(demo.DemoError, match=r"x\.json"):
        demo.read_workflow(path)


def test_output_names(demo, tmp_path):
    assert demo.output_path(f"{tmp_path}/a/clip.mp4", "p", 1) == tmp_path / "a" / "clip.mp4"
    folder = tmp_path / "folder"
    folder.mkdir()
    assert demo.output_path(str(folder), "A red ball!", 7) == folder / "a_red_ball_7.mp4"
    with pytest.raises(demo.DemoError, match=r"clip\.gif"):
        demo.output_path("clip.gif", "p", 1)


def test_progress_has_a_bar_and_the_time_left_on_a_terminal(demo):
    text = steps_of(demo, Terminal(), seconds_per_step=30)
    assert "step 2/4, 1:00 left" in text
    assert text.count("\r") == 4 and text.endswith("\n")


def test_progress_is_plain_lines_elsewhere(demo):
    text = steps_of(demo, io.StringIO(), seconds_per_step=2)
    assert "\r" not in text and "\x1b" not in text
    assert text.splitlines()[-1].strip() == "step 4/4, 0:00 left"
    assert len(text.splitlines()) < 4


def test_a_clip_that_is_not_what_was_asked_for_is_refused(demo, tmp_path):
    import av
    import numpy as np

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert demo.check_clip(path, 3, 16.0).shape == (3, 16, 16, 3)
    with pytest.raises(demo.DemoError, match="3 frames at 16 a second; wanted h264, 80"):
        demo.check_clip(path, 80, 16.0)
