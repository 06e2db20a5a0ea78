"""Engine against engine, in memory: 1 MiB sealed, opened and acknowledged, with no socket and no event loop.

The link is a call, and both sides take turns in one thread, so a round costs what both sides' packets cost; at 1452
bytes a MiB is some 745 of them, and acknowledgements. ``packets`` in the results of ``--benchmark-json`` is their
number; with the row's time it gives packets a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from link import Pair, Side

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

MIB = 1_048_576
STEP = 50
"""Microseconds of virtual time that one turn takes."""


@pytest.mark.benchmark(group="1 MiB from engine to engine")
@pytest.mark.parametrize("size", [1_200, 1_452, 9_000, 65_507])
def test_move(benchmark: BenchmarkFixture, size: int) -> None:
    pair = Pair(size=size, window=8 * MIB)
    stream = pair.a.open(2)
    data = bytes(MIB)
    taken = packets = 0

    def deliver(sender: Side, receiver: Side) -> None:
        nonlocal packets
        while total := sender.engine.build(pair.now):
            train = bytearray(sender.engine.batch[:total])
            packets += receiver.engine.receive(train, size, pair.now)

    def take() -> None:
        nonlocal taken
        for each in pair.b.engine.news:
            taken += len(each.take()[0])
            pair.b.grant(each)
        pair.b.engine.news.clear()
        pair.a.engine.rare.clear()

    def move() -> None:
        goal = taken + MIB
        pair.a.write(stream, data)
        while taken < goal:
            pair.now += STEP
            deliver(pair.a, pair.b)
            take()
            deliver(pair.b, pair.a)

    benchmark(move)
    benchmark.extra_info["packets"] = round(packets * MIB / taken)
    assert (pair.a.engine.failed, pair.b.engine.failed) == (0, 0)
