"""Core stands alone: no host, and nothing imported before it is needed."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = ("comfy", "folder_paths", "server", "nodes", "execution", "latent_preview", "app", "utils")

IMPORT_ALL = f"""
import importlib, json, pkgutil, sys
import einops, safetensors, torch
theirs = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
import lumiere_core
first = sorted(set(sys.modules) - theirs)
names = [m.name for m in pkgutil.walk_packages(lumiere_core.__path__, "lumiere_core.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([first, names, sorted(set(sys.modules) - theirs)]))
"""


def test_every_module_imports_without_a_host(spawn):
    """In an isolated interpreter (-I): neither this folder nor a host is on its path."""
    process = spawn(command=("-I", "-c", IMPORT_ALL))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    first, names, modules = json.loads(output)
    assert {"lumiere_core.nets.stunet", "lumiere_core.training.loop", "lumiere_core.commands.sample"} <= set(names)
    own = {str(p.relative_to(ROOT).with_suffix("")).replace("/", ".") for p in (ROOT / "lumiere_core").rglob("*.py")}
    assert {name.removesuffix(".__init__") for name in own} <= {*names, "lumiere_core"}  # none is forgotten
    found = [name for name in modules if name.split(".")[0] in HOST or name.startswith("comfy")]
    assert found == []
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & {"av", "cv2", "PIL", "transformers", "tqdm"}  # imported inside functions
    assert first == ["lumiere_core"]  # the package itself costs nothing


def test_the_command_line_starts_without_torch(spawn):
    """So that `--help` answers at once."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from lumiere_core.commands import cli\n"
        "for verb in ('sample', 'train'):\n"
        "    try: cli.main([verb, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported for --help'"
    )
    process = spawn(command=("-I", "-c", code))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "--prompts" in output and "--resume" in output
