"""Several processes on one run, started by `torchrun`: torch's own DDP or FSDP, one process a device.

Each process takes other batches of a step, so that p processes with batches of b clips make the same step as one
process with batches of p x b.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..device import check_device, tune
from ..nets.temporal_layers import AttentionInflationBlock, ConvInflationBlock
from ..nets.unet_layers import ResBlock, SpatialTransformer
from .parts import Styled

Piece = Callable[[], Tensor]
STRATEGIES = ("ddp", "fsdp")


def joined() -> bool:
    """Whether this process was started by torchrun with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first() -> bool:
    """Whether this process is the one that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: str) -> str:
    """Meet the other processes; returns this process's own device.

    gloo carries the gradients of CPUs, nccl those of GPUs.
    """
    import torch.distributed as dist

    cuda = torch.device(device).type == "cuda"
    if cuda:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    return device


@contextlib.contextmanager
def training_on(device: str) -> Iterator[str]:
    """Yield this process's own device, tried and tuned; others that torchrun started are met first and left in the end.

    Raises:
        ValueError: the device cannot be used.
    """
    device = join(device) if joined() else device
    try:
        check_device(device)
        tune(device)
        yield device
    finally:
        leave()


def wait() -> None:
    """Wait until every process of this run is here, so that all see the files that the first one wrote."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def leave() -> None:
    """Part from the other processes."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def shared(network: nn.Module, strategy: str = "ddp") -> nn.Module:
    """Return a network that the processes train together.

    "ddp" keeps all weights in every process; "fsdp" spreads the weights, the frozen ones too, over them.

    Raises:
        ValueError: the strategy is unknown.
    """
    if strategy == "ddp":
        # Frozen weights are the same everywhere already: each process read them from the same file.
        frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, frozen)
        return DistributedDataParallel(network)
    if strategy != "fsdp":
        raise ValueError(f"the strategy is {strategy!r}; one of {STRATEGIES} is wanted.")
    from torch.distributed.fsdp import fully_shard

    kinds = (ResBlock, SpatialTransformer, ConvInflationBlock, AttentionInflationBlock)
    # Deltas are added to weights outside of the layers that hold them, so all weights must be there at once.
    layers = [] if isinstance(network, Styled) else [m for m in network.modules() if isinstance(m, kinds)]
    for layer in [*layers, network]:
        fully_shard(layer)
    return network


@dataclass(frozen=True)
class Team:
    """What the loop needs to know of the other processes."""

    rank: int = 0
    size: int = 1
    network: Any = None

    @classmethod
    def of(cls, network: nn.Module) -> Team:
        """Return the processes that share a network; only this one where there are no others."""
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), network)

    @property
    def spread(self) -> bool:
        """Whether no process has the whole network (FSDP)."""
        return self.size > 1 and not isinstance(self.network, DistributedDataParallel)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def draws(self) -> bool:
        """Whether this process makes samples: with FSDP no process has the whole network."""
        return self.first and not self.spread

    def batch_number(self, step: int, turn: int, accumulate: int) -> int:
        """Return which batch of the run this process takes in a turn of a step."""
        return (step * accumulate + turn) * self.size + self.rank

    def exchange(self, last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a backward pass; gradients travel with the last one of a step only."""
        if self.spread:
            self.network.set_requires_gradient_sync(last)
        elif self.size > 1 and not last:
            return self.network.no_sync()
        return contextlib.nullcontext()

    def in_step(self, pieces: list[Piece]) -> list[Piece]:
        """Return as many pieces of a step as every process has: with FSDP each call needs all of them.

        Batches of several shapes have more pieces than others; what is added counts nothing.
        """
        if not self.spread:
            return pieces
        import torch.distributed as dist

        most = self._reduced(float(len(pieces)), dist.ReduceOp.MAX)
        last = pieces[-1]
        return pieces + [lambda: last() * 0.0] * (round(most) - len(pieces))

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        return self._reduced(value) / self.size if self.size > 1 else value

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process: all must leave the loop at the same step."""
        return bool(self._reduced(float(flag))) if self.size > 1 else flag

    def _reduced(self, value: float, how: Any = None) -> float:
        import torch.distributed as dist

        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(total, how or dist.ReduceOp.SUM)
        return float(total)
