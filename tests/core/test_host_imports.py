"""Only nodes/host and nodes/headless import what is the host's own; node classes see its public interface."""

import ast
from pathlib import Path

import pytest

NODES = Path(__file__).parents[2] / "nodes"
# The node interface, and two helper modules that the host's own documentation uses in nodes.
PUBLIC = {"comfy_api", "folder_paths", "node_helpers"}
HOST = {"comfy", "comfy_execution", "comfy_extras", "execution", "latent_preview", "nodes", "server", "app", *PUBLIC}


def imported(path):
    """Roots of the absolute imports in a file, those inside of functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sorted(NODES.glob("*.py")), ids=lambda path: path.stem)
def test_nodes_import_the_hosts_public_interface_alone(path):
    private = set(imported(path)) & (HOST - PUBLIC)
    assert not private, f"{path.name} imports {sorted(private)}; ask for it in nodes/host."


def test_the_rule_can_fail(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from comfy.sd import VAE\n")
    assert set(imported(path)) == {"comfy"}
