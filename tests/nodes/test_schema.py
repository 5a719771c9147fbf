"""What saved workflows rely on: node ids, inputs in order, types and defaults; help pages; import of the pack."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).with_name("schema.json")


def our_nodes(host):
    return {
        node_id: node for node_id, node in host.nodes_by_id.items() if node.__module__.startswith(host.pack.__name__)
    }


def describe_inputs(inputs):
    """Return [name, type, default, optional] of each, and of one with options {choice: the inputs it brings}."""
    described = []
    for i in inputs:
        row = [i.id, i.get_io_type(), getattr(i, "default", None), i.optional]
        if dynamic(i):
            row.append({option.key: describe_inputs(option.inputs) for option in i.options})
        described.append(row)
    return described


def dynamic(widget):
    return widget.get_io_type() == "COMFY_DYNAMICCOMBO_V3"


def with_inner(inputs):
    """All inputs, with those that the choices of a dynamic one bring."""
    for widget in inputs:
        yield widget
        if dynamic(widget):
            for option in widget.options:
                yield from with_inner(option.inputs)


def describe(node):
    """Return inputs in the order of the widgets, and output types."""
    schema = node.GET_SCHEMA()
    return {
        "inputs": describe_inputs(schema.inputs),
        "outputs": [output.get_io_type() for output in schema.outputs],
        "output_node": schema.is_output_node,
    }


def test_schema_is_the_recorded_one(host):
    """Saved workflows break when this changes: only append. UPDATE_SNAPSHOT=1 writes the file anew."""
    schemas = {node_id: describe(node) for node_id, node in sorted(our_nodes(host).items())}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in schemas.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def test_ids_and_texts(host):
    nodes = our_nodes(host)
    assert nodes
    for node_id, node in nodes.items():
        schema = node.GET_SCHEMA()
        assert node_id.startswith(("Lumiere", "EmptyLumiere"))
        assert schema.description and schema.category.startswith("lumiere"), node_id
        for widget in with_inner(schema.inputs):
            if getattr(widget, "default", None) is not None and not isinstance(widget.default, str):
                assert widget.tooltip, f"{node_id}.{widget.id} has no tooltip"


def test_every_node_has_a_help_page_that_names_its_inputs(host):
    for node_id, node in our_nodes(host).items():
        page = (ROOT / "js" / "docs" / f"{node_id}.md").read_text()
        assert "## Example" in page, node_id
        for widget in with_inner(node.GET_SCHEMA().inputs):
            assert f"`{widget.id}`" in page, f"the help page of {node_id} does not mention {widget.id}"


def test_no_script_is_loaded_by_the_browser_twice(host):
    import nodes

    assert not hasattr(host.pack, "NODE_CLASS_MAPPINGS")
    folders = [path for path in nodes.EXTENSION_WEB_DIRS.values() if Path(path).resolve() == ROOT / "js"]
    assert len(folders) == 1


IMPORT = """
import asyncio, sys
sys.path.insert(0, {host!r})
sys.argv = ["main.py", "--cpu", "--base-directory", {base!r}]
import comfy.options; comfy.options.enable_args_parsing()
import comfy.cli_args, execution, nodes, server
import comfy_extras.nodes_video, comfy_extras.nodes_custom_sampler, comfy_extras.nodes_model_merging
before = set(sys.modules)
assert asyncio.run(nodes.load_custom_node({pack!r}))
new = {{name.split(".")[0] for name in set(sys.modules) - before if "/" not in name}}
print("NEW", *sorted(new - set(sys.stdlib_module_names)))
"""


def test_import_of_the_pack_brings_no_other_package_along(host, comfyui):
    """The host's start stays quick: big packages are imported where they are used (`make bench` times it)."""
    pack = str(host.base / "custom_nodes" / "lumiere")
    script = IMPORT.format(host=str(comfyui), base=str(host.base), pack=pack)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # What the host's registry of node packs reads their pyproject.toml with, and all else is a surprise.
    assert set(done.stdout.split("NEW")[1].split()) <= {"comfy_config", "pydantic", "pydantic_settings", "dotenv"}
