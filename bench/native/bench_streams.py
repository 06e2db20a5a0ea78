"""What a stream's book-keeping costs: 45 packets' worth written, sent and acknowledged, or received and taken.

Each packet crosses from Python several times here, so compare the rows with each other; in the engine nothing crosses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native.streams import ReceiveStream, SendStream, Spans

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BATCH = 45
PAYLOAD = 1_400
ALL = 2**62 - 1


@pytest.mark.benchmark(group="write, send and acknowledge 45 packets of a stream")
@pytest.mark.parametrize("lost", [0, 3])
def test_send(benchmark: BenchmarkFixture, lost: int) -> None:
    stream = SendStream(0, ALL)
    data = bytes(BATCH * PAYLOAD)

    def move() -> None:
        stream.write(data)
        start = stream.written - len(data)
        send(stream)
        for i in range(lost):
            stream.lose(start + 10 * i * PAYLOAD, start + (10 * i + 1) * PAYLOAD)
        send(stream)
        stream.acknowledge(start, stream.written)

    benchmark(move)
    assert stream.backlog == 0


@pytest.mark.benchmark(group="receive 45 packets of a stream, and take them")
@pytest.mark.parametrize("order", ["in-order", "reversed"])
def test_receive(benchmark: BenchmarkFixture, order: str) -> None:
    stream = ReceiveStream(0, ALL)
    data = bytes(PAYLOAD)
    at = 0

    def move() -> int:
        nonlocal at
        offsets = range(at, at + BATCH * PAYLOAD, PAYLOAD)
        taken = 0
        for offset in offsets if order == "in-order" else reversed(offsets):
            taken += len(stream.receive_frame(offset, data)[0])
        at += BATCH * PAYLOAD
        return taken

    assert benchmark(move) == BATCH * PAYLOAD


@pytest.mark.benchmark(group="note and forget 1000 spans")
@pytest.mark.parametrize("step", [1, 2], ids=["touching", "apart"])
def test_spans(benchmark: BenchmarkFixture, step: int) -> None:
    def note() -> Spans:
        spans = Spans()
        for i in range(0, 1_000 * step, step):
            spans.add(i, i + 1)
        spans.remove(0, 1_000 * step)
        return spans

    assert list(benchmark(note)) == []


def send(stream: SendStream) -> None:
    """All that may be sent now."""
    while stream.send(PAYLOAD, ALL) is not None:
        pass
