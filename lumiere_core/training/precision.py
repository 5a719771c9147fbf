"""Networks in bfloat16 on weights in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Lowered:
    """Calls a network with copies of its weights in another dtype; gradients reach the weights in their own.

    Autocast keeps norms, and what follows them, in float32: with few channels, moving those is most of the work.

    Args:
        network: its frozen weights are copied once.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self.network, self.dtype = network, dtype
        self._frozen = {name: p.detach().to(dtype) for name, p in network.named_parameters() if not p.requires_grad}

    def __call__(self, *inputs: Any, weights: dict[str, Tensor] | None = None, **named: Any) -> Tensor:
        """Return the network's answer, in the dtype of its features.

        Args:
            inputs: features must be in the dtype already; noise levels and places stay in float32.
            weights: to be used in place of the network's own of these names.
        """
        training = {k: p for k, p in self.network.named_parameters() if k not in self._frozen}
        copies = {k: p.to(self.dtype) for k, p in (training | (weights or {})).items()}
        with torch.autocast(inputs[0].device.type, enabled=False):
            return functional_call(self.network, self._frozen | copies, inputs, named)
