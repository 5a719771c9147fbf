"""Batches drawn ahead in a thread, so that a GPU need not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 2  # batches that lie ready for a GPU


class Ahead(Generic[T]):
    """Calls `make` with batch numbers; those that probably come next are made while the caller works.

    What a batch holds must follow from its number alone: it may be made earlier than it is asked for, or for nothing.

    Args:
        make: returns the batch of a number.
        depth: batches to have ready; 0 = each is made when it is asked for.
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        self.make, self.depth = make, depth
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: dict[int, Future[T]] = {}
        self._last: int | None = None

    def __call__(self, number: int) -> T:
        """Return batch `number`; what made it fail is raised here."""
        if not self.depth:
            return self.make(number)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        # A process of several takes every p-th batch.
        stride = max(1, number - self._last) if self._last is not None else 1
        self._last = number
        wanted = [number + stride * ahead for ahead in range(self.depth + 1)]
        for other in set(self._waiting) - set(wanted):
            self._waiting.pop(other).cancel()
        for other in wanted:
            if other not in self._waiting:
                self._waiting[other] = self._thread.submit(self.make, other)
        return self._waiting.pop(number).result()
