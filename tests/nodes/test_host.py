"""The boot that the demo, the command line and the tests share."""

import pytest

pytestmark = pytest.mark.host

GREY = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 4, "color": 0x808080}},
    "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 16.0}},
    "3": {
        "class_type": "SaveVideo",
        "inputs": {"video": ["2", 0], "filename_prefix": "video/grey", "format": "auto", "codec": "auto"},
    },
}


def test_runs_a_graph_of_core_nodes(host):
    outputs = host.run(GREY)
    (file,) = outputs["3"]["images"]
    assert (host.base / "output" / file["subfolder"] / file["filename"]).stat().st_size > 0
    assert "executing" in [event for event, _ in host.events]


def test_refusal_names_node_and_input(host):
    bad = {**GREY, "1": {**GREY["1"], "inputs": {**GREY["1"]["inputs"], "width": 0}}}
    with pytest.raises(host.HostError, match=r"node 1 \(EmptyImage\).*width"):
        host.run(bad)


def test_calls_one_node_of_either_kind(host):
    (image,) = host.call("EmptyImage", width=8, height=8, batch_size=3, color=0)
    (video,) = host.call("CreateVideo", images=image, fps=16.0)
    assert image.shape == (3, 8, 8, 3)
    assert video.get_frame_count() == 3


def test_host_nodes_module_is_the_host_s(host):
    import nodes

    assert nodes.__file__.endswith("nodes.py")


def test_pack_is_loaded_by_the_host(host):
    assert host.pack is not None
    assert host.module("lumiere_core").__name__.startswith(host.pack.__name__)
    assert any(node_id.startswith("Lumiere") for node_id in host.nodes_by_id)
