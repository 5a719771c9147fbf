"""Several processes on one run, started by `torchrun`: torch's own DDP or FSDP, one process a device.

Each process takes other batches of a step, so that p processes with batches of b clips make the same step as one
process with batches of p x b.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

STRATEGIES = ("ddp", "fsdp")


def joined() -> bool:
    """Whether this process was started by torchrun with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


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


def leave() -> None:
    """Part from the other processes."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def share(phase: Any, strategy: str = "ddp") -> None:
    """Let the processes train one network together.

    "ddp" keeps all weights in every process; "fsdp" spreads the weights, the frozen ones too, over them.

    Raises:
        ValueError: the phase has no network that can be shared, or the strategy is unknown.
    """
    network = getattr(phase, "network_module", None)
    if network is None:
        raise ValueError(f"the phase {phase.name} runs in one process only; start it without torchrun.")
    if strategy == "ddp":
        # Frozen weights are the same everywhere already: each process read them from the same file.
        frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
        torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, frozen)
        # The convolution of masked conditions takes no part in plain clips.
        idle = network.temporal.conv_cond is not None and phase.name != "condition"
        phase.network_module = torch.nn.parallel.DistributedDataParallel(network, find_unused_parameters=idle)
    elif strategy == "fsdp":
        _shard(network)
    else:
        raise ValueError(f"the strategy is {strategy!r}; one of {STRATEGIES} is wanted.")


def _shard(network: torch.nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard

    from ..nets.temporal_layers import AttentionInflationBlock, ConvInflationBlock
    from ..nets.unet_layers import ResBlock, SpatialTransformer

    kinds = (ResBlock, SpatialTransformer, ConvInflationBlock, AttentionInflationBlock)
    for layer in [m for m in network.modules() if isinstance(m, kinds)]:
        fully_shard(layer)
    fully_shard(network)


@dataclass(frozen=True)
class Team:
    """What the loop needs to know of the other processes."""

    rank: int = 0
    size: int = 1
    network: Any = None

    @classmethod
    def of(cls, phase: Any) -> Team:
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), phase.network_module)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def draws(self) -> bool:
        """Whether this process makes samples: with FSDP no process has the whole network."""
        return self.first and not hasattr(self.network, "set_requires_gradient_sync")

    def batch_number(self, step: int, turn: int, accumulate: int) -> int:
        """Return which batch of the run this process takes in a turn of a step."""
        return (step * accumulate + turn) * self.size + self.rank

    def exchange(self, last: bool) -> contextlib.AbstractContextManager:
        """Return the context of a backward pass; gradients travel with the last one of a step only."""
        if self.size > 1 and not last and hasattr(self.network, "no_sync"):
            return self.network.no_sync()
        if self.size > 1 and hasattr(self.network, "set_requires_gradient_sync"):
            self.network.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes."""
        return float(self._sum(value)) / self.size if self.size > 1 else value

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process: all must leave the loop at the same step."""
        return bool(self._sum(float(flag))) if self.size > 1 else flag

    def _sum(self, value: float) -> Tensor:
        import torch.distributed as dist

        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total
