"""Corrections that spread from what is known into what was made."""

import pytest
import torch

from lumiere_core.clips.blend import blend_known
from lumiere_core.clips.conditioning import Condition


def known_frames(clip, *frames):
    known = torch.zeros(clip.shape[0], 1, *clip.shape[2:])
    known[:, :, list(frames)] = 1
    return Condition(clip, known)


def known_outside(clip, left, right):
    known = torch.ones(clip.shape[0], 1, *clip.shape[2:])
    known[..., left:right] = 0
    return Condition(clip, known)


def still(frames=12, size=16, seed=0):
    picture = torch.rand(1, 3, 1, size, size, generator=torch.Generator().manual_seed(seed)) - 0.5
    return picture.expand(1, 3, frames, size, size).contiguous()


def test_a_clip_that_fits_stays():
    clip = torch.full((1, 3, 6, 8, 8), 0.3)
    assert torch.equal(blend_known(clip, known_outside(clip, 2, 5)), clip)


def test_nothing_known_and_all_known_change_nothing():
    clip = still()
    for value in (0.0, 1.0):
        known = torch.full((1, 1, *clip.shape[2:]), value)
        assert torch.equal(blend_known(clip, Condition(clip + 0.1, known)), clip)


def test_a_tint_fades_in_after_a_given_frame():
    truth = still()
    made = truth + 0.06
    blended = blend_known(made, known_frames(truth, 0))
    off = (blended - truth).abs().mean((0, 1, 3, 4))
    assert off[1] < 0.02 and off[-1] > off[1] and (off.diff()[1:] > 0).all()
    assert (blended[:, :, 1] - truth[:, :, 0]).abs().max() < 0.03  # the frame's own detail, too


def test_a_seam_is_closed_on_both_sides_of_a_hole():
    truth = torch.full((1, 3, 1, 24, 24), 0.2)
    condition = known_outside(truth, 8, 16)
    blended = blend_known(truth + 0.1, condition)
    assert (blended[..., 8] - 0.2).abs().max() < 0.01 and (blended[..., 15] - 0.2).abs().max() < 0.01
    assert (blended[..., 12] - 0.2).abs().max() < 0.02  # from both sides, so all over a small hole


def test_a_real_edge_stays():
    truth = torch.full((1, 3, 2, 16, 16), -0.9)
    made = torch.full_like(truth, 0.9)  # an object that was asked for
    blended = blend_known(made, known_outside(truth, 4, 12))
    assert (blended - made).abs().max() < 1e-3
    ghost = blend_known(made, known_outside(truth, 4, 12), tolerance=1.0)
    assert (ghost - made)[..., 4].abs().max() > 0.1


def test_reach_says_how_far():
    truth = torch.zeros(1, 1, 1, 1, 60)
    made = truth + 0.05
    condition = known_outside(truth, 1, 60)
    near, far = (blend_known(made, condition, reach=reach)[0, 0, 0, 0, 12] - 0.05 for reach in (4, 400))
    assert near.abs() < 1e-6 and far < -0.01


def test_inputs_stay_and_clips_are_apart():
    truth = torch.cat([still(seed=1), still(seed=2)])
    made, condition = truth + 0.05, known_frames(truth, 0, 11)
    before = made.clone(), condition.clip.clone(), condition.known.clone()
    both = blend_known(made, condition)
    assert all(torch.equal(a, b) for a, b in zip(before, (made, condition.clip, condition.known), strict=True))
    alone = blend_known(made[1:], Condition(condition.clip[1:], condition.known[1:]))
    assert torch.allclose(both[1:], alone, atol=1e-6)


def test_it_can_be_stopped():
    class Stop(Exception):
        pass

    def stop(number):
        if number == 3:
            raise Stop

    truth = still()
    with pytest.raises(Stop):
        blend_known(truth + 0.1, known_frames(truth, 0), on_step=stop)
