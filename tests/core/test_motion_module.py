"""Motion modules: what a public file computes, in every layout; what they share with Lumiere's layers and what not."""

import math

import pytest
import torch

from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.motion_files import read_motion_module
from lumiere_core.nets.motion_module import PART, MotionModule, sine_table
from lumiere_core.nets.stunet import SpaceTimeUNet
from lumiere_core.nets.temporal import TemporalLayers, initial_state

MOTION = {"kind": "motion_module", "stride": 1, "table_frames": 8}


@pytest.fixture
def config(tiny):
    """SD1.5's plan at a width of 32: two residual layers a level, none of them with a transformer at the coarsest."""
    return tiny.unet_config(
        3,
        num_res_blocks=(2, 2, 2),
        transformer_depth=(1, 1, 1, 1, 0, 0),
        transformer_depth_output=(1, 1, 1, 1, 1, 1, 0, 0, 0),
    )


@pytest.fixture
def public(public_motion):
    """Function (UNetConfig, **options) -> a file in AnimateDiff's layout for that U-Net."""

    def make(config, **options):
        widths = [config.model_channels * m for m in config.channel_mult]
        return public_motion.motion_file(widths, config.num_res_blocks, **options)

    return make


def loaded(config, state):
    found = read_motion_module(state, config, "mm.ckpt")
    layers = TemporalLayers(config, found.config)
    layers.load_state_dict(found.state)
    return layers.eval()


def close(a, b):
    return (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize(
    ("place", "block"),
    [
        ("down_blocks.0.motion_modules.1", "input_blocks.2"),
        ("down_blocks.2.motion_modules.0", "input_blocks.7"),
        ("mid_block.motion_modules.0", "middle_block"),
        ("up_blocks.0.motion_modules.2", "output_blocks.2"),
        ("up_blocks.2.motion_modules.0", "output_blocks.6"),
    ],
)
def test_a_module_computes_what_its_file_says_at_the_block_that_it_follows(config, place, block, public, public_motion):
    state = public(config, middle=True)
    layers = loaded(config, state)
    width = layers.block(block).inflation.norm.weight.shape[0]
    x = torch.randn(2 * 6, width, 2, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = layers.block(block).inflation(x, 6)
    assert close(got, public_motion.reference(state, place, x, 6))


def test_every_layout_gives_the_same_layers(config, public, public_motion):
    state = public_motion.one_table(public(config, middle=True, frames=32))
    plain = read_motion_module(state, config, "a")
    for other in (
        {f"module.{k}": v for k, v in state.items()},
        public_motion.hotshot(state),
        public_motion.diffusers(state),
        {**state, "epoch": 3},
    ):
        again = read_motion_module(other, config, "b")
        assert again.state.keys() == plain.state.keys()
        assert all(torch.equal(again.state[k], v) for k, v in plain.state.items())


def test_a_file_fills_every_parameter(config, public):
    for middle in (False, True):
        layers = loaded(config, public(config, middle=middle))
        assert (layers.middle_block.inflation is not None) == middle


def test_parts_of_the_pixels_at_a_time_change_nothing(config, monkeypatch, public):
    module = loaded(config, public(config)).block("input_blocks.1").inflation
    x = torch.randn(8, 32, 4, 4, generator=torch.Generator().manual_seed(1))
    whole = module(x, 4)  # with gradients: all at once
    monkeypatch.setitem(PART, "cpu", 1)
    with torch.no_grad():
        assert close(module(x, 4), whole)


def test_a_new_module_leaves_the_image_model_alone(tiny, config):
    """Its last projection is zero, so every frame is what the image model makes, whatever the number of frames."""
    layers = TemporalLayers(config, TemporalConfig(**MOTION, middle=True))
    layers.load_state_dict(initial_state(layers, torch.Generator().manual_seed(0)))
    network = SpaceTimeUNet(tiny.unet(config), layers).double().eval()
    x, timesteps, context, y = tiny.inputs(frames=5, dtype=torch.float64)
    with torch.no_grad():
        got = network(x, timesteps, context, y)
        frames = [network.unet(x[:, :, i], timesteps, context, y) for i in range(5)]
    assert (got - torch.stack(frames, dim=2)).abs().max() < 1e-10


def test_tables_are_sines_and_do_not_learn(config):
    layers = TemporalLayers(config, TemporalConfig(**MOTION))
    state = initial_state(layers, torch.Generator().manual_seed(0))
    tables = {k: v for k, v in state.items() if k.endswith("table.weight")}
    assert tables and all(torch.equal(v, sine_table(*v.shape)) for v in tables.values())
    row = [f(place) for place in (3.0, 0.03) for f in (math.sin, math.cos)]
    assert sine_table(8, 4)[3].tolist() == pytest.approx(row)
    assert all(not p.requires_grad for name, p in layers.named_parameters() if name in tables)
    assert all(p.requires_grad for name, p in layers.named_parameters() if name not in tables)


def test_a_longer_clip_gets_the_table_stretched_over_it():
    module = MotionModule(32, TemporalConfig(depth=1, **MOTION), torch.nn, lambda q, k, v, heads: v)
    attention = module.layers[0]
    tokens = torch.zeros(1, 15, 32)
    with torch.no_grad():
        rows, table = attention.places(tokens), attention.table.weight
        assert torch.allclose(rows[::2], table, atol=1e-6)
        assert torch.allclose(rows[1::2], (table[1:] + table[:-1]) / 2, atol=1e-6)
        assert torch.equal(attention.places(tokens[:, :5]), table[:5])


def test_it_follows_the_transformer_where_lumiere_s_layers_follow_the_last(tiny, config):
    module = TemporalLayers(config, TemporalConfig(**MOTION))
    lumiere = tiny.temporal(config)
    for kinds, after, last in (
        ((False, True), 1, 1),
        ((False,), 0, 0),
        ((False, True, False), 1, 2),
        ((False, False), 0, 1),
    ):
        assert (module.follows(kinds), lumiere.follows(kinds)) == (after, last)


@pytest.mark.parametrize(
    "wrong", [{"stride": 2}, {"condition_channels": 8}, {"table_frames": 1}, {"kind": "animatediff"}]
)
def test_a_configuration_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        TemporalConfig(**{**MOTION, **wrong})


def test_checkpointing_gives_the_same_gradients(tiny, config, public):
    network = SpaceTimeUNet(tiny.unet(config).requires_grad_(False), loaded(config, public(config, middle=True)))
    inputs = tiny.inputs(frames=4)
    gradients = []
    for checkpointing in (False, True):
        network.zero_grad()
        network(*inputs, checkpointing=checkpointing).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.temporal.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))
