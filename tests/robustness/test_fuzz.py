"""Every node on random inputs: a result or a sentence, inputs as they were, no file outside of the output folder."""

import gc
import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.host


def _fuzz():
    file = Path(__file__).with_name("fuzz.py")
    spec = importlib.util.spec_from_file_location("lumiere_fuzz", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzz = _fuzz()


def test_random_runs_end_well(host, studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fuzzer = fuzz.Fuzzer(host, studio, seed=20)
    with fuzz.nothing_outside(host.base / "input", host.base / "custom_nodes", tmp_path):
        tally = fuzzer.run(300, seconds=60)
    assert not tally.unclear, "\n\n".join(tally.unclear.values())
    assert not tally.changed, tally.changed
    assert sum(tally.runs.values()) >= 100 and tally.runs["fine"] >= 30  # neither too slow nor all refused


def test_30_runs_leave_nothing_in_memory(host, studio):
    """Models that were loaded and sampled with are gone when nobody holds them."""
    import comfy.model_management

    def held():
        gc.collect()
        return sum(isinstance(o, host.module("lumiere_core.nets.temporal").TemporalLayers) for o in gc.get_objects())

    def once():
        model, _, _ = studio.load("leak.safetensors")
        studio.sample(model, frames=2)
        del model
        comfy.model_management.cleanup_models_gc()
        comfy.model_management.unload_all_models()

    once()
    before = held()
    for _ in range(30):
        once()
    assert held() <= before + 1
