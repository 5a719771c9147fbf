"""A smoke of every node: each runs once on this host, most of them with outputs. `make test-host` runs this on another."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

TRIES = 12  # of random inputs for each node, until one gives outputs


def _fuzz():
    file = Path(__file__).resolve().parents[1] / "robustness" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("lumiere_fuzz", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_node_runs(host, studio, tiny_ssr):
    fuzz = _fuzz()
    fuzzer = fuzz.Fuzzer(host, studio, studio.load("every_ssr.safetensors", **tiny_ssr())[0], seed=7)
    outcomes = {}
    for node in fuzzer.nodes:
        for _ in range(TRIES):
            outcomes.setdefault(node, set()).add(fuzzer.once(node))
            if "fine" in outcomes[node]:
                break
    assert not fuzzer.tally.unclear, "\n\n".join(fuzzer.tally.unclear.values())
    fine = [node for node, found in outcomes.items() if "fine" in found]
    assert len(fine) >= 0.7 * len(outcomes), {node: found for node, found in outcomes.items() if node not in fine}
