"""What received packet numbers and ACK frames cost: a batch of 45 packets noted, and a frame written and read.

A batch is noted in one call, so divide by 45 for a packet; the other rows are one frame and one call each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native.ranges import PacketRanges, read_ack

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BATCH = 45
"""Packets of 1452 bytes in a receive buffer, about."""


def with_gaps(count: int) -> PacketRanges:
    packets = PacketRanges()
    for i in range(count):
        packets.add_span(100 * i, 100 * i + 90, 0)
    return packets


@pytest.mark.benchmark(group="note 45 packets")
@pytest.mark.parametrize("gaps", [0, 1, 63])
def test_note(benchmark: BenchmarkFixture, gaps: int) -> None:
    packets = with_gaps(gaps + 1)

    def note() -> None:
        start = packets.largest + 1
        packets.add_span(start, start + BATCH, 0)

    benchmark(note)
    assert packets.count == gaps + 1


@pytest.mark.benchmark(group="note 45 packets, each behind a gap")
def test_note_gaps(benchmark: BenchmarkFixture) -> None:
    packets = with_gaps(64)

    def note() -> None:
        pn = packets.largest
        for i in range(BATCH):
            packets.add(pn + 2 * i + 2, 0)

    benchmark(note)
    assert packets.count == 64


@pytest.mark.benchmark(group="write an ACK frame")
@pytest.mark.parametrize("ranges", [1, 4, 64])
def test_write(benchmark: BenchmarkFixture, ranges: int) -> None:
    packets = with_gaps(ranges)
    assert benchmark(packets.ack_frame, 10)


@pytest.mark.benchmark(group="read an ACK frame")
@pytest.mark.parametrize("ranges", [1, 4, 64])
def test_read(benchmark: BenchmarkFixture, ranges: int) -> None:
    data = with_gaps(ranges).ack_frame(10)
    assert benchmark(read_ack, data)[0] == len(data)
