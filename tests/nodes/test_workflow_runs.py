"""The script that runs any workflow on many prompts, and `evaluate prompts` through it on the real host."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))
# No network: the world is drawn, and the text says itself where the prompt goes.
DRAWN = {
    "1": {
        "class_type": "LumiereWorldClip",
        "inputs": {"prompt": "{prompt}", "seed": 0, "width": 32, "height": 32, "length": 6, "fps": 16.0},
    },
    "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 16.0, "bit_depth": 8}},
    "3": {
        "class_type": "SaveVideo",
        "inputs": {
            "video": ["2", 0],
            "filename_prefix": "runs/clip",
            "format": "mp4",
            "codec": "h264",
            "codec.encoding": "re-encode",
            "codec.encoding.crf": 12.0,
        },
    },
}


@pytest.fixture(scope="module")
def runner(script):
    return script("workflows")


def test_a_prompt_finds_its_place_in_every_text_template(runner):
    found = 0
    for path in TWINS:
        graph = json.loads(path.read_text())
        if sum(node["class_type"] == "LumiereTextEncode" for node in graph.values()) != 1:
            continue
        filled = runner.filled(graph, "a green fish", 77)
        (text,) = (node["inputs"] for node in filled.values() if node["class_type"] == "LumiereTextEncode")
        prompt = text["prompt"]
        if isinstance(prompt, list):  # of a primitive
            prompt = filled[prompt[0]]["inputs"]["value"]
        assert prompt == "a green fish" and text["negative_prompt"] != "a green fish", path.stem
        samplers = [node["inputs"] for node in filled.values() if node["class_type"] == "LumiereSampler"]
        assert all(inputs["seed"] == 77 for inputs in samplers)
        assert graph == json.loads(path.read_text())
        found += 1
    assert found >= 5


def test_a_marked_text_wins(runner):
    filled = runner.filled(DRAWN, "a red ball", 3)
    assert filled["1"]["inputs"]["prompt"] == "a red ball" and filled["1"]["inputs"]["seed"] == 3
    assert DRAWN["1"]["inputs"]["prompt"] == "{prompt}"


def test_pictures_become_an_mp4_and_nothing_is_refused(runner, tmp_path):
    from PIL import Image

    from lumiere_core.clips import media

    (tmp_path / "output").mkdir()
    files = []
    for number in range(3):
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / "output" / f"{number}.png")
        files.append({"filename": f"{number}.png", "subfolder": "", "type": "output"})
    runner.publish({"9": {"images": files}}, tmp_path, tmp_path / "clips" / "a.mp4", 8.0, media)
    frames, rate, _ = media.read_video(tmp_path / "clips" / "a.mp4")
    assert len(frames) == 3 and rate == 8
    with pytest.raises(ValueError, match="no video and no two pictures"):
        runner.publish({"9": {"text": ["x"]}}, tmp_path, tmp_path / "b.mp4", 8.0, media)


def test_evaluate_prompts_on_the_real_host(headless, comfyui, tmp_path, monkeypatch, capsys):
    from lumiere_core.commands import cli

    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    base = tmp_path / "base"
    headless.prepare_base(base)
    (tmp_path / "drawn.json").write_text(json.dumps(DRAWN))
    (tmp_path / "prompts.txt").write_text("a red ball moving right on grass\na blue star spinning over the ocean\n")
    words = ["evaluate", "prompts", "--workflow", tmp_path / "drawn.json", "--prompts", tmp_path / "prompts.txt"]
    words += ["--output", tmp_path / "clips", "--base", base, "--threads", 1]
    assert cli.main([str(word) for word in words]) == 0
    assert "means of 2 clips" in capsys.readouterr().out
    clips = sorted((tmp_path / "clips").glob("*.mp4"))
    assert [clip.with_suffix(".txt").read_text() for clip in clips] == [
        "a red ball moving right on grass\n",
        "a blue star spinning over the ocean\n",
    ]
