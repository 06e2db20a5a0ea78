"""What recovery and congestion control cost: batches of 45 packets sent and acknowledged, with and without losses.

Each row sends a batch in one call and processes one ACK frame in another, so divide by 45 for a packet. What is in
flight beside the batch must not matter: that is the point of the rows with a large window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native.recovery import Recovery

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BATCH = 45
SIZE = 1452


class Path:
    """Batches go out, and those sent a window earlier are acknowledged."""

    def __init__(self, window: int) -> None:
        self.recovery = Recovery(bytes(16), datagram_size=SIZE)
        self.recovery.seed_rtt(500, 500, 50, 500, 0)
        self.now = 0
        self.sent: list[tuple[int, int]] = []
        # The window is at its largest, so that numbers are skipped rarely; the first skip was placed before.
        self.recovery.congestion.on_acked(2**40, 0, 1, 500, 0)
        while self.recovery.next_number() == self.recovery.next_pn:
            self.recovery.send(0, SIZE, 0)
        self.recovery.send(0, SIZE, 0)
        for _ in range(window // BATCH):
            self.send()

    def send(self) -> None:
        recovery = self.recovery
        self.now += 50
        recovery.allowance(self.now)
        first = recovery.next_pn
        last = recovery.send(self.now, SIZE, count=BATCH)
        assert last is not None
        self.sent.append((first, last + 1))

    def acknowledge(self, missing: int) -> None:
        start, stop = self.sent.pop(0)
        if stop - start > BATCH:
            # A number in between was skipped, and the others would be refused with it.
            start = stop - 1 - missing
        self.recovery.acknowledge([(start + missing, stop)], self.now)


@pytest.mark.benchmark(group="send 45 packets, and process an ACK of 45")
@pytest.mark.parametrize("window", [90, 1_800, 60_000])
def test_batches(benchmark: BenchmarkFixture, window: int) -> None:
    path = Path(window)

    def step() -> None:
        path.send()
        path.acknowledge(0)

    benchmark(step)


@pytest.mark.benchmark(group="send 45 packets, and process an ACK that makes 3 of them lost")
@pytest.mark.parametrize("window", [1_800, 60_000])
def test_losses(benchmark: BenchmarkFixture, window: int) -> None:
    path = Path(window)

    def step() -> None:
        path.send()
        path.acknowledge(3)

    benchmark(step)
    assert path.recovery.lost_total


@pytest.mark.benchmark(group="an ACK that tells nothing new")
@pytest.mark.parametrize("window", [1_800, 60_000])
def test_repeated(benchmark: BenchmarkFixture, window: int) -> None:
    path = Path(window)
    path.sent = path.sent[:1]
    stop = path.sent[0][1]
    path.recovery.acknowledge([(stop - 1, stop)], path.now)
    benchmark(path.recovery.acknowledge, [(stop - 1, stop)], path.now)


@pytest.mark.benchmark(group="ask window, pacer and timer once")
def test_questions(benchmark: BenchmarkFixture) -> None:
    path = Path(1_800)

    def ask() -> None:
        path.recovery.allowance(path.now)
        path.recovery.timeout()

    benchmark(ask)
