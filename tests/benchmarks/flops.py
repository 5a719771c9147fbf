"""FLOPs of the Space-Time U-Net and of what it is compared with, counted on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import reference_lumiere
import sd15
import torch
from figures import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lumiere_core.nets.unet import UNet

SHAPES = ((32, 16), (64, 80))  # latent size, frames
BAR_IMAGE, BAR_CONSTANT = 0.80, 0.60


def measure() -> Iterator[Figure]:
    """Yield FLOPs and their ratios, forward and forward + backward.

    The image model is frozen in all, as in training: the inflated networks take the gradients of their new
    layers. The image model alone has none to take, so its backward pass goes to the input.
    """
    with torch.device("meta"):
        image = sd15.unet()
        ours, constant = sd15.space_time(image), sd15.space_time(image, stride=1)
    for size, frames in SHAPES:
        x, timesteps, context = sd15.inputs(frames, size, "meta")

        def run(network: Callable[..., Tensor], x: Tensor, rest=(timesteps, context)) -> Tensor:
            return network(x, *rest)

        networks = {
            "image_model": _frame_by_frame(image),
            "constant_length": constant,
            "lumiere_pytorch": _reference(image, size),
        }
        for way, count in (("forward", _forward), ("forward_backward", _forward_backward)):
            name = f"flops.{way}.{size}x{size}x{frames}"
            mine = count(run, ours, x)
            yield Figure(f"{name}.ours", mine / 1e12, "TFLOP")
            for other, network in networks.items():
                if network is None:
                    continue
                bar = {"image_model": BAR_IMAGE, "constant_length": BAR_CONSTANT}.get(other)
                theirs = count(run, network, x)
                yield Figure(f"{name}.{other}", theirs / 1e12, "TFLOP")
                yield Figure(f"{name}.ours_over_{other}", mine / theirs, "ratio", bar)


def _frame_by_frame(image: UNet) -> Callable[..., Tensor]:
    def network(x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        x = x.detach().requires_grad_(torch.is_grad_enabled())
        return sd15.frame_by_frame(image, x, timesteps, context)

    return network


def _reference(image: UNet, size: int) -> nn.Module | None:
    """Return lumiere-pytorch around the same U-Net, or None without it."""
    try:
        with torch.device("meta"):
            return reference_lumiere.wrap(image, size, sd15.HEADS, sd15.DEPTH)
    except reference_lumiere.Unavailable:
        return None


def _count(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _forward(run: Callable, network: Callable, x: Tensor) -> int:
    with torch.no_grad():
        return _count(lambda: run(network, x))


def _forward_backward(run: Callable, network: Callable, x: Tensor) -> int:
    return _count(lambda: run(network, x).sum().backward())
