"""Masks on the cells of a latent, and the rule for soft ones."""

import pytest
import torch

from lumiere_core.clips import framing
from lumiere_core.clips.masks import SHARE, covered, is_known, known_cells, latent_groups


def one_plus(n):
    return lambda count: max(0, count * n - n + 1)


@pytest.mark.parametrize(
    ("frames", "groups"),
    [
        ([0, 1, 5, 9], [(0, 1), (1, 5), (5, 9)]),  # Wan: 1 + 4n
        ([0, 8, 16], [(0, 8), (8, 16)]),  # 8n
        ([0, 1, 2, 3], [(0, 1), (1, 2), (2, 3)]),  # a frame each
        ([0, 1, 5, 5, 5, 5, 5, 22], [(0, 1), (1, 5), *[(5, 22)] * 5]),  # blocks of 5 latent frames for 17 frames
        ([0, 1, 5, 5], [(0, 1), (1, 5), (1, 5)]),  # a block that is not complete
    ],
)
def test_groups_of_frames(frames, groups):
    assert latent_groups(frames) == groups


def test_groups_cover_all_frames_once():
    for n in (1, 4, 6, 8):
        groups = latent_groups([one_plus(n)(k) for k in range(6)])
        assert [f for first, end in groups for f in range(first, end)] == list(range(groups[-1][1]))


def test_a_cell_is_as_known_as_its_least_known_pixel_and_frame():
    known = torch.rand(2, 1, 9, 16, 24, generator=torch.Generator().manual_seed(0))
    groups = [(0, 1), (1, 5), (5, 9)]
    cells = known_cells(known, 2, 3, groups)
    assert cells.shape == (2, 1, 3, 2, 3)
    for number, (first, end) in enumerate(groups):
        for y in range(2):
            for x in range(3):
                part = known[:, :, first:end, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
                assert torch.equal(cells[:, :, number, y, x], part.amin(dim=(2, 3, 4)))
    assert torch.equal(known_cells(known, 16, 24), known)
    assert known_cells(known, 2, 3).shape == (2, 1, 9, 2, 3)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("place", range(0, 61, 5))
def test_no_thin_region_vanishes(width, place):
    region = torch.zeros(1, 64, 64)
    region[:, :, place : place + width] = 1
    for size in (8, 4, 1, 63, 128):
        assert covered(region, size, size).max() == 1
    cells = known_cells(1 - region[None, None], 8, 8)
    assert (cells == 0).any() and (1 - cells[0, 0, 0, 0]).sum() <= 2


def test_a_group_outside_of_the_mask_is_refused():
    with pytest.raises(ValueError, match="the mask has 4 frames"):
        known_cells(torch.ones(1, 1, 4, 8, 8), 1, 1, [(0, 1), (4, 8)])


def test_one_rule_for_soft_masks():
    """A feathered edge is generated, the noise of a compressed mask is not."""
    generated = torch.tensor([1.0, 0.49, 0.1, 0.03])
    assert not is_known(1 - generated).any()
    assert is_known(1 - torch.tensor([0.0, 1 / 255, 3 / 255, SHARE])).all()


def test_soft_values_survive_a_change_of_size():
    region = torch.zeros(1, 8, 8)
    region[:, 3, 3], region[:, 6, 6] = 0.49, 1.0
    _, placed = framing.place(torch.zeros(1, 3, 8, 8), 32, 32, "crop", region=region)
    assert set(placed.unique().tolist()) == {0.0, region[0, 3, 3].item(), 1.0}
    _, placed = framing.place(torch.zeros(1, 3, 8, 8), 4, 4, "crop", region=region)
    assert set(placed.unique().tolist()) == {0.0, region[0, 3, 3].item(), 1.0}


def test_half_precision():
    region = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    assert torch.equal(covered(region, 2, 2), covered(region.float(), 2, 2).half())
