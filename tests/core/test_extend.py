"""Clips longer than the model: what is known of each piece, and the colours of the new frames."""

import pytest
import torch

from lumiere_core.diffusion.extend import anchored, extend


def clip(mean=0.0, contrast=1.0, frames=8, seed=0):
    x = torch.randn(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(seed))
    x = (x - x.mean()) / x.std()
    return x * contrast + mean


def colours(x):
    return x.mean((0, 2, 3, 4)), x.std((0, 2, 3, 4))


def test_pieces_begin_with_the_last_frames():
    first, seen = clip(), []

    def sample(number, known):
        seen.append((number, known))
        return torch.cat([known, clip(frames=6, seed=number + 1)], dim=2)

    made = extend(first, 3, 2, sample, anchor=0)
    assert made.shape[2] == 8 + 3 * 6 and torch.equal(made[:, :, :8], first)
    for number, known in seen:
        end = 8 + number * 6
        assert torch.equal(known, made[:, :, end - 2 : end])
    assert [number for number, _ in seen] == [0, 1, 2]


def test_without_an_anchor_a_drift_adds_up_and_with_it_not():
    def sample(number, known):
        new = known[:, :, -1:].expand(-1, -1, 30, -1, -1)
        return torch.cat([known, new * 0.8 + 0.2], dim=2)

    first = clip(frames=40)
    wild = extend(first, 4, 10, sample, anchor=0)
    tame = extend(first, 4, 10, sample, anchor=1)
    assert wild[:, :, -10:].mean() > 0.5 and wild[:, :, -10:].std() < 0.45
    # The last frames' correction is complete.
    assert tame[:, :, -10:].mean().abs() < 0.05 and (tame[:, :, -10:].std() - 1).abs() < 0.1


def test_the_correction_is_whole_after_the_ramp_and_has_no_jump():
    first, made = clip(0.1, 0.5), clip(0.6, 0.9, frames=20, seed=1)
    done = anchored(made, first, 1.0, 5)
    mean, contrast = colours(done[:, :, 5:])
    wanted = colours(first)
    assert torch.allclose(mean, wanted[0], atol=0.02) and torch.allclose(contrast, wanted[1], atol=0.02)
    change = (done - made).abs().mean((0, 1, 3, 4))
    assert torch.allclose(change[0], change[9] / 5, rtol=0.2) and (change[:5].diff() > 0).all()
    half = anchored(made, first, 0.5, 5)
    assert torch.allclose(half[:, :, 9], (made + done)[:, :, 9] / 2, atol=1e-5)


def test_an_even_picture_and_half_precision():
    even = torch.zeros(1, 3, 4, 8, 8)
    assert torch.isfinite(anchored(even, clip(), 1.0, 1)).all() and torch.isfinite(anchored(clip(), even, 1.0, 1)).all()
    half = anchored(clip().half(), clip(0.5).half(), 1.0, 1)
    assert half.dtype == torch.float16 and torch.allclose(half.float().mean(), torch.tensor(0.5), atol=0.01)


@pytest.mark.parametrize("overlap", [0, 8, 9])
def test_an_overlap_that_leaves_nothing_is_refused(overlap):
    with pytest.raises(ValueError, match=f"overlap is {overlap} and the clip has 8 frames; 1 to 7"):
        extend(clip(), 1, overlap, lambda number, known: known)
