"""The tree of temporal layers: which block gets which part, the initial state, the state of one call."""

import pytest
import torch

from lumiere_core.nets.temporal import TemporalState, clip_position, initial_state
from lumiere_core.nets.temporal_layers import AttentionInflationBlock, ConvInflationBlock
from lumiere_core.nets.unet import block_names


def test_every_block_gets_the_parts_that_the_paper_draws(tiny):
    """Attention at the coarsest level only, convolutions elsewhere, a resize with each spatial resize."""
    config = tiny.unet_config(3)
    layers = tiny.temporal(config)
    for name, level, _, resize in block_names(config):
        block = layers.block(name)
        if resize == "first":
            assert block is None
            continue
        assert (block.down is not None) == (resize == "down")
        assert (block.up is not None) == (resize == "up")
        if resize == "down":
            assert block.inflation is None
        else:
            wanted = AttentionInflationBlock if level == 2 else ConvInflationBlock
            assert isinstance(block.inflation, wanted), name


@pytest.mark.parametrize(("levels", "stride", "total"), [(2, 2, 2), (3, 2, 4), (4, 2, 8), (3, 4, 16), (3, 1, 1)])
def test_total_stride(tiny, levels, stride, total):
    layers = tiny.temporal(tiny.unet_config(levels), tiny.temporal_config(stride=stride))
    assert layers.total_stride == total


def test_state_dict_keys_name_the_block_that_they_follow(tiny):
    keys = tiny.temporal(tiny.unet_config(3)).state_dict()
    for wanted in (
        "input_blocks.1.inflation.temporal_conv.conv.weight",
        "input_blocks.2.down.conv.weight",
        "input_blocks.5.inflation.layers.1.to_q.weight",
        "middle_block.inflation.proj.weight",
        "output_blocks.1.up.conv.weight",
    ):
        assert wanted in keys


def test_last_projections_are_zero_at_the_start(tiny):
    state = tiny.temporal(tiny.unet_config(3)).state_dict()
    projections = [k for k in state if ".inflation.proj." in k]
    blocks = [k for k in state if k.endswith(".inflation.proj.weight")]
    assert len(blocks) == 3 + 1 + 6  # encoder, middle, decoder
    assert all(state[k].count_nonzero() == 0 for k in projections)
    modulations = [k for k in state if "modulation" in k]
    assert modulations and all(state[k].count_nonzero() == 0 for k in modulations)


def test_resizes_are_the_identity_at_the_start(tiny):
    state = tiny.temporal(tiny.unet_config(3)).state_dict()
    resizes = [k for k in state if k.endswith((".down.conv.weight", ".up.conv.weight"))]
    assert len(resizes) == 4
    for key in resizes:
        channels, _, kernel, _ = state[key].shape
        wanted = torch.zeros_like(state[key])
        wanted[range(channels), range(channels), kernel // 2, 0] = 1
        assert torch.equal(state[key], wanted), key
        assert state[key.replace("weight", "bias")].count_nonzero() == 0


def test_everything_else_starts_random_and_follows_the_seed(tiny):
    layers = tiny.temporal()
    first, again, other = (initial_state(layers, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(first[k], again[k]) for k in first)
    key = "middle_block.inflation.layers.0.to_q.weight"
    assert first[key].std() > 0.01 and not torch.equal(first[key], other[key])


def test_values_per_frame_are_strided_never_averaged():
    values = torch.arange(16.0)[:, None] ** 2  # two clips of 8 frames
    assert TemporalState(8).at_level(values) is values
    assert TemporalState(8, stride=2).at_level(values).flatten().tolist() == [0, 4, 16, 36, 64, 100, 144, 196]
    assert TemporalState(8, stride=8).at_level(values).flatten().tolist() == [0, 64]
    assert TemporalState(8, stride=4).at_level(None) is None


def test_state_follows_the_resizes_and_counts_the_parts(tiny):
    layers = tiny.temporal(tiny.unet_config(3))
    inputs = tiny.inputs(clips=8)
    state = layers.begin(8, inputs.timesteps, inputs.context, inputs.y, torch.float32)
    assert (state.stride, state.level_frames, state.calls) == (1, 8, 0)
    h = layers.downsample("input_blocks.2", torch.randn(8, 32, 2, 2), state)
    assert (state.stride, state.level_frames, h.shape[0]) == (2, 4, 4)
    h = layers.inflate("input_blocks.3", h, state)
    h = layers.upsample("output_blocks.3", h, state)
    assert (state.stride, state.level_frames, h.shape[0], state.calls) == (1, 8, 8, 3)


def test_the_frame_vector_is_absent_where_the_configuration_says_so(tiny):
    layers = tiny.temporal(config=tiny.temporal_config(condition_channels=0))
    inputs = tiny.inputs(clips=4)
    state = layers.begin(4, inputs.timesteps, inputs.context, inputs.y, torch.float32)
    assert layers.condition is None and state.frame_vector is None
    assert not [k for k in layers.state_dict() if "modulation" in k or k.startswith("condition")]


def test_the_frame_vector_is_one_vector_a_frame(tiny):
    layers = tiny.temporal(trained=True)
    inputs = tiny.inputs(clips=4)
    state = layers.begin(2, inputs.timesteps, inputs.context, inputs.y, torch.float32)
    assert state.frame_vector.shape == (4, 32)
    alone = layers.begin(2, inputs.timesteps[2:3], inputs.context[2:3], inputs.y[2:3], torch.float32)
    assert torch.allclose(state.frame_vector[2:3], alone.frame_vector, atol=1e-6)
    assert (state.frame_vector[0] - state.frame_vector[1]).abs().max() > 1e-3


def test_clip_position_says_how_far_into_the_clip_a_frame_is():
    start = torch.zeros(1)
    whole = clip_position(80, 80, start)[0]
    assert whole[[0, 40, 79]].tolist() == pytest.approx([0.0, 0.5, 0.9875])
    assert torch.equal(clip_position(16, 80, start)[0], whole[:16])  # the beginning of a clip
    assert torch.equal(clip_position(8, 80, torch.tensor([0.0, 30.0]))[1], whole[30:38])  # a window
    assert clip_position(160, 160, start)[0, [0, 80]].tolist() == [0.0, 0.5]


def test_the_frame_vector_tells_the_frames_of_a_clip_apart(tiny):
    config = tiny.temporal_config(coordinates=True)
    inputs = tiny.inputs(clips=1)
    given = [v.repeat_interleave(8, dim=0) for v in (inputs.timesteps, inputs.context, inputs.y)]

    def vectors(layers, clips=1):
        rows = (v.repeat(clips, *[1] * (v.ndim - 1)) for v in given)
        return layers.begin(8, *rows, torch.float32).frame_vector

    layers = tiny.temporal(config=config)
    once, twice = vectors(layers), vectors(layers, 2)
    assert torch.pdist(once).min() > 1e-3
    assert torch.allclose(twice, once.repeat(2, 1), atol=1e-6)  # each clip begins anew
    same = vectors(tiny.temporal())
    assert torch.allclose(same, same[:1].expand_as(same))


def test_a_window_of_a_long_clip_has_the_places_of_that_clip(tiny):
    """A clip of twice the trained length is stretched over the trained range."""
    layers = tiny.temporal(config=tiny.temporal_config(coordinates=True, frames_per_clip=8))
    given = [v.repeat_interleave(16, dim=0) for v in list(tiny.inputs(clips=1))[1:]]
    whole = layers.begin(16, *given, torch.float32).frame_vector
    half = [v[:8] for v in given]
    window = layers.begin(8, *half, torch.float32, torch.tensor([4.0]), 16).frame_vector
    assert torch.allclose(window, whole[4:12], atol=1e-6)
    assert torch.allclose(layers.begin(8, *half, torch.float32).frame_vector, whole[::2], atol=1e-5)


def test_where_a_window_begins_changes_the_answer(tiny):
    net = tiny.spacetime(trained=True, temporal={"coordinates": True})
    inputs = tiny.inputs(clips=2)
    early, late = (net(*inputs, starts=torch.tensor([0.0, n])) for n in (0.0, 4.0))
    assert torch.equal(early, net(*inputs))
    assert torch.allclose(early[0], late[0], atol=1e-6) and (early[1] - late[1]).abs().max() > 1e-4
