"""The booted host, the very small models and the small videos of the other folders, whose conftest files are not seen here.

`make fuzz` keeps what was counted in fuzz.json, which docs/measured.md shows.
"""

import importlib.util
import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FIGURES = Path(__file__).with_name("fuzz.json")
ROWS = []


def _load(name, *parts):
    spec = importlib.util.spec_from_file_location(name, TESTS.joinpath(*parts))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_nodes = _load("lumiere_nodes_conftest", "nodes", "conftest.py")
_core = _load("lumiere_core_conftest", "core", "conftest.py")
_dataset = _load("lumiere_dataset_conftest", "core", "dataset", "conftest.py")
host, studio = _nodes.host, _nodes.studio
tiny, weights, spawn = _core.tiny, _core.weights, _core.spawn
make_video, balls = _dataset.make_video, _dataset.balls


@pytest.fixture
def figures():
    """A function (what, numbers): a row of docs/measured.md."""
    return lambda what, numbers: ROWS.append([what, " / ".join(f"{number:,}" for number in numbers)])


def pytest_sessionfinish(session, exitstatus):
    if ROWS and "LUMIERE_FUZZ" in os.environ:
        chosen = session.config.option.keyword
        arguments = f" ARGS='-k \"{chosen}\"'" if chosen else ""
        facts = {
            "title": "Robustness",
            "command": f"make fuzz RUNS={os.environ['LUMIERE_FUZZ']}{arguments}",
            "date": datetime.now(timezone.utc).date().isoformat(),
            "rows": sorted(ROWS),
        }
        FIGURES.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
