# Invariant: whatever becomes of the datagrams between two packet engines and of their ECN bits, however large ones the
# path carries, and whenever either side writes, reads or stops reading, neither finds a fault in the other; once the
# path is good again each byte that was written has arrived, once and in order, and nothing is left to send.
"""Two packet engines and a path that an input makes bad."""

from __future__ import annotations

from collections.abc import Hashable

import link
from link import MS

from spaceblock.quic.native.recovery import NEVER
from spaceblock.quic.native.streams import ReceiveStream, SendStream

from .choices import Choices, piece
from .paths import Path

WINDOW = 20_000
SIZES = (link.SIZE, 1_300, 1_472, 4_000, 9_000)
"""Bytes of a datagram that the path carries."""

STREAMS = 4
STEPS_MAX = 30_000
WRITTEN_MAX = 60_000
CONTENT = bytes((i * 31 + i // 256) % 256 for i in range(WRITTEN_MAX))


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    talk = _Talk()
    while choices:
        step = choices.below(8)
        side = talk.sides[choices.below(2)]
        if step == 0:
            side.say(choices.below(STREAMS), choices.number(2) % 10_000, fin=False)
        elif step == 1:
            side.say(choices.below(STREAMS), choices.byte(), fin=True)
        elif step == 2:
            side.consumes = not side.consumes
        elif step == 3:
            talk.path.doom(choices.piece()[:64])
        elif step == 6:
            talk.carries = SIZES[choices.below(len(SIZES))]
        elif step == 7:
            talk.marks = choices.piece()[:64]
        else:
            talk.go_on(1 + choices.byte() * (step - 3))
    return talk.finish()


def seeds() -> dict[str, bytes]:
    def write(side: int, stream: int, size: int) -> bytes:
        return bytes([0, side, stream]) + size.to_bytes(2, "big")

    def end(side: int, stream: int) -> bytes:
        return bytes([1, side, stream, 9])

    def doom(*fates: int) -> bytes:
        return b"\3\0" + piece(bytes(fates))

    return {
        "one-way": write(0, 0, 9_000) + b"\5\0\xff" + end(0, 0),
        "both-ways": write(0, 0, 5_000) + write(1, 1, 7_000) + b"\4\0\x10" + end(0, 0) + end(1, 1),
        "losses": doom(1, 1, 0, 1) + write(0, 0, 9_000) + b"\4\0\x20" + end(0, 0) + doom(*[1] * 30) + b"\5\0\xff",
        "reordering": doom(3, 9, 15, 3, 2, 8, 21) + write(0, 2, 9_999) + b"\5\0\xff",
        "changes": doom(4, 5, 10, 11, 16, 17) + write(1, 2, 9_999) + b"\5\0\xff",
        "marked": b"\7\0" + piece(bytes([2, 3, 3, 0, 1] * 9)) + write(0, 0, 9_999) * 3 + b"\5\0\xff" + end(0, 0),
        "narrower": write(0, 0, 9_999) * 4 + b"\5\0\xff\6\0\0" + write(0, 0, 9_999) * 2 + b"\5\0\xff" + end(0, 0),
        "wider": b"\6\0\1" + write(1, 0, 9_999) * 3 + b"\5\0\xff\6\0\4" + write(1, 0, 9_999) * 3 + b"\5\0\xff",
        "a-reader-that-stops": b"\2\1" + write(0, 0, 9_999) * 4 + b"\5\0\xff\2\1" + end(0, 0),
    }


class _Side(link.Side):
    """A side that knows what it wrote, and all streams that its peer opened."""

    def __init__(self, name: bytes, peer: bytes) -> None:
        super().__init__(name, peer, link.SIZE, WINDOW, limit=SIZES[-1])
        self.engine.recovery.ecn.enable()
        self.incoming: dict[int, ReceiveStream] = {}
        self.outgoing: dict[int, SendStream] = {}

    def accept(self, stream_id: int) -> ReceiveStream | None:
        stream = super().accept(stream_id)
        if stream is not None:
            self.incoming[stream_id] = stream
        return stream

    def say(self, number: int, size: int, *, fin: bool) -> None:
        stream = self.outgoing.get(4 * number)
        if stream is None:
            stream = self.outgoing[4 * number] = self.open(4 * number)
        if not stream.fin_written and stream.written + size <= WRITTEN_MAX:
            self.write(stream, CONTENT[stream.written : stream.written + size], fin)


class _Talk:
    def __init__(self) -> None:
        self.sides = (_Side(b"a", b"b"), _Side(b"b", b"a"))
        self.path: Path[_Side] = Path(1_000_000, 10 * MS)
        self.carries = SIZES[-1]
        self.marks = b""

    def go_on(self, steps: int) -> bool:
        """Let so many things happen; False when there was nothing left that would."""
        path = self.path
        for _ in range(steps):
            for side, other in (self.sides, self.sides[::-1]):
                for datagram in side.build(int(path.now)):
                    self._send(other, datagram)
            at = min(side.due() for side in self.sides)
            if path.due is not None:
                at = min(at, int(path.due))
            if at == NEVER:
                return False
            path.now = max(path.now, at)
            arrived = path.arrive()
            if arrived is not None:
                side, datagram = arrived
                side.receive(datagram, int(path.now))
            for side in self.sides:
                assert side.engine.violation is None
                if side.engine.recovery.timeout() <= path.now:
                    side.engine.on_timer(int(path.now))
        return True

    def finish(self) -> Hashable:
        self.path.doom(b"")
        self.marks = b""
        for side in self.sides:
            side.consumes = True
            for incoming in side.incoming.values():
                side.grant(incoming)
        assert not self.go_on(STEPS_MAX)
        for side, other in (self.sides, self.sides[::-1]):
            for stream_id, stream in side.outgoing.items():
                assert other.received.get(stream_id, b"") == CONTENT[: stream.written]
                assert (stream_id in other.ended) == stream.fin_written
                assert stream.backlog == 0
        lost = sum(side.engine.recovery.lost_total for side in self.sides)
        return min(lost, 5), *(len(side.outgoing) for side in self.sides)

    def _send(self, to: _Side, datagram: bytes) -> None:
        """Let a datagram go, unless it is too large for the path, which may change its ECN bits."""
        mark, self.marks = self.marks[:1], self.marks[1:]
        if len(datagram) <= self.carries:
            self.path.carry(to, link.with_ecn(datagram, mark[0] & 3) if mark else datagram)
