"""Evaluations that train from two starts: their bars, and their curves."""

import pytest
import torch

from lumiere_core.evaluation import from_scratch as module
from lumiere_core.evaluation.initialisation import Initialisation


def record(start, seed, last, losses=(0.5, 0.25)):
    return {"case": f"{start}-{seed}", "start": start, "train_seed": seed, "last_fifth": last, "losses": list(losses)}


def test_bars_ask_for_every_seed(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(module, "write_curves", lambda records, *_: drawn.append(records))
    judge = object.__new__(Initialisation)
    records = [record("nearest", 0, 0.1), record("he", 0, 0.2), record("nearest", 1, 0.3)]
    first, second = judge.bars(records)
    assert first.held and second.held is False and second.got == "not run"
    records.append(record("he", 1, 0.25))
    assert [bar.held for bar in judge.bars(records)] == [True, False]
    assert drawn


def test_curves_are_a_table_and_a_picture(tmp_path):
    from PIL import Image

    records = [record(start, seed, 0.1, [0.5, 0.3, 0.2]) for start in Initialisation.starts for seed in (0, 1)]
    module.write_curves(records, tmp_path / "curves", ("nearest", "he"), ("one", "other"))
    rows = (tmp_path / "curves.csv").read_text().splitlines()
    assert rows[0] == "step,he-0,he-1,nearest-0,nearest-1" and len(rows) == 4
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (800, 420)


def test_the_running_mean_has_no_start_value():
    assert torch.allclose(module.smoothed([2.0, 2.0, 2.0]), torch.full((3,), 2.0))
    assert module.smoothed([1.0, 3.0])[1] == pytest.approx((0.9 * 0.1 * 1 + 0.1 * 3) / 0.19)
