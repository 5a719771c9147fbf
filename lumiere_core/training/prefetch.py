"""Batches drawn ahead in a thread, so that a GPU need not wait for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
BLOCK = 4  # batches that a GPU's thread draws at once: many small operations, whatever the number of pictures


class Ahead(Generic[T]):
    """Calls `make` with the numbers of batches; on a GPU those that probably come next are made meanwhile.

    What a batch holds must follow from its number alone: it may be made earlier than it is asked for, or for nothing.

    Args:
        make: returns the batches of some numbers.
        device: where they are made; on a CPU each is made when it is asked for.
        block: numbers that are made together.
    """

    def __init__(
        self, make: Callable[[Sequence[int]], list[T]], device: str | torch.device, block: int = BLOCK
    ) -> None:
        self.make, self.device, self.block = make, torch.device(device), block
        self.early = self.device.type != "cpu"
        self._thread: ThreadPoolExecutor | None = None
        self._blocks: dict[tuple[int, ...], Future[list[T]]] = {}
        self._stride = 1
        self._last: int | None = None

    def __call__(self, number: int) -> T:
        """Return batch `number`; what made it fail is raised here."""
        if not self.early:
            return self.make([number])[0]
        if self._last is not None and number > self._last:
            self._stride = number - self._last  # of several processes, each takes every p-th batch
        self._last = number
        block = next((b for b in self._blocks if number in b), None)
        if block is None:  # the first, or out of turn
            self._blocks.clear()
            block = self._begin(number)
        if len(self._blocks) < 2:
            self._begin(block[-1] + self._stride)
        batches = self._blocks[block].result()
        if number == block[-1]:
            del self._blocks[block]
        return batches[block.index(number)]

    def _begin(self, number: int) -> tuple[int, ...]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        block = tuple(range(number, number + self.block * self._stride, self._stride))
        self._blocks[block] = self._thread.submit(self._make, block)
        return block

    def _make(self, block: Sequence[int]) -> list[T]:
        with self._stream():
            return self.make(block)

    @contextlib.contextmanager
    def _stream(self):
        """On CUDA, a queue of the thread's own: in the training's, each small upload would wait for a whole step."""
        if self.device.type != "cuda":
            yield
            return
        stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(stream):
            yield
        stream.synchronize()
