"""A path between two sides whose datagrams fare as an input says: in virtual time, without sockets."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")

ARRIVES, LOST, TWICE, LATE, CHANGED, CUT = range(6)
FATES = 6


class Path(Generic[T]):
    """Datagrams on their way to sides of type ``T``; times are in any unit in which ``latency`` is given."""

    def __init__(self, now: float, latency: float) -> None:
        self.now = now
        self._latency = latency
        self._fates: list[int] = []
        self._queue: list[tuple[float, int, T, bytes]] = []
        self._sent = 0
        self.lost = 0

    def doom(self, fates: bytes) -> None:
        """Say what becomes of the next datagrams; those after them simply arrive."""
        self._fates = list(fates)

    def carry(self, to: T, datagram: bytes) -> None:
        """Send one datagram."""
        number = self._fates.pop(0) if self._fates else ARRIVES
        fate = number % FATES
        if fate == CHANGED:
            changed = bytearray(datagram)
            changed[(number * 37) % len(changed)] ^= 1 << number % 8
            datagram = bytes(changed)
        elif fate == CUT:
            datagram = datagram[: (number * 37) % len(datagram)]
        self.lost += fate == LOST
        delays = {LOST: (), TWICE: (1, 3), LATE: (1 + number % 7,)}.get(fate, (1,))
        for delay in delays:
            self._sent += 1
            heapq.heappush(self._queue, (self.now + delay * self._latency, self._sent, to, datagram))

    @property
    def due(self) -> float | None:
        """When the next datagram arrives."""
        return self._queue[0][0] if self._queue else None

    def arrive(self) -> tuple[T, bytes] | None:
        """One datagram that has arrived by now."""
        if not self._queue or self._queue[0][0] > self.now:
            return None
        _, _, to, datagram = heapq.heappop(self._queue)
        return to, datagram
