"""`evaluate initialisation`: what differs between its runs, and how they are judged."""

import argparse
import dataclasses

import pytest
import torch

from lumiere_core.evaluation import initialisation as module
from lumiere_core.evaluation.from_scratch import FromScratch
from lumiere_core.training.layers import new_layers


def test_only_the_resizes_differ(tiny):
    config = tiny.unet_config()
    nearest = new_layers(config, tiny.temporal_config(), 0)
    he = new_layers(config, tiny.temporal_config(), 0)
    module.start_by_he(he, 0)
    mine, theirs = nearest.state_dict(), he.state_dict()
    different = {k for k in mine if not torch.equal(mine[k], theirs[k])}
    assert different == {k for k in mine if (".down.conv.weight" in k or ".up.conv.weight" in k)}
    for key in different:
        fan_in = theirs[key][0].numel()
        assert theirs[key].std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_one_run(monkeypatch):
    """A run of two steps with the bundled models: the same losses again, others for the other start."""
    settings = dataclasses.replace(FromScratch.settings, steps=2, num_frames=4, height=16, width=16)
    monkeypatch.setattr(FromScratch, "settings", settings)
    evaluation = module.Initialisation(argparse.Namespace(device="cpu"))
    cases = {case.id: case for case in evaluation.cases()}
    assert set(cases) == {"nearest-0", "he-0", "nearest-1", "he-1"}
    first, again = (evaluation.measure(cases["nearest-0"]) for _ in range(2))
    assert first["losses"] == again["losses"] and len(first["losses"]) == 2
    assert evaluation.measure(cases["he-0"])["losses"] != first["losses"]
    assert first["seen"] == {"first loss": round(first["losses"][0], 3)}
