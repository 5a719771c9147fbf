"""The server starts, lists the pack's nodes and runs a graph over HTTP and websocket."""

import pytest

pytestmark = pytest.mark.host

GREY = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 2, "color": 0x808080}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "grey"}},
}


def test_pack_imports_without_a_complaint(server):
    assert "IMPORT FAILED" not in server.log
    assert "Cannot import" not in server.log
    assert any(node_id.startswith("Lumiere") for node_id in server.call("/object_info"))


def test_runs_a_graph_and_serves_its_files(server):
    outputs, events = server.run_with_events(GREY)
    files = outputs["2"]["images"]
    assert len(files) == 2
    assert server.view(files[0]).startswith(b"\x89PNG")
    assert {"execution_start", "executed", "execution_success"} <= {e["type"] for e in events}


def test_refusal_is_an_error_with_the_node(server):
    bad = {**GREY, "1": {**GREY["1"], "inputs": {**GREY["1"]["inputs"], "width": 0}}}
    with pytest.raises(Exception, match="400") as caught:
        server.run(bad)
    assert "1" in caught.value.details["node_errors"]
