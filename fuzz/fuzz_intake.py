# Invariant: what a stream carries lands the same, message by message and byte by byte, whether its packets come in
# order or not, twice or overlapping, and are put into place without Python; or its twin is fed with the whole. What
# is hostile is found in both at the same place.
"""A stream whose bytes go from packets to where they belong, against the twin that is fed with them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

import link
from link import Pair, varint

import spaceblock.core
from framing import AnyDeframer, block, message
from spaceblock import _pyblock, _pydeframer
from spaceblock.errors import RemoteProtocolError
from spaceblock.quic.native.streams import ReceiveStream

from .choices import Choices, piece

NOW = 1_000_000
LIMITS = (300, 2_000)
ROOMS = (0, 50, 500, 4_000)
PACKETS_MAX = 100
STREAM_MAX = 3_500


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    content = choices.piece()[:STREAM_MAX]
    room = ROOMS[choices.below(len(ROOMS))]
    stalls = choices.byte()
    pair = Pair()
    side = _Side(pair, room, stalls)
    pn = 0
    while choices and pn < PACKETS_MAX:
        payload = b""
        for _ in range(1 + choices.below(3)):
            start, size = choices.number(2) % (len(content) + 1), 1 + choices.number(2) % 400
            payload += _frame(start, content[start : start + size], len(content))
        side.receive(pair.seal(payload, pn))
        pn += 1
    for start in range(0, len(content) + 1, 1_000):
        side.receive(pair.seal(_frame(start, content[start : start + 1_000], len(content)), pn))
        pn += 1
    log, fin = side.finish()
    expected = _Landed(_pydeframer.Deframer(*LIMITS), room)
    expected.feed(content)
    assert log.found == expected.found
    assert log.deframer.at_boundary == expected.deframer.at_boundary
    assert fin or log.is_lost
    return tuple(kind for kind, *_ in log.found[:5]), log.is_lost


def seeds() -> dict[str, bytes]:
    data = bytes(range(250))
    blocks = b"".join(block(_pyblock, 3, at * 250, data) for at in range(8))
    ends = message(_pyblock, 0x24, b"payload")
    hostile = bytes.fromhex("06ffffffffffffffff")
    orders = {
        "in-order": b"",
        "backwards": b"".join(b"\0" + at.to_bytes(2, "big") + b"\1\xf0" for at in range(2_000, 0, -500)),
        "overlapping": b"".join(
            b"\1" + at.to_bytes(2, "big") + b"\1\xf0" + b"\0\0\0\x40" for at in range(0, 2_000, 150)
        ),
        "bytes": b"".join(b"\0" + at.to_bytes(2, "big") + b"\0\0" for at in range(60)),
    }
    found = {}
    for name, order in orders.items():
        for room in range(len(ROOMS)):
            found[f"{name}-{ROOMS[room]}"] = piece(ends + blocks + ends) + bytes([room, room]) + order
    found["hostile"] = piece(blocks[:600] + hostile + blocks) + b"\2\0" + orders["backwards"]
    found["cut"] = piece(blocks[:700]) + b"\3\0" + orders["overlapping"]
    return found


class _Landed:
    """What a deframer found; ``resume`` gives it more."""

    def __init__(self, deframer: AnyDeframer, room: int) -> None:
        self.deframer = deframer
        self.found: list[tuple[Any, ...]] = []
        self.is_lost = False
        self._room = room
        self._rooms: dict[int, bytearray] = {}

    def feed(self, data: bytes) -> None:
        """All of a stream at once, as the twin takes it."""
        pos = 0

        def more() -> int:
            nonlocal pos
            before, pos = pos, self.deframer.feed(data, pos)
            return pos - before

        with contextlib.suppress(RemoteProtocolError):
            more()
        self.go_on(more)

    def go_on(self, resume: Callable[[], int]) -> None:
        """Deal with what the deframer stopped for until there is no more, as a landing does."""
        deframer = self.deframer
        while not self.is_lost:
            self._collect()
            try:
                deframer.check()
            except RemoteProtocolError as error:
                self.is_lost = True
                self.found.append(("error", str(error)))
                return
            if deframer.event == deframer.MESSAGE:
                self.found.append(("message", deframer.message_type, deframer.payload))
            deframer.proceed()
            if not deframer.ready():
                self._place()
                assert deframer.ready()
            try:
                taken = resume()
            except RemoteProtocolError:
                continue
            if not taken and deframer.event == deframer.NEED_DATA:
                self._collect()
                return

    def _collect(self) -> None:
        for item, offset, length, room, start in self.deframer.landed():
            self.found.append(("block", item, offset, bytes(self._rooms[room][start : start + length])))

    def _place(self) -> None:
        """A room for this block and some that follow, or for this alone where rooms are too small for it."""
        memory = bytearray(max(self._room, self.deframer.length))
        self._rooms[self.deframer.provide(memory)] = memory


class _Side(link.Side):
    """An engine whose one stream goes to a deframer; every so many packets its events are left alone for a while."""

    def __init__(self, pair: Pair, room: int, stalls: int) -> None:
        super().__init__(b"b", b"a", link.SIZE, 1 << 20)
        self.cid = pair.b.cid
        self.landed = _Landed(spaceblock.core.Deframer(*LIMITS), room)
        self._stalls = stalls
        self._packets = 0
        self._stream: ReceiveStream | None = None
        self._fin = False

    def accept(self, stream_id: int) -> ReceiveStream | None:
        self._stream = super().accept(stream_id)
        assert self._stream is not None
        self._stream.set_intake(self.landed.deframer)
        return self._stream

    def receive(self, datagram: bytes, now: int = NOW, segment: int = 0) -> int:
        self._packets += 1
        buffer = bytearray(datagram)
        count = self.engine.receive(buffer, segment or len(buffer), now)
        assert self.engine.violation is None, self.engine.violation
        for stream in self.engine.news:
            _, fin = stream.collect()
            self._fin |= fin
        self.engine.news.clear()
        buffer[:] = bytes(len(buffer))  # nobody needs it any more
        if not self._stalls >> self._packets % 8 & 1:
            self.landed.go_on(self._resume)
        return count

    def finish(self) -> tuple[_Landed, bool]:
        self.landed.go_on(self._resume)
        return self.landed, self._fin

    def _resume(self) -> int:
        assert self._stream is not None
        count, fin = self._stream.pull()
        self._fin |= fin
        return count


def _frame(start: int, data: bytes, size: int) -> bytes:
    """A STREAM frame of stream 2 with these bytes, and the end where they reach it."""
    fin = start + len(data) == size
    return bytes([0x0E | fin]) + varint(2) + varint(start) + varint(len(data)) + data
