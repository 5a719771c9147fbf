"""Recipes: the architecture and the stages of a shipped model, as data in recipes/NAME.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "recipes"


def architecture(name: str) -> dict[str, Any]:
    """Return the configurations of lumiere-mini's base model ("mini") or of its super-resolution ("ssr")."""
    return json.loads((FOLDER / ("mini-ssr.json" if name == "ssr" else "mini-cpu.json")).read_text("utf-8"))
