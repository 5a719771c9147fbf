"""The one objective: which errors count, at which noise levels."""

import pytest
import torch

from lumiere_core.diffusion.denoiser import Denoiser
from lumiere_core.diffusion.schedule import Schedule
from lumiere_core.nets.text_encoder import Text
from lumiere_core.training.batch import Batch
from lumiere_core.training.draws import LOSS, Draws
from lumiere_core.training.objective import LESS_SHARED, object_weights, objective, training_noise
from lumiere_core.training.options import TrainOptions

SHAPE = (3, 8, 16, 16)


def losses(network, x0=None, schedule=None, objects=None, count=2, **options):
    """The losses of samples of zeros, or of x0, whose answers a function of the network's input makes."""
    x0 = torch.zeros(count, *SHAPE) if x0 is None else x0
    batch = Batch(0, range(count), x0, Text(torch.zeros(count, 1, 4)), objects)
    denoiser = Denoiser(lambda x, timestep, *_, **__: network(x, timestep), schedule or Schedule(prediction="x0"))
    return objective(denoiser, batch, TrainOptions(**options), Draws(0, range(count), LOSS))


@pytest.mark.parametrize("frames", [(), (3,)])
def test_errors_near_an_object_weigh_more(frames):
    """Around the object by an eighth of the height, where it can be made out, and not more in all."""
    objects = torch.zeros(2, 1, *frames, 32, 32)
    objects[..., 15:17, 15:17] = 1
    weights = object_weights(objects, torch.tensor([True, False]), 4.0)
    assert weights.shape == objects.shape
    assert torch.allclose(weights.flatten(1).mean(dim=1), torch.ones(2))
    assert (weights[1] == 1).all()
    high = weights[0] > weights[0].min()
    assert torch.allclose(weights[0][high], 5 * weights[0].min())
    assert (high.flatten(0, -3).sum(dim=(-1, -2)) == 10**2).all()


def test_object_weight_counts_where_objects_can_be_made_out():
    objects = torch.zeros(8, 1, *SHAPE[1:])
    objects[..., 7:9, 7:9] = 1
    off = torch.zeros(1, *SHAPE)
    off[..., 7:9, 7:9] = 1.0  # an answer that is wrong at the object only

    def ratio(shift):
        plain, weighted = (
            losses(lambda x, t: off.expand_as(x), objects=objects, count=8, object_weight=w, sigma_shift=shift)
            for w in (0.0, 8.0)
        )
        return weighted / plain

    assert (ratio(0.01) > 1.5).all()
    assert torch.allclose(ratio(1000.0), torch.ones(8))


@pytest.mark.parametrize(("option", "gain"), [("change_weight", 4), ("motion_weight", 1)])
def test_errors_of_motion_count_when_asked(option, gain):
    """An answer that is off by the same in all frames costs no more; one that flickers does."""
    steady = torch.ones(1, 1, SHAPE[1], 1, 1)
    flickering = steady * torch.tensor([(-1.0) ** i for i in range(SHAPE[1])]).reshape(1, 1, -1, 1, 1)

    def loss(weight, off):
        return losses(lambda x, _: off.expand_as(x), **{option: weight})

    assert torch.allclose(loss(0.0, steady), loss(3.0, steady))
    assert torch.allclose(loss(0.0, steady), loss(0.0, flickering))
    assert torch.allclose(loss(3.0, flickering), loss(0.0, steady) * (1 + 3 * gain))


def test_nothing_of_the_clip_is_left_in_pure_noise():
    """Sampling starts from noise alone; the last noise level still shows a clip to who can average it."""

    def seen(share, brightness):
        inputs = []
        losses(lambda x, t: inputs.extend([x, t]) or x, torch.full((2, *SHAPE), brightness), pure_noise=share)
        return inputs

    (dark, level), (bright, _) = seen(1.0, -1.0), seen(1.0, 1.0)
    assert torch.equal(dark, bright) and (level == 999).all()
    assert dark.std().item() == pytest.approx(1, abs=0.05)
    assert not torch.equal(seen(0.0, -1.0)[0], seen(0.0, 1.0)[0])


def test_training_noise_is_shared_as_the_layers_say_and_less_in_some_clips():
    def shares(share):
        noise = training_noise(Draws(0, range(200), LOSS), torch.Size((3, 4, 16, 16)), share, torch.device("cpu"))
        assert noise.std().item() == pytest.approx(1, abs=0.01)
        return (noise[:, :, 0] * noise[:, :, 3]).flatten(1).mean(dim=1)

    assert shares(0.0).abs().max() < 0.2 and shares(1.0).min() > 0.8
    found = shares(0.8)
    full = (found > 0.65).float().mean().item()
    assert full == pytest.approx(1 - LESS_SHARED * 0.8, abs=0.08) and found.max() < 1.0


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("scaled_linear", "eps"), Schedule(sigma_data=2.0)])
@pytest.mark.parametrize("shift", [0.5, 2.0, 8.0])
def test_the_shift_is_a_factor_of_sigma_on_every_schedule(schedule, shift):
    """But where the schedule ends."""
    places = torch.linspace(0.02, 0.98, 200)
    plain, shifted = (
        schedule.angle(schedule.shifted(places, factor)).tan() * schedule.sigma_data for factor in (1.0, shift)
    )
    inside = (plain * shift > schedule.sigma_min * 1.01) & (plain * shift < schedule.sigma_max * 0.99)
    assert inside.sum() > 100
    assert torch.allclose(shifted[inside] / plain[inside], torch.tensor(shift), rtol=0.01)
    assert torch.allclose(plain, schedule.angle(places * (schedule.steps - 1)).tan() * schedule.sigma_data, rtol=1e-3)
    assert shifted.min() >= schedule.sigma_min * 0.999 and shifted.max() <= schedule.sigma_max * 1.001
