"""Networks in bfloat16 on weights in float32."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class Lowered:
    """Calls a copy of a network in another dtype; the gradients of its weights reach the weights in their own.

    Autocast keeps norms, and what follows them, in float32: with few channels, moving those is most of the work.

    Args:
        network: its frozen weights are copied once, those that train whenever they changed.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self.dtype = dtype
        # Parameter by parameter: a copy of everything in float32 might not fit.
        copies = {id(p): nn.Parameter(p.detach().to(dtype), p.requires_grad) for p in network.parameters()}
        self._own = [p for p in network.parameters() if p.requires_grad]
        self._low = [copies[id(p)] for p in self._own]
        self._copy = copy.deepcopy(network, dict(copies)).to(dtype)
        self._seen: list[int] = [p._version for p in self._own]
        for own, low in zip(self._own, self._low, strict=True):
            low.register_post_accumulate_grad_hook(partial(_hand_over, own))

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the network's answer, in the dtype of its features.

        Args:
            inputs, named: features are brought to the dtype; noise levels and places stay in float32.
        """
        versions = [p._version for p in self._own]
        if versions != self._seen:
            with torch.no_grad():
                torch._foreach_copy_(self._low, self._own)
            self._seen = versions
        inputs = tuple(self._lower(value, 2) for value in inputs)
        named = {k: self._lower(v, 4) for k, v in named.items()}
        with torch.autocast(inputs[0].device.type, enabled=False):
            return self._copy(*inputs, **named)

    def _lower(self, value: Any, axes: int) -> Any:
        features = isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= axes
        return value.to(self.dtype) if features else value


def _hand_over(own: nn.Parameter, low: nn.Parameter) -> None:
    """Add the gradient of a copy to that of the weight that it is of."""
    gradient = low.grad.to(own.dtype)
    own.grad = gradient if own.grad is None else own.grad + gradient
    low.grad = None
