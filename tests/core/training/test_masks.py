"""What of a training clip is known: random masks (§4.2)."""

import collections

import pytest
import torch

from lumiere_core import world
from lumiere_core.training import masks
from lumiere_core.world.dice import Dice

SIZE = (12, 24, 32)


def known(task, seed, size=SIZE, cover=None):
    scene = world.sample_scene(seed, family="shape")

    def object_of_the_scene():
        if cover is not None:
            return cover
        t, h, w = size
        return world.render_clip(scene, t, 4.0, h, w, masks=True)[1][0]

    return masks.draw_known(task, Dice(seed), size, object_of_the_scene)


def test_tasks_come_as_often_as_is_said():
    drawn = collections.Counter(masks.draw_task(Dice(seed)) for seed in range(4000))
    assert sum(masks.SHARES.values()) == pytest.approx(1)
    for task, share in masks.SHARES.items():
        assert drawn[task] / 4000 == pytest.approx(share, abs=0.025), task


@pytest.mark.parametrize("task", masks.SHARES)
def test_masks_follow_from_the_seed(task):
    assert all(torch.equal(known(task, seed), known(task, seed)) for seed in range(3))
    if task not in ("text", "first frame", "first and last"):
        assert len({known(task, seed).sum().item() for seed in range(8)}) > 2


def test_frames_that_are_known():
    for seed in range(6):
        assert not known("text", seed).any()
        for task, frames in (("first frame", {0}), ("first and last", {0, 11})):
            mask = known(task, seed)
            assert mask[sorted(frames)].all() and mask.any(dim=(1, 2)).sum() == len(frames)
        some = known("key frames", seed)
        assert 1 <= some.any(dim=(1, 2)).sum() <= 4
        for task in ("key frames", "frames"):
            mask = known(task, seed)
            assert torch.equal(mask.any(dim=(1, 2)), mask.all(dim=2).all(dim=1))


def test_regions_stand_still_or_move():
    fixed = [bool((mask == mask[:1]).all()) for mask in (known("region", s) for s in range(24))]
    assert 3 <= sum(fixed) <= 20
    shares = [known("region", seed).float().mean().item() for seed in range(24)]
    assert min(shares) < 0.6 and max(shares) > 0.85 and all(share < 1 for share in shares)


def test_object_masks_cover_the_object():
    for seed in range(12):
        scene = world.sample_scene(seed, family="shape")
        cover = world.render_clip(scene, 12, 4.0, 24, 32, masks=True)[1][0] > 0.5
        mask = known("object", seed)
        assert not mask[cover].any() or mask[cover].all()  # the object, or all but the object


def test_a_scene_without_an_object_gets_a_region():
    nothing = torch.zeros(SIZE)
    for task in masks.NEEDS_OBJECT:
        mask = known(task, 3, cover=nothing)
        assert mask.any() and not mask.all()


def test_outside_is_a_border():
    for seed in range(12):
        mask = known("outside", seed)
        rows, columns = mask[0].any(dim=1), mask[0].any(dim=0)
        assert torch.equal(mask, (rows[:, None] & columns[None]).expand(SIZE))
        assert 0.09 <= mask.float().mean() <= 0.92


def test_a_cinemagraph_knows_frame_0_and_a_fixed_outside():
    for seed in range(12):
        mask = known("cinemagraph", seed)
        assert mask[0].all() and not mask[1].all() and mask[1].any()
        assert (mask[1:] == mask[1]).all()
