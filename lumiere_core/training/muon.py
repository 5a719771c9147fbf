"""Muon for matrices and convolutions, AdamW for the rest, in one optimiser.

Muon (Jordan et al. 2024) steps along the nearest orthogonal matrix of the averaged gradient, so that every direction of
a weight moves alike. torch.optim.Muon does it for matrices only; nearly all weights of a U-Net are convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic iteration of Jordan et al.
ITERATIONS = 5
NARROW = 16  # a shorter side than this leaves little to orthogonalise: AdamW takes such weights


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return (rows, columns) with the same singular vectors and singular values near 1 (0.7 to 1.2)."""
    a, b, c = NEWTON_SCHULZ
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Muon, at rates that fit AdamW's: its update has the size of AdamW's (Liu et al. 2025, "Muon is scalable").

    Kernels count as matrices of (out channels, everything else). Biases, norms and weights with a side below
    `NARROW` are trained by AdamW. One buffer a weight in place of AdamW's two.

    Args:
        momentum: of the averaged gradient that is orthogonalised (Nesterov).
        betas: of AdamW.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.01,
        momentum: float = 0.95, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8,
    ) -> None:  # fmt: skip
        defaults = {"weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, {"lr": lr, **defaults})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update every parameter that has a gradient.

        Raises:
            ValueError: a parameter is spread over processes (FSDP): a part of a matrix cannot be orthogonalised.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure: call backward first, then step().")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if hasattr(parameter, "full_tensor"):
                    raise ValueError(
                        "Muon needs whole weights, and FSDP spreads them over processes. Train with DDP, or choose "
                        "AdamW."
                    )
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                update = _muon if _is_matrix(parameter) else _adam
                update(parameter, self.state[parameter], group)


def _is_matrix(parameter: Tensor) -> bool:
    if parameter.ndim < 2:
        return False
    rows = parameter.shape[0]
    return min(rows, parameter.numel() // rows) >= NARROW


def _muon(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
    direction = parameter.grad.lerp(average, group["momentum"]).flatten(1)
    # An orthogonal (m, n) matrix has elements of about 1 / sqrt(max(m, n)); AdamW's steps are about 0.2 of its rate.
    size = 0.2 * max(direction.shape) ** 0.5
    parameter.add_(orthogonalised(direction).view_as(parameter), alpha=-group["lr"] * size)


def _adam(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state |= {
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
            "step": torch.zeros(()),
        }
    state["step"] += 1
    steps, (beta1, beta2) = state["step"].item(), group["betas"]
    average = state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
    square = (
        state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
    )
    scale = (square / (1 - beta2**steps)).sqrt_().add_(group["eps"])
    parameter.addcdiv_(average / (1 - beta1**steps), scale, value=-group["lr"])
