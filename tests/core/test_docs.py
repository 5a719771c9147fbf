"""The pages hold what is stored, and what is stored is of the weights that are shipped."""

import argparse
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from lumiere_core.commands.evaluate import RESULTS_PAGE, results_page
from lumiere_core.diffusion.models import weight_files
from lumiere_core.evaluation.cascade import Cascade
from lumiere_core.evaluation.oracle import oracle_version
from lumiere_core.evaluation.store import fingerprint
from lumiere_core.evaluation.stored import RESULTS
from lumiere_core.files import JsonLines
from lumiere_core.nets.checkpoint import sha256

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ANEW = "python -m lumiere_core evaluate --markdown"


def test_the_results_page_is_what_the_stored_lines_make():
    assert RESULTS_PAGE.read_text(encoding="utf-8") == results_page(), f"write it anew: {ANEW}"


def test_the_measured_page_is_what_the_stored_figures_make(monkeypatch):
    folder = ROOT / "tests" / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("bench_stored", folder / "stored.py")
    stored = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stored)
    sys.modules.pop("figures", None)
    assert stored.PAGE.read_text(encoding="utf-8") == stored.page(), "write it anew: make bench, or stored.py"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_stored_lines_are_of_the_shipped_weights(path):
    shipped = {file.name: sha256(file) for file in (ROOT / "lumiere_core" / "weights").rglob("*.safetensors")}
    bundles = {
        fingerprint({f.name: sha256(f) for f in weight_files(name)})
        for name in ("lumiere-mini", "lumiere-mini-128", "lumiere-mini-ssr")
    }
    lines = JsonLines(path).read()
    assert lines, f"{path.name} holds no line: delete it"
    for line in lines:
        if "recipe" in line:  # weights that are not shipped: what trained them must be the recipe that is
            recipe = Cascade(argparse.Namespace(trained="", device="cpu")).run["recipe"]
            assert line["recipe"] == recipe, f"{path.name}, case {line['case']}: of another recipe"
            continue
        for name, digest in (line.get("sha256") or {}).items():
            assert shipped.get(name) == digest, f"{path.name}, case {line['case']}: {name} is of other weights"
        if "weights" in line:
            assert line["weights"] in bundles, f"{path.name}, case {line['case']}: other weights"
        else:
            assert line.get("oracle") == oracle_version(), f"{path.name}, case {line['case']}: another oracle"


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "mailto")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
