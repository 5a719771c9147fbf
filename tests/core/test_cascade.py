"""A temporal cascade and what it is measured by: the world of rhythms, the measure, key frames, windows, the verb."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch

from lumiere_core.clips.conditioning import key_frames
from lumiere_core.clips.video import to_uint8
from lumiere_core.commands import evaluate as command
from lumiere_core.diffusion.generate import Request
from lumiere_core.diffusion.models import Models
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.evaluation import cascade
from lumiere_core.evaluation.cascade_clips import Plan, fill, key_clip
from lumiere_core.evaluation.rhythm import places_of, rhythm_in, rhythm_of
from lumiere_core.evaluation.rhythm_limits import ideal_places
from lumiere_core.training.given import options_for
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.recipes import Kitchen, load_recipe
from lumiere_core.training.sources.scenes import scenes_of
from lumiere_core.training.sources.worlds import WorldClips
from lumiere_core.world import render_clip, rhythm_scene, tempo_scene
from lumiere_core.world.rhythms import TEMPI, courses


def clip_of(scene, frames=80, side=32, **changes):
    """A real clip (t, h, w, 3) uint8 of a scene with other numbers."""
    changed = dataclasses.replace(scene, parameters={**scene.parameters, **changes})
    return to_uint8(render_clip(changed, frames, 16.0, height=side, width=side))


@pytest.fixture(scope="module")
def scenes():
    """A bouncing scene and a swinging one."""
    every = [rhythm_scene(seed) for seed in range(20)]
    return {motion: next(s for s in every if s.attributes["motion"] == motion) for motion in ("bouncing", "swinging")}


def test_no_word_tells_a_rhythm():
    scenes = [rhythm_scene(seed) for seed in range(400)]
    assert scenes == [rhythm_scene(seed) for seed in range(400)]
    periods = np.array([scene.parameters["periods"] for scene in scenes])
    assert periods.min() >= 2.5 and periods.max() <= 12 and 0.4 < (periods > 5).mean() < 0.7
    assert {scene.attributes["background"] for scene in scenes} == {"plain black"}
    by_words = {}
    for scene in scenes:
        assert scene.attributes["motion"] in ("bouncing", "swinging") and scene.attributes["colour"] in scene.caption
        by_words.setdefault(scene.caption, []).append(scene.parameters["periods"])
    repeated = next(found for found in by_words.values() if len(found) > 1)
    assert len(set(repeated)) == len(repeated)
    assert scenes_of(TrainOptions(scenes="rhythms", seed=3), range(4)) == [
        rhythm_scene(3 * 10**9 + n) for n in range(4)
    ]


@pytest.mark.parametrize("motion", ["bouncing", "swinging"])
@pytest.mark.parametrize("periods", [2.7, 5.0, 11.5])
def test_a_real_rhythm_is_found_and_kept(scenes, motion, periods):
    rhythm = rhythm_of(clip_of(scenes[motion], periods=periods), motion)
    assert rhythm.kept and rhythm.period == pytest.approx(80 / periods, rel=0.02) and rhythm.explained > 0.85


@pytest.mark.parametrize("motion", ["bouncing", "swinging"])
def test_a_rhythm_that_changes_stops_or_never_was_is_not_kept(scenes, motion):
    scene = scenes[motion]
    slow, fast = clip_of(scene, periods=4.0), clip_of(scene, periods=9.0)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    spoilt = {
        "another rhythm": torch.cat([slow[:40], fast[40:]]),
        "a stop": torch.cat([slow[:40], slow[40:41].expand(40, -1, -1, -1)]),
        "half a period skipped": torch.cat([slow[:40], slow[50:], slow[40:50]]),
        "shuffled": fast[order],
        "still": slow[:1].expand(80, -1, -1, -1),
        "nothing": torch.zeros_like(slow),
    }
    for name, clip in spoilt.items():
        assert not rhythm_of(clip, motion).kept, name
    assert rhythm_of(spoilt["nothing"], motion).period == 0 and rhythm_of(spoilt["still"], motion).period == 0
    assert places_of(spoilt["nothing"], motion) is None


def test_key_frames_tell_some_tempi_apart_and_others_not():
    """Every eighth frame of 80: three bounces and seven are the same pictures, five and nine are like no other."""
    clips = {n: clip_of(tempo_scene(4, n), frames=81, side=16) for n in TEMPI}
    for tempo, clip in clips.items():
        others = [other for n, other in clips.items() if n != tempo]
        apart = min((clip[::8].float() - other[::8].float()).abs().max() for other in others) > 32
        assert apart == cascade.told_apart(tempo)
        assert rhythm_of(clip[:80], "bouncing").kept
    assert [cascade.told_apart(tempo) for tempo in TEMPI] == [False, True, False, True]


def test_no_word_tells_a_tempo():
    scenes = [tempo_scene(seed) for seed in range(60)]
    assert {scene.parameters["periods"] for scene in scenes} == set(TEMPI)
    by_words = {}
    for scene in scenes:
        assert scene.attributes["motion"] == "bouncing" and scene.parameters["phase"] == 0.5
        by_words.setdefault((scene.attributes["colour"], scene.attributes["shape"]), set()).add(
            scene.parameters["periods"]
        )
    assert min(map(len, by_words.values())) > 1
    assert scenes_of(TrainOptions(scenes="tempi", seed=3), range(2)) == [tempo_scene(3 * 10**9 + n) for n in range(2)]


def test_a_plan_says_which_frames_are_key_frames():
    plan = Plan(80, every=8, intervals=2)
    assert (plan.keys, plan.window, plan.windows) == (11, 16, 5)
    with pytest.raises(ValueError, match="80 frames are no whole number of windows of 3 times 8 frames"):
        Plan(80, every=8, intervals=3)


def test_courses_are_where_the_object_is_drawn(scenes):
    for motion, scene in scenes.items():
        numbers = [torch.tensor([scene.parameters[name]]) for name in ("periods", "phase")]
        course = courses(scene, *numbers, torch.arange(80).float())[0]
        assert np.allclose(course, places_of(clip_of(scene, side=64), motion), atol=0.005)


def test_perfect_windows_fit_their_key_frames_and_lose_the_rhythm_all_the_same():
    found = {1: [], 2: [], 10: []}
    for seed in range(12):
        scene = rhythm_scene(10**6 + seed)
        numbers = [torch.tensor([scene.parameters[name]]) for name in ("periods", "phase")]
        true = courses(scene, *numbers, torch.arange(80).float())[0].numpy()
        for intervals, kept in found.items():
            places = ideal_places(scene, 80, 8, intervals, seed=seed)
            assert np.abs(places[::8] - true[::8]).max() < 0.08
            kept.append(rhythm_in(places).kept)
    assert all(found[10])  # one window of the whole clip has one rhythm
    assert np.mean(found[1]) < 0.3 and np.mean(found[2]) < 0.6


@pytest.fixture
def models(tiny):
    """A trained-looking tiny model that knows conditions and places."""
    config = tiny.temporal_config(conv_cond=True, coordinates=True, condition_channels=32)
    unet = tiny.unet()
    return Models(tiny.text(), unet, tiny.temporal(unet.config, config=config, trained=True), Schedule())


def test_windows_keep_their_key_frames_and_know_no_other_window(models):
    plan = Plan(16, every=4, intervals=2)
    request = Request("a red ball", num_frames=16, height=16, width=16, steps=2, cfg=1.0)
    keys = key_clip(models, request, plan)
    assert keys.shape == (1, 3, 5, 16, 16)
    clip = fill(models, keys, request, plan)
    assert plan.windows == 2 and clip.shape == (1, 3, 16, 16, 16)
    assert torch.allclose(clip[:, :, ::4], keys[:, :, :4], atol=1e-4)
    other = keys.clone()
    other[:, :, 3] += 0.5  # in the second window
    changed = fill(models, other, request, plan)
    assert torch.equal(changed[:, :, :8], clip[:, :, :8]) and not torch.allclose(changed[:, :, 9:12], clip[:, :, 9:12])
    other[:, :, 2] -= 0.5  # ends the first window and begins the second
    assert not torch.allclose(fill(models, other, request, plan)[:, :, 5:8], clip[:, :, 5:8])


def test_key_frames_are_trained_on_as_they_are_sampled(models):
    options = TrainOptions(scenes="rhythms", height=16, width=16, num_frames=5, every=4, batch_size=2, fps=4.0)
    (batch,) = WorldClips(options, models.encode).draw([0])
    assert torch.allclose(batch.more["numbers"].diff(dim=1), torch.full((2, 4), 4.0))
    assert batch.more["numbers"].max() < 20 and batch.x0.shape == (2, 3, 5, 16, 16)
    whole = dataclasses.replace(options, num_frames=17, every=1, known_every=8)
    (batch,) = WorldClips(whole, models.encode, known=True).draw([0])
    wanted = key_frames(batch.x0[:, :, ::8], [0, 8, 16], 17).tensor()
    assert torch.equal(batch.known, wanted)
    with pytest.raises(ValueError, match="known-every is for `train condition`"):
        options_for("temporal", "clips", {"known_every": 8})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The recipe with one step a stage."""
    folder = tmp_path_factory.mktemp("cascade")
    given = {"steps": 1, "batch_size": 1, "warmup": 1, "precision": "float32"}
    assert Kitchen(load_recipe("cascade"), folder, given).run()
    return folder


def test_the_recipe_makes_all_three_models_around_one_image_model(trained):
    recipe = load_recipe("cascade")
    assert list(recipe.stages) == ["text", "image", *cascade.STAGES]
    unet, keys, tsr = (recipe.stages[name] for name in cascade.STAGES)
    assert {stage.image for stage in (unet, keys, tsr)} == {"image"} and not unet.start + keys.start + tsr.start
    assert {stage.options["seed"] for stage in (unet, keys, tsr)} == {unet.options["seed"]}  # the same clips
    assert keys.options["every"] == tsr.options["known_every"] == cascade.PLAN.every
    assert keys.options["num_frames"] == cascade.PLAN.keys and tsr.options["num_frames"] == cascade.PLAN.window + 1
    models = cascade.Cascade(argparse.Namespace(trained=trained, device="cpu")).models()
    strides = {name: model.temporal.total_stride for name, model in models.items()}
    assert strides == {"stunet": 4, "keyframes": 1, "tsr": 1}
    first = models["stunet"].unet.state_dict()
    assert all(torch.equal(first[k], v) for m in models.values() for k, v in m.unet.state_dict().items())


def test_the_verb_makes_its_lines_its_table_and_its_picture(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cascade, "STEPS", 1)
    monkeypatch.setattr(cascade, "SHEET", 1)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["cascade", "--trained", str(trained), "--results", str(tmp_path / "lines.jsonl")]
    options = parser.parse_args([*given, "--all", "--limit", "1", "--clips", str(tmp_path)])
    assert command.main(options) == 1  # one of many cases
    (line,) = [json.loads(text) for text in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert set(line["rhythms"]) == set(cascade.KINDS) and line["seen"]["real"]
    assert line["rhythms"]["real"]["period"] == pytest.approx(line["true_period"], rel=0.02)
    assert line["rhythms"]["real"]["off"] == 0 and set(line["sha256"]) == {"image", *cascade.STAGES}
    assert line["tflops"]["cascade, equal compute"] <= max(line["tflops"]["stunet"], line["tflops"]["cascade"])
    table = capsys.readouterr().out
    for text in (
        "stunet: rhythm kept",
        "perfect windows, periods of",
        "key frames that fit two tempi",
        "cost of a clip",
        "tsr: training",
    ):
        assert text in table
    assert (tmp_path / "cascade.png").stat().st_size < 60_000
    # The table alone needs no trained models; a check of stored lines says what it lacks.
    other = parser.parse_args([*given[:1], "--trained", str(tmp_path / "none"), *given[3:], "--check", "0"])
    assert command.main(other) == 1 and "rhythm kept" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="train --recipe cascade"):
        command.main(parser.parse_args([*given[:1], "--trained", str(tmp_path / "none"), *given[3:]]))
