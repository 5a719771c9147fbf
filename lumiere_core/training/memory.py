"""How much memory a training run takes: predicted before it starts, measured after."""

from __future__ import annotations

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..nets.config import UNetConfig
from ..nets.stunet import SpaceTimeUNet
from ..nets.temporal import TemporalLayers
from ..nets.unet import UNet
from .options import TrainOptions


class _Peak(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self.now += size
        self.most = max(self.most, self.now)

        def free() -> None:
            self._seen.pop(key, None)
            self.now -= size

        self._seen[key] = weakref.finalize(storage, free)


class _FusedAttention(torch.autograd.Function):
    """What a fused attention kernel keeps: no matrix of scores. The meta device has the plain formula only."""

    @staticmethod
    def forward(context, q, k, v):
        answer = torch.empty_like(q)
        context.save_for_backward(q, k, v, answer)
        return answer

    @staticmethod
    def backward(context, gradient):
        return tuple(torch.empty_like(value) for value in context.saved_tensors[:3])


def _fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    return _FusedAttention.apply(q, k, v)


def activation_bytes(
    unet_config: UNetConfig,
    temporal: TemporalLayers,
    shape: tuple[int, ...],
    context: tuple[int, int],
    batch: int,
    checkpointing: bool,
) -> int:
    """Return the largest sum of activations and gradients of one forward and backward pass in float32.

    Counted on the meta device: nothing is computed. Workspaces of kernels are not in it.

    Args:
        shape: (c, t, h, w) of the latents; what the U-Net sees besides is added. context: (l, d) of the text states.
    """
    y = None
    with torch.device("meta"):
        unet = UNet(unet_config, attention=_fused).requires_grad_(False)
        layers = TemporalLayers(unet_config, temporal.config, attention=_fused)
        network = SpaceTimeUNet(unet, layers)
        x, steps = torch.empty(batch, unet_config.in_channels, *shape[1:]), torch.empty(batch)
        text = torch.empty(batch, *context)
        if unet_config.adm_in_channels:
            y = torch.empty(batch, unet_config.adm_in_channels)
        elif unet_config.num_classes:
            y = torch.empty(batch, dtype=torch.long)
    with _Peak() as peak:
        network(x, steps, text, y, checkpointing=checkpointing).square().mean().backward()
    return peak.most


def predicted_bytes(
    unet: UNet, temporal: TemporalLayers, shape: list[int], context: tuple[int, int], options: TrainOptions
) -> int:
    """Return the predicted peak: frozen weights, trained weights with EMA and optimiser, activations and gradients."""
    frozen = sum(p.numel() * p.element_size() for p in unet.parameters())
    trained = sum(p.numel() for p in temporal.parameters()) * 4
    activations = activation_bytes(
        unet.config,
        temporal,
        tuple(shape),
        context=context,
        batch=options.batch_size,
        checkpointing=options.checkpointing,
    )
    if options.precision == "bfloat16":
        activations = activations * 6 // 10  # most of them in half precision, norms in full
    return frozen + trained * 4 + activations  # weights, EMA, two moments; gradients are in the activations


def measured_bytes(device: str) -> int:
    """Return the peak of this process so far: of the device's memory, or of the resident set on a CPU; 0 = unknown."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def readable(count: float) -> str:
    """Return bytes as MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
