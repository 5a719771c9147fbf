"""Noise schedules: the table, its inverse, and what a perfect network would give."""

import itertools
import json

import pytest
import torch

from lumiere_core.diffusion.schedule import KINDS, PREDICTIONS, Schedule

ALL = list(itertools.product(KINDS, PREDICTIONS))


def exact_answer(schedule, x0, eps, sigma):
    """What a network that knows x0 and eps answers."""
    sigma = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    cos, sin = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    return {"v": cos * eps - sin * x0, "eps": eps, "x0": x0}[schedule.prediction]


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)]


@pytest.mark.parametrize(("kind", "prediction"), ALL)
def test_the_table_ascends_and_follows_from_the_betas(kind, prediction):
    schedule = Schedule(kind, prediction)
    assert schedule.sigmas.shape == schedule.betas.shape == (1000,)
    assert (schedule.sigmas.diff() > 0).all()
    assert (schedule.betas > 0).all() and (schedule.betas < 1).all()
    signal = torch.cumprod(1 - schedule.betas.double(), dim=0)  # as the host does from given_betas
    sigmas = ((1 - signal) / signal).sqrt()
    assert torch.allclose(sigmas.float(), schedule.sigmas, rtol=1e-4)


def test_cosine_is_clipped_to_0_002_and_80():
    schedule = Schedule()
    assert schedule.sigma_min == pytest.approx(0.002, rel=1e-5)
    assert schedule.sigma_max == pytest.approx(80, rel=1e-5)
    steps = schedule.sigmas.double().atan().diff()  # the angle is linear in time
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=1e-2)


def test_scaled_linear_is_the_range_of_stable_diffusion():
    schedule = Schedule("scaled_linear", "eps")
    assert schedule.sigma_max == pytest.approx(14.6146, abs=1e-3)
    assert schedule.sigma_min == pytest.approx(0.0292, abs=1e-4)
    assert schedule.betas[0].item() == pytest.approx(0.00085)
    assert schedule.betas[-1].item() == pytest.approx(0.012)


@pytest.mark.parametrize("kind", KINDS)
def test_timestep_and_sigma_are_inverse(kind):
    schedule = Schedule(kind)
    steps = torch.arange(1000)
    assert torch.equal(schedule.timestep(schedule.sigma(steps)), steps)
    assert torch.allclose(schedule.sigma(steps), schedule.sigmas, rtol=1e-5)
    assert schedule.timestep(torch.tensor([[1e-9, 1e9]])).tolist() == [[0, 999]]
    between = schedule.sigma(torch.tensor([10.5]))  # log-linear: the geometric mean
    assert between.item() == pytest.approx((schedule.sigmas[10] * schedule.sigmas[11]).sqrt().item())


@pytest.mark.parametrize(("kind", "prediction"), ALL)
def test_denoised_recovers_the_clean_data(kind, prediction, data):
    schedule, (x0, eps) = Schedule(kind, prediction), data
    sigma = torch.tensor([0.01, 0.3, 1.0, 4.0, 14.0], dtype=torch.float64)
    noised = x0 + sigma.reshape(-1, 1, 1, 1, 1) * eps
    answer = exact_answer(schedule, x0, eps, sigma)
    assert torch.allclose(schedule.denoised(noised, answer, sigma), x0, atol=1e-10)
    if prediction != "x0":  # of any noise level then
        assert not torch.allclose(schedule.denoised(noised, answer, sigma.flip(0)), x0, atol=0.1)


@pytest.mark.parametrize("sigma_data", [1.0, 2.0])
@pytest.mark.parametrize(("kind", "prediction"), ALL)
def test_training_pairs_are_what_sampling_uses(kind, prediction, data, sigma_data):
    """A network that answers the training target gives the clean data when sampling."""
    schedule, (x0, eps) = Schedule(kind, prediction, sigma_data=sigma_data), data
    timestep = torch.tensor([3.0, 200.5, 500.0, 750.25, 980.0])
    network_input, target = schedule.training_pair(x0, eps, timestep)
    sigma = sigma_data * schedule.angle(timestep).double().tan()
    noised = x0 + sigma.reshape(-1, 1, 1, 1, 1) * eps
    assert torch.allclose(schedule.network_input(noised, sigma), network_input, atol=1e-5)
    assert torch.allclose(schedule.denoised(noised, target, sigma), x0, atol=1e-3)


def test_predictions_weigh_the_error_of_the_clean_data_alike():
    """An error d of the clean estimate is an error d / sin(angle) of v."""
    timestep = torch.tensor([300.0, 500.0, 900.0])
    v, eps, x0 = (Schedule("cosine", prediction) for prediction in ("v", "eps", "x0"))
    sigma, zero = v.angle(timestep).tan(), torch.zeros(3, 1)
    estimates = v.denoised(zero, torch.ones(3, 1), sigma).flatten()  # an error of v of 1
    assert torch.allclose(x0.loss_weight(timestep), 1 / estimates**2, rtol=1e-4)
    assert x0.loss_weight(torch.zeros(1)).tolist() == [10.0]
    assert v.loss_weight(timestep).tolist() == eps.loss_weight(timestep).tolist() == [1.0] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_continuous_angles_meet_the_table(kind):
    schedule = Schedule(kind)
    steps = torch.arange(0, 1000, 37)
    assert torch.allclose(schedule.angle(steps).tan(), schedule.sigmas[steps], rtol=1e-3)


def test_network_input_has_unit_variance():
    schedule, generator = Schedule(), torch.Generator().manual_seed(0)
    for sigma in (0.05, 1.0, 20.0):
        x = torch.randn(1, 100_000, generator=generator)
        x = x + sigma * torch.randn(1, 100_000, generator=generator)
        scaled = schedule.network_input(x, torch.tensor([sigma]))
        assert scaled.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("kind", "prediction"), ALL)
@pytest.mark.parametrize("sigma_data", [1.0, 2.0])
def test_dictionary_round_trip(kind, prediction, sigma_data):
    schedule = Schedule(kind, prediction, sigma_data=sigma_data)
    values = json.loads(json.dumps(schedule.to_dict()))
    again = Schedule(**values)
    assert again.to_dict() == values and again.prediction == prediction
    assert torch.allclose(again.sigmas, schedule.sigmas, rtol=1e-5)


@pytest.mark.parametrize(("kind", "prediction"), ALL)
def test_data_and_noise_of_twice_the_strength_look_the_same(kind, prediction, data):
    plain, twice = Schedule(kind, prediction), Schedule(kind, prediction, sigma_data=2.0)
    assert torch.equal(2 * plain.sigmas, twice.sigmas)
    (x, answer), sigma = data, plain.sigmas[::200].double()
    assert torch.equal(plain.timestep(sigma), twice.timestep(2 * sigma))
    assert torch.allclose(plain.network_input(x, sigma), twice.network_input(2 * x, 2 * sigma))
    assert torch.allclose(2 * plain.denoised(x, answer, sigma), twice.denoised(2 * x, answer, 2 * sigma))


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="kind 'square'.*kinds are.*cosine"):
        Schedule("square")
    with pytest.raises(ValueError, match="prediction 'flow'.*predictions are.*eps"):
        Schedule("cosine", "flow")
    with pytest.raises(ValueError, match="sigma_data is 0"):
        Schedule(sigma_data=0)


def test_animatediff_s_betas_are_linear():
    """And SDXL's motion module has Stable Diffusion's, to another end; both come back from their description."""
    linear, sdxl = Schedule("linear", "eps"), Schedule("scaled_linear", "eps", betas=(0.00085, 0.020))
    assert torch.allclose(linear.betas, torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64))
    assert torch.allclose(sdxl.betas.sqrt(), torch.linspace(0.00085**0.5, 0.020**0.5, 1000, dtype=torch.float64))
    for schedule in (linear, sdxl):
        assert torch.equal(Schedule(**schedule.to_dict()).sigmas, schedule.sigmas)
    for wrong in ((0.5, 0.1), (0.0, 0.1), (0.1,)):
        with pytest.raises(ValueError, match="the smaller first, are wanted"):
            Schedule("linear", "eps", betas=wrong)
