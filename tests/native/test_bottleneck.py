"""One sender behind a slow link with a queue and losses, in virtual time: how much of the link it uses."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import pytest

from spaceblock.quic.native.recovery import Recovery

DATAGRAM = 1_452
PACKET = DATAGRAM + 28
BATCH = 65_507 // DATAGRAM
SECOND = 1_000_000
ACK_EVERY = 16
ACK_DELAY = 5_000
SPANS = 60


@dataclass
class Bottleneck:
    """A link of ``rate`` bytes a microsecond, with half of ``rtt`` each way, and a queue of so many microseconds."""

    rate: float = 62.5
    rtt: int = 50_000
    queue: int = 50_000
    loss: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.recovery = Recovery(bytes(16), 0, DATAGRAM, BATCH * DATAGRAM)
        self.now = self.delivered = 0
        self._random = random.Random(self.seed)
        self._free_at = 0.0
        self._under_way: deque[tuple[float, int]] = deque()
        self._acks: deque[tuple[float, list[tuple[int, int]]]] = deque()
        self._spans: list[tuple[int, int]] = []
        self._unacknowledged = 0
        self._ack_at = float("inf")

    def run(self, seconds: int) -> float:
        """Send as much as the sender may for so long; returns the share of the link that arrived, headers included."""
        while self.now < seconds * SECOND:
            self._send()
            self.now = int(self._next()) + 1
            self._receive()
            while self._acks and self._acks[0][0] <= self.now:
                self.recovery.acknowledge(self._acks.popleft()[1], self.now)
            self.recovery.on_timer(self.now)
        return self.delivered * PACKET / self.rate / self.now

    def _send(self) -> None:
        while count := min(self.recovery.allowance(self.now) // DATAGRAM, BATCH):
            for _ in range(count):
                pn = self.recovery.send(self.now, DATAGRAM)
                assert pn is not None
                if self._free_at - self.now > self.queue:
                    continue
                self._free_at = max(self._free_at, self.now) + PACKET / self.rate
                if self._random.random() >= self.loss:
                    self._under_way.append((self._free_at + self.rtt / 2, pn))

    def _next(self) -> float:
        """When something happens."""
        heads = [queue[0][0] for queue in (self._under_way, self._acks) if queue]
        return min(*heads, self._ack_at, self.recovery.send_time(), self.recovery.timeout())

    def _receive(self) -> None:
        while self._under_way and self._under_way[0][0] <= self.now:
            _, pn = self._under_way.popleft()
            self.delivered += 1
            if self._spans and self._spans[-1][1] == pn:
                self._spans[-1] = (self._spans[-1][0], pn + 1)
            else:
                self._spans.append((pn, pn + 1))
            self._unacknowledged += 1
            self._ack_at = min(self._ack_at, self.now + ACK_DELAY)
        if self._unacknowledged >= ACK_EVERY or self._ack_at <= self.now:
            del self._spans[:-SPANS]
            self._acks.append((self.now + self.rtt / 2, self._spans[::-1]))
            self._unacknowledged, self._ack_at = 0, float("inf")


def test_a_long_link_is_used() -> None:
    link = Bottleneck()
    assert link.run(8) > 0.92
    # What slow start loses at its end is all.
    assert link.recovery.congestion.reductions < 4
    assert link.recovery.lost_total < 4_000


@pytest.mark.parametrize("seed", range(3))
def test_a_link_that_loses_one_in_ten_thousand_is_used(seed: int) -> None:
    link = Bottleneck(loss=0.0001, seed=seed)
    assert link.run(10) > 0.8
    assert link.recovery.congestion.spared > 10


def test_losses_that_are_many_are_congestion() -> None:
    link = Bottleneck(loss=0.01)
    assert link.run(5) < 0.1
    assert link.recovery.congestion.spared < 20


@pytest.mark.parametrize("queue", [5_000, 10_000, 200_000])
def test_a_queue_that_overflows_is_congestion(queue: int) -> None:
    link = Bottleneck(queue=queue)
    assert link.run(5) > 0.7
    assert link.recovery.congestion.spared < 10
    assert link.recovery.congestion.reductions > 0
    assert link.recovery.lost_total < 0.05 * link.recovery.next_pn
