# Invariant: whatever datagrams come to a socket, as single ones or as trains of any segment size, each goes to the
# engine whose connection ID it has or is left as it came, none twice and none lost; what an engine opens is what was
# sealed for it.
"""Receive batches of the pump and of the UDP layer, over real sockets on loopback."""

from __future__ import annotations

import atexit
import functools
import socket
from collections.abc import Hashable
from typing import Any

from link import Pair, Side

from spaceblock.quic.native.pump import Pump
from spaceblock.quic.native.udp import ReceiveBatch, prepare_socket

from .choices import Choices, piece

UDP_SEGMENT = 103  # <linux/udp.h>
TRAINS_MAX = 12
ROOM = 60_000
"""Bytes of one input's datagrams: less than a receive buffer, so that the kernel drops nothing."""
SIZE_MAX = 3_000


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    sockets = _sockets()
    sockets.empty()
    return _receive_plain(choices, sockets) if choices.byte() & 1 else _receive_pumped(choices, sockets)


def seeds() -> dict[str, bytes]:
    def train(segment: int, *parts: bytes) -> bytes:
        return segment.to_bytes(2, "big") + bytes([len(parts)]) + b"".join(parts)

    ours, theirs, noise = b"\0\x04", b"\1\x04", b"\2" + piece(b"\x40" + bytes(60))
    long_header = b"\2" + piece(b"\xc0" + bytes(60))
    return {
        "single": b"\0" + train(0, ours) + train(0, theirs) + train(0, noise),
        "train-for-one": b"\0" + train(50, *[ours] * 8),
        "train-for-two": b"\0" + train(50, ours, theirs, theirs, ours, noise, ours),
        "train-for-nobody": b"\0" + train(50, *[noise] * 8) + train(50, *[long_header] * 3),
        "short-last": b"\0" + train(60, noise, noise, b"\2" + piece(b"\x40abc")),
        "not-a-train": b"\1" + train(0, noise) + train(7, noise, ours),
        "long": b"\0" + train(1_400, b"\2" + piece(b"\x40" * 1_400), b"\2" + piece(b"\x50" * 900)),
        "empty": b"\1" + train(0, b"\2" + piece(b"")),
    }


class _Sockets:
    """Two sockets, made once and closed when the process ends: one sends to the other."""

    def __init__(self) -> None:
        self.out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.into = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for sock in (self.out, self.into):
            atexit.register(sock.close)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        prepare_socket(self.into, gro=True, receive_buffer=1 << 20, send_buffer=1 << 20)
        self.out.connect(self.into.getsockname())

    def empty(self) -> None:
        try:
            while True:
                self.into.recv(65_535)
        except BlockingIOError:
            return

    def send(self, data: bytes, segment: int) -> bool:
        """One datagram, or a train where the kernel takes it; whether it went out."""
        ancillary: list[Any] = []
        if segment:
            ancillary = [(socket.IPPROTO_UDP, UDP_SEGMENT, segment.to_bytes(2, "little"))]
        try:
            self.out.sendmsg([data], ancillary)
        except OSError:
            return False
        return True


@functools.cache
def _sockets() -> _Sockets:
    return _Sockets()


class _Trains:
    """Sends what the input says, and remembers it."""

    def __init__(self, choices: Choices, sockets: _Sockets, sides: list[Side], pair: Pair) -> None:
        self.left: list[bytes] = []
        self.sealed = [0, 0]
        self._numbers = [0, 0]
        self._choices = choices
        self._sides = sides
        self._pair = pair
        self._room = ROOM
        for _ in range(TRAINS_MAX):
            if choices and self._room > 0:
                self._train(sockets)

    def _train(self, sockets: _Sockets) -> None:
        segment = self._choices.number(2) % 1_500
        parts = [self._part(segment) for _ in range(1 + self._choices.below(16))]
        if not segment:
            parts = parts[:1]
        data = b"".join(part for part, _ in parts)
        self._room -= len(data) + 800
        cut = [data[at : at + segment] for at in range(0, len(data), segment)] if segment and data else [data]
        if self._room < 0 or not sockets.send(data, segment if len(cut) > 1 else 0):
            return
        whole = {part: who for part, who in parts if who is not None}
        for one in cut:
            if not self._is_routed(one):
                self.left.append(one)
            elif one in whole:
                self.sealed[whole[one]] += 1

    def _part(self, segment: int) -> tuple[bytes, int | None]:
        """A packet for one of the engines, padded to the segment; or anything."""
        kind = self._choices.below(3)
        if kind == 2:
            return self._choices.piece()[: segment or None], None
        size = self._choices.byte()
        payload = b"\x01" * (segment - 29 if segment > 40 else max(4, size))
        sender = b"a" if kind else b"b"
        pn = self._numbers[kind] = self._numbers[kind] + 1
        return self._pair.seal(payload, pn, sender=sender), kind

    def _is_routed(self, datagram: bytes) -> bool:
        return len(datagram) > 8 and datagram[0] < 0x80 and datagram[1:9] in [side.cid for side in self._sides]


def _receive_pumped(choices: Choices, sockets: _Sockets) -> Hashable:
    pair = Pair()
    sides = [pair.a, pair.b]
    pump = Pump(sockets.into)
    for side in sides:
        side.engine.set_peer_address(sockets.out.getsockname(), socket.AF_INET)
        pump.add_route(side.cid, side.engine)
    trains = _Trains(choices, sockets, sides, pair)
    found: list[bytes] = []
    while True:
        news = pump.receive()
        if news is None:
            continue
        engines, others = news
        found += [data for data, _ in others]
        if not engines and not others:
            break
    assert sorted(found) == sorted(filter(None, trains.left))  # what is empty says nothing to anybody
    for side, sealed in zip(sides, trains.sealed, strict=True):
        assert side.engine.opened == sealed
        assert side.engine.violation is None
    return "pumped", min(len(found), 3), tuple(min(sealed, 3) for sealed in trains.sealed)


def _receive_plain(choices: Choices, sockets: _Sockets) -> Hashable:
    trains = _Trains(choices, sockets, [], Pair())
    batch = ReceiveBatch(1 + choices.below(8))
    found: list[bytes] = []
    while batch.receive_from(sockets.into):
        for received in batch.buffers():
            assert not received.truncated
            data, step = bytes(received.data), received.segment
            found += [data[at : at + step] for at in range(0, len(data), max(step, 1))] or [b""]
    assert sorted(found) == sorted(trains.left)
    return "plain", min(len(found), 3)
