"""How much of what was received could still be lost, so that it stays bounded; on the event loop only.

Bytes are owed from their arrival until they are durable or dropped. A mark is a point up to which they can be made so
while others arrive.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from ..limits import CHECKPOINTS, SLOT_SIZE

_PAUSE = 0.05
"""Seconds after marks within which twice as much comes before there are others, as each of them takes its time."""


class Debts:
    """The debts of one transfer, which stay below ``limit`` bytes.

    ``room()`` tells for how many bytes there is room already: they come without a question. A limit that is not much
    more than a buffer is passed by what fits into one.
    """

    def __init__(self, limit: int, room: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._room = room
        self._clock = clock
        self._marked_at = clock()
        self._step = max(limit // CHECKPOINTS, 1)
        self._owed: dict[int, int] = {}
        self._reach: dict[int, int] = {}
        self._total = 0
        self._unmarked = 0
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def too_high(self) -> bool:
        """Whether nothing more is to be read until something is paid."""
        return self._total >= max(self._limit - self._room() - SLOT_SIZE, self._limit // 2, 1)

    @property
    def room_left(self) -> int:
        """Bytes for which more room may be kept ready."""
        return max(self._limit - self._total - self._room(), 0)

    @property
    def wants_marks(self) -> bool:
        """Whether it is time for marks on all items that move."""
        if self._unmarked < self._step:
            return False
        return self._unmarked >= 2 * self._step or self._clock() - self._marked_at >= _PAUSE

    def received(self, item: int, stop: int, count: int) -> None:
        """``count`` bytes of ``item`` came, those before the offset ``stop``."""
        self._owed[item] = self._owed.get(item, 0) + count
        self._reach[item] = stop
        self._total += count
        self._unmarked += count

    def received_whole(self, items: Iterable[tuple[int, int]]) -> None:
        """All bytes of these items came, from the offset 0 on, each given with its size."""
        for item, size in items:
            self._owed[item] = self._reach[item] = size
            self._total += size
            self._unmarked += size

    def marked(self) -> None:
        """Marks were made."""
        self._unmarked = 0
        self._marked_at = self._clock()

    def durable(self, item: int, offset: int) -> None:
        """What came of ``item`` before ``offset`` is durable."""
        self._pay(item, max(self._owed.get(item, 0) - (self._reach.get(item, offset) - offset), 0))

    def settled(self, item: int) -> None:
        """Nothing is owed of ``item``: all of it is durable, or not wanted any more."""
        self._pay(item, self._owed.get(item, 0))
        self._reach.pop(item, None)

    def settled_all(self, items: Iterable[int]) -> None:
        """As :meth:`settled`, for many items."""
        for item in items:
            self._total -= self._owed.pop(item, 0)
            self._reach.pop(item, None)
        self._go_on()

    def wait(self, when_paid: Callable[[], None]) -> None:
        """Call ``when_paid`` once, as soon as reading on makes sense."""
        if when_paid not in self._waiting:
            self._waiting.append(when_paid)

    def forget(self, when_paid: Callable[[], None]) -> None:
        """Whoever waited does not any more."""
        if when_paid in self._waiting:
            self._waiting.remove(when_paid)

    def _pay(self, item: int, count: int) -> None:
        owed = self._owed.pop(item, 0)
        if owed > count:
            self._owed[item] = owed - count
        self._total -= count
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and not self.too_high:
            self._waiting.popleft()()
