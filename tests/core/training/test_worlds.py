"""Batches of the procedural world follow from the numbers of their samples alone."""

import pytest
import torch

from lumiere_core import world
from lumiere_core.training.draws import Draws
from lumiere_core.training.options import TrainOptions
from lumiere_core.training.sources.scenes import Scenes, scenes_of
from lumiere_core.training.sources.worlds import StyledStills, WorldClips, WorldStills
from lumiere_core.world.styles import stylise

SMALL = {"batch_size": 4, "height": 16, "width": 16, "num_frames": 8, "text_dropout": 0.0}


@pytest.fixture
def make(tiny):
    """Function (class, options …) -> a source with the tiny text encoder; `known` is the source's own."""

    def build(kind, known=None, **changes):
        from lumiere_core.diffusion.models import Models

        options = TrainOptions(**SMALL | changes)
        more = {} if known is None else {"known": known}
        return kind(options, Models(tiny.text(), None, None, None).encode, **more)

    return build


def same(first, second):
    assert torch.equal(first.x0, second.x0) and torch.equal(first.text.context, second.text.context)
    for name in ("objects", "known"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None) and (a is None or torch.equal(a, b))
    assert all(torch.equal(v, second.more[k]) for k, v in first.more.items())


@pytest.mark.parametrize("kind", [WorldStills, WorldClips, StyledStills])
def test_a_batch_is_always_the_same_and_two_small_ones_are_a_big_one(make, kind):
    """However batches are asked for: alone, with others, or by two processes with half of the samples."""
    options = {"object_weight": 1.0, "style": "watercolor", "text_dropout": 0.3}
    source = make(kind, **options)
    alone, (first, second) = source.draw([1]), source.draw([0, 1])
    same(alone[0], second)
    assert first.number == 0 and second.number == 1 and second.samples == range(4, 8)
    small = make(kind, **options | {"batch_size": 2}).draw([2, 3])
    assert torch.allclose(torch.cat([batch.x0 for batch in small]), second.x0, atol=1e-5)
    assert torch.allclose(torch.cat([batch.text.context for batch in small]), second.text.context, atol=1e-5)


def test_shapes_and_range(make):
    stills = make(WorldStills, object_weight=1.0).draw([0])[0]
    clips = make(WorldClips, known=True).draw([0])[0]
    assert stills.x0.shape == (4, 3, 1, 16, 16) and stills.objects.shape == (4, 1, 1, 16, 16)
    assert clips.x0.shape == (4, 3, 8, 16, 16) and clips.known.shape == (4, 4, 8, 16, 16)
    assert clips.more["numbers"].shape == (4, 8)
    for batch in (stills, clips):
        assert batch.x0.min() >= -1 and batch.x0.max() <= 1 and batch.x0.std() > 0.1


def test_no_scene_is_seen_twice_and_none_is_held_out():
    scenes = scenes_of(TrainOptions(), range(200))
    seeds = {scene.seed for scene in scenes}
    assert len(seeds) == 200 and not seeds & {s.seed for s in scenes_of(TrainOptions(seed=1), range(200))}
    assert not any(world.is_held_out(scene.family, scene.attributes) for scene in scenes)


def test_clips_are_windows_of_the_scene_at_its_frame_rate(make):
    """80 frames at 16 a second are the whole scene: no room for another start."""
    source = make(WorldClips, num_frames=80, batch_size=1)
    (batch,) = source.draw([3])
    whole = world.render_clip(scenes_of(source.options, [3])[0], 80, 16.0, 16, 16)
    assert torch.allclose(batch.x0[0], whole, atol=1e-4)
    assert torch.equal(batch.more["numbers"][0], torch.arange(80.0))


def test_windows_begin_where_their_frames_are_drawn(make):
    source = make(WorldClips, num_frames=4)
    (batch,) = source.draw([2])
    places = batch.more["numbers"]
    assert places.min() >= 0 and places.max() <= 79 and places[:, 0].std() > 5
    frames = world.render_frames([scenes_of(source.options, [9])[0]] * 4, places[1] / 16.0, 16, 16)
    assert torch.allclose(batch.x0[1], frames.transpose(0, 1), atol=1e-5)


def test_clips_may_have_lengths_of_their_own(make):
    """Whatever else is in the batch; half of the short ones begin where their scene does."""
    options = {"shortest": 2, "num_frames": 96, "known": True}
    source = make(WorldClips, batch_size=24, **options)
    batches = source.draw([0])
    lengths = {batch.x0.shape[2]: batch for batch in batches}
    assert len(lengths) == len(batches) > 4 and min(lengths) < 20 and max(lengths) > 70
    assert sorted(sample for batch in batches for sample in batch.samples) == list(range(24))
    starts = torch.cat([batch.more["numbers"][:, 0] for batch in batches if batch.x0.shape[2] < 60])
    assert 0.2 < (starts == 0).float().mean() < 0.8 and starts.max() > 5
    alone = {
        sample: b
        for n in range(24)
        for b in make(WorldClips, batch_size=1, **options).draw([n])
        for sample in b.samples
    }
    for batch in batches:
        for row, sample in enumerate(batch.samples):
            assert torch.allclose(batch.x0[row], alone[sample].x0[0], atol=1e-5)
            assert torch.equal(batch.known[row, -1], alone[sample].known[0, -1])


def test_a_clip_of_more_frames_than_a_scene_shows_it_more_slowly(make):
    source = make(WorldClips, batch_size=1, shortest=96, num_frames=96)
    (batch,) = source.draw([3])
    assert batch.more["clip_frames"] == 96 and torch.equal(batch.more["numbers"][0], torch.arange(96.0))
    times = torch.arange(96) * (80 / 96 / 16)
    frames = world.render_frames([scenes_of(source.options, [3])[0]] * 96, times, 16, 16)
    assert torch.allclose(batch.x0[0], frames.transpose(0, 1), atol=1e-5)


@pytest.mark.parametrize("shortest", [1, 9])
def test_impossible_lengths_are_refused(shortest):
    with pytest.raises(ValueError, match=f"--shortest is {shortest} and --num-frames 8"):
        TrainOptions(shortest=shortest, num_frames=8).refuse("clips", ["shortest"])


def test_what_is_known_is_the_clean_clip(make):
    (batch,) = make(WorldClips, known=True, batch_size=8).draw([0])
    clip, mask = batch.known.split([3, 1], dim=1)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(clip, batch.x0 * mask)


def test_prompts_are_dropped_at_the_wanted_rate(make):
    source = make(WorldStills, text_dropout=0.3)
    dropped = sum(caption == "" for caption in source.drop(["a"] * 2000, range(2000)))
    assert 0.25 < dropped / 2000 < 0.35
    assert make(WorldStills).drop(["a", "b"], [0, 1]) == ["a", "b"]


def test_styled_stills_are_the_world_s_in_the_style(make):
    source = make(StyledStills, style="neon", batch_size=16, object_weight=1.0)
    (batch,), (plain,) = source.draw([0]), make(WorldStills, batch_size=16).draw([0])
    assert (batch.x0 - plain.x0).abs().mean() > 0.05 and batch.objects.shape == (16, 1, 1, 16, 16)
    assert (stylise(batch.x0[:, :, 0], "neon") - batch.x0[:, :, 0]).abs().mean() > 0.01


def test_draws_of_uses_and_samples_differ():
    first = [Draws(0, [sample], stream).uniform().item() for sample in range(3) for stream in range(3)]
    assert len(set(first)) == 9
    both, alone = Draws(0, [3, 4], 1), Draws(0, [4], 1)
    assert torch.equal(both.normal((2, 3))[1], alone.normal((2, 3))[0])


@pytest.mark.parametrize("first", [0, 1000])
def test_noise_levels_of_any_samples_fill_the_range(first):
    levels = Draws(0, range(first, first + 16), 1).spread().sort().values
    assert levels.diff().max() < 2.7 / 16


def test_more_captions_name_a_motion_where_that_is_asked_for():
    def moving(share):
        scenes = scenes_of(TrainOptions(moving_share=share), range(200))
        assert scenes == scenes_of(TrainOptions(moving_share=share), range(200))
        assert not any(world.is_held_out(s.family, s.attributes) for s in scenes)
        told = [{s.attributes["direction"], s.attributes["motion"]} != {"none"} for s in scenes]
        return sum(told) / len(scenes)

    assert moving(1.0) == 1.0
    assert moving(0.0) + 0.05 < moving(0.5) < 0.95


def test_those_captions_name_the_motions_that_are_asked_for():
    wanted = {"bouncing", "walking figure"}
    scenes = scenes_of(TrainOptions(moving_share=1.0, moving="bouncing, walking figure"), range(20, 40))
    assert all({s.family, s.attributes["motion"]} & wanted for s in scenes)
    assert {s.family for s in scenes} == {"shape", "walking figure"}
    with pytest.raises(ValueError, match="jumping.*bouncing"):
        Scenes(TrainOptions(moving_share=1.0, moving="jumping"))


def test_scenes_of_other_processes_are_the_same():
    options = TrainOptions(moving_share=0.5, seed=2)
    scenes = Scenes(options)
    assert scenes.processes == 0
    scenes.processes = 2
    assert scenes([range(3), range(3, 6)]) == [scenes_of(options, range(3)), scenes_of(options, range(3, 6))]
