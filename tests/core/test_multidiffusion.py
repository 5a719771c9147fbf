"""Temporal Multidiffusion: the windows cover the clip, and the blend is the paper's minimiser."""

from itertools import pairwise

import pytest
import torch

from lumiere_core.diffusion.multidiffusion import Blend, denoise_in_windows, plan_windows, window_starts, window_weights
from lumiere_core.diffusion.sampling import sample_ddim, sample_ddpm, sigmas_karras
from lumiere_core.diffusion.schedule import Schedule


@pytest.mark.parametrize("closed_loop", [False, True])
def test_every_plan_covers_the_clip(closed_loop):
    """Every T from 1 to 200, every T' and every legal overlap: no gap, no window past the end."""
    for length in range(1, 201):
        for frames in range(1, length + 1):
            assert window_starts(frames, length, length - 1, closed_loop) == [0]
        for overlap in range(length):
            most = length - overlap  # frames between starts, so that neighbours share `overlap`
            for frames in range(length + 1, 201):
                starts = window_starts(frames, length, overlap, closed_loop)
                assert starts[0] == 0
                assert all(0 < two - one <= most for one, two in pairwise(starts))
                if closed_loop:
                    assert frames - starts[-1] <= most  # the last reaches into the first
                else:
                    assert starts[-1] + length == frames


@pytest.mark.parametrize("closed_loop", [False, True])
def test_windows_have_one_length_and_share_frames(closed_loop):
    for frames in range(1, 41):
        for length in range(1, 12):
            for overlap in range(length):
                windows = plan_windows(frames, length, overlap, closed_loop)
                assert {f for window in windows for f in window} == set(range(frames))
                assert {len(window) for window in windows} == {min(length, frames)}
                for one, two in zip(windows, windows[1:], strict=False):
                    assert len(set(one) & set(two)) >= overlap
                if closed_loop and len(windows) > 1:
                    assert len(set(windows[-1]) & set(windows[0])) >= overlap


def test_the_last_window_is_shifted_back():
    assert [w[0] for w in plan_windows(20, 8, 2)] == [0, 6, 12]
    assert [w[0] for w in plan_windows(21, 8, 2)] == [0, 6, 12, 13]


@pytest.mark.parametrize("arguments", [(0, 8, 2), (8, 0, 0), (8, 4, 4), (8, 4, -1)])
def test_impossible_plans_are_refused_with_their_numbers(arguments):
    with pytest.raises(ValueError, match="at least 1|must be from 0"):
        plan_windows(*arguments)


@pytest.mark.parametrize("weighting", ["uniform", "tapered"])
def test_the_blend_minimises_the_papers_least_squares(weighting):
    torch.manual_seed(0)
    windows = plan_windows(11, 5, 2)
    weights = window_weights(5, 2, weighting)
    answers = [torch.randn(1, 2, 5, 1, 1, dtype=torch.float64) for _ in windows]
    blend = Blend(torch.zeros(1, 2, 11, 1, 1, dtype=torch.float64), dim=2)
    for window, answer in zip(windows, answers, strict=True):
        blend.add(answer, window, weights)

    # A numerical solver on sum_i w_i ||J[window_i] - answer_i||^2, written as a dense system.
    rows, right = [], []
    for window, answer in zip(windows, answers, strict=True):
        for i, frame in enumerate(window):
            row = torch.zeros(11, dtype=torch.float64)
            row[frame] = weights[i].double().sqrt()
            rows.append(row)
            right.append(answer[0, :, i, 0, 0] * weights[i].double().sqrt())
    solution = torch.linalg.lstsq(torch.stack(rows), torch.stack(right)).solution  # (t, c)
    assert torch.allclose(blend.result()[0, :, :, 0, 0].T, solution, atol=1e-7)


def test_a_frame_outside_all_windows_is_an_error():
    blend = Blend(torch.zeros(4, 1), dim=0)
    blend.add(torch.ones(2, 1), (0, 1), torch.ones(2))
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        blend.result()


def test_one_window_over_all_is_no_window_bit_for_bit():
    x = torch.randn(1, 3, 9, 4, 4)
    answer = denoise_in_windows(lambda part, _: part.sin(), x, plan_windows(9, 16, 2), window_weights(9, 2))
    assert torch.equal(answer, x.sin())


@pytest.mark.parametrize("ancestral", [False, True])
def test_averaging_the_step_equals_averaging_the_prediction(ancestral):
    """For samplers linear in the clean estimate, x of the next step may be averaged instead."""
    schedule, torch_seed = Schedule(), 3
    sigmas = sigmas_karras(6, schedule)
    windows, weights = plan_windows(12, 5, 2), window_weights(5, 2)
    generator = torch.Generator().manual_seed(torch_seed)
    noises = [torch.randn(1, 1, 12, 2, 2, generator=generator, dtype=torch.float64) for _ in range(8)]
    x0 = noises[7] * sigmas[0]

    def network(part, sigma):  # mixes frames, so that windows disagree
        return (part.mean(dim=2, keepdim=True) + part.roll(1, dims=2)).tanh() / (1 + sigma.double())

    def step(x, sigma, following, number, denoise):
        pair = torch.stack([sigma, following])
        if ancestral:
            return sample_ddpm(denoise, x, pair, lambda _: noises[number][:, :, : x.shape[2]])
        return sample_ddim(denoise, x, pair)

    by_prediction, by_step = x0, x0
    for number, (sigma, following) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):

        def blended(x, s):
            return denoise_in_windows(lambda p, _: network(p, s[0]), x, windows, weights)

        by_prediction = step(by_prediction, sigma, following, number, blended)

        def stepped(part, window, sigma=sigma, following=following, number=number):
            pair = torch.stack([sigma, following])
            if not ancestral:
                return sample_ddim(lambda x, s: network(x, s[0]), part, pair)
            noise = noises[number].index_select(2, torch.tensor(window))  # one tensor, sliced
            return sample_ddpm(lambda x, s: network(x, s[0]), part, pair, lambda _: noise)

        by_step = denoise_in_windows(stepped, by_step, windows, weights)
    assert torch.allclose(by_prediction, by_step, atol=1e-9)


def test_closed_loop_blends_the_end_with_the_start():
    """A clip turned round by some frames gives the answer turned round, where windows turn with it."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 12, 1, 1)
    windows, weights = plan_windows(12, 4, 1, closed_loop=True), window_weights(4, 1)
    assert [w[0] for w in windows] == [0, 3, 6, 9] and windows[-1] == (9, 10, 11, 0)

    def mixing(part, _):
        return part.cumsum(dim=2)

    answer = denoise_in_windows(mixing, x, windows, weights)
    turned = denoise_in_windows(mixing, x.roll(3, dims=2), windows, weights)
    assert torch.allclose(turned, answer.roll(3, dims=2), atol=1e-6)
    assert not torch.allclose(answer[:, :, 0], x[:, :, 0], atol=1e-3)  # two windows hold frame 0


@pytest.mark.parametrize("weighting", ["uniform", "tapered"])
def test_windows_that_agree_change_nothing(weighting):
    x = torch.randn(1, 2, 9, 3, generator=torch.Generator().manual_seed(0))
    windows, weights = plan_windows(9, 4, 2), window_weights(4, 2, weighting)
    answer = denoise_in_windows(lambda part, _: 2 * part, x, windows, weights)
    assert torch.allclose(answer, 2 * x, atol=1e-6)


def test_tapered_weights_fall_off_over_the_overlap():
    assert window_weights(8, 3, "tapered").tolist() == [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]
    assert window_weights(5, 0, "tapered").tolist() == [1] * 5
    with pytest.raises(ValueError, match="'round'.*uniform"):
        window_weights(4, 2, "round")
