"""Full state of a run on disk: weights, EMA and optimiser, in one safetensors file, replaced atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import check_state, load_file, save_file

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
        torch._foreach_lerp_(
            list(self.values.values()), [new[k].detach() for k in self.values], 1 - decay
        )


def save_state(
    folder: Path,
    module: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, str],
) -> None:
    """Write the state of a run, with `facts` (step, options …) as metadata."""
    tensors: dict[str, Tensor] = {f"model.{k}": v for k, v in module.named_parameters()}
    tensors |= {f"ema.{k}": v for k, v in ema.values.items()}
    for name, parameter in module.named_parameters():
        for field, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{field}.{name}"] = value
    save_file(tensors, folder / FILE, facts)


def load_state(
    folder: Path, module: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> dict[str, str]:
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
                parameters[rest].copy_(value)
            elif part == "ema":
                ema.values[rest].copy_(value)
            else:
                field, _, name = rest.partition(".")
                states[name][field] = value
    for name, parameter in parameters.items():
        if states[name]:
            device = parameter.device
            optimizer.state[parameter] = {
                k: v if k == "step" and v.ndim == 0 and device.type == "cpu" else v.to(device)
                for k, v in states[name].items()
            }
    return facts
