"""Classifier-free guidance and dynamic thresholding."""

import pytest
import torch

from lumiere_core.diffusion.guidance import classifier_free, dynamic_threshold


def test_classifier_free_guidance():
    cond, uncond = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    assert torch.equal(classifier_free(cond, uncond, 1.0), cond)
    assert torch.equal(classifier_free(cond, uncond, 0.0), uncond)
    assert classifier_free(cond, uncond, 3.0).tolist() == [4.0, -5.0]


def test_values_in_range_are_left_alone():
    x = torch.rand(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for percentile in (0.5, 0.995, 1.0):
        assert torch.equal(dynamic_threshold(x, percentile), x)


def test_percentile_1_scales_by_the_largest_value():
    x = torch.tensor([[0.5, -4.0, 2.0, 0.0]])
    assert dynamic_threshold(x, 1.0).tolist() == [[0.125, -1.0, 0.5, 0.0]]


def test_what_is_above_the_percentile_is_clipped():
    x = torch.tensor([[1.0, 2.0, -3.0, 100.0]])  # 3 of 4 values lie within 3
    assert torch.allclose(dynamic_threshold(x, 0.75), torch.tensor([[1 / 3, 2 / 3, -1.0, 1.0]]))


def test_the_answer_is_in_range_and_each_clip_has_its_own_scale():
    x = torch.randn(3, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([0.1, 2.0, 30.0]).reshape(3, 1, 1, 1, 1)
    before = x.clone()
    out = dynamic_threshold(x, 0.9)
    assert torch.equal(x, before)
    assert out.abs().max() <= 1 and out.shape == x.shape
    assert torch.equal(out[0], x[0])  # in range already: not scaled by its neighbours
    for clip in range(3):
        assert torch.equal(out[clip : clip + 1], dynamic_threshold(x[clip : clip + 1], 0.9))


def test_the_scale_is_that_of_the_whole_clip_not_of_a_frame():
    x = torch.zeros(1, 1, 2, 1, 10)
    x[0, 0, 0], x[0, 0, 1] = 0.5, 4.0
    assert torch.allclose(dynamic_threshold(x, 1.0)[0, 0, 0], torch.tensor(0.125))


def test_half_precision_keeps_its_type():
    x = torch.tensor([[4.0, -2.0, 1.0, 0.0]], dtype=torch.float16)
    out = dynamic_threshold(x, 1.0)
    assert out.dtype == torch.float16 and out.tolist() == [[1.0, -0.5, 0.25, 0.0]]


@pytest.mark.parametrize("percentile", [0.0, -0.5, 1.01, 99.5])
def test_percentiles_out_of_range_are_named(percentile):
    with pytest.raises(ValueError, match=f"percentile is {percentile}.*at most 1"):
        dynamic_threshold(torch.zeros(1, 4), percentile)
