# Invariant: an ACK frame of any bytes reads as aioquic reads it or is a RemoteProtocolError, whatever lies behind it;
# the recovery takes any ranges, or refuses them and stays as it was; no packet is settled twice, and what is in
# flight is what was sent and is not settled; no more marks are believed in than were set.
"""ACK frames, and what the recovery makes of them."""

from __future__ import annotations

import array
from collections.abc import Hashable

from aioquic.buffer import (  # type: ignore[attr-defined]  # it does not list what it re-exports
    Buffer,
    BufferReadError,
    encode_uint_var,
)
from aioquic.quic.packet import pull_ack_frame

from spaceblock.errors import RemoteProtocolError
from spaceblock.quic.native.ranges import ACK_RANGES_MAX, PacketRanges, read_ack
from spaceblock.quic.native.recovery import ACK_ELICITING, IN_FLIGHT, MTU_PROBE, NEVER, Recovery

from .choices import Choices, kind_of, piece

FLAGS = ACK_ELICITING | IN_FLIGHT
SIZE = 1_200
Spans = list[tuple[int, int]]


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    if choices.byte() & 1:
        return _recover(choices)
    return _read(choices.rest())


def seeds() -> dict[str, bytes]:
    packets = PacketRanges()
    for pn in (0, 1, 2, 5, 6, 9, 100, 101, 70_000):
        packets.add(pn, 0)
    ecn = b"\x03" + _frame(9, 1, 3)[1:] + bytes([4, 5, 6])
    acks = b"".join(
        b"\3" + piece(_frame(*numbers)) for numbers in ((5, 0, 1), (9, 3, 0, 1, 2), (2, 0, 2), (12, 0, 12), (99, 0, 0))
    )
    sent = b"\0\0\x09" + bytes(9)
    marked = b"\x03" + _frame(11, 0, 2)[1:] + bytes([2, 0, 1])
    return {
        "written": b"\0" + packets.ack_frame(30),
        "ecn": b"\0" + ecn,
        "most-ranges": b"\0" + _frame(2_000, 0, 0, *[0] * (2 * ACK_RANGES_MAX)),
        "below-zero": b"\0" + _frame(9, 0, 0, 7, 1),
        "largest": b"\0" + _frame(2**62 - 1, 2**62 - 1, 2**62 - 1),
        "marks": b"\1\0" + sent + b"\3" + piece(_frame(5, 0, 1)) + sent + b"\3" + piece(marked),
        "recovery": b"\1" + b"\0\0\x14" + bytes(20) + b"\1\5" + acks + b"\2\xff\xff\0\5" + b"\2\xff\xff" + acks,
    }


def _frame(largest: int, delay: int, first: int, *rest: int) -> bytes:
    return b"\x02" + b"".join(map(encode_uint_var, (largest, delay, len(rest) // 2, first, *rest)))


def _read(data: bytes) -> Hashable:
    # An array has not a byte to spare behind its data, so that a checked build sees every one read too many.
    exact = array.array("B", data)
    theirs = _read_by_aioquic(data)
    try:
        used, delay, spans, ecn = read_ack(exact)
    except RemoteProtocolError as error:
        assert theirs is None
        return kind_of(error)
    assert theirs is not None
    assert (delay, ecn) == theirs[1:]
    assert spans == theirs[0][:ACK_RANGES_MAX]
    assert read_ack(data[:used]) == read_ack(data + b"\xff" * 20) == (used, delay, spans, ecn)
    return "frame", min(len(spans), 3)


def _read_by_aioquic(data: bytes) -> tuple[Spans, int, tuple[int, ...] | None] | None:
    if data[:1] not in (b"\x02", b"\x03"):
        return None
    buffer = Buffer(data=data[1:])
    try:
        ranges, delay = pull_ack_frame(buffer)
        ecn = tuple(buffer.pull_uint_var() for _ in range(3)) if data[0] == 3 else None
    except (BufferReadError, ValueError):
        return None
    return [(span.start, span.stop) for span in reversed(list(ranges))], delay, ecn


def _recover(choices: Choices) -> Hashable:
    recovery = Recovery(bytes(16), choices.byte())
    recovery.ecn.enable()
    now, settled, sent = 1_000_000, set[int](), dict[int, int]()
    happened = set[Hashable]()
    while choices:
        step = choices.below(5)
        if step == 0:
            probe = MTU_PROBE * (choices.byte() & 1)
            recovery.mark_batch()
            for _ in range(choices.below(40)):
                pn = recovery.send(now, SIZE - choices.below(2), FLAGS | probe)
                if pn is not None:
                    sent[pn] = SIZE
        elif step in (1, 4):
            now += choices.number(1 + step // 2)
        elif step == 2:
            now += choices.number(2)
            happened.add(recovery.on_timer(now))
            _settle(recovery, settled, sent)
        else:
            happened.add(_acknowledge(recovery, choices, now, settled, sent))
        assert 0 <= recovery.bytes_in_flight <= SIZE * (len(sent) - len(settled))
        assert (recovery.bytes_in_flight == 0) == (len(sent) == len(settled))
        assert recovery.timeout() == NEVER or recovery.timeout() > 0
        assert recovery.congestion.window >= 2 * SIZE
        assert recovery.allowance(now) >= 0
    return frozenset(map(str, happened))


def _acknowledge(recovery: Recovery, choices: Choices, now: int, settled: set[int], sent: dict[int, int]) -> Hashable:
    try:
        _, delay, spans, counts = read_ack(choices.piece())
    except RemoteProtocolError:
        return "malformed"
    before = _state(recovery)
    try:
        recovery.acknowledge(spans, now, delay, counts)
    except RemoteProtocolError as error:
        assert before == _state(recovery)
        assert any(pn not in sent for start, stop in spans for pn in range(start, min(stop, start + 1_000)))
        return kind_of(error)
    for pn, _, _ in recovery.acked_packets():
        assert pn in sent
        assert any(start <= pn < stop for start, stop in spans)
        settled.add(pn)
    _settle(recovery, settled, sent)
    ecn = recovery.ecn
    assert ecn.ect0 + ecn.ce <= ecn.sent, "more marks than were set"
    return "acknowledged", ecn.state


def _state(recovery: Recovery) -> tuple[int, ...]:
    ecn = recovery.ecn
    return recovery.bytes_in_flight, recovery.largest_acked, recovery.oldest, ecn.state, ecn.ect0, ecn.ce


def _settle(recovery: Recovery, settled: set[int], sent: dict[int, int]) -> None:
    for pn, _, _ in recovery.lost_packets():
        assert pn in sent
        settled.add(pn)
