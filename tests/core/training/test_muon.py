"""Muon: orthogonal steps for matrices and kernels, AdamW's for the rest."""

import pytest
import torch
from torch import nn

from lumiere_core.training.muon import Muon, orthogonalised
from lumiere_core.training.optimizers import make_optimizer
from lumiere_core.training.options import TrainOptions


@pytest.mark.parametrize("shape", [(32, 32), (24, 200), (200, 24)])
def test_every_direction_of_a_matrix_counts_alike(shape):
    # Random matrices have no singular value near zero, which five iterations would not bring to 1.
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(matrix)
    matrix += 0.1 * values[0] * torch.eye(*shape)
    got = orthogonalised(matrix)
    assert got.shape == matrix.shape
    assert 0.6 < torch.linalg.svdvals(got).min() and torch.linalg.svdvals(got).max() < 1.3
    # The same singular vectors: the product with the polar factor's transpose is near the identity.
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.dist(got, u @ vh) < 0.3 * min(shape) ** 0.5


@pytest.mark.parametrize("layer", [nn.Linear(64, 32), nn.Conv2d(16, 32, 3), nn.Conv3d(16, 16, (3, 1, 1))])
def test_a_step_has_the_size_of_adamw(layer):
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    Muon([layer.weight], lr=0.01, weight_decay=0.0).step()
    size = (layer.weight - before).square().mean().sqrt() / 0.01
    assert 0.15 < size < 0.25


@pytest.mark.parametrize("shape", [(8,), (3, 40), (128, 1, 3, 3)])
def test_narrow_weights_are_left_to_adamw(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, reference = (nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], lr=0.01, weight_decay=0.1),
        torch.optim.AdamW([reference], lr=0.01, weight_decay=0.1, betas=(0.9, 0.99)),
    )
    for step in range(4):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step + 1))
        ours.grad, reference.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(ours, reference, atol=1e-6)


def test_weights_without_a_gradient_stay():
    layer = nn.Linear(32, 32)
    before = layer.weight.detach().clone()
    Muon(layer.parameters(), weight_decay=0.5).step()
    assert torch.equal(layer.weight, before)


def test_a_linear_map_is_learnt():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 32, generator=generator)
    target = inputs @ torch.randn(32, 32, generator=generator) / 4
    layer = nn.Linear(32, 32, bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = make_optimizer(layer, TrainOptions(optimizer="Muon", weight_decay=0.0))
    losses = []
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 100)
        optimizer.zero_grad()
        loss = (layer(inputs) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


def test_weights_spread_over_processes_are_refused():
    weight = nn.Parameter(torch.zeros(32, 32))
    weight.grad = torch.ones(32, 32)
    weight.full_tensor = lambda: weight
    with pytest.raises(ValueError, match="Muon needs whole weights.*DDP"):
        Muon([weight]).step()
