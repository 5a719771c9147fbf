"""Noise of frame i depends on the seed, the step and i, and on nothing else."""

import itertools

import pytest
import torch

from lumiere_core.diffusion.noise import COMMON, frame_noise

SHAPE = (3, 8, 8)


def test_a_frame_does_not_depend_on_the_clips_length():
    long = frame_noise(7, 80, SHAPE)
    for frames in (1, 2, 16, 79):
        assert torch.equal(frame_noise(7, frames, SHAPE), long[:frames])


def test_a_window_is_a_slice_of_the_clip():
    clip = frame_noise(7, 40, SHAPE, step=3)
    assert torch.equal(frame_noise(7, range(14, 30), SHAPE, step=3), clip[14:30])
    assert torch.equal(frame_noise(7, [39, 0, 5], SHAPE, step=3), clip[[39, 0, 5]])


def test_seeds_steps_and_frames_all_give_other_noise():
    drawn = [
        frame_noise(seed, [frame], SHAPE, step)
        for seed, frame, step in itertools.product((0, 1, -1, 2**63), range(3), range(3))
    ]
    for first, second in itertools.combinations(drawn, 2):
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(correlation) < 0.4  # 192 values: chance gives about 0.07


def test_noise_is_standard_normal_and_white():
    noise = frame_noise(3, 64, (3, 16, 16))
    assert noise.shape == (64, 3, 16, 16) and noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert (noise[1:] * noise[:-1]).mean().item() == pytest.approx(0, abs=0.02)


def test_frames_have_the_share_that_is_asked_for_in_common():
    noise = frame_noise(3, 12, (3, 32, 32), step=2, share=0.8).flatten(1)
    assert noise.std().item() == pytest.approx(1, abs=0.03)
    apart = ~torch.eye(12, dtype=torch.bool)
    assert torch.allclose(torch.corrcoef(noise)[apart], torch.tensor(0.8), atol=0.03)


def test_what_frames_have_in_common_depends_on_the_seed_and_the_step_alone():
    clip = frame_noise(7, 40, SHAPE, step=3, share=0.8)
    assert torch.equal(frame_noise(7, range(14, 30), SHAPE, step=3, share=0.8), clip[14:30])
    own, common = frame_noise(7, 40, SHAPE, step=3), frame_noise(7, [COMMON], SHAPE, step=3)
    assert torch.allclose(clip, own * 0.2**0.5 + common * 0.8**0.5)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    wanted = torch.randn(3)
    torch.manual_seed(0)
    frame_noise(5, 4, SHAPE)
    assert torch.equal(torch.randn(3), wanted)


def test_values_never_change():
    """Seeds are in people's workflows: another algorithm would give them other clips."""
    got = frame_noise(42, [5], (1, 1, 3), step=2).flatten().tolist()
    assert got == pytest.approx([-1.150943, -1.499234, 0.705483], abs=1e-6)
