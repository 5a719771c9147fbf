"""An old host is told which one is needed, before anything is imported that it lacks."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def version():
    """The module by itself, as no host is there yet when it is asked."""
    spec = importlib.util.spec_from_file_location("lumiere_version", ROOT / "nodes" / "host" / "version.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hosted(monkeypatch):
    """A function (version): the host says that it is this one; None = it says nothing."""

    def say(number):
        host = types.ModuleType("comfyui_version")
        if number is not None:
            host.__version__ = number
        monkeypatch.setitem(sys.modules, "comfyui_version", host)

    return say


@pytest.mark.parametrize("number", ["0.24.1", "0.8.2", "0.26.99", "v0.3"])
def test_an_old_host_is_told_which_one_is_needed(version, hosted, number):
    hosted(number)
    with pytest.raises(ImportError) as error:
        version.check_host()
    message = str(error.value)
    assert f"Lumiere needs ComfyUI 0.27 or newer, this is {number}." in message
    assert "git pull" in message and "update_comfyui.bat" in message


@pytest.mark.parametrize("number", ["0.27.0", "0.30.0", "0.100.1", "1.0", "nightly", None])
def test_newer_hosts_and_those_that_say_nothing_are_tried(version, hosted, number):
    hosted(number)
    version.check_host()


def test_a_host_without_a_version_is_tried(version, monkeypatch):
    monkeypatch.setitem(sys.modules, "comfyui_version", None)  # an import of it fails
    version.check_host()


def test_the_pack_says_so_before_it_imports_anything_of_the_host(hosted, monkeypatch):
    """On an old host comfy_api lacks what the nodes need; the reason must come first."""
    hosted("0.24.0")
    for name in [n for n in sys.modules if n.split(".")[0] in ("comfy_api", "comfy")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("comfy_api", "comfy"):
        monkeypatch.setitem(sys.modules, name, None)
    before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(
        "lumiere_on_an_old_host", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lumiere_on_an_old_host", module)
    try:
        with pytest.raises(ImportError, match="Lumiere needs ComfyUI 0.27 or newer, this is 0.24.0"):
            spec.loader.exec_module(module)
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]
