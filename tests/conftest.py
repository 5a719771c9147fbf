"""Rules for every tier of tests.

core/ needs no host; nodes/ boots the real host in this process; workflows/ starts the real server.
Without a host the last two are skipped, unless LUMIERE_REQUIRE_HOST is set (`make test` sets it).
"""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(scope="session")
def headless():
    """The pack's nodes/headless.py, loaded by path: importing nodes/ as a package needs the host first."""
    file = ROOT / "nodes" / "headless.py"
    spec = importlib.util.spec_from_file_location("lumiere_headless", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def comfyui(headless):
    """The host's folder; without one the test is skipped, or fails if a host is required."""
    try:
        return headless.find_host()
    except headless.HostError as error:
        if os.environ.get("LUMIERE_REQUIRE_HOST"):
            raise
        pytest.skip(str(error))
