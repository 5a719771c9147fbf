"""A real Chromium on the real server. $LUMIERE_CHROMIUM names another one than playwright's own.

One server, one browser and, for each renderer, one page serve all tests; a test begins with an empty graph. Each leaves a
picture of its page in output/browser.
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
def small_models(server, write_tiny, write_tiny_style, tiny_ssr, write_tiny_motion):
    """Very small weights on the server, under the names "tiny.safetensors" and so on."""
    models = server.base / "models" / "lumiere"
    write_tiny(models / "tiny.safetensors", conv_cond=True)
    write_tiny(models / "tiny-style.safetensors", seed=5)
    write_tiny(models / "tiny-ssr.safetensors", **tiny_ssr())
    write_tiny_style(server.base / "models" / "loras" / "tiny_style.safetensors")
    write_tiny_motion(server.base / "models")


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
window.clips = [];
window.warnings = [];
app.api.addEventListener('lumiere.clip', ({detail}) => clips.push(detail));
app.api.addEventListener('lumiere.warning', ({detail}) => warnings.push(detail.text));
}"""

# What a test leaves behind: a run, an open subgraph, a panel, toasts, a dialog.
CLEAN = """async () => {
    for (const [path, body] of [['queue', {clear: true}], ['interrupt', {}]]) {
        await app.api.fetchApi(`/${path}`, {method: 'POST', body: JSON.stringify(body)});
    }
    await until(async () => {
        const queue = await (await app.api.fetchApi('/queue')).json();
        return !queue.queue_running.length && !queue.queue_pending.length;
    }, 'the end of the last run');
    if (app.canvas.graph !== app.rootGraph) app.canvas.setGraph(app.rootGraph);
    app.graph.clear();
    app.nodeOutputs = {};
    app.rootGraph.id = crypto.randomUUID(); // under one id a new node gets the widgets' values of the last of its number
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [100, 100];
    const {toast, bottomPanel} = app.extensionManager;
    toast.removeAll?.();
    document.querySelectorAll('.p-toast-close-button').forEach(button => button.click());
    const open = bottomPanel.activeBottomPanelTab;
    if (open) bottomPanel.toggleBottomPanelTab(open.id);
    clips.length = warnings.length = 0;
}"""


@pytest.fixture(scope="session", params=["litegraph", "vue"])
def opened(server, browser, small_models, request):
    """The host's page, with either of its two renderers; `page.errors` collects what goes wrong on it."""
    page = browser.new_page(viewport={"width": 1800, "height": 1000})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.vue = request.param == "vue"
    for _ in range(2):  # the second time with the settings of the first
        page.goto(server.url, timeout=120_000)
        page.wait_for_function("() => window.app?.extensionManager && window.app?.graph", timeout=120_000)
        page.evaluate(
            """async vue => {
                const settings = app.extensionManager.setting;
                await settings.set('Comfy.TutorialCompleted', true);
                await settings.set('Comfy.VueNodes.Enabled', vue);
            }""",
            page.vue,
        )
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")  # the templates that a first visit opens
    page.evaluate(HELPERS)
    yield page
    page.close()


@pytest.fixture
def page(opened, request):
    """The page with an empty graph. A test fails with every error of the page that it brought."""
    opened.keyboard.press("Escape")
    opened.evaluate(CLEAN)
    opened.errors.clear()
    yield opened
    PICTURES.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=PICTURES / f"{re.sub(r'[^A-Za-z0-9]+', '_', request.node.name)}.png")
    assert opened.errors == []
