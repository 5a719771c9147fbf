"""docs/scale.md is what its script computes."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("lumiere_scale", ROOT / "tests" / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counts(scale):
    import json

    return json.loads(scale.COUNTS.read_text(encoding="utf-8"))


def test_the_page_is_written_from_the_counts(scale, counts):
    assert scale.PAGE.read_text(encoding="utf-8") == scale.page(counts)
    assert list(counts) == list(scale.networks())


def test_the_counts_are_those_of_the_networks(scale, counts):
    """A tenth of the frames costs about a tenth: only the temporal attention, a small part, grows faster than the clip."""
    name = "base, 2x2 pixels a place"
    config, side, frames = scale.networks()[name]
    short, stored = scale.count(config, side, frames // 10), counts[name]
    assert (short["frozen"], short["temporal"]) == (stored["frozen"], stored["temporal"])
    assert 0.95 < stored["forward"] / (10 * short["forward"]) < 1.1
    assert 2 < stored["training"] / stored["forward"] < 3


def test_times_and_sizes_follow_from_them(scale, counts):
    page, mine = scale.page(counts), counts["SSR"]
    hours = scale.CLIPS * mine["training"] / (scale.PEAK * scale.TRAINING) / 3600
    assert f"| {hours:,.0f} | {hours / 24 / 8:,.1f} |" in page
    assert scale.held(mine, 8) < scale.held(mine, 1)
    assert scale.fit([], 2e11) == "no: activations alone are 200 GB" and scale.fit([8, 64], 0) == "from 8"
    assert "3.93 MB | 118.0 TB" in page  # 80 x 128 x 128 x 3 bytes, 30 million times


def test_the_page_says_that_no_share_was_measured_until_one_is(scale, counts, tmp_path, monkeypatch):
    assert "not measured: no plan was run on a GPU" in scale.page(counts)
    (tmp_path / "r.json").write_text('{"rows": [["forward", "0.61 of the peak"]]}')
    monkeypatch.setattr(scale, "RESULTS", tmp_path / "r.json")
    assert "0.61 of the peak" in scale.page(counts)
