"""Rules of the house that a reader would otherwise have to check: imports, docstrings, calls."""

import ast
import builtins
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = (  # from the ground up; a floor imports those below it
    ("files", "flags", "device", "host_process"),
    ("lock", "provenance", "text_files"),
    ("clips",),
    ("nets",),
    ("diffusion",),
    ("world", "measures", "dataset"),
    ("training",),
    ("evaluation",),
    ("commands",),
)
# "(b, c, t, h, w)", "((b t), d)", "[t, h, w, c]", or words that say that any will do.
SHAPE = re.compile(
    r"[(\[][^()\[\]]*(\([^()]*\))?[^()\[\]]*,[^()\[\]]*[)\]]|\(\w+,\)|any shape|scalar|such as|state dict|weights", re.I
)
# Any number of one kind, sizes of an array, or what the host calls by position.
VARIADIC = {"min", "max", "zip", "print", "product", "chain", "partial", "stack", "has", "warning", "info"}
VARIADIC |= {"expand", "view", "reshape", "permute", "ones", "zeros", "rand", "randn", "empty", "new_zeros", "new_ones"}
VARIADIC |= {"executor", "resize", "resize_cond_for_context_window", "Sequential"}


def modules(*folders):
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def name_of(path):
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, tree):
    """Yield (module, name) of every import inside the pack, those in functions too."""
    package = name_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""


def graph(trees):
    """Return module -> modules of the pack that it imports."""
    names = {name_of(path) for path in trees}
    found = {}
    for path, tree in trees.items():
        used = set()
        for module, name in imports(path, tree):
            used |= {full for full in (f"{module}.{name}", module) if full in names}
        # A package that is imported for a module in it is not used itself.
        found[name_of(path)] = {u for u in used if not any(o != u and o.startswith(u + ".") for o in used)}
    return found


def test_no_import_circles():
    edges = graph(modules("lumiere_core", "nodes"))
    state = {}

    def visit(name, path):
        if state.get(name) == "done":
            return
        assert state.get(name) != "open", " -> ".join([*path, name])
        state[name] = "open"
        for other in sorted(edges.get(name, ())):
            if other != name:
                visit(other, [*path, name])
        state[name] = "done"

    for name in sorted(edges):
        visit(name, [])


def test_core_imports_downwards_only():
    level = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = []
    for path, tree in modules("lumiere_core").items():
        floor = path.parts[1].removesuffix(".py")
        for module, name in imports(path, tree):
            parts = [*module.split("."), name]
            if parts[0] != "lumiere_core" or len(parts) < 2 or floor not in level:
                continue
            other = parts[1]
            if other in level and other != floor and level[other] >= level[floor]:
                wrong.append(f"{path} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_no_private_name_crosses_a_module():
    wrong = [
        f"{path} imports {name} of {module}"
        for path, tree in modules("lumiere_core", "nodes").items()
        for module, name in imports(path, tree)
        if name.startswith("_") and not name.startswith("__") and "lumiere_core" in f"{module}{path}"
    ]
    assert not wrong, "\n".join(wrong)


def takes_tensors(function):
    annotations = [a.annotation for a in (*function.args.args, *function.args.kwonlyargs)] + [function.returns]
    return any("Tensor" in ast.unparse(a) for a in annotations if a is not None)


def public_functions(tree):
    for node in ast.walk(tree):
        body = node.body if isinstance(node, (ast.Module, ast.ClassDef)) else []
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for item in body:
            if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                yield node, item


@pytest.mark.parametrize("folder", ["lumiere_core", "nodes"])
def test_functions_of_tensors_name_their_shapes(folder):
    missing = []
    for path, tree in modules(folder).items():
        for owner, function in public_functions(tree):
            text = ast.get_docstring(function) or ""
            if isinstance(owner, ast.ClassDef) and function.name in ("forward", "__call__"):
                text += ast.get_docstring(owner) or ""
            # What a node takes and gives is said by its schema.
            if function.name != "execute" and takes_tensors(function) and not SHAPE.search(text):
                missing.append(f"{path}:{function.lineno} {function.name}")
    assert not missing, f"{len(missing)}:\n" + "\n".join(missing)


@pytest.mark.parametrize("name", ["nets/temporal_layers.py", "nets/stunet.py", "nets/motion_module.py"])
def test_every_forward_of_the_temporal_layers_has_a_docstring(name):
    path = ROOT / "lumiere_core" / name
    for _, function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        if function.name == "forward":
            assert ast.get_docstring(function), f"{name}:{function.lineno}"


def test_no_call_has_more_than_four_positional_arguments():
    wrong = []
    for path, tree in modules("lumiere_core", "nodes").items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            positional = [a for a in node.args if not isinstance(a, ast.Starred)]
            if len(positional) > 4 and name not in VARIADIC and not hasattr(builtins, name):
                wrong.append(f"{path}:{node.lineno} {name}({len(positional)})")
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong)
