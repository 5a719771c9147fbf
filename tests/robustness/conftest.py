"""The booted host and the very small models of tests/nodes; conftest files of other folders are not seen here."""

import importlib.util
from pathlib import Path


def _load(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_nodes = _load("lumiere_nodes_conftest", Path(__file__).resolve().parents[1] / "nodes" / "conftest.py")
host, studio = _nodes.host, _nodes.studio
