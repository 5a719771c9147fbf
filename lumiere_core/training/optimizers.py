"""The optimiser of a run: torch's AdamW, our Muon, or any class that can be imported."""

from __future__ import annotations

import importlib
import inspect

import torch
from torch import nn

from .muon import Muon
from .options import TrainOptions


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Return the optimiser that `options.optimizer` names, for the parameters that train.

    "AdamW" is torch's, "Muon" ours (torch's takes no convolutions); another name of torch.optim ("SGD") or a dotted
    path ("bitsandbytes.optim.AdamW8bit", "prodigyopt.Prodigy") is imported and given lr and, if it takes one,
    weight_decay.

    Raises:
        ValueError: there is no such class.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if options.optimizer == "AdamW":
        return torch.optim.AdamW(
            parameters, lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay, fused=True
        )
    cls = Muon if options.optimizer == "Muon" else _import(options.optimizer)
    values = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    taken = inspect.signature(cls).parameters
    return cls(parameters, **{k: v for k, v in values.items() if k in taken})


def _import(name: str) -> type[torch.optim.Optimizer]:
    place, _, cls = (name if "." in name else f"torch.optim.{name}").rpartition(".")
    try:
        found = getattr(importlib.import_module(place), cls)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the optimiser {name!r} cannot be imported ({error}). Install its package, or use AdamW, a name of "
            "torch.optim, or a dotted path such as bitsandbytes.optim.AdamW8bit."
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ValueError(f"{name} is no optimiser: a subclass of torch.optim.Optimizer is wanted.")
    return found
