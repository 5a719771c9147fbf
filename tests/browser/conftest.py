"""A real Chromium on the real server. $LUMIERE_CHROMIUM names another one than playwright's own.

Each test leaves a picture of its page in output/browser.
"""

import importlib.util
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "output" / "browser"


def _workflows_conftest():
    """The server fixture lives with the workflow tests; conftest files of other folders are not seen here."""
    file = Path(__file__).resolve().parents[1] / "workflows" / "conftest.py"
    spec = importlib.util.spec_from_file_location("lumiere_workflows_conftest", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server = _workflows_conftest().server


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(
            executable_path=os.environ.get("LUMIERE_CHROMIUM") or None, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def small_models(server, write_tiny, write_tiny_style, tiny_ssr):
    """Very small weights on the server, under the names "tiny.safetensors" and so on."""
    models = server.base / "models" / "lumiere"
    write_tiny(models / "tiny.safetensors", conv_cond=True)
    write_tiny(models / "tiny-style.safetensors", seed=5)
    write_tiny(models / "tiny-ssr.safetensors", **tiny_ssr())
    write_tiny_style(server.base / "models" / "loras" / "tiny_style.safetensors")


# What the tests call in the page.
HELPERS = """() => {
window.pause = time => new Promise(resolve => setTimeout(resolve, time));
window.until = async (check, what, time = 60000) => {
    for (const end = Date.now() + time; Date.now() < end; await pause(50)) { const got = await check(); if (got) return got; }
    throw new Error(`waited in vain for ${what}`);
};
window.open_template = async name => {
    const answer = await fetch(`/api/workflow_templates/lumiere/${encodeURIComponent(name)}.json`);
    await app.loadGraphData(await answer.json());
    await pause(1000);
    return (await app.graphToPrompt()).output;
};
window.of = type => app.graph.nodes.find(node => node.comfyClass === type);
window.widget = (node, name) => node.widgets.find(found => found.name === name);
window.put = (node, values) => {
    for (const [name, value] of Object.entries(values)) {
        const found = widget(node, name);
        found.value = value;
        found.callback?.(value);
    }
};
window.add = (type, x, y, values = {}) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.graph.add(node);
    put(node, values);
    return node;
};
window.join = (from, slot, to, name) => from.connect(slot, to, to.inputs.findIndex(input => input.name === name));
window.run_all = () => new Promise((resolve, reject) => {
    app.api.addEventListener('execution_success', () => resolve(true), {once: true});
    app.api.addEventListener('execution_error', event => reject(JSON.stringify(event.detail)), {once: true});
    app.queuePrompt(0, 1).then(done => done === false && reject('the page did not send the prompt'));
});
}"""


@pytest.fixture(params=["litegraph", "vue"])
def page(server, browser, small_models, request):
    """The host's page, with either of its two renderers; `page.errors` collects what goes wrong on it."""
    page = browser.new_page(viewport={"width": 1800, "height": 1000})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(server.url, timeout=120_000)
    page.wait_for_function("() => window.app?.extensionManager && window.app?.graph", timeout=120_000)
    page.evaluate(
        """vue => {
            const settings = app.extensionManager.setting;
            settings.set('Comfy.TutorialCompleted', true);
            settings.set('Comfy.VueNodes.Enabled', vue);
        }""",
        request.param == "vue",
    )
    page.vue = request.param == "vue"
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")  # the templates that a first visit opens
    page.evaluate(HELPERS)
    yield page
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{re.sub(r'[^A-Za-z0-9]+', '_', request.node.name)}.png")
    page.close()
    assert page.errors == []
