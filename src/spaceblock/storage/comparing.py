"""Comparing what is in the target folder already: hashed by the receiver while the sender hashes what it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from ..errors import SpaceblockError
from .sinks import Sink

_PORTIONS = 64
_ITEMS = 1_024
"""What one call of :meth:`Comparison.work` does at most, so that other work of the transfer gets its turn."""


class Comparison:
    """The digests of items that are here already; used by one thread at a time."""

    def __init__(self, sink: Sink, items: Iterable[int]) -> None:
        self._sink = sink
        self._items = deque(sorted(items))
        self._hashing: Iterator[int | bytes] = iter(())
        self._item = -1
        self.hashed: int = 0
        """Bytes that were read so far."""

    @property
    def done(self) -> bool:
        """Whether every item has come to its end."""
        return self._item < 0 and not self._items

    def work(self) -> list[tuple[int, bytes | SpaceblockError]]:
        """Go on for a while; returns the items that were finished, each with its digest or with why there is none."""
        found: list[tuple[int, bytes | SpaceblockError]] = []
        portions = 0
        while not self.done and portions < _PORTIONS and len(found) < _ITEMS:
            try:
                if self._item < 0:
                    self._item = self._items.popleft()
                    self._hashing = self._sink.digest(self._item)
                got = next(self._hashing)
            except SpaceblockError as error:
                found.append((self._item, error))
                self._item = -1
                continue
            portions += 1
            if isinstance(got, bytes):
                found.append((self._item, got))
                self._item = -1
            else:
                self.hashed += got
        return found

    def close(self) -> None:
        """Close what is open; no further call may follow."""
        self._items.clear()
        self._item = -1
        self._hashing = iter(())  # the end of a generator closes its file
