"""The tree of temporal layers: which block gets which part, the initial state, the state of one call."""

import pytest
import torch

from lumiere_core.clips.video import take_frames
from lumiere_core.nets.temporal import TemporalState, initial_state
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
    assert TemporalState(8, (1, 2, 8), level=1).at_level(values).flatten().tolist() == [0, 4, 16, 36, 64, 100, 144, 196]
    assert TemporalState(8, (1, 2, 8), level=2).at_level(values).flatten().tolist() == [0, 64]
    assert TemporalState(8, (1, 4), level=1).at_level(None) is None


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


def test_places_say_how_far_into_the_clip_a_frame_is(tiny):
    layers = tiny.temporal(config=tiny.temporal_config(frames_per_clip=80))
    whole = layers.places(torch.arange(80), 80)
    assert whole[[0, 40, 79]].tolist() == pytest.approx([0.0, 0.5, 0.9875])
    assert torch.equal(layers.places(torch.arange(16)), whole[:16])  # the beginning of a clip
    assert torch.equal(layers.places(torch.arange(30, 38), 80), whole[30:38])  # a window
    longer = layers.places(torch.tensor([[0, 80], [81, 159]]), 160)
    assert longer.flatten().tolist() == pytest.approx([0.0, 0.5, 81 / 160, 159 / 160])


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
    window = layers.begin(8, *half, torch.float32, layers.places(torch.arange(4, 12), 16)).frame_vector
    assert torch.allclose(window, whole[4:12], atol=1e-6)
    assert torch.allclose(layers.begin(8, *half, torch.float32).frame_vector, whole[::2], atol=1e-5)


def test_where_a_window_begins_changes_the_answer(tiny):
    net = tiny.spacetime(trained=True, temporal={"coordinates": True})
    inputs = tiny.inputs(clips=2)
    frames = torch.arange(inputs.x.shape[2])
    early, late = (net(*inputs, numbers=torch.stack([frames, frames + n])) for n in (0, 4))
    assert torch.equal(early, net(*inputs))
    assert torch.allclose(early[0], late[0], atol=1e-6) and (early[1] - late[1]).abs().max() > 1e-4


@pytest.fixture
def places_seen(tiny, monkeypatch):
    """A function that returns the places (b, padded t) that the blocks of a net are told of."""

    def seen(frames, clips=1, trained_length=8, **options):
        net = tiny.spacetime(temporal={"coordinates": True, "frames_per_clip": trained_length})
        begin, kept = net.temporal.begin, []

        def spy(*args, **options):
            kept.append(options["places"])
            return begin(*args, **options)

        monkeypatch.setattr(net.temporal, "begin", spy)
        net(*tiny.inputs(clips=clips, frames=frames), **options)
        return kept[0]

    return seen


@pytest.mark.parametrize("frames", [4, 8, 9, 11])
def test_padding_changes_no_place(places_seen, frames):
    """9 frames put their last frame at 8/9; the frames that pad them to 10 have the places of those that they repeat."""
    seen = places_seen(frames)[0]
    longest = max(8, frames)
    assert torch.allclose(seen[:frames], torch.arange(frames) / longest)
    padding = [frames - 2 - i for i in range(len(seen) - frames)]
    assert torch.allclose(seen[frames:], torch.tensor(padding) / longest)


@pytest.mark.parametrize("window", [[4, 5, 6, 7], [0, 5, 10, 15], [14, 15, 0, 1]])
def test_every_frame_of_a_window_has_its_own_place(places_seen, window):
    """Strided and wrapped windows are no run of frames that begins somewhere."""
    seen = places_seen(4, numbers=torch.tensor(window), clip_frames=16)
    assert torch.equal(seen[0], torch.tensor(window) / 16)


def test_the_coarse_levels_take_every_stride_th_frame_of_each_clip():
    state = TemporalState(8, (1, 2, 8), level=1)
    assert state.numbers.tolist() == [0, 2, 4, 6]
    rows = torch.arange(16)
    assert take_frames(rows, state.numbers, clips=2).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert state.at_level(rows[:, None]).flatten().tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
