"""Loops: the temporal layers on a ring of frames (`closed`)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumiere_core.diffusion.generate import Request, generate
from lumiere_core.diffusion.models import load_models
from lumiere_core.nets.ring import ring_distances, ring_places
from lumiere_core.nets.temporal_layers import TemporalConv, TemporalDownsample, TemporalUpsample


def frames(count=12, channels=4):
    return torch.randn(2 * count, channels, 2, 3, generator=torch.Generator().manual_seed(0)).double()


def reference(conv, x, count, stride=1):
    """Circular convolution over time by its definition; taps of `conv`, (2 t, c, h, w) in and out."""
    clips = x.unflatten(0, (2, count))
    reach = conv.kernel_size[0] // 2
    out = sum(
        torch.einsum("oi,btihw->btohw", conv.weight[:, :, reach + tap, 0], clips.roll(-tap, 1))
        for tap in range(-reach, reach + 1)
    )
    return (out + conv.bias[:, None, None])[:, ::stride].flatten(0, 1)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("ends", [False, True])
def test_convolutions_are_circular(kernel, ends):
    x = frames()
    torch.manual_seed(0)
    conv = TemporalConv(4, kernel, nn, repeat_ends=ends).double()
    assert torch.allclose(conv(x, 12, True), reference(conv.conv, x, 12))
    assert not torch.allclose(conv(x, 12), reference(conv.conv, x, 12))
    for stride in (2, 4):
        down = TemporalDownsample(4, kernel, nn, stride, ends).double()
        assert torch.allclose(down(x, 12, True), reference(down.conv, x, 12, stride))
        up = TemporalUpsample(4, kernel, nn, stride, ends).double()
        copies = x.unflatten(0, (2, 12)).repeat_interleave(stride, 1).flatten(0, 1)
        plain = nn.Conv2d(4, 4, (kernel, 1)).double()
        plain.weight, plain.bias = up.conv.weight, up.conv.bias
        assert torch.allclose(up(x, 12, True), reference(plain, copies, 12 * stride))


def test_distances_are_the_shorter_way():
    assert ring_distances(5, "cpu")[0].tolist() == [0, 1, 2, -2, -1]
    assert ring_distances(4, "cpu")[1].tolist() == [-1, 0, 1, -2]


def test_places_go_there_and_back():
    places = ring_places(torch.arange(8), 8)
    assert torch.allclose(places[[0, 2, 4, 6]], torch.tensor([0, 0.5, 1, 0.5]), atol=1e-6)
    assert torch.allclose(places[1:4], places.flip(0)[:3]) and 0 < places[1] < places[2] - places[1]
    assert torch.equal(ring_places(torch.arange(6, 10), 8), ring_places(torch.tensor([6, 7, 0, 1]), 8))


@torch.no_grad()
@pytest.mark.parametrize("coordinates", [False, True])
def test_a_ring_has_no_first_frame(tiny, coordinates):
    """Turning a clip by whole strides turns the answer, with the places of the frames if the layers are told any."""
    net = tiny.spacetime(3, trained=True, temporal={"coordinates": coordinates}).double()
    inputs = tiny.inputs(frames=16, dtype=torch.float64)
    answer = net(*inputs, closed=True)
    for turn in (4, 8, 12):
        order = (torch.arange(16) + turn) % 16
        turned = net(*inputs.replace(x=inputs.x[:, :, order]), closed=True, numbers=order, clip_frames=16)
        assert torch.allclose(turned, answer[:, :, order], atol=1e-12)
        open_ended = net(*inputs.replace(x=inputs.x[:, :, order]), numbers=order, clip_frames=16)
        assert not torch.allclose(open_ended, net(*inputs)[:, :, order], atol=1e-6)


@torch.no_grad()
def test_a_window_of_a_ring_has_ends(tiny):
    """It is an arc: its places are those of the ring, its convolutions end."""
    net = tiny.spacetime(3, trained=True).double()
    inputs = tiny.inputs(frames=8, dtype=torch.float64)
    order = torch.tensor([14, 15, 0, 1, 2, 3, 4, 5])
    arc = net(*inputs, closed=True, numbers=order, clip_frames=16)
    assert torch.allclose(arc, net(*inputs, numbers=order, clip_frames=16), atol=1e-12)


@torch.no_grad()
def test_lengths_that_do_not_close_are_refused(tiny):
    net = tiny.spacetime(3, trained=True)
    with pytest.raises(ValueError, match="loop of 10 frames does not close.*8 or 12 frames"):
        net(*tiny.inputs(frames=10), closed=True)
    net(*tiny.inputs(frames=1), closed=True)  # a still


@torch.no_grad()
def test_attention_of_one_frame_s_distance_is_the_plain_one(tiny):
    """Where no way around is shorter, three frames of a long ring, nothing changes: the same angles in between."""
    from lumiere_core.nets.temporal_layers import rotary

    q, k = (torch.randn(1, 6, 32, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    whole = rotary(q, 2) @ rotary(k, 2).mT
    apart = torch.stack([q[:, i] @ rotary(k, 2, torch.arange(6) - i)[0].mT for i in range(6)], dim=1)
    assert torch.allclose(whole, apart, atol=1e-6)


def test_generate_makes_a_loop(weights):
    """A constant text and places that meet: the last frame is no further from the first than any other two."""
    models, _ = load_models(weights)
    request = Request("a red ball", num_frames=16, height=8, width=8, steps=2, cfg=1.0)
    one_way = generate(models, request).float()
    closed = generate(models, Request(**{**vars(request), "closed": True})).float()
    assert closed.shape == one_way.shape and not torch.equal(closed, one_way)
    assert F.mse_loss(closed[0], closed[-1]).isfinite()
