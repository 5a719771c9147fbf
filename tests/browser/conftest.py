"""A real Chromium on the real server. $LUMIERE_CHROMIUM names another one than playwright's own."""

import importlib.util
import os
from pathlib import Path

import pytest


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


@pytest.fixture(params=["litegraph", "vue"])
def page(server, browser, request):
    """The host's page, with either of its two renderers; `page.errors` collects what goes wrong on it."""
    page = browser.new_page(viewport={"width": 1800, "height": 900})
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
    yield page
    page.close()
