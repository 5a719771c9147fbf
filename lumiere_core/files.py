"""Files that appear whole or not at all, and that survive a kill at any moment."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

Record = dict[str, Any]

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, or of what one user may fill
LONGEST_NAME = 255  # bytes of a file name, on every usual file system
# Names that Windows gives to devices, whatever the suffix.
RESERVED = {"con", "prn", "aux", "nul", "conin$", "conout$"}
RESERVED |= {f"{kind}{n}" for kind in ("com", "lpt") for n in "123456789\u00b9\u00b2\u00b3"}
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')  # in a name on Windows
_FOLDER = re.compile(r"\.part-([0-9a-f]{6})-(\d+)-\d+")  # of a machine, of a process, a running number
# What earlier versions left: .NAME.PID.partial, and the temporary files of the safetensors library.
_LEFT = re.compile(r"\..+\.(\d+)\.partial(?:\.\w+)?")
_SAFETENSORS = re.compile(r"\.tmp\w{6}")
_STALE_SECONDS = 3600.0
_numbers = itertools.count()
_swept: set[Path] = set()  # once a process: a folder may hold a hundred thousand clips


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, with the suffix of `path`, that takes the place of `path` when the block ends well.

    The temporary file lies in a folder of its own beside `path`, under a short name, so that whatever a library leaves
    next to it goes too; what killed processes left is removed first. The file is on the disk before it gets its name.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full. Nothing new is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.absolute() not in _swept:
        _swept.add(path.parent.absolute())
        sweep(path.parent)
    folder = path.parent / f".part-{_machine()}-{os.getpid()}-{next(_numbers)}"
    partial = folder / f"file{path.suffix[-16:]}"
    try:
        folder.mkdir()
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
        _to_disk(path.parent)
    except OSError as error:
        _name_full(error, path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text, whole or not at all; line ends stay as they are."""
    with atomic(path) as partial:
        partial.write_bytes(text.encode())


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic(target) as partial:
        shutil.copyfile(source, partial)


def sweep(folder: str | Path, alone: bool = False) -> None:
    """Remove what killed processes left of `atomic` in a folder; a living process's files stay.

    Args:
        alone: nobody else writes here (see `lock.only_writer`): temporary files that do not say whose they are go
            at once, not after an hour.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [e for e in entries if e.name.startswith(".")]:
            if _is_stale(entry, alone):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def _is_stale(entry: os.DirEntry, alone: bool) -> bool:
    ours, left = _FOLDER.fullmatch(entry.name), _LEFT.fullmatch(entry.name)
    if left or (ours and ours[1] == _machine()):
        return not is_running(int(ours[2] if ours else left[1]))
    if not ours and not (_SAFETENSORS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
        return False
    # Another machine's, or the library's: nothing says whether its process lives.
    return alone or time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS


def is_running(pid: int) -> bool:
    """Tell whether this machine has a process of this number."""
    if os.name == "nt":  # os.kill would end it there
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check_target(path: str | Path) -> None:
    """Find out now whether `path` can be written, before hours of work that end there.

    Raises:
        ValueError: the name is too long, or Windows cannot have it.
        OSError: the folder cannot be made or written to.
    """
    path = Path(path)
    # Files are carried from machine to machine, so that no device's name is one anywhere; folders mostly stay.
    if problem := windows_problem(path if os.name == "nt" else PurePath(path.name), os.name == "nt"):
        raise ValueError(f"{problem}. Choose another name for {path}.")
    length = len(os.fsencode(path.name))
    if length > LONGEST_NAME:
        raise ValueError(
            f"the name {path.name[:40]}… has {length} bytes; at most {LONGEST_NAME} fit. Choose a shorter one."
        )
    if path.is_dir():
        raise ValueError(f"{path} is a folder; the name of a file is wanted.")
    try:
        with atomic(path.parent / ".probe") as partial:
            partial.touch()
            raise _Enough
    except _Enough:
        pass
    except OSError as error:
        raise OSError(f"cannot write into {path.parent} ({error.strerror or error}). Choose another place.") from error


def windows_problem(path: PurePath, all_rules: bool = True) -> str:
    """Say why Windows cannot have a path, "" where it can.

    Args:
        all_rules: signs and ends of names too, not the names of devices alone.
    """
    path = path if isinstance(path, PureWindowsPath) else PureWindowsPath(str(path))
    for name in path.parts[bool(path.anchor) :]:
        if name.split(".")[0].strip().lower() in RESERVED:
            return f"{name!r} is the name of a device on Windows"
        if all_rules and (found := _FORBIDDEN.search(name)):
            return f"{name!r} holds {found[0]!r}, which no name on Windows may"
        if all_rules and name != ".." and name[-1] in ". ":
            return f"{name!r} ends in a dot or a space, which Windows leaves out"
    return ""


def refuse_input(path: Path, inputs: Iterable[Path]) -> None:
    """Raise ValueError if the file that is to be written is one of those that are read."""
    for file in inputs:
        if path.exists() and file.exists() and path.samefile(file):
            raise ValueError(f"{path} is read, so it cannot be what is written. Choose another --output.")


def _name_full(error: OSError, path: Path) -> None:
    """Raise the error of a full disk with the file that was written, which the system does not say."""
    if error.errno in FULL:
        words = f"{os.strerror(error.errno)}; make room there, or choose another place"
        raise OSError(error.errno, words, str(path)) from error


class _Enough(Exception):
    """Ends an `atomic` block without a file."""


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder where the system can say so."""
    try:
        handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    except OSError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network folders
            raise
    finally:
        os.close(handle)


class JsonLines:
    """Records in a file, one a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Return all complete lines; one that a kill cut short is left out."""
        records = []
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def append(self, record: Record, durable: bool = False) -> None:
        """Add one line in a single write, so that two writers do not mix.

        Args:
            durable: wait until the disk has it; for records that took long to make.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _line(record)
        if self._cut_short():
            line = "\n" + line
        data = line.encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(handle, data) < len(data):  # as much as fits is no error to the system
                raise OSError(errno.ENOSPC, "")
            if durable:
                os.fsync(handle)
        except OSError as error:
            _name_full(error, self.path)
            raise
        finally:
            os.close(handle)

    def keep(self, records: list[Record]) -> None:
        """Replace the file's lines."""
        write_text(self.path, "".join(map(_line, records)))

    def _cut_short(self) -> bool:
        if not self.path.exists() or self.path.stat().st_size == 0:
            return False
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
