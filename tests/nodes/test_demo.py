"""The demo's own logic; the whole demo runs in tests/workflows."""

import io
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GRAPH = {
    "1": {"class_type": "LumiereTextEncode", "inputs": {"text": "a ball"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "3": {"class_type": "SomeCondition", "inputs": {"positive": ["1", 0], "negative": ["2", 0]}},
    "4": {
        "class_type": "KSampler",
        "inputs": {"positive": ["3", 0], "negative": ["3", 1], "seed": 5, "steps": 2},
    },
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


def test_seed_is_found(demo):
    assert demo.find_seed(GRAPH) == ("4", "seed")


def test_a_graph_without_prompt_or_seed_is_refused(demo):
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    with pytest.raises(demo.DemoError, match="positive"):
        demo.find_prompt(graph)
    with pytest.raises(demo.DemoError, match="seed"):
        demo.find_seed(graph)


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
