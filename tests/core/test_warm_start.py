"""`evaluate warm-start`: motion modules of AnimateDiff's kind, trained here, as a start."""

import argparse
import dataclasses

import pytest
import torch

from lumiere_core.animatediff import is_animatediff, warm_config
from lumiere_core.evaluation.from_scratch import FromScratch
from lumiere_core.evaluation.motion_modules import MotionModules
from lumiere_core.evaluation.warm_start import WarmStart


@pytest.fixture
def evaluation(monkeypatch):
    settings = dataclasses.replace(FromScratch.settings, steps=2, num_frames=4, height=16, width=16)
    monkeypatch.setattr(FromScratch, "settings", settings)
    monkeypatch.setattr(WarmStart, "schooling", dataclasses.replace(settings, steps=3, seed=100))
    return WarmStart(argparse.Namespace(device="cpu"))


def test_fresh_modules_change_nothing_and_trained_ones_mix_frames(evaluation):
    unet, text = evaluation.frozen()
    unet.eval()
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        context, pooled = text(torch.full((4, 8), 65))
        times = torch.full((4,), 500.0)
        plain = unet(x, times, context, pooled)
        modules = MotionModules(unet, 4)
        modules.attach()
        assert torch.equal(unet(x, times, context, pooled), plain)
        for module in modules.transformers:
            module.proj_out.weight.normal_(std=0.1)
        before = unet(x, times, context, pooled)
        other = unet(torch.cat([x[:3], -x[3:]]), times, context, pooled)
    assert not torch.allclose(before[0], plain[0], atol=1e-3)
    assert not torch.allclose(before[0], other[0], atol=1e-3)  # frame 3 changed, frame 0 saw it


def test_what_is_trained_here_is_a_file_that_the_reader_knows(evaluation):
    motion = evaluation.motion()
    assert is_animatediff(list(motion))
    assert any(v.abs().max() > 0 for k, v in motion.items() if k.endswith("proj_out.weight"))
    assert evaluation.motion() is motion  # trained once


def test_a_pair_of_runs_differs_in_the_coarsest_attention_only(evaluation):
    cases = {case.id: case for case in evaluation.cases()}
    assert set(cases) == {"warm-0", "fresh-0", "warm-1", "fresh-1"}
    unet, _ = evaluation.frozen()
    config = evaluation.temporal_config()
    warm, fresh = (
        evaluation.layers(cases[name], unet, config).state_dict() for name in ("warm-0", "fresh-0")
    )
    different = {k for k in warm if not torch.equal(warm[k], fresh[k])}
    assert different and all(".inflation.layers." in k for k in different)
    assert not any(k.endswith("inflation.proj.weight") for k in different)
    assert warm_config(unet.config, config).position_frames > 0


def test_runs_are_measured_and_repeatable(evaluation):
    warm, fresh = evaluation.cases()[:2]
    first = evaluation.measure(warm)
    assert len(first["losses"]) == 2 and first["motion_steps"] == 3
    assert evaluation.measure(warm)["losses"] == first["losses"]
    # Both start at the image model: their projections are zero, so the first losses agree.
    assert evaluation.measure(fresh)["losses"][0] == pytest.approx(first["losses"][0], abs=1e-6)
