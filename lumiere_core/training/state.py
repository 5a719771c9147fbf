"""Full state of a run on disk: weights, EMA and optimiser, in one safetensors file, replaced atomically."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.checkpoint import check_state, load_file, load_metadata, save_file
from .options import TrainOptions

FILE = "state.safetensors"
ADDED = {"architecture", "photographs", "size"}  # facts that earlier versions did not write


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
    """Return a tensor whose parts may lie in several processes (FSDP); all of them must call this. Any shape."""
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

    Raises:
        FloatingPointError: something is not finite; the state before stays.
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
    if broken := _not_finite(tensors):
        raise FloatingPointError(
            f"{broken} is not finite at step {facts['step']}, so nothing is written; the last saved state stays. Resume "
            "from it with a lower --learning-rate."
        )
    if folder is not None:
        save_file(tensors, folder / FILE, {**facts, "groups": json.dumps(groups), "keys": _digest(tensors)})


def load_state(
    folder: Path,
    module: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    name: str,
    options: TrainOptions,
    data: dict[str, str],
) -> int:
    """Restore what `save_state` wrote of the same run; returns its step.

    Args:
        name: of the stage.
        data: facts that name the data and the model; they must be those of the state.

    Raises:
        FileNotFoundError: the folder holds no state.
        ValueError: the state is of another run, or damaged; what differs is named.
    """
    tensors, facts = load_file(folder / FILE)
    _check_facts(folder, facts, name, options=options, data=data)
    parameters = dict(module.named_parameters())
    for part in ("model", "ema"):
        saved = {k: v for k, v in tensors.items() if k.startswith(f"{part}.")}
        check_state({f"{part}.{k}": v for k, v in parameters.items()}, saved, f"the weights of the run in {folder}")
    if facts.get("keys") != _digest(tensors):
        raise _damaged(folder, "tensors of its optimiser are missing or of another shape")
    if broken := _not_finite(tensors):
        raise _damaged(folder, f"{broken} is not finite")
    groups = json.loads(facts["groups"])
    if len(groups) != len(optimizer.param_groups) or not all(map(_is_group, groups, optimizer.param_groups)):
        raise _damaged(folder, f"the settings of its optimiser are {facts['groups']:.80}")
    states: dict[str, dict[str, Any]] = {k: {} for k in parameters}
    with torch.no_grad():
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            if part == "model":
                parameters[rest].copy_(_placed_like(value, parameters[rest]))
            elif part == "ema":
                ema.values[rest].copy_(_placed_like(value, ema.values[rest]))
            else:
                field, _, owner = rest.partition(".")
                states[owner][field] = value
    for key, parameter in parameters.items():
        if states[key]:
            device = parameter.device
            optimizer.state[parameter] = {
                k: v if k == "step" and v.ndim == 0 and device.type == "cpu" else _placed_like(v.to(device), parameter)
                for k, v in states[key].items()
            }
    # What an optimiser learns about itself, such as Prodigy's rate.
    for group, values in zip(optimizer.param_groups, groups, strict=True):
        group.update({k: v for k, v in values.items() if not isinstance(group.get(k), bool)})
    return int(facts["step"])


def saved_step(folder: Path) -> int:
    """Return the step of the state in a folder, without reading its tensors; 0 = it says none."""
    step = _facts(folder).get("step", "")
    return int(step) if step.isdecimal() else 0


def is_of(folder: Path, name: str, options: TrainOptions, data: dict[str, str]) -> bool:
    """Tell whether the state in a folder is one that this run may go on from; see `load_state`."""
    try:
        _check_facts(folder, _facts(folder), name, options=options, data=data)
    except ValueError:
        return False
    return True


def _facts(folder: Path) -> dict[str, str]:
    try:
        return load_metadata(folder / FILE)
    except (OSError, ValueError):
        return {}


def _check_facts(folder: Path, facts: dict[str, str], name: str, options: TrainOptions, data: dict[str, str]) -> None:
    if facts.get("phase") != name:
        raise ValueError(f"{folder} holds a run of `train {facts.get('phase')}`, not of `train {name}`.")
    if not facts.get("step", "").isdecimal() or not isinstance(_json(facts.get("groups")), list):
        raise _damaged(folder, f"its step is {facts.get('step')!r}, its optimiser {facts.get('groups')!r:.40}")
    before = _json(facts.get("options"))
    if not isinstance(before, dict):
        raise _damaged(folder, f"its options are {facts.get('options')!r:.40}")
    if changed := options.differences(before):
        raise ValueError(
            f"the run in {folder} was started with other options: {'; '.join(changed)}. "
            "Give the same ones, or start a new run with --init-from and another --output."
        )
    found = {k: v for k, v in facts.items() if k.startswith("data.")}
    different = sorted(
        k.removeprefix("data.") for k in found | data if found.get(k) != data.get(k) and not _is_new(k, found)
    )
    if different:
        raise ValueError(
            f"the run in {folder} was started on other data or another model: {', '.join(different)} differ. Give the "
            "same ones, or start a new run with --init-from and another --output."
        )


def _is_new(name: str, found: dict[str, str]) -> bool:
    """Whether a fact is one that the states of earlier versions do not have."""
    return name not in found and name.removeprefix("data.") in ADDED


def _is_group(saved: Any, group: dict[str, Any]) -> bool:
    """Whether a state says of a group of parameters what `save_state` writes: numbers, where the optimiser has numbers."""
    return isinstance(saved, dict) and all(
        k != "lr" and all(isinstance(n, (int, float)) for n in (v, group.get(k, v))) and v == v
        for k, v in saved.items()
    )


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None


def _damaged(folder: Path, problem: str) -> ValueError:
    return ValueError(
        f"the state in {folder} is damaged: {problem}. Start a new run from its last weights with --init-from and "
        "another --output."
    )


def _digest(tensors: dict[str, Tensor]) -> str:
    listing = sorted((key, tuple(value.shape)) for key, value in tensors.items())
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]


def _not_finite(tensors: dict[str, Tensor]) -> str:
    """Return the name of the first tensor with NaN or infinity in it; "" = none."""
    return next((k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()), "")
