"""What the congestion window and the pacer cost: once for each ACK frame, and once for each batch that is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native.congestion import Congestion, Pacer

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZE = 1_452
BATCH = 45
RTT = 10_000


@pytest.mark.benchmark(group="tell the congestion window of an ACK of 45 packets")
@pytest.mark.parametrize("after_loss", [False, True], ids=["slow-start", "cubic"])
def test_acknowledged(benchmark: BenchmarkFixture, after_loss: bool) -> None:
    congestion = Congestion(SIZE)
    now, pn = 1_000_000, 0
    if after_loss:
        congestion.on_lost(0, 1)

    def acknowledge() -> None:
        nonlocal now, pn
        now += 100
        pn += BATCH
        congestion.on_rtt(RTT)
        congestion.on_acked(BATCH * SIZE, pn, pn + BATCH, RTT, now)

    before = congestion.window
    benchmark(acknowledge)
    assert congestion.window > before


@pytest.mark.benchmark(group="tell the congestion window of a loss, and that it was none")
def test_loss(benchmark: BenchmarkFixture) -> None:
    congestion = Congestion(SIZE)
    pn = 0

    def lose() -> None:
        nonlocal pn
        pn += 1
        congestion.on_lost(pn, pn + 1)
        congestion.on_spurious(pn)

    benchmark(lose)
    assert congestion.reductions


@pytest.mark.benchmark(group="ask the pacer for leave, and use it")
@pytest.mark.parametrize("rtt", [500, RTT], ids=["unpaced", "paced"])
def test_pacer(benchmark: BenchmarkFixture, rtt: int) -> None:
    pacer = Pacer(BATCH * SIZE)
    now = 1_000_000

    def step() -> None:
        nonlocal now
        now += 100
        if pacer.allowed(100 * SIZE, rtt, now):
            pacer.on_sent(BATCH * SIZE)

    benchmark(step)
    assert pacer.allowed(100 * SIZE, rtt, now + 10 * rtt)
