# Invariant: of any receive buffer, cut into datagrams of any size, an engine opens the packets that its peer sealed,
# each once, and nothing else; everything else changes nothing.
"""Short-header packets from strangers."""

from __future__ import annotations

import array
import functools
from collections.abc import Hashable

from link import Pair, varint

from .choices import Choices

NOW = 1_000_000
SIZE_MAX = 9_000


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    segment = choices.number(2) or 1
    buffer = choices.rest()
    pair = Pair()
    good = _packets()
    datagrams = [buffer[at : at + segment] for at in range(0, len(buffer), segment)]
    expected = {good[datagram] for datagram in datagrams if datagram in good}
    side = pair.b
    # An array has not a byte to spare behind its data, so that a checked build sees every one read too many.
    exact = array.array("B", buffer)
    side.engine.receive(exact, segment, NOW)
    for stream in side.engine.news:
        content, _ = stream.take()
        assert content == CONTENT * 100
    side.engine.news.clear()
    assert side.engine.violation is None
    numbers = {pn for start, stop in side.engine.received.spans() for pn in range(start, stop)}
    assert numbers == expected
    assert side.engine.opened == len(expected)
    return len(expected), len(datagrams) > 1, min(side.engine.failed, 3)


CONTENT = b"x"


def seeds() -> dict[str, bytes]:
    packets = list(_packets())
    size = max(map(len, packets))
    train = b"".join(packet for packet in packets if len(packet) == size)
    return {
        "ping": b"\x05\xac" + packets[0],
        "stream": b"\x05\xac" + packets[1],
        "changed": b"\x05\xac" + packets[1][:-1] + b"\0",
        "other-connection": b"\x05\xac\x40" + bytes(8) + packets[0][9:],
        "long-header": b"\x05\xac\xc0" + packets[0][1:],
        "train": size.to_bytes(2, "big") + train,
        "train-twice": size.to_bytes(2, "big") + train * 2 + packets[0],
        "short": b"\0\x0a" + packets[0],
    }


@functools.cache
def _packets() -> dict[bytes, int]:
    """All that the peer ever sealed, with its packet numbers, which are written in one to four bytes."""
    pair = Pair()
    stream = b"\x0e" + varint(2) + varint(0) + varint(100) + CONTENT * 100
    payloads = [b"\x01" + bytes(20), stream, *[bytes(1_100)] * 5, b"\x01" * 30]
    return {pair.seal(payload, pn, 1 + pn % 4): pn for pn, payload in enumerate(payloads)}
