"""The moving average of the weights."""

import pytest
import torch

from lumiere_core.training.state import Ema


def test_average_follows_the_formula():
    module = torch.nn.Linear(2, 1, bias=False)
    ema, wanted = Ema(module, decay=0.5), module.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            module.weight += 1.0
        ema.update(module, step)
        decay = min(0.5, step / (step + 10))  # ramps up: the first weights are forgotten soon
        wanted = decay * wanted + (1 - decay) * module.weight.detach()
        assert torch.allclose(ema.values["weight"], wanted, atol=1e-5)
    assert (module.weight - ema.values["weight"]).max().item() == pytest.approx(1, abs=0.01)


def test_average_is_a_copy():
    module = torch.nn.Linear(2, 1)
    ema = Ema(module, decay=0.9)
    before = module.weight.detach().clone()
    ema.values["weight"].add_(5)
    assert torch.equal(module.weight, before)
    assert not ema.values["weight"].requires_grad
