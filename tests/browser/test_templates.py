"""The templates as a user meets them: opened in the page, sent as a prompt, run with a preview."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
TWINS = sorted((ROOT / "workflows" / "api").glob("*.json"))

OPEN = """async name => {
    const answer = await fetch(`/api/workflow_templates/lumiere/${name}.json`);
    await app.loadGraphData(await answer.json());
    await new Promise(resolve => setTimeout(resolve, 1500));
    return (await app.graphToPrompt()).output;
}"""

RUN = """() => new Promise((resolve, reject) => {
    const widget = (id, name) => app.graph.getNodeById(id).widgets.find(w => w.name === name);
    widget(1, 'checkpoint').value = 'tiny.safetensors';
    for (const name of ['width', 'height']) widget(3, name).value = 16;
    widget(3, 'length').value = 6;
    widget(4, 'steps').value = 3;
    widget(4, 'seed').value = Math.floor(Math.random() * 1e9);
    let previews = 0;
    app.api.addEventListener('b_preview_with_metadata', () => previews++);
    app.api.addEventListener('execution_success', () => resolve(previews));
    app.api.addEventListener('execution_error', event => reject(JSON.stringify(event.detail)));
    app.queuePrompt(0, 1);
})"""


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_template_opens_as_its_twin(page, path):
    prompt = page.evaluate(OPEN, path.stem)
    inputs = {key: node["inputs"] for key, node in prompt.items()}
    assert inputs == {key: node["inputs"] for key, node in json.loads(path.read_text()).items()}
    assert page.errors == []


def test_template_browser_offers_it(page):
    page.wait_for_timeout(2000)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("lumiere", exact=True).first.click()
    page.get_by_text("text_to_video").first.wait_for(timeout=30_000)


def test_runs_with_a_preview(page, server, write_tiny):
    write_tiny(server.base / "models" / "lumiere" / "tiny.safetensors")
    page.reload()  # the list of checkpoints
    page.wait_for_function("() => window.app?.extensionManager && window.app?.graph", timeout=120_000)
    page.wait_for_timeout(2000)
    page.evaluate(OPEN, "text_to_video")
    assert page.evaluate(RUN) >= 1


def test_help_pages_are_served(page):
    for file in sorted((ROOT / "js" / "docs").glob("*.md")):
        status = page.evaluate("async url => (await fetch(url)).status", f"/extensions/lumiere/docs/{file.name}")
        assert status == 200, file.name
