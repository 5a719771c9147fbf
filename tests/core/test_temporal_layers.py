"""Each temporal part by itself (Lumiere §3.1, figure 4): norms per frame, reach in time, resizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumiere_core.nets.attention import scaled_dot_product
from lumiere_core.nets.config import TemporalConfig
from lumiere_core.nets.temporal_layers import (
    AttentionInflationBlock,
    ConvInflationBlock,
    TemporalConv,
    TemporalDownsample,
    TemporalUpsample,
    rotary,
)

FRAMES = 8
CHANNELS = 64  # two a group, so that the norms are not of single channels


@pytest.fixture
def clips():
    """Two clips of 8 frames, ((b t), c, h, w), float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2 * FRAMES, CHANNELS, 3, 2, generator=generator).double()


@pytest.fixture
def condition():
    return torch.randn(2 * FRAMES, 32, generator=torch.Generator().manual_seed(1)).double()


def config(**values):
    return TemporalConfig(**{"num_head_channels": 16, "condition_channels": 32, **values})


def conv_block(tiny, temporal_kernel=3):
    return randomised(tiny, ConvInflationBlock(CHANNELS, config(temporal_kernel=temporal_kernel), nn))


def attention_block(tiny):
    return randomised(tiny, AttentionInflationBlock(CHANNELS, config(), nn, scaled_dot_product))


def randomised(tiny, module):
    torch.manual_seed(0)
    tiny.randomise(module, torch.Generator().manual_seed(3))
    return module.double()


@torch.no_grad()
def changed_frames(run, clips, frame=4):
    """Frame numbers (over both clips) whose answer differs after one input frame is changed."""
    other = clips.clone()
    other[frame] = other[frame] * 3 + 1
    moved = (run(other) - run(clips)).abs().amax(dim=(1, 2, 3))
    return [i for i, value in enumerate(moved) if value > 1e-12]


def norms_of(block):
    return [name for name, module in block.named_modules() if isinstance(module, nn.GroupNorm)]


def norm_answer(block, name, condition):
    """A function from input frames to what one norm of a block answers."""

    def run(x):
        answers = []
        handle = block.get_submodule(name).register_forward_hook(
            lambda *a: answers.append(a[2].clone())  # it may be overwritten
        )
        try:
            block(x, FRAMES, condition)
        finally:
            handle.remove()
        assert len(answers) == 1 and answers[0].shape == x.shape  # all frames as a batch of images
        return answers[0]

    return run


def test_the_norms_of_a_convolution_block_see_one_frame(tiny, clips, condition):
    block = conv_block(tiny)
    assert norms_of(block) == ["norm", "temporal_norm"]
    assert changed_frames(norm_answer(block, "norm", condition), clips) == [4]
    # Its input comes out of a temporal convolution of kernel 3: one frame to each side and no more.
    assert changed_frames(norm_answer(block, "temporal_norm", condition), clips) == [3, 4, 5]


def test_the_norms_of_an_attention_block_see_one_frame(tiny, clips, condition):
    block = attention_block(tiny)
    assert norms_of(block) == ["layers.0.norm", "layers.1.norm"]
    assert changed_frames(norm_answer(block, "layers.0.norm", condition), clips) == [4]
    # The first layer's attention mixes frames of the clip; with it silent, the second norm sees one too.
    nn.init.zeros_(block.layers[0].to_out.weight)
    assert changed_frames(norm_answer(block, "layers.1.norm", condition), clips) == [4]


def test_norms_do_normalise_each_frame(tiny, clips, condition):
    """Every (frame, group of channels) has mean 0 and variance 1 before the norm's own scale."""
    block = conv_block(tiny)
    for name in ("norm", "temporal_norm"):
        norm = block.get_submodule(name)
        nn.init.ones_(norm.weight), nn.init.zeros_(norm.bias)
        groups = norm_answer(block, name, condition)(clips).reshape(2 * FRAMES, 32, -1)
        assert groups.mean(dim=-1).abs().max() < 1e-10
        assert (groups.var(dim=-1, unbiased=False) - 1).abs().max() < 1e-3


def test_a_convolution_block_of_temporal_kernel_1_never_mixes_frames(tiny, clips, condition):
    block = conv_block(tiny, temporal_kernel=1)
    assert changed_frames(lambda x: block(x, FRAMES, condition), clips) == [4]


def test_a_convolution_block_reaches_one_frame_to_each_side(tiny, clips, condition):
    block = conv_block(tiny)
    run = lambda x: block(x, FRAMES, condition)  # noqa: E731
    assert changed_frames(run, clips) == [3, 4, 5]
    assert changed_frames(run, clips, frame=7) == [6, 7]  # not frame 8, of the next clip


def test_an_attention_block_reaches_the_whole_clip_and_no_other(tiny, clips, condition):
    block = attention_block(tiny)
    run = lambda x: block(x, FRAMES, condition)  # noqa: E731
    assert changed_frames(run, clips) == list(range(8))
    assert changed_frames(run, clips, frame=9) == list(range(8, 16))


@torch.no_grad()
def test_temporal_attention_looks_at_one_pixel_only(tiny, clips, condition):
    block, other = attention_block(tiny), clips.clone()
    for layer in block.layers:
        layer.norm = nn.Identity()  # a norm spreads a pixel's change over its own frame
    other[4, :, 1, 1] += 1
    difference = block(other, FRAMES, condition) - block(clips, FRAMES, condition)
    difference = difference.abs().amax(dim=(0, 1))
    assert difference[1, 1] > 1e-3
    difference[1, 1] = 0
    assert difference.max() < 1e-12


@torch.no_grad()
def test_blocks_with_a_zero_projection_are_the_identity(tiny, clips, condition):
    for block in (conv_block(tiny), attention_block(tiny)):
        assert (block(clips, FRAMES, condition) - clips).abs().max() > 1e-3
        nn.init.zeros_(block.proj.weight), nn.init.zeros_(block.proj.bias)
        assert torch.equal(block(clips, FRAMES, condition), clips)


@torch.no_grad()
@pytest.mark.parametrize("repeat_ends", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_temporal_convolution_is_conv1d_over_the_frames_of_a_pixel(clips, stride, repeat_ends):
    torch.manual_seed(0)
    layer = TemporalConv(CHANNELS, 3, nn, stride, repeat_ends).double()
    pixels = clips.unflatten(0, (2, FRAMES)).permute(0, 3, 4, 2, 1).reshape(-1, CHANNELS, FRAMES)
    pixels = with_ends(pixels, 1, repeat_ends)
    wanted = F.conv1d(pixels, layer.conv.weight[..., 0], layer.conv.bias, stride)
    wanted = wanted.reshape(2, 3, 2, CHANNELS, -1).permute(0, 4, 3, 1, 2).flatten(0, 1)
    assert torch.allclose(layer(clips, FRAMES), wanted, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 4])
def test_resizes_at_the_start_keep_every_nth_frame_and_repeat_it(clips, stride):
    down = identity(TemporalDownsample(CHANNELS, 3, nn, stride))
    up = identity(TemporalUpsample(CHANNELS, 3, nn, stride))
    shorter = down(clips, FRAMES)
    assert torch.equal(shorter, clips.unflatten(0, (2, FRAMES))[:, ::stride].flatten(0, 1))
    longer = up(shorter, FRAMES // stride).unflatten(0, (2, FRAMES))
    for frame in range(FRAMES):  # frame duplication, not interpolation
        key = frame // stride * stride
        assert torch.equal(longer[:, frame], clips.unflatten(0, (2, FRAMES))[:, key])


@torch.no_grad()
@pytest.mark.parametrize("repeat_ends", [False, True])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 1), (3, 2), (5, 2), (3, 4), (5, 4)])
def test_trained_upsampling_is_a_convolution_of_duplicated_frames(clips, kernel, stride, repeat_ends):
    """However it is computed, the clip's ends included."""
    torch.manual_seed(0)
    layer = TemporalUpsample(CHANNELS, kernel, nn, stride, repeat_ends).double()
    longer = clips.unflatten(0, (2, FRAMES)).repeat_interleave(stride, dim=1)
    pixels = longer.permute(0, 3, 4, 2, 1).reshape(-1, CHANNELS, FRAMES * stride)
    wanted = F.conv1d(with_ends(pixels, kernel // 2, repeat_ends), layer.conv.weight[..., 0], layer.conv.bias)
    wanted = wanted.reshape(2, 3, 2, CHANNELS, -1).permute(0, 4, 3, 1, 2).flatten(0, 1)
    assert torch.allclose(layer(clips, FRAMES), wanted, atol=1e-12)


def with_ends(pixels, count, repeat_ends):
    """(n, c, t) with zeros, or its first and last value, so many times before and after it."""
    return F.pad(pixels, (count, count), mode="replicate" if repeat_ends else "constant")


@torch.no_grad()
def test_a_clip_that_stands_still_has_no_ends_where_they_are_repeated(tiny):
    """Zeros beyond the clip would tell its first frame from the others."""
    network = tiny.spacetime(trained=True, temporal={"repeat_ends": True})
    inputs = tiny.inputs(frames=1)
    inputs = inputs.replace(x=inputs.x.expand(-1, -1, 8, -1, -1))
    clip = network(*inputs)
    assert (clip - clip[:, :, :1]).abs().max() < 1e-5
    network = tiny.spacetime(trained=True)
    clip = network(*inputs)
    assert (clip - clip[:, :, :1]).abs().max() > 1e-3


@torch.no_grad()
def test_ends_are_repeated_up_to_a_timestep_in_each_clip(tiny):
    """Beyond it the network is that of zeros, below it that of repeated ends, also of clips in one batch."""
    build = lambda **temporal: tiny.spacetime(trained=True, temporal={"stride": 2, **temporal})  # noqa: E731
    zeros, repeated = build(), build(repeat_ends=True)
    some = build(repeat_ends=True, ends_until=500)
    inputs = tiny.inputs(clips=3, frames=8).replace(timesteps=torch.tensor([500.0, 501.0, 20.0]))
    made = [network(*inputs) for network in (repeated, zeros)]
    assert (made[0] - made[1]).flatten(1).abs().amax(1).min() > 1e-3
    wanted = torch.stack([made[0][0], made[1][1], made[0][2]])
    assert torch.allclose(some(*inputs), wanted, atol=1e-5)
    assert "ends_until" not in zeros.temporal.config.to_dict()
    with pytest.raises(ValueError, match="ends_until is 500, but ends are not repeated"):
        build(ends_until=500)


def identity(layer):
    nn.init.dirac_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    return layer.double()


def test_rotary_position_is_relative_and_keeps_lengths():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 32, generator=generator).expand(1, 12, 32) for _ in range(2))
    q, k = rotary(q, heads=2), rotary(k, heads=2)
    assert torch.allclose(q.norm(dim=-1), q[:, :1].norm(dim=-1).expand(1, 12), atol=1e-5)
    scores = torch.einsum("nic,njc->nij", q[..., :16], k[..., :16])[0]  # of the first head
    for offset in (-3, 1, 5):
        diagonal = scores.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert scores.diagonal(1)[0] != pytest.approx(scores.diagonal(5)[0].item(), abs=1e-2)


@torch.no_grad()
def test_attention_tells_the_order_of_frames(tiny, clips, condition):
    """Without a position, reversing a clip would only reverse the answer."""
    block = attention_block(tiny)
    alike = condition[:1].expand_as(condition)
    reverse = lambda x: x.unflatten(0, (2, FRAMES)).flip(1).flatten(0, 1)  # noqa: E731
    forwards, backwards = block(clips, FRAMES, alike), block(reverse(clips), FRAMES, alike)
    assert (backwards - reverse(forwards)).abs().max() > 1e-3


@torch.no_grad()
def test_attention_knows_frames_by_their_distance(tiny, clips):
    """In a clip of one repeated frame, the score of two frames depends on how far apart they are only."""
    scores = []

    def attention(q, k, v, heads):
        q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
        scores.append((q @ k.transpose(-1, -2))[0, 0])
        return v

    block = randomised(tiny, AttentionInflationBlock(CHANNELS, config(condition_channels=0), nn, attention))
    block(clips[:1].expand(FRAMES, -1, -1, -1), FRAMES, None)
    for score in scores:
        for distance in range(-FRAMES + 1, FRAMES):
            assert score.diagonal(distance).std(unbiased=False) < 1e-4
        assert score[0].std() > 1e-2  # and does depend on it
