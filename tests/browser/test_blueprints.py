"""The blueprints: found in the node search, put into a graph, run."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


def test_the_node_search_finds_them(page):
    found = page.evaluate("async () => Object.values(await (await fetch('/api/global_subgraphs')).json())")
    ours = {entry["name"] for entry in found if entry["info"]["node_pack"] == "custom_nodes.lumiere"}
    assert ours == {path.stem for path in BLUEPRINTS} and len(ours) >= 5
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.locator("input[aria-controls=results-list]").fill("image to video")
    page.get_by_text("Image to Video (Lumiere)").first.wait_for(timeout=20_000)


# What a blueprint offers on its own node counts more than what lies inside of it.
SMALL = """() => {
    for (const node of app.graph.nodes.flatMap(node => node.subgraph ? [node, ...node.subgraph.nodes] : [node])) {
        const set = (name, value) => { const found = node.widgets?.find(w => w.name === name); if (found) found.value = value; };
        const checkpoint = node.widgets?.find(w => w.name === 'checkpoint');
        if (checkpoint) checkpoint.value = checkpoint.value.endsWith('-ssr') ? 'tiny-ssr.safetensors' : 'tiny.safetensors';
        if (node.comfyClass !== 'ImageScale') { set('width', 16); set('height', 16); }
        set('length', 6);
        set('steps', 1);
        set('grow', 1);
        set('seed', Math.floor(Math.random() * 1e9));
    }
}"""

GIVEN = """() => {
    const task = app.graph.nodes.find(node => node.subgraph);
    const clip = add('LumiereWorldClip', -500, 0, {width: 16, height: 16, length: 6});
    const load = add('LumiereLoader', -500, 700, {checkpoint: 'tiny.safetensors'});
    for (const input of task.inputs) {
        const from = {IMAGE: [clip, 0], MASK: [clip, 1], MODEL: [load, 0], CLIP: [load, 1], VAE: [load, 2]}[input.type];
        if (from && !input.widget) join(...from, task, input.name);
    }
    const images = task.outputs.findIndex(output => output.type === 'IMAGE');
    join(Object.assign(task), images, add('PreviewImage', 600, 0), 'images');
    const video = task.outputs.findIndex(output => output.type === 'VIDEO');
    if (video >= 0) join(task, video, add('SaveVideo', 600, 500), 'video');
    return task.widgets.map(found => found.name);
}"""


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_it_runs_as_one_node(page, path):
    page.evaluate("async graph => { await app.loadGraphData(graph); await pause(1000); }", json.loads(path.read_text()))
    page.evaluate(SMALL)
    shown = page.evaluate(GIVEN)
    assert "prompt" in shown and "seed" in shown
    page.evaluate("run_all()")
