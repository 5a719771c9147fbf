"""Where a cache lies: a folder, or an address of any kind that fsspec knows (https://, s3://, …)."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each new try
SILENCE = 60  # seconds without a byte
PASSING_STATUS = (408, 425, 429)  # and all from 500 on
LIBRARIES = ("aiohttp", "aiobotocore", "botocore", "fsspec", "s3fs", "gcsfs", "urllib3", "requests")

logger = logging.getLogger("lumiere")


class Damaged(ValueError):
    """What was read is cut short or is not what it should be; another try may help, if it came over a line."""


class Place:
    """Reads files below a folder or an address, never more than was asked for; a remote one is tried again.

    Names are checked by who calls (`index`), so that none leads elsewhere.
    """

    def __init__(self, base: str | Path) -> None:
        self.base = str(base).rstrip("/\\") or str(base)
        self.is_remote = "://" in self.base

    def __str__(self) -> str:
        return self.base

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a small file of at most `most` bytes.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be read, after all tries.
            ValueError: it is larger.
        """
        return self.use(name, most, _all_of)

    def use(self, name: str, most: int, work: Callable[[BinaryIO], T]) -> T:
        """Return what `work` makes of the opened file, which yields at most `most` bytes; see `read`."""
        waits = WAITS if self.is_remote else ()
        for attempt in range(len(waits) + 1):
            try:
                with self._open(name) as file:
                    return work(_Counted(file, most, f"{self}/{name}"))
            except Exception as error:
                if not self.is_remote or not _may_pass(error):
                    raise
                if attempt == len(waits):
                    raise OSError(
                        f"{self}/{name} cannot be read, tried {attempt + 1} times ({_words(error)})."
                    ) from error
                logger.warning("%s/%s: %s; trying again in %g s", self, name, _words(error), waits[attempt])
                time.sleep(waits[attempt])
        raise AssertionError("the last try returns or raises")

    def _open(self, name: str) -> AbstractContextManager[BinaryIO]:
        if not self.is_remote:
            return open(inside(Path(self.base), name), "rb")
        import fsspec

        options = {}
        if self.base.startswith(("http://", "https://")):
            import aiohttp  # of the host; fsspec needs it too

            timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
            options = {"block_size": 0, "client_kwargs": {"timeout": timeout}}  # read once, front to end
        try:
            return fsspec.open(f"{self.base}/{name}", "rb", **options).open()
        except ImportError as error:  # s3fs, gcsfs and the like
            raise ValueError(f"{self.base} needs a library that is not installed: {error}") from error


def inside(folder: Path, name: str) -> Path:
    """Return the path of a name below a folder.

    Raises:
        ValueError: a link or the name itself leads out of the folder, or to what is neither file nor folder.
    """
    path = folder / name
    real = Path(os.path.realpath(path))  # that of a link to itself too
    if folder.resolve() not in real.parents:
        raise ValueError(f"{path} leads out of {folder}, to {real}. Nothing outside of a cache is touched.")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a pipe or a device, and no cache has one. Remove it.")
    return path


class _Counted:
    """As much of a file as a reader from front to end needs, with a limit."""

    def __init__(self, file: BinaryIO, most: int, name: str) -> None:
        self.file, self.left, self.name = file, most, name

    def read(self, size: int = 1 << 20) -> bytes:
        data = self.file.read(min(size, 1 << 20))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"{self.name} is larger than anything that can belong there. Prepare the cache again.")
        return data


def _all_of(file: BinaryIO) -> bytes:
    parts = []
    while block := file.read():
        parts.append(block)
    return b"".join(parts)


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: time-outs, cut lines, busy servers; not what is missing or forbidden."""
    if isinstance(error, (FileNotFoundError, PermissionError)) or (
        isinstance(error, ValueError) and not isinstance(error, Damaged)
    ):
        return False
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in PASSING_STATUS
    passing = (OSError, EOFError, Damaged, TimeoutError, asyncio.TimeoutError)
    return isinstance(error, passing) or type(error).__module__.split(".")[0] in LIBRARIES


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
