"""Networks whose weights are lowered to bfloat16 for a call."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lumiere_core.training.precision import Lowered


def network():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    made[0].requires_grad_(False)
    return made


def test_the_answer_and_the_gradients_are_near_those_in_float32():
    plain, x = network(), torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    answer = Lowered(plain)(x.bfloat16())
    assert answer.dtype == torch.bfloat16
    assert torch.allclose(answer.float(), plain(x), atol=0.05)
    answer.float().square().mean().backward()
    got = plain[2].weight.grad.clone()
    assert got.dtype == torch.float32 and plain[0].weight.grad is None
    plain.zero_grad()
    plain(x).square().mean().backward()
    assert torch.dist(got, plain[2].weight.grad) < 0.03 * plain[2].weight.grad.norm()


def test_a_call_sees_the_weights_as_they_are_by_then():
    plain, x = network(), torch.ones(1, 16, dtype=torch.bfloat16)
    lowered = Lowered(plain)
    before = lowered(x)
    with torch.no_grad():
        plain[2].weight.mul_(2.0)
        plain[2].bias.mul_(2.0)
    assert torch.equal(lowered(x), 2 * before)


def test_recomputed_layers_are_lowered_too():
    """Activations that are recomputed in the backward pass see the weights of the call."""
    plain, x = network(), torch.randn(8, 16, generator=torch.Generator().manual_seed(1))

    class Recomputing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = plain

        def forward(self, value):
            return checkpoint(self.inner, value, use_reentrant=False)

    gradients = []
    for made in (plain, Recomputing()):
        plain.zero_grad()
        Lowered(made)(x).float().square().mean().backward()
        gradients.append(plain[2].weight.grad.clone())
    assert torch.equal(*gradients)


def test_gradients_of_several_calls_add_up():
    plain, x = network(), torch.ones(1, 16)
    lowered = Lowered(plain)
    lowered(x).sum().backward()
    once = plain[2].weight.grad.clone()
    lowered(x).sum().backward()
    assert torch.equal(plain[2].weight.grad, 2 * once)
