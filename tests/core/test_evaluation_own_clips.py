"""`evaluate own-clips` and `by-heart`: what stands for a person's checkpoint and clips, and the commands that are given."""

import argparse
import json

import pytest
import torch

from lumiere_core.clips.media import read_video, write_mp4
from lumiere_core.commands.train import add_arguments
from lumiere_core.evaluation import narrow
from lumiere_core.evaluation.by_heart import first_second
from lumiere_core.evaluation.own_clips import RECIPE, read_recipe, table
from lumiere_core.evaluation.own_way import OwnWay, flags, graph
from lumiere_core.files import JsonLines
from lumiere_core.nets.checkpoint import load_file
from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.unet import patchify
from lumiere_core.text_files import read_json
from lumiere_core.training.given import options_for
from lumiere_core.training.option_page import given_options
from lumiere_core.world import render_clip, sample_scene

CLIPS = {"count": 3, "frames": 4, "fps": 8, "size": 32, "motions": ["moving up"], "backgrounds": ["plain black"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    narrow.write_checkpoint(folder)
    return folder


def test_the_checkpoint_has_the_names_of_sd_and_none_of_ours(base):
    state, metadata = load_file(base / "models" / "checkpoints" / narrow.CHECKPOINT)
    prefixes = {key.split(".")[0] for key in state}
    assert prefixes == {"model", "cond_stage_model", "first_stage_model"}
    assert not any(name.startswith("lumiere") for name in metadata)
    assert state["model.diffusion_model.input_blocks.0.0.weight"].shape[1] == 64
    assert (base / "custom_nodes" / "narrow.py").is_file()


def test_its_vae_keeps_what_a_clip_shows(base):
    checkpoint = base / "models" / "checkpoints" / narrow.CHECKPOINT
    clip = render_clip(sample_scene(3), 2, 16.0, height=64, width=96)
    basis = load_file(checkpoint)[0][narrow.VAE][:, :, 0, 0].T.unflatten(1, (3, 8, 8))
    latents = patchify(clip.transpose(0, 1), 8, basis).transpose(0, 1)
    again = narrow.decode(checkpoint, latents)
    assert latents.shape == (64, 2, 8, 12) and again.shape == clip.shape
    assert -10 * torch.log10(((again - clip) / 2).square().mean()) > 28


def test_no_prompt_asks_for_what_a_clip_shows(tmp_path):
    recipe = read_json(RECIPE)
    clips = recipe["clips"]
    found = narrow.scenes("train", 0, clips["motions"], clips["backgrounds"])
    shown = [next(found).attributes for _ in range(60)]
    asked = [scene.attributes for scene in narrow.prompts(recipe["prompts"], clips)]
    names = ("colour", "shape", "motion", "background")
    assert not {tuple(a[n] for n in names) for a in asked} & {tuple(a[n] for n in names) for a in shown}
    for some in (shown, asked):
        counts = [sum(a["motion"] == motion for a in some) for motion in clips["motions"]]
        assert max(counts) == min(counts)


def test_clips_are_written_once_with_their_captions(tmp_path):
    assert narrow.write_clips(tmp_path, CLIPS) == 3
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(before) == {f"000{n}.{kind}" for n in range(3) for kind in ("mp4", "txt")}
    assert read_video(tmp_path / "0000.mp4")[0].shape == (4, 32, 32, 3)
    narrow.write_clips(tmp_path, CLIPS)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_recipe_s_variants_differ_only_in_what_they_name():
    recipe, parser = read_json(RECIPE), argparse.ArgumentParser()
    add_arguments(parser)
    for variant in recipe["variants"].values():
        given = recipe["options"] | variant.get("options", {})
        words = parser.parse_args(["temporal", *flags(given)])
        options_for("temporal", "cached-clips", given_options(words))
        TemporalConfig.from_dict(variant.get("temporal", {}))
    assert "temporal" not in recipe["variants"]["lumiere"]  # what the trainer does by itself


@pytest.fixture
def way(tmp_path):
    """A folder with a checkpoint that nobody reads."""
    path = tmp_path / "base" / "models" / "checkpoints" / narrow.CHECKPOINT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    return OwnWay(tmp_path, 1)


def test_a_variant_trains_in_turns_and_goes_on(way, tmp_path, monkeypatch):
    calls = []

    def run(self, *words):
        calls.append(words)
        folder = tmp_path / "bare"
        folder.mkdir(exist_ok=True)
        for name in ("state", "temporal"):
            (folder / f"{name}.safetensors").write_bytes(b"x")
        JsonLines(folder / "log.jsonl").append({"step": 7 * len(calls)})

    monkeypatch.setattr(OwnWay, "_run", run)
    recipe = read_json(RECIPE)
    for minutes in (2.0, 1.5):
        way.train("bare", recipe, minutes, tmp_path / "cache")
    assert way.trained("bare") == 3.5 and way.steps("bare") == 14
    assert not way.train_until(3.5, "bare", recipe, tmp_path / "cache") and len(calls) == 2
    assert "--resume" not in calls[0] and "--resume" in calls[1]
    assert calls[0][calls[0].index("--placed") + 1] == "0"
    for _ in range(2):  # once
        way.finish(6, "bare", recipe, tmp_path / "cache")
    assert len(calls) == 3 and calls[2][calls[2].index("--steps") + 1] == "20"
    assert float(calls[2][calls[2].index("--decay-from") + 1]) == 14 / 20
    config = json.loads((tmp_path / "bare.json").read_text())
    assert config == {"temporal": recipe["variants"]["bare"]["temporal"]}
    assert (way.base / "models" / "lumiere" / "bare.safetensors").is_file()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "no recipe of own-clips"),
        (("variants",), None, "no recipe of own-clips"),
        (("variants",), {}, "it has no variants"),
        (("clips", "fps"), float("nan"), "fps of the clips is nan"),
        (("clips", "count"), 10**18, "the counts are"),
        (("prompts",), "32", "the counts are"),
        (("clips", "motions"), ["levitating"], "motions are .'levitating'.; some of moving left"),
        (("clips", "backgrounds"), [], r"backgrounds are \[\]"),
        (("sampling",), 3, "options that are none"),
    ],
)
def test_another_file_is_no_recipe(tmp_path, path, value, message):
    """A word that the world does not know would be looked for without an end."""
    recipe = read_json(RECIPE)
    at = recipe
    for name in path[:-1]:
        at = at[name]
    if path:
        at[path[-1]] = value
    (tmp_path / "recipe.json").write_text(json.dumps(recipe if path else value))
    with pytest.raises(ValueError, match=f"recipe.json is no recipe of own-clips.*{message}|{message}"):
        read_recipe(tmp_path / "recipe.json")


def test_a_failed_command_ends_the_proof_with_its_name(way, tmp_path, capfd):
    with pytest.raises(ValueError, match="prepare .* ended with status 1"):
        way.prepare(tmp_path / "nothing", tmp_path / "cache", CLIPS)


def test_the_graph_is_of_stock_loaders_and_says_where_the_prompt_goes():
    nodes = graph("own.safetensors", read_json(RECIPE))
    kinds = {node["class_type"] for node in nodes.values()}
    assert {"CheckpointLoaderSimple", "LumiereApplyTemporal", "VAEDecode", "SaveVideo"} <= kinds
    assert nodes["prompt"]["inputs"]["text"] == "{prompt}"


def test_the_table_marks_what_falls_short():
    line = {"variant": "a", "minutes": 4.0, "step": 9, "right": {"motion": True, "colour": False}, "flicker_ratio": 1.2}
    text = table([line, {**line, "flicker_ratio": 1.4}], {"variants": {"a": {"title": "one"}}})
    assert "| one | 4, 9 | 2 | 2 of 2 | **0 of 2** | 0 of 2 | 1.30 |" in text


def test_the_first_second_of_a_clip_is_cut_to_the_size_of_the_cache(tmp_path):
    frames = torch.randint(0, 256, (1, 90, 120, 3), dtype=torch.uint8).expand(20, -1, -1, -1)
    write_mp4(tmp_path / "a.mp4", frames)
    found = first_second(tmp_path / "a.mp4")
    assert found.shape[0] == 16 and found.shape[1] % 32 == found.shape[2] % 32 == 0
    write_mp4(tmp_path / "b.mp4", frames[:9])
    with pytest.raises(ValueError, match="b.mp4 has 9 frames"):
        first_second(tmp_path / "b.mp4")
