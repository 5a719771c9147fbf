"""`evaluate initialisation`: what differs between its runs, and how they are judged."""

import argparse

import pytest
import torch

from lumiere_core.evaluation import initialisation as module
from lumiere_core.training.phases.temporal import new_temporal


def test_only_the_resizes_differ(tiny):
    config = tiny.unet_config()
    nearest = new_temporal(config, tiny.temporal_config(), 0)
    he = new_temporal(config, tiny.temporal_config(), 0)
    module.start_by_he(he, 0)
    mine, theirs = nearest.state_dict(), he.state_dict()
    different = {k for k in mine if not torch.equal(mine[k], theirs[k])}
    assert different == {k for k in mine if (".down.conv.weight" in k or ".up.conv.weight" in k)}
    for key in different:
        fan_in = theirs[key][0].numel()
        assert theirs[key].std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def record(start, seed, last, losses=(0.5, 0.25)):
    return {
        "case": f"{start}-{seed}",
        "start": start,
        "train_seed": seed,
        "last_fifth": last,
        "losses": list(losses),
    }


def test_bars_ask_for_every_seed(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(module, "write_curves", lambda records, path: drawn.append(records))
    judge = object.__new__(module.Initialisation)
    records = [record("nearest", 0, 0.1), record("he", 0, 0.2), record("nearest", 1, 0.3)]
    first, second = judge.bars(records)
    assert first.held and second.held is False and second.got == "not run"
    records.append(record("he", 1, 0.25))
    assert [bar.held for bar in judge.bars(records)] == [True, False]
    assert drawn


def test_curves_are_a_table_and_a_picture(tmp_path):
    from PIL import Image

    records = [
        record(start, seed, 0.1, [0.5, 0.3, 0.2]) for start in module.STARTS for seed in (0, 1)
    ]
    module.write_curves(records, tmp_path / "curves")
    rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert rows[0] == "step,he-0,he-1,nearest-0,nearest-1" and len(rows) == 4
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (800, 420)


def test_the_running_mean_has_no_start_value():
    assert torch.allclose(module.smoothed([2.0, 2.0, 2.0]), torch.full((3,), 2.0))
    assert module.smoothed([1.0, 3.0])[1] == pytest.approx((0.9 * 0.1 * 1 + 0.1 * 3) / 0.19)


def test_one_run(monkeypatch):
    """A run of two steps with the bundled models: the same losses again, others for the other start."""
    import dataclasses

    monkeypatch.setattr(
        module, "SETTINGS",
        dataclasses.replace(module.SETTINGS, steps=2, batch_size=1, num_frames=4, height=16, width=16),
    )  # fmt: skip
    evaluation = module.Initialisation(argparse.Namespace(device="cpu"))
    cases = {case.id: case for case in evaluation.cases()}
    assert set(cases) == {"nearest-0", "he-0", "nearest-1", "he-1"}
    first, again = (evaluation.measure(cases["nearest-0"]) for _ in range(2))
    assert first["losses"] == again["losses"] and len(first["losses"]) == 2
    assert evaluation.measure(cases["he-0"])["losses"] != first["losses"]
    assert first["seen"] == {"first loss": round(first["losses"][0], 3)}
