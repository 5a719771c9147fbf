"""Gather what a bare machine lacks: `python tests/gpu/pack.py [--wheels NAME …] [--host]` makes .gpu/, to travel with the tree.

    .gpu/site      packages, to be put on PYTHONPATH
    .gpu/photographs, for the plan train (`lumiere_core gather photographs`, made smaller)
    .gpu/ComfyUI   the host without its tests, blueprints and the tokenizers of other models; give it as COMFYUI_PATH

A GPU for a quarter of an hour has seldom a network. Tree and .gpu together must stay below 64 MiB; it says what they weigh.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / ".gpu"
LIMIT = 64 << 20  # bytes
TREE = 48 << 20  # of them at most for what git tracks
WIDEST = 1600  # pixels of a photograph
LEFT_OUT = ("tests", "tests-unit", "blueprints", "models", "input", "output", ".github", "__pycache__")
TOKENIZERS = ("comfy/text_encoders",)  # folders of vocabularies in it; its modules are kept
LIKE_A_CARD = ["--only-binary=:all:", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]
OLDER = ("manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument(
        "--wheels", nargs="*", default=(), help="packages that the machine lacks, NAME or NAME==VERSION"
    )
    parser.add_argument("--python", default="3.12", help="of the machine")
    parser.add_argument("--host", type=Path, nargs="?", const=ROOT / ".host" / "ComfyUI", help="the host's folder")
    parser.add_argument("--photographs", action="store_true", help="gather what super-resolution learns from")
    parser.add_argument("--target", type=Path, default=TARGET)
    options = parser.parse_args(arguments)
    if options.wheels:
        install(options.wheels, options.python, options.target / "site")
    if options.photographs:
        photographs(options.target / "photographs")
    if options.host:
        copy_host(options.host, options.target / "ComfyUI")
    tracked, packed = tracked_bytes(), weight(options.target)
    print(f"tracked {tracked / 2**20:.1f} MiB, {options.target.name} {packed / 2**20:.1f} MiB")
    if tracked + packed > LIMIT:
        print(f"# too much: at most {LIMIT >> 20} MiB travel", file=sys.stderr)
        return 1
    return 0


def install(names: list[str], python: str, target: Path) -> None:
    """Install wheels for the machine's Python, without what they need."""
    platforms = [word for name in OLDER for word in ("--platform", name)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade"]
    command += ["--target", str(target), "--python-version", python, *LIKE_A_CARD, *platforms, *names]
    subprocess.run(command, check=True)


def photographs(target: Path) -> None:
    """Gather photographs and make them small enough to travel; CREDITS.txt stays with them."""
    from PIL import Image

    sys.path.insert(0, str(ROOT))
    from lumiere_core.dataset.public import gather

    for file in gather("photographs", target):
        with Image.open(file) as image:
            small = image.convert("RGB")
        small.thumbnail((WIDEST, WIDEST))
        file.unlink()
        small.save(file.with_suffix(".jpg"), quality=92)


def copy_host(source: Path, target: Path) -> None:
    """Copy the host's sources, without what no template needs."""
    root = source.resolve()

    def left_out(folder: str, names: list[str]) -> list[str]:
        place = Path(folder).relative_to(root).as_posix()
        if place == ".":
            return [name for name in names if name in LEFT_OUT]
        if place in TOKENIZERS:
            return [name for name in names if (Path(folder) / name).is_dir()]
        return [name for name in names if name == "__pycache__"]

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root, target, ignore=left_out)


def tracked_bytes() -> int:
    """Return the size of what git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sum((ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).is_file())


def weight(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
