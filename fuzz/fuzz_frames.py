# Invariant: whatever frames a peer with the right keys sends, in whatever state of the connection, the engine goes on
# or closes with one of QUIC's codes; no exception leaves it; nothing beyond the credit and the stream limits is taken
# in; it goes on sending packets that can be sent, and a connection that is closed comes to its end.
"""Every frame, from a peer that holds the keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from link import varint

from spaceblock.limits import DATAGRAM_MAX

from .choices import Choices, piece
from .native_sides import OPTIONS, Forger, Side, beginning
from .steady import steady

CODES = range(0x01, 0x11)
"""QUIC's own error codes (RFC 9000, section 20.1)."""

PACKETS_MAX = 60
TIMERS_MAX = 40


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    with steady():
        is_client = bool(choices.byte() & 1)
        side = Side(is_client=is_client)
        return _Talk(side, Forger(beginning().of(is_client=is_client)), choices).go()


class _Talk:
    """A side, its peer's words, and what its own application does meanwhile."""

    def __init__(self, side: Side, forger: Forger, choices: Choices) -> None:
        self.side = side
        self.engine = side.native
        self.forger = forger
        self.choices = choices
        self.now = beginning().now
        self.opened: list[int] = []
        self.closed = False

    def go(self) -> Hashable:
        for _ in range(PACKETS_MAX):
            if not self.choices:
                break
            self._act()
            reserved = 0x18 if self.choices.below(64) == 63 else 0
            self._receive(self.choices.piece(), reserved)
        reason = self.engine.ended()
        self._come_to_the_end()
        if reason is None:
            return len(self.side.received), len(self.side.resets), len(self.side.stops)
        return reason.by_peer, reason.is_application, reason.code % 64, "" if reason.by_peer else reason.reason

    def _receive(self, payload: bytes, reserved: int) -> None:
        packet = self.forger.seal(payload[:1_400], reserved)
        self.engine.receive_buffer(packet, len(packet), self.side.peer, self.now)
        self.side.take_events()
        self._check()

    def _act(self) -> None:
        """One thing that this side does by itself."""
        acts: list[Callable[[], object]] = [
            lambda: None,
            lambda: self._send(),
            lambda: self._wait(),
            lambda: self._open(unidirectional=True),
            lambda: self._open(unidirectional=False),
            lambda: self._each(lambda stream_id: self.engine.abandon_sending(stream_id, 5)),
            lambda: self._each(lambda stream_id: self.engine.abandon_receiving(stream_id, 6)),
            lambda: self._each(lambda stream_id: self.engine.sender_finished(stream_id)),
            lambda: self.engine.ping(),
            lambda: self.engine.hold_stream(True),
        ]
        act = acts[self.choices.below(len(acts))]
        if self.engine.ended() is None:
            act()

    def _open(self, *, unidirectional: bool) -> None:
        if len(self.opened) < 10:
            stream_id = self.engine.open_stream(unidirectional)
            self.opened.append(stream_id)
            self.engine.send_stream_data(stream_id, bytes(self.choices.number(2) % 9_000), bool(stream_id & 4))

    def _each(self, act: Callable[[int], object]) -> None:
        for stream_id in (*self.opened, *self.side.received):
            act(stream_id)

    def _send(self) -> None:
        for datagram in self.side.send(self.now):
            assert 21 <= len(datagram) <= DATAGRAM_MAX

    def _wait(self) -> None:
        timer = self.engine.get_timer()
        if timer is not None:
            self.now = max(self.now, timer)
            self.engine.handle_timer(self.now)
            self.side.take_events()

    def _check(self) -> None:
        side, reason = self.side, self.engine.ended()
        if reason is not None:
            self.closed = True
            is_typed = reason.code in CODES and not reason.is_application and reason.reason
            assert is_typed or reason.by_peer or reason.timed_out
        else:
            assert not self.closed
        theirs = [stream_id for stream_id in side.received if (stream_id & 1 == 0) is not self.engine.is_client]
        for stream_id, data in side.received.items():
            # What came was consumed at once, so that a whole window was open above it.
            window = OPTIONS.stream_window if stream_id & 2 else OPTIONS.control_window
            highest = self.engine.highest_offset(stream_id)
            assert highest is None or len(data) <= highest <= len(data) + 2 * window
        assert len(theirs) <= 3 + 2 + len(side.ended) + len(side.resets)

    def _come_to_the_end(self) -> None:
        """Whatever state the connection is in, its timers end it, since the peer is silent now."""
        for _ in range(TIMERS_MAX):
            self._send()
            if self.engine.terminated:
                break
            self._wait()
        assert self.engine.terminated
        assert self.engine.get_timer() is None
        self._check_ended()

    def _check_ended(self) -> None:
        reason = self.engine.ended()
        assert reason is not None
        assert self.engine.datagrams_to_send(self.now) == []


def seeds() -> dict[str, bytes]:
    stream = b"\x0e" + varint(3) + varint(0) + varint(5) + b"hello"
    numbers = {
        "reset": (0x04, 3, 9, 5),
        "stop": (0x05, 0, 9),
        "token": (0x07, 3, 1, 2, 3),
        "max-data": (0x10, 2**40),
        "max-stream-data": (0x11, 0, 2**40),
        "max-streams": (0x12, 2**60, 0x13, 2**60),
        "too-many-streams": (0x12, 2**60 + 1),
        "blocked": (0x14, 5, 0x15, 0, 5, 0x16, 5, 0x17, 5),
        "retire": (0x19, 0),
        "retire-unknown": (0x19, 99),
        "ack": (0x02, 0, 0, 0, 0),
        "ack-unsent": (0x02, 2**40, 0, 0, 0),
        "crypto": (0x06, 0, 2, 1, 2),
        "close": (0x1C, 0x0A, 0, 2, 0x21, 0x21),
        "application-close": (0x1D, 6, 0),
        "handshake-done": (0x1E,),
        "datagram": (0x30, 1),
        "unknown": (0x3F,),
    }
    frames = {name: b"".join(map(varint, each)) for name, each in numbers.items()}
    frames |= {
        "padding": bytes(30),
        "ping": b"\1" + bytes(20),
        "stream": stream,
        "stream-end": b"\x09" + varint(3) + b"hello",
        "stream-gap": b"\x0e" + varint(3) + varint(9_000) + varint(2) + b"xx",
        "stream-of-ours": b"\x0a" + varint(0) + varint(2) + b"xx",
        "stream-beyond": b"\x0e" + varint(3) + varint(2**62 - 3) + varint(5) + b"hello",
        "new-id": b"\x18" + varint(20) + varint(0) + b"\x08" + bytes(8) + bytes(16),
        "new-id-retires": b"\x18" + varint(20) + varint(20) + b"\x08" + bytes(range(8)) + bytes(16),
        "challenge": b"\x1a" + bytes(8),
        "response": b"\x1b" + bytes(8),
        "empty": b"",
    }
    found = {name: b"\1" + b"\0\0" + piece(data) for name, data in frames.items()}
    several = b"".join(bytes([act % 10, 0]) + piece(data) for act, data in enumerate(frames.values()) if data)
    found["several-to-the-server"] = b"\0" + several.replace(varint(3) + b"\0", varint(2) + b"\0")
    found["streams-under-way"] = b"\1" + b"".join(
        (
            b"\3\x10\x00\0" + piece(b"\1"),
            b"\4\x01\x00\0" + piece(b"\1"),
            b"\1\0" + piece(frames["ack"]),
            b"\1\0" + piece(stream + frames["max-data"]),
            b"\2\0" + piece(frames["stream-end"] + frames["stop"]),
            b"\5\0" + piece(frames["ack"]),
            b"\2\0" + piece(b"\1"),
            b"\1\0" + piece(b"\1"),
        )
    )
    return found
