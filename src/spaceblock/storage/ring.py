"""A bounded ring of reusable buffers: what a transfer holds in memory, and so what holds a transfer back.

Not safe for concurrent use: take and give on the event loop, fill and drain in a worker thread in between.
"""

from __future__ import annotations

import mmap
import sys
from collections import deque
from collections.abc import Callable

from ..limits import RING_SLOTS, SLOT_SIZE

SPARE = 2
"""Buffers that a stream leaves in the ring when it takes one ahead of need, so that the others can always go on."""


class Ring:
    """Up to ``count`` buffers of ``size`` bytes, made when first needed and handed round from then on."""

    def __init__(self, count: int = RING_SLOTS, size: int = SLOT_SIZE) -> None:
        self._free: list[memoryview] = []
        self._unmade = count
        self._size = size
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def free(self) -> int:
        """Buffers that can be taken now."""
        return len(self._free) + self._unmade

    def take(self, when_free: Callable[[], None]) -> memoryview | None:
        """A buffer, or None; then ``when_free`` is called once, as soon as trying again makes sense."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return _untouched(self._size)
        if when_free not in self._waiting:
            self._waiting.append(when_free)
        return None

    def give(self, slot: memoryview) -> None:
        """Return a buffer that nobody reads any more."""
        self._free.append(slot)
        while self._waiting and self._free:
            self._waiting.popleft()()

    def forget(self, when_free: Callable[[], None]) -> None:
        """Whoever asked for a buffer does not need one any more."""
        if when_free in self._waiting:
            self._waiting.remove(when_free)


def _untouched(size: int) -> memoryview:
    """Zeros, of which the system finds memory for those pages alone that somebody writes to: a transfer of little data
    takes little, and a crowd of them is not the sum of their rings. Raises :class:`MemoryError`."""
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, size))
    try:
        return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except OSError as error:
        raise MemoryError(f"there is no memory for a buffer of {size} bytes") from error
