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
    """Return (…, rows, columns) with the same singular vectors and singular values near 1 (0.7 to 1.2)."""
    a, b, c = NEWTON_SCHULZ
    shape = matrix.shape
    x = matrix.reshape(-1, *shape[-2:])
    wide = shape[-2] <= shape[-1]
    x = x if wide else x.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(shape)


class Muon(torch.optim.Optimizer):
    """Muon, at rates that fit AdamW's: its update has the size of AdamW's (Liu et al. 2025, "Muon is scalable").

    Kernels count as matrices of (out channels, everything else). Biases, norms and weights with a side below
    `NARROW` are trained by AdamW. One buffer a weight in place of AdamW's two.

    Args:
        momentum: of the averaged gradient that is orthogonalised (Nesterov).
        betas: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
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
            changing = [p for p in group["params"] if p.grad is not None]
            if any(hasattr(parameter, "full_tensor") for parameter in changing):
                raise ValueError(
                    "Muon needs whole weights, and FSDP spreads them over processes. Train with DDP, or choose AdamW."
                )
            if changing:
                torch._foreach_mul_(changing, 1 - group["lr"] * group["weight_decay"])
            # Alike weights are worked together: a GPU takes as long for many small matrices as for one.
            kinds: dict[tuple, list[Tensor]] = {}
            for parameter in changing:
                kinds.setdefault(_kind(parameter), []).append(parameter)
            for (update, *_), alike in kinds.items():
                update(alike, [self.state[parameter] for parameter in alike], group)


def _kind(parameter: Tensor) -> tuple:
    """Return the function that updates a parameter and what it must have in common with others of a batch."""
    if _is_matrix(parameter):
        return _muon, parameter.device, parameter.dtype, parameter.flatten(1).shape
    return _adam, parameter.device, parameter.dtype


def _is_matrix(parameter: Tensor) -> bool:
    if parameter.ndim < 2:
        return False
    rows = parameter.shape[0]
    return min(rows, parameter.numel() // rows) >= NARROW


def _muon(parameters: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
    gradients, averages = [p.grad for p in parameters], [state["momentum"] for state in states]
    torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
    directions = torch._foreach_lerp(gradients, averages, group["momentum"])
    direction = torch.stack([direction.flatten(1) for direction in directions])
    # An orthogonal (m, n) matrix has elements of about 1 / sqrt(max(m, n)); AdamW's steps are about 0.2 of its rate.
    size = 0.2 * max(direction.shape[1:]) ** 0.5
    steps = orthogonalised(direction).unbind()
    steps = [step.view_as(p) for step, p in zip(steps, parameters, strict=True)]
    torch._foreach_add_(parameters, steps, alpha=-group["lr"] * size)


def _adam(parameters: list[Tensor], states: list[dict[str, Any]], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    rates, scales = [], []
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state |= {
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "step": torch.zeros(()),
            }
        state["step"] = state["step"].cpu() + 1  # a loaded state may count on the device
        steps = state["step"].item()
        rates.append(-group["lr"] / (1 - beta1**steps))
        scales.append((1 - beta2**steps) ** 0.5)
    gradients = [p.grad for p in parameters]
    averages = [state["exp_avg"] for state in states]
    squares = [state["exp_avg_sq"] for state in states]
    torch._foreach_lerp_(averages, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, scales)
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_addcdiv_(parameters, averages, roots, rates)
