"""Samplers with exact denoisers, where the right answer is known."""

import pytest
import torch

from lumiere_core.diffusion.sampling import SCHEDULERS, sample_ddim, sample_ddpm
from lumiere_core.diffusion.schedule import Schedule

MEAN, STD = 0.7, 0.5
CLIPS = 4096


def gaussian(x, sigma):
    """E[x0 | x] of data N(MEAN, STD²): the exact denoiser."""
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)


def run(sampler, denoise=gaussian, steps=60, scheduler="karras", clips=CLIPS, **more):
    generator = torch.Generator().manual_seed(0)

    def noise(_step=0):
        return torch.randn(clips, 2, 1, generator=generator)

    sigmas = SCHEDULERS[scheduler](steps, Schedule())
    start = noise() * (1 + sigmas[0] ** 2).sqrt()
    if sampler == "ddim":
        return sample_ddim(denoise, start, sigmas, **more)
    return sample_ddpm(denoise, start, sigmas, noise, **more)


@pytest.mark.parametrize("scheduler", ["karras", "normal"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_of_a_gaussian_have_its_mean_and_spread(sampler, scheduler):
    x = run(sampler, scheduler=scheduler, steps=200)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, abs=0.03)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_single_clean_clip_is_found_exactly(sampler):
    target = torch.tensor([[0.25], [-0.75]])
    x = run(sampler, lambda x, sigma: target.expand_as(x), steps=5, clips=3)
    assert torch.allclose(x, target.expand_as(x), atol=1e-5)


def test_ddim_converges_to_the_exact_map():
    """For Gaussian data the flow is known: x = MEAN + STD * (start - MEAN) / sqrt(STD² + sigma²)."""
    schedule = Schedule()
    start = torch.linspace(-100, 100, 9)[:, None]
    exact = MEAN + STD * (start - MEAN) / (STD**2 + schedule.sigma_max**2) ** 0.5
    errors = []
    for steps in (25, 100, 400):
        x = sample_ddim(gaussian, start, SCHEDULERS["karras"](steps, schedule))
        errors.append((x - exact).abs().max().item())
    assert errors[2] < 0.01
    assert errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3  # first order


def test_ddim_is_deterministic_and_ddpm_uses_the_step_noise():
    sigmas = SCHEDULERS["karras"](4, Schedule())
    start, asked = torch.full((1, 3), 80.0), []

    def step_noise(step):
        asked.append(step)
        return torch.full((1, 3), float(step))

    assert torch.equal(sample_ddim(gaussian, start, sigmas), sample_ddim(gaussian, start, sigmas))
    noisy = sample_ddpm(gaussian, start, sigmas, step_noise)
    assert asked == [1, 2, 3]  # none after the last step
    quiet = sample_ddpm(gaussian, start, sigmas, lambda step: torch.zeros(1, 3))
    assert not torch.allclose(noisy, quiet)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_each_step_is_reported(sampler):
    calls = []
    run(sampler, steps=6, clips=2, on_step=lambda *call: calls.append(call))
    sigmas = SCHEDULERS["karras"](6, Schedule())
    assert [step for step, _, _ in calls] == list(range(6))
    assert [sigma for _, sigma, _ in calls] == pytest.approx(sigmas[:-1].tolist())
    assert all(denoised.shape == (2, 2, 1) for _, _, denoised in calls)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_network_is_reported_with_its_step(sampler, bad):
    calls = []

    def breaks_at_third(x, sigma):
        calls.append(sigma)
        denoised = gaussian(x, sigma)
        if len(calls) == 3:
            denoised[1, 0] = bad
        return denoised

    with pytest.raises(FloatingPointError, match=r"step 3 \(sigma .*float32"):
        run(sampler, breaks_at_third, steps=8, clips=2)
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["karras", "normal"])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_sigmas_descend_from_the_largest_to_0(name, steps):
    schedule = Schedule()
    sigmas = SCHEDULERS[name](steps, schedule)
    assert sigmas.shape == (steps + 1,) and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas[0].item() == pytest.approx(schedule.sigma_max, rel=1e-4)
    if steps > 1:
        assert sigmas[-2].item() == pytest.approx(schedule.sigma_min, rel=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_start_noise_is_left_as_it_was(sampler):
    sigmas, start = SCHEDULERS["karras"](3, Schedule()), torch.full((1, 3), 80.0)
    before = start.clone()
    if sampler == "ddim":
        sample_ddim(gaussian, start, sigmas)
    else:
        sample_ddpm(gaussian, start, sigmas, lambda step: torch.ones(1, 3))
    assert torch.equal(start, before)
