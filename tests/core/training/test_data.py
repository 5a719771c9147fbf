"""Batches of the procedural world follow from (seed, step) alone."""

import dataclasses

import pytest
import torch

from lumiere_core import world
from lumiere_core.training.data import clips_at, generator_at, images_at, prompts_of, scenes_at, window_starts
from lumiere_core.training.options import TrainOptions

OPTIONS = TrainOptions(batch_size=4, height=16, width=16, num_frames=8, fps=16.0)


def test_a_steps_batch_is_always_the_same():
    for step in (0, 7):
        scenes = scenes_at(OPTIONS, step)
        assert scenes == scenes_at(OPTIONS, step)
        for make in (images_at, clips_at):
            ((images, objects),) = make([scenes], OPTIONS, [step], masks=True)
            steps = [step + 1, step]
            both = make([scenes_at(OPTIONS, s) for s in steps], OPTIONS, steps, masks=True)
            assert torch.equal(images, both[1][0]) and torch.equal(objects, both[1][1])
            assert torch.equal(images, make([scenes], OPTIONS, [step])[0][0])
        assert prompts_of(scenes, OPTIONS, step) == prompts_of(scenes, OPTIONS, step)


def test_no_scene_is_seen_twice_and_none_is_held_out():
    seeds = [scene.seed for step in range(50) for scene in scenes_at(OPTIONS, step)]
    assert len(set(seeds)) == 200
    other = dataclasses.replace(OPTIONS, seed=1)
    assert not set(seeds) & {scene.seed for step in range(50) for scene in scenes_at(other, step)}
    assert not any(
        world.is_held_out(scene.family, scene.attributes) for step in range(50) for scene in scenes_at(OPTIONS, step)
    )


def test_shapes_and_range():
    scenes = scenes_at(OPTIONS, 0)
    ((images, image_objects),) = images_at([scenes], OPTIONS, [0], masks=True)
    ((clips, clip_objects),) = clips_at([scenes], OPTIONS, [0], masks=True)
    assert images.shape == (4, 3, 16, 16) and clips.shape == (4, 3, 8, 16, 16)
    assert image_objects.shape == (4, 1, 16, 16) and clip_objects.shape == (4, 1, 8, 16, 16)
    for value in (images, clips):
        assert value.min() >= -1 and value.max() <= 1 and value.std() > 0.1


def test_clips_are_windows_of_the_scene_at_its_frame_rate():
    """80 frames at 16 a second are the whole scene: no room for another start."""
    options = dataclasses.replace(OPTIONS, num_frames=80)
    scenes = scenes_at(options, 3)[:1]
    whole = world.render_clip(scenes[0], 80, 16.0, 16, 16)
    assert torch.allclose(clips_at([scenes], options, [3])[0][0][0], whole, atol=1e-4)


def test_prompts_are_dropped_at_the_wanted_rate():
    options = dataclasses.replace(OPTIONS, batch_size=50, text_dropout=0.3)
    scenes = scenes_at(options, 0)
    dropped = sum(prompt == "" for step in range(40) for prompt in prompts_of(scenes, options, step))
    assert 0.25 < dropped / 2000 < 0.35
    none = dataclasses.replace(options, text_dropout=0.0)
    assert prompts_of(scenes, none, 0) == [scene.caption for scene in scenes]


def test_streams_of_random_numbers_differ():
    first = [
        torch.rand(1, generator=generator_at(OPTIONS, step, stream)).item() for step in range(3) for stream in range(3)
    ]
    assert len(set(first)) == 9


def test_windows_begin_where_their_frames_are_drawn():
    options = dataclasses.replace(OPTIONS, num_frames=4)
    scenes = scenes_at(options, 2)
    starts = window_starts(options, 2, 4)
    assert starts.min() >= 0 and starts.max() <= 76 and starts.std() > 5
    times = (starts[1] + torch.arange(4)) / options.fps
    frames = world.render_frames([scenes[1]] * 4, times, 16, 16)
    assert torch.allclose(clips_at([scenes], options, [2])[0][0][1], frames.transpose(0, 1), atol=1e-5)
    assert not window_starts(dataclasses.replace(OPTIONS, num_frames=80), 2, 4).any()


def test_more_captions_name_a_motion_where_that_is_asked_for():
    def moving(share):
        options = dataclasses.replace(OPTIONS, batch_size=40, moving_share=share)
        scenes = [scene for step in range(5) for scene in scenes_at(options, step)]
        assert scenes == [scene for step in range(5) for scene in scenes_at(options, step)]
        assert not any(world.is_held_out(s.family, s.attributes) for s in scenes)
        told = [{s.attributes["direction"], s.attributes["motion"]} != {"none"} for s in scenes]
        return sum(told) / len(scenes)

    assert moving(1.0) == 1.0
    assert moving(0.0) + 0.05 < moving(0.5) < 0.95


def test_those_captions_name_the_motions_that_are_asked_for():
    wanted = {"bouncing", "walking figure"}
    options = dataclasses.replace(OPTIONS, batch_size=20, moving_share=1.0, moving="bouncing, walking figure")
    scenes = scenes_at(options, 1)
    assert all({s.family, s.attributes["motion"]} & wanted for s in scenes)
    assert {s.family for s in scenes} == {"shape", "walking figure"}
    with pytest.raises(ValueError, match="jumping.*bouncing"):
        scenes_at(dataclasses.replace(options, moving="jumping"), 1)
