"""One writer for a folder: the second one is told who the first is."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .files import sweep

NAME = ".lock"
# Where Windows locks a byte: behind the text, which others are to read.
_BYTE = 1 << 20

logger = logging.getLogger("lumiere")


@contextlib.contextmanager
def only_writer(folder: str | Path, what: str) -> Iterator[None]:
    """Hold a folder while the block runs, made if it is not there; what killed writers left in it is swept first.

    The lock is the operating system's, so it ends with its process, however that ends: none outlives a kill. The file
    says who holds it: machine, process, doing what, since when.

    Args:
        what: names the work in the message to others, such as "prepare".

    Raises:
        ValueError: another process, or another part of this one, is writing there; or the lock is no file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = _acquire(folder / NAME)
    try:
        facts = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "what": what,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with contextlib.suppress(OSError):  # a full disk; the lock holds without words
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(facts).encode())
        sweep(folder, alone=True)
        yield
    finally:
        _release(handle, folder / NAME)


def _acquire(path: Path) -> int:
    while True:
        if path.is_symlink() or (path.exists() and not path.is_file()):  # what a link leads to must not be emptied
            raise ValueError(f"{path} is a link or no file; the lock of a folder is a file of its own. Remove it.")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            # The one before may have removed the file after we opened it: then the lock is of a file without a name.
            if os.name == "nt" or path.stat().st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                os.close(handle)
                raise ValueError(
                    f"{path.parent} is being written by {holder(path.parent)}. Wait until it has ended, end it, or "
                    "choose another folder."
                ) from None
            logger.warning("no locks in %s (%s): make sure that nothing else writes there", path.parent, error)
            return handle
        os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file for this process, without waiting."""
    if os.name == "nt":
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(handle: int, path: Path) -> None:
    if os.name != "nt":  # while it is ours; Windows removes no open file
        path.unlink(missing_ok=True)
    os.close(handle)
    if os.name == "nt":
        with contextlib.suppress(OSError):
            path.unlink()


def holder(folder: str | Path) -> str:
    """Name the process that holds a folder, as it wrote it down."""
    try:
        facts = json.loads((Path(folder) / NAME).read_text("utf-8"))
        return f"process {facts['pid']} on {facts['host']} ({facts['what']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
