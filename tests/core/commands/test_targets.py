"""What cannot be written is said before anything is loaded, fetched or made."""

import json

import pytest

from lumiere_core.commands.cli import main


@pytest.fixture
def nothing_loads(monkeypatch):
    """Loading weights, encoders and packages fails the test."""

    def refuse(*_, **__):
        pytest.fail("work began before the target was looked at")

    for place in (
        "lumiere_core.diffusion.models.load_models",
        "lumiere_core.dataset.encoders.lumiere_encoders",
        "lumiere_core.nets.checkpoint.load_parts",
        "lumiere_core.nets.checkpoint.load_file",
        "lumiere_core.dataset.public.fetch",
        "lumiere_core.training.recipes.build",
        "lumiere_core.evaluation.runs.Worker",
    ):
        monkeypatch.setattr(place, refuse)


@pytest.fixture
def files(tmp_path):
    """Inputs for the verbs, and `taken`, a file that stands where a folder would have to be."""
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    (tmp_path / "clips").mkdir()
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"seed": 0, "positive": ["2", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}},
    }
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        "prepare {clips} --checkpoint lumiere-mini --output {taken}",
        "prepare {clips} --checkpoint a.safetensors --output {taken}/in/it",
        "sample --prompt x --output {taken}/clip.mp4",
        "sample --prompts {prompts} --output {taken}",
        "sample --prompts {prompts} --output {taken} --sheet",
        "double --output {taken}",
        "average a.safetensors b.safetensors --shares 0.5 0.5 --output {taken}/c.safetensors",
        "gather photographs --output {taken}",
        "world --output {taken}/clip.mp4",
        "train --recipe mini --output {taken}",
        "evaluate prompts --workflow {graph} --output {taken}",
        "evaluate study {clips} {clips} --output {taken}",
    ],
)
def test_a_place_that_cannot_be_written(nothing_loads, files, capsys, arguments):
    names = {
        "clips": files / "clips",
        "taken": files / "taken",
        "prompts": files / "prompts.txt",
        "graph": files / "graph.json",
    }
    assert main([word.format(**names) for word in arguments.split()]) == 1
    assert "error: cannot write into" in capsys.readouterr().err
    assert (files / "taken").read_text() == "mine"


def test_every_clip_of_a_list_of_prompts_is_looked_at(nothing_loads, files, capsys):
    (files / "out" / "001.mp4").mkdir(parents=True)
    assert main(["sample", "--prompts", str(files / "prompts.txt"), "--output", str(files / "out")]) == 1
    assert "001.mp4 is a folder; the name of a file is wanted" in capsys.readouterr().err
    assert [path.name for path in (files / "out").iterdir()] == ["001.mp4"]
