"""`make locales`: write locales/en/nodeDefs.json, the texts of the nodes as the host's page looks them up, from the schemas.

    python nodes/headless/locales.py

The other languages have the same keys; a test names what they lack.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # an isolated Python (-I) does not do it
from boot import PACK_ROOT, HeadlessHost, HostError, core_file, prepare_base, print_anything, start_host  # noqa: E402

sys.path.remove(str(Path(__file__).resolve().parent))

FILE = PACK_ROOT / "locales" / "en" / "nodeDefs.json"
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


def texts_of(schema) -> dict:
    """Return one node's entry: name, description, and the name and tooltip of each input and output."""
    inputs: dict[str, dict] = {}
    for widget in schema.inputs:
        _add(inputs, widget, widget.id)
    outputs = {}
    for number, output in enumerate(schema.outputs):
        texts = {"name": output.display_name or output.get_io_type(), "tooltip": output.tooltip}
        outputs[str(number)] = {key: text for key, text in texts.items() if text}
    entry = {"display_name": schema.display_name, "description": schema.description, "inputs": inputs}
    return {**entry, "outputs": outputs} if outputs else entry


def _add(inputs: dict[str, dict], widget, path: str) -> None:
    texts = {"name": widget.display_name or widget.id}
    if widget.tooltip:
        texts["tooltip"] = widget.tooltip
    # The page knows one text for an input, also where several choices bring one of the same name.
    known = inputs.setdefault(path.replace(".", "_"), texts)
    if known is not texts and known.get("tooltip") != texts.get("tooltip"):
        known["tooltip"] = _both(known.get("tooltip"), texts.get("tooltip"))
    if widget.get_io_type() == DYNAMIC:
        for option in widget.options:
            for inner in option.inputs:
                _add(inputs, inner, f"{path}.{inner.id}")


def _both(first: str | None, second: str | None) -> str:
    """Return two texts as one, each sentence once."""
    if not first or not second or second in first:
        return first or second or ""
    return f"{first} / {second}"


def our_texts(host: HeadlessHost) -> dict:
    """Return the entries of all nodes of the pack, by node id."""
    ours = {k: n for k, n in host.nodes_by_id.items() if n.__module__.startswith(host.pack.__name__)}
    return {node_id: texts_of(node.GET_SCHEMA()) for node_id, node in sorted(ours.items())}


def main() -> int:
    print_anything()
    base = PACK_ROOT / ".host" / "base"
    try:
        prepare_base(base)
        host = start_host(base)
    except HostError as error:
        print(f"locales failed: {error}", file=sys.stderr)
        return 1
    core_file("files").write_text(FILE, json.dumps(our_texts(host), ensure_ascii=False, indent=1) + "\n")
    print(FILE.relative_to(PACK_ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
