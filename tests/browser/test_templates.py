"""The templates as a user meets them: opened in the page, sent as a prompt, run with what they show."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))
TITLE = 30  # pixels of a node's title bar, above its box

# Make a template end in seconds: very small weights, few steps and frames, large sizes made smaller in their proportions.
SMALL = """() => {
    const STAND_INS = {CheckpointLoaderSimple: 'TinyCheckpoint', CLIPLoader: 'TinyTextEncoder'}; // of tests/workflows/tiny_models
    const stand_in = node => {
        const tiny = add(STAND_INS[node.comfyClass], ...node.pos);
        for (const {name, value} of node.widgets) if (widget(tiny, name)) widget(tiny, name).value = value;
        tiny.size = [...node.size];
        node.outputs.forEach((output, slot) => {
            for (const id of [...(output.links ?? [])]) {
                const link = app.graph.getLink(id);
                tiny.connect(slot, app.graph.getNodeById(link.target_id), link.target_slot);
            }
        });
        app.graph.remove(node);
    };
    const wan = app.graph.nodes.some(node => node.comfyClass === 'UNETLoader'); // 4 n + 1 frames
    for (const node of [...app.graph.nodes]) {
        if (node.comfyClass in STAND_INS) stand_in(node);
        const found = name => node.widgets?.find(widget => widget.name === name);
        const checkpoint = found('checkpoint');
        if (checkpoint) {
            const ssr = checkpoint.value.endsWith('-ssr');
            checkpoint.value = ssr ? 'tiny-ssr.safetensors' : 'tiny.safetensors';
        }
        if (found('lora_name')) found('lora_name').value = 'tiny_style.safetensors';
        if (found('temporal')) found('temporal').value = 'tiny_motion.safetensors';
        const steps = node.comfyClass === 'LumiereTrainTemporal' ? 2 : 1; // the host's loss graph wants two losses
        for (const [name, value] of [['steps', steps], ['length', wan ? 17 : 16], ['overlap', 4]]) {
            if (found(name)) found(name).value = Math.min(value, found(name).value);
        }
        for (const side of ['width', 'height']) {
            if (found(side)?.value > 256) found(side).value = Math.round(found(side).value / 64) * 16;
        }
        if (found('seed')) found('seed').value = Math.floor(Math.random() * 1e9);
    }
}"""

BOXES = """() => {
    if (!app.extensionManager.setting.get('Comfy.VueNodes.Enabled')) {
        return app.graph.nodes.map(node => [node.id, ...node.pos, ...node.size]);
    }
    const scale = app.canvas.ds.scale;
    return [...document.querySelectorAll('[data-node-id]')].map(element => {
        const node = app.graph.getNodeById(Number(element.dataset.nodeId)), box = element.getBoundingClientRect();
        return [node.id, ...node.pos, box.width / scale, box.height / scale - 30];
    });
}"""


def overlapping(boxes):
    """Return the pairs of nodes whose boxes, title bars included, lie over one another."""
    found = []
    for number, (a, x, y, w, h) in enumerate(boxes):
        for b, x2, y2, w2, h2 in boxes[number + 1 :]:
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 - TITLE or y2 + h2 <= y - TITLE
            if not apart:
                found.append((a, b))
    return found


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_template_opens_as_its_twin_and_nothing_lies_over_something_else_after_a_run(page, path):
    prompt = page.evaluate("open_template", path.stem)
    inputs = {key: node["inputs"] for key, node in prompt.items()}
    assert inputs == {key: node["inputs"] for key, node in json.loads(path.read_text()).items()}
    page.evaluate(SMALL)
    page.evaluate("run_all()")
    page.evaluate("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1000)
    boxes = page.evaluate(BOXES)
    assert len(boxes) > 6
    assert overlapping(boxes) == []


def test_template_browser_offers_them(page):
    """In the order of the file system: the host does not sort the templates of packs."""
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("lumiere", exact=True).first.click()
    page.get_by_text("Lumiere 01 - Text to Video", exact=True).first.wait_for(timeout=30_000)
    page.wait_for_timeout(1000)
    titles = page.evaluate(
        "() => [...document.querySelectorAll('[data-testid^=template-workflow-] h3')].map(e => e.textContent.trim())"
    )
    assert titles and set(titles) <= {path.stem for path in TWINS}  # the page shows as many as fit


OLDER = {"task.images": ["task.start_image", "task.video", "task.image"]}


@pytest.mark.parametrize("older", OLDER["task.images"])
def test_workflows_with_older_names_keep_their_links(page, older):
    (path,) = (p for p in (ROOT / "workflows").glob("*.json") if p.stem.endswith("Image to Video"))
    old = json.loads(path.read_text().replace("task.images", older))
    page.evaluate("graph => app.loadGraphData(graph)", old)
    page.wait_for_timeout(1000)
    builder = next(
        node
        for node in page.evaluate("async () => (await app.graphToPrompt()).output").values()
        if node["class_type"] == "LumiereConditionBuilder"
    )
    assert isinstance(builder["inputs"]["task.images"], list) and older not in builder["inputs"]


def test_a_change_of_task_keeps_the_links(page):
    links = page.evaluate(
        """async () => {
            const clip = add('LumiereWorldClip', 0, 0), builder = add('LumiereConditionBuilder', 500, 0);
            join(clip, 0, builder, 'task.images');
            const seen = [];
            for (const task of ['key frames', 'inpaint', 'outpaint', 'cinemagraph', 'image to video']) {
                put(builder, {task});
                await pause(200);
                seen.push(builder.inputs.find(input => input.name === 'task.images').link);
            }
            return seen;
        }"""
    )
    assert len(set(links)) == 1 and links[0] is not None


def test_help_pages_are_served(page):
    for file in sorted((ROOT / "js" / "docs").glob("*.md")):
        status = page.evaluate("async url => (await fetch(url)).status", f"/extensions/lumiere/docs/{file.name}")
        assert status == 200, file.name
