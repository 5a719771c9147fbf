"""Back-projection: the means of a large clip come nearer to the small one, and nothing else is touched."""

import pytest
import torch
import torch.nn.functional as F

from lumiere_core.diffusion.back_projection import PART, back_project
from lumiere_core.nets.config import SSRConfig
from lumiere_core.nets.ssr import upsample


def frames(count, side, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def off(large, small):
    return (F.avg_pool2d(large, large.shape[-1] // small.shape[-1]) - small).abs().mean().item()


@pytest.mark.parametrize("scale", [2, 4])
def test_each_iteration_brings_the_means_nearer(scale):
    small = frames(2, 8)
    large = frames(2, 8 * scale, seed=1)
    before = large.clone()
    errors = [off(back_project(large, small, count), small) for count in (0, 1, 2, 4, 8, 100)]
    assert all(later < earlier for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[1] < 0.6 * errors[0] and errors[-1] < 0.02 * errors[0]
    assert torch.equal(large, before)


def test_what_fits_stays_as_it_is():
    large = frames(2, 16)
    assert back_project(large, frames(2, 4), 0) is large
    assert torch.allclose(back_project(large, F.avg_pool2d(large, 4), 5), large, atol=1e-6)


def test_any_number_of_frames_is_as_one_by_one():
    count = 2 * PART + 1
    large, small = frames(count, 8), frames(count, 2, seed=1)
    alone = torch.cat([back_project(large[n : n + 1], small[n : n + 1], 3) for n in range(count)])
    assert torch.allclose(back_project(large, small, 3), alone, atol=1e-6)


def test_it_adds_to_bicubic_enlargement_what_averaging_took():
    """The scene is nearer than without: means of a smooth picture, enlarged, are not quite its means."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 64), torch.linspace(0, 6, 64), indexing="ij")
    true = (torch.sin(x * y) / 2).expand(1, 3, -1, -1)
    small = F.avg_pool2d(true, 4)
    bicubic = upsample(small, 4)
    errors = [(made - true).square().mean().item() for made in (bicubic, back_project(bicubic, small, 2))]
    assert errors[1] < 0.9 * errors[0]


def test_files_without_it_are_read_and_written_as_before():
    assert SSRConfig.from_dict({"scale": 4}).back_projection == 0
    assert "back_projection" not in SSRConfig().to_dict()
    assert SSRConfig.from_dict(SSRConfig(back_projection=2).to_dict()).back_projection == 2
    with pytest.raises(ValueError, match="back_projection"):
        SSRConfig(back_projection=-1)
