"""How much the temporal parts count: 0 leaves the features alone, 1 is as trained, by level, frame and place."""

import pytest
import torch

from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.strength import Strength
from lumiere_core.nets.stunet import SpaceTimeUNet

KINDS = {
    "lumiere": {},
    "motion_module": {
        "config": TemporalConfig(kind="motion_module", stride=1, table_frames=8, middle=True, frames_per_clip=8)
    },
}


@pytest.fixture(params=KINDS)
def run(request, tiny):
    """Function (Strength or None) -> what a trained network makes of a clip of 8 frames."""
    unet_config = tiny.unet_config(3)
    config = KINDS[request.param].get("config", tiny.temporal_config())
    network = SpaceTimeUNet(tiny.unet(unet_config), tiny.temporal(unet_config, config, trained=True)).double()
    inputs = tiny.inputs(frames=8, dtype=torch.float64)
    begin = network.temporal.begin

    def call(strength):
        def started(*args, **kwargs):
            state = begin(*args, **kwargs)
            state.strength = strength
            return state

        network.temporal.begin = started
        with torch.no_grad():
            return network(*inputs)

    call.network, call.inputs, call.kind = network, inputs, request.param
    return call


def largest(a, b):
    return float((a - b).abs().max())


def test_one_is_as_trained(run):
    trained = run(None)
    assert torch.equal(run(Strength((1.0, 1.0, 1.0))), trained)
    assert largest(run(Strength((1.0,) * 3, torch.ones(8, 1, 8, 8))), trained) < 1e-12


def test_zero_at_every_level_leaves_key_frames_to_the_image_model(run):
    """Resizes become what they were before any training, so that every N-th frame is the image model's."""
    got, stride = run(Strength((0.0,) * 3)), run.network.temporal.total_stride
    x, timesteps, context, y = run.inputs
    with torch.no_grad():
        for frame in range(0, 8, stride):
            assert largest(got[:, :, frame], run.network.unet(x[:, :, frame], timesteps, context, y)) < 1e-10


def test_in_between_it_is_near_the_end_that_it_is_near_to(run):
    trained, none = run(None), run(Strength((0.0,) * 3))
    few, many = run(Strength((0.001,) * 3)), run(Strength((0.999,) * 3))
    assert 0 < largest(few, none) < 0.05 * largest(trained, none)
    assert 0 < largest(many, trained) < 0.05 * largest(trained, none)


def test_levels_count_by_themselves(run):
    trained = run(None)
    for level in range(3):
        levels = [1.0] * 3
        levels[level] = 0.0
        assert largest(run(Strength(tuple(levels))), trained) > 1e-6


def test_a_mask_of_frames_leaves_the_others_alone(run):
    """A motion module's frame at 0 is the image model's: its own features never change."""
    mask = torch.ones(8, 1, 8, 8)
    mask[3] = 0
    got = run(Strength((1.0,) * 3, mask))
    x, timesteps, context, y = run.inputs
    with torch.no_grad():
        image = run.network.unet(x[:, :, 3], timesteps, context, y)
    if run.kind == "motion_module":
        assert largest(got[:, :, 3], image) < 1e-10
    assert largest(got[:, :, 4], run(None)[:, :, 4]) < largest(got[:, :, 3], run(None)[:, :, 3])


def test_products():
    mask = torch.full((2, 1, 1, 1), 0.5)
    both = Strength((1.0, 2.0), mask) * Strength((0.5, 0.0), mask)
    assert both.levels == (0.5, 0.0) and both.mask.flatten().tolist() == [0.25, 0.25]
    assert (Strength((1.0,), mask) * Strength((1.0,))).mask is mask
    assert (Strength((1.0,)) * Strength((1.0,))).mask is None
    assert Strength((0.0, 0.0)).silent and Strength((1.0,), torch.zeros(1, 1, 1, 1)).silent
    assert not Strength((0.0, 0.1)).silent and not both.silent
