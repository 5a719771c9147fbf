"""Full state of a run on disk: weights, EMA and optimiser, in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.checkpoint import check_state, load_file, save_file

FILE = "state.safetensors"


class Ema:
    """Exponential moving average of a module's parameters; the decay ramps up over the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's parameters after optimiser step number `step` (from 1)."""
        decay = min(self.decay, step / (step + 10))
        new = dict(module.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [new[k].detach() for k in self.values], 1 - decay)


def whole(value: Tensor) -> Tensor:
    """Return a tensor whose parts may lie in several processes (FSDP); all of them must call this."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _placed_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Spread a whole tensor as the parameter is."""
    if not hasattr(parameter, "full_tensor") or value.ndim == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)


def save_state(
    folder: Path | None, module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer, facts: dict[str, str]
) -> None:
    """Write the state of a run, with `facts` (step, options …) as metadata.

    Args:
        folder: None in the processes that only take part.
    """
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in module.named_parameters()}
    tensors |= {f"ema.{k}": v for k, v in ema.values.items()}
    for name, parameter in module.named_parameters():
        for field, value in optimizer.state.get(parameter, {}).items():
            # Some optimisers count their steps in Python numbers.
            tensors[f"optimizer.{field}.{name}"] = torch.as_tensor(value)
    groups = [
        {k: v for k, v in group.items() if k != "lr" and isinstance(v, (int, float))}
        for group in optimizer.param_groups
    ]
    tensors = {k: whole(v) for k, v in tensors.items()}
    if folder is not None:
        save_file(tensors, folder / FILE, {**facts, "groups": json.dumps(groups)})


def load_state(folder: Path, module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Restore what `save_state` wrote; returns its facts.

    Raises:
        FileNotFoundError: the folder holds no state.
        ValueError: the state belongs to another architecture.
    """
    tensors, facts = load_file(folder / FILE)
    parameters = dict(module.named_parameters())
    own = {f"model.{k}": v for k, v in parameters.items()}
    saved = {k: v for k, v in tensors.items() if k.startswith("model.")}
    check_state(own, saved, f"the weights of the run in {folder}")
    states: dict[str, dict[str, Any]] = {k: {} for k in parameters}
    with torch.no_grad():
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            if part == "model":
                parameters[rest].copy_(_placed_like(value, parameters[rest]))
            elif part == "ema":
                ema.values[rest].copy_(_placed_like(value, ema.values[rest]))
            else:
                field, _, name = rest.partition(".")
                states[name][field] = value
    for name, parameter in parameters.items():
        if states[name]:
            device = parameter.device
            optimizer.state[parameter] = {
                k: v if k == "step" and v.ndim == 0 and device.type == "cpu" else _placed_like(v.to(device), parameter)
                for k, v in states[name].items()
            }
    # What an optimiser learns about itself, such as Prodigy's rate.
    for group, values in zip(optimizer.param_groups, json.loads(facts.get("groups", "[]")), strict=False):
        group.update({k: v for k, v in values.items() if not isinstance(group.get(k), bool)})
    return facts
