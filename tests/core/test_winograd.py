"""The fast 3x3 convolution is the convolution: values, gradients, sizes, layouts, and when it is used."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lumiere_core import winograd
from lumiere_core.temporal_layers import ConvInflationBlock, TemporalUpsample


def problem(n, c, o, h, w):
    generator = torch.Generator().manual_seed(h * 16 + w)
    shapes = ((n, c, h, w), (o, c, 3, 3), (o,), (n, o, h, w))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def with_gradients(conv, x, weight, bias, gradient):
    inputs = [v.clone().requires_grad_() for v in (x, weight, bias)]
    y = conv(*inputs)
    y.backward(gradient)
    return [y.detach(), *(v.grad for v in inputs)]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 6), (8, 9), (5, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_convolution(size, layout, monkeypatch):
    x, weight, bias, gradient = problem(5, 4, 3, *size)
    x = x.contiguous(memory_format=layout)
    monkeypatch.setattr(winograd, "GROUP_BYTES", 8 * x[0].nbytes)  # groups of 2, 2 and 1 images
    wanted = with_gradients(lambda *a: F.conv2d(*a, padding=1), x, weight, bias, gradient)
    for got, want in zip(
        with_gradients(winograd.conv3x3, x, weight, bias, gradient), wanted, strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    assert winograd.conv3x3(x, weight, None).is_contiguous(memory_format=layout)


def test_its_float32_error_is_small():
    x, weight, bias, _ = problem(2, 256, 32, 12, 12)
    got = winograd.conv3x3(x.float(), weight.float() / 48, bias.float())
    want = F.conv2d(x, weight / 48, bias, padding=1)
    assert (got - want).abs().max() < 1e-5


def test_unneeded_gradients_are_not_taken():
    x, weight, bias, gradient = problem(2, 3, 3, 4, 4)
    weight.requires_grad_()
    winograd.conv3x3(x, weight, bias).backward(gradient)
    assert weight.grad is not None and x.grad is None and bias.grad is None


@pytest.mark.parametrize(
    ("channels", "size", "dtype", "kernel", "expected"),
    [
        (192, 16, torch.float32, 3, True),
        (64, 16, torch.float32, 3, False),
        (192, 8, torch.float32, 3, False),
        (192, 16, torch.float64, 3, False),
        (192, 16, torch.float32, 5, False),
    ],
)
def test_it_is_used_where_it_pays(channels, size, dtype, kernel, expected):
    x = torch.zeros(1, 1, size, size, dtype=dtype).expand(1, channels, size, size)
    weight = torch.zeros(1, 1, kernel, kernel, dtype=dtype).expand(channels, channels, -1, -1)
    assert winograd.pays(x, weight) is expected
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight)
    assert not winograd.pays(x.to("meta"), weight.to("meta"))


def test_a_layer_with_cast_weights_uses_it(monkeypatch):
    """A host's layer hands its cast weight to `_conv_forward`; the parameter may be of another dtype."""

    class HalfConv2d(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight.to(x.dtype), self.bias.to(x.dtype))

    calls = []
    real = winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda *a: calls.append(1) or real(*a))
    layer = winograd.with_winograd(HalfConv2d)(192, 192, 3, padding=1).half()
    x = torch.randn(1, 192, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = F.conv2d(x, layer.weight.float(), layer.bias.float(), padding=1)
        torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-5)
    assert calls == [1]
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_the_block_is_the_same_with_and_without_it(monkeypatch):
    torch.manual_seed(0)
    block = ConvInflationBlock(192, 3, 3, 0, nn)
    nn.init.normal_(block.proj.weight, std=0.05)
    clips = torch.randn(4, 192, 9, 11)
    with torch.no_grad():
        fast = block(clips, 2, None)
        monkeypatch.setattr(winograd, "MIN_CHANNELS", 1000)
        torch.testing.assert_close(fast, block(clips, 2, None), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("stride", "kernel"), [(2, 3), (4, 3), (2, 5), (2, 7), (1, 3), (2, 1)])
def test_upsampling_duplicates_then_convolves(stride, kernel):
    torch.manual_seed(0)
    up = TemporalUpsample(4, kernel, stride, nn).double()
    clips = torch.randn(2 * 3, 4, 2, 3, dtype=torch.float64)
    copies = clips.repeat_interleave(stride, dim=0).unflatten(0, (2, 3 * stride))
    plane = copies.transpose(1, 2).flatten(3)  # b c t (h w)
    want = F.conv2d(plane, up.conv.weight, up.conv.bias, padding=(kernel // 2, 0))
    want = want.transpose(1, 2).reshape(2 * 3 * stride, 4, 2, 3)
    torch.testing.assert_close(up(clips, 3), want, rtol=0, atol=1e-12)
