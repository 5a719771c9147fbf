"""Every node on random inputs: a result or a sentence, inputs as they were, no file outside of the output folder."""

import gc
import importlib.util
import os
import time
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


@pytest.mark.timeout(4 * 3600)
def test_random_runs_end_well(host, studio, tiny_ssr, tmp_path, monkeypatch, figures):
    """300 runs, or as many as $LUMIERE_FUZZ says, of a new seed; $LUMIERE_FUZZ_SEED repeats the runs of an earlier one."""
    monkeypatch.chdir(tmp_path)
    count = int(os.environ.get("LUMIERE_FUZZ", "300"))
    seed = int(os.environ.get("LUMIERE_FUZZ_SEED", 20 if count == 300 else time.time()))
    fuzzer = fuzz.Fuzzer(host, studio, studio.load("fuzz_ssr.safetensors", **tiny_ssr())[0], seed)
    with fuzz.watched(host.base / "input", host.base / "custom_nodes", tmp_path) as touched:
        tally = fuzzer.run(count, seconds=60 if count == 300 else float("inf"))
    runs = tally.runs
    figures(
        f"node runs on random inputs, seed {seed}: fine / clear error / unclear error",
        [runs["fine"], runs["clear"], runs["unclear"]],
    )
    figures("inputs that a node wrote into", [len(tally.changed)])
    figures("files touched in the folders of inputs, of other packs and the working folder", [len(touched)])
    figures(f"runs of more than {fuzz.SLOW:g} s", [len(tally.slow)])
    assert not tally.unclear, "\n\n".join(tally.unclear.values())
    assert not tally.changed, tally.changed
    assert not touched, touched
    assert sum(runs.values()) >= 60 and runs["fine"] >= 20  # neither too slow nor all refused


def test_30_runs_leave_nothing_in_memory(host, studio, figures):
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
    left = held() - before
    figures("temporal layers still in memory after 30 loads and samplings", [left])
    assert left <= 1
