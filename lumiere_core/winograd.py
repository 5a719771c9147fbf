"""3x3 convolution with 4 multiplications a pixel and channel pair instead of 9, for CPUs.

Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, "Fast algorithms for convolutional neural
networks"): an output tile of 2x2 pixels is A' [(G g G') * (B' d B)] A of its 4x4 input tile d and the
kernel g, so the sums over channels are 16 matrix products. GPU libraries choose it by themselves; PyTorch's
CPU convolution does not. Its float32 error is no larger than that of the direct convolution.

Shapes: n - images, c - input channels, o - output channels, h, w - height, width, p - tiles of all images.
Inside, channels come last: additions and matrix products then run over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

# Below these the transforms cost more than the multiplications that they save (measured with AVX2).
MIN_CHANNELS = 192
MIN_PIXELS = 256
# Images are worked in groups whose transformed tiles stay in a processor's last-level cache.
GROUP_BYTES = 8 * 2**20

_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def pays(x: Tensor, weight: Tensor) -> bool:
    """Tell whether `conv3x3` is the faster way for this input and kernel."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and tuple(weight.shape[2:]) == (3, 3)
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and x.shape[0] * x.shape[2] * x.shape[3] >= MIN_PIXELS
        and not torch.is_autocast_enabled("cpu")
    )


def with_winograd(conv2d: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Return a class like `conv2d`, for stride 1 and padding 1, that uses `conv3x3` where it pays.

    `_conv_forward` is where torch's layer, and a host's layer with cast weights, hand over the weight to be
    used; the parameter itself is not read.
    """

    class WinogradConv2d(conv2d):
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            if pays(x, weight):
                return conv3x3(x, weight, bias)
            return super()._conv_forward(x, weight, bias)

    return WinogradConv2d


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the (n, o, h, w) convolution of (n, c, h, w) by (o, c, 3, 3) with padding 1."""
    return _Conv3x3.apply(x, weight, bias)


class _Conv3x3(torch.autograd.Function):
    """The gradient of x is a convolution by the turned kernel; that of the kernel is taken from tiles."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, _transform_kernel(weight, _G).transpose(1, 2), bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            turned = [row[::-1] for row in _G]
            grad_x = _convolve(grad, _transform_kernel(weight, turned), None)
        if ctx.needs_input_grad[1]:
            grad_weight = _kernel_gradient(x, grad)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve by a transformed kernel (16, c, o); the result has the memory layout of x."""
    n, _, h, w = x.shape
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    y = torch.empty(
        (n, kernel.shape[2], h, w), dtype=x.dtype, device=x.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )  # fmt: skip
    for group in _groups(x):
        tiles = torch.bmm(_transform_input(x[group]), kernel)
        y[group] = _transform_output(tiles, bias, h, w)
    return y


def _kernel_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Return the gradient (o, c, 3, 3) of the kernel, by the transposes of the three transforms."""
    total = x.new_zeros(16, grad.shape[1], x.shape[1])
    for group in _groups(x):
        total.baddbmm_(_transpose_output(grad[group]).transpose(1, 2), _transform_input(x[group]))
    kernel = torch.mm(_both_axes(_G, x).t(), total.flatten(1))
    return kernel.view(3, 3, *total.shape[1:]).permute(2, 3, 0, 1).contiguous()


def _groups(x: Tensor) -> Iterator[slice]:
    """Yield slices of the images such that the tiles of a group (4 times their size) stay in the cache."""
    size = max(1, GROUP_BYTES // (4 * x[0].nbytes))
    for start in range(0, x.shape[0], size):
        yield slice(start, start + size)


def _both_axes(matrix: list | tuple, like: Tensor) -> Tensor:
    """Return the (16, 9) matrix that applies a (4, 3) matrix to rows and columns of 3x3 kernels."""
    m = like.new_tensor(matrix)
    return torch.einsum("ai,bj->abij", m, m).reshape(16, 9)


def _transform_kernel(weight: Tensor, matrix: list | tuple) -> Tensor:
    """Return G g G' of every channel pair: (o, c, 3, 3) -> (16, o, c)."""
    kernels = weight.reshape(-1, 9).t()
    return torch.mm(_both_axes(matrix, weight), kernels).view(16, *weight.shape[:2])


def _transform_input(x: Tensor) -> Tensor:
    """Return B' d B of every 4x4 tile, tiles 2 apart: (n, c, h, w) -> (16, p, c)."""
    n, c, h, w = x.shape
    rows, columns = (h + 1) // 2, (w + 1) // 2
    padded = x.new_zeros(n, 2 * rows + 2, 2 * columns + 2, c)
    padded[:, 1 : h + 1, 1 : w + 1] = x.permute(0, 2, 3, 1)

    def combine(d: list[Tensor], out: Tensor) -> None:
        torch.sub(d[0], d[2], out=out[0])
        torch.add(d[1], d[2], out=out[1])
        torch.sub(d[2], d[1], out=out[2])
        torch.sub(d[1], d[3], out=out[3])

    half = x.new_empty(4, n, rows, 2 * columns + 2, c)
    combine([padded[:, i : i + 2 * rows : 2] for i in range(4)], half)
    tiles = x.new_empty(4, 4, n, rows, columns, c)
    combine([half[:, :, :, i : i + 2 * columns : 2] for i in range(4)], tiles.transpose(0, 1))
    return tiles.view(16, -1, c)


def _transform_output(tiles: Tensor, bias: Tensor | None, h: int, w: int) -> Tensor:
    """Return A' m A of every tile, put together: (16, p, o) -> (n, o, h, w), plus the bias."""
    rows, columns = (h + 1) // 2, (w + 1) // 2
    m = tiles.view(4, 4, -1, rows, columns, tiles.shape[-1])
    half = m.new_empty(2, *m.shape[1:])
    torch.add(m[1], m[2], out=half[0]).add_(m[0])
    torch.sub(m[1], m[2], out=half[1]).sub_(m[3])
    m = half.transpose(0, 1)
    y = m.new_empty(m.shape[2], rows, 2, columns, 2, tiles.shape[-1])
    even, odd = (y[:, :, :, :, i].movedim(2, 0) for i in range(2))  # (2, n, rows, columns, o)
    torch.add(m[1], m[2], out=even).add_(m[0])
    torch.sub(m[1], m[2], out=odd).sub_(m[3])
    if bias is not None:
        y += bias
    return y.view(-1, 2 * rows, 2 * columns, y.shape[-1])[:, :h, :w].permute(0, 3, 1, 2)


def _transpose_output(grad: Tensor) -> Tensor:
    """Return A y A' of every 2x2 tile, the transpose of `_transform_output`: (n, o, h, w) -> (16, p, o)."""
    n, o, h, w = grad.shape
    rows, columns = (h + 1) // 2, (w + 1) // 2
    y = grad.new_zeros(n, 2 * rows, 2 * columns, o)
    y[:, :h, :w] = grad.permute(0, 2, 3, 1)

    def combine(y0: Tensor, y1: Tensor, out: Tensor) -> None:
        out[0] = y0
        torch.add(y0, y1, out=out[1])
        torch.sub(y0, y1, out=out[2])
        torch.neg(y1, out=out[3])

    half = y.new_empty(4, n, rows, 2 * columns, o)
    combine(y[:, ::2], y[:, 1::2], half)
    tiles = y.new_empty(4, 4, n, rows, columns, o)
    combine(half[:, :, :, ::2], half[:, :, :, 1::2], tiles.transpose(0, 1))
    return tiles.view(16, -1, o)
