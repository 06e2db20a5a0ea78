"""Two packet engines and a link between them that loses, repeats and delays packets, in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from spaceblock.quic.native.engine import PacketEngine
from spaceblock.quic.native.keys import INTEGRITY_LIMIT, Keys, Suite, derive, later_keys
from spaceblock.quic.native.protection import HeaderKey, PacketKey
from spaceblock.quic.native.ranges import PacketRanges
from spaceblock.quic.native.recovery import NEVER, Recovery
from spaceblock.quic.native.streams import ReceiveStream, SendStream

MS = 1_000
TAG = 16
WINDOW = 1 << 20
SIZE = 1_200
SUITE = Suite.AES_128_GCM
UPDATE_PACKETS = 1 << 22


def secret(name: bytes, suite: Suite = SUITE) -> bytes:
    return name.ljust(suite.secret_size, b"-")


def keys(name: bytes, generation: int = 0, suite: Suite = SUITE) -> Keys:
    """What one side seals with after so many key updates."""
    first = derive(suite, secret(name, suite))
    if generation == 0:
        return first
    return Keys(*next(islice(later_keys(suite, secret(name, suite)), generation - 1, None)), first.header)


class Datagram(bytes):
    """With the ECN bits of its IP header."""

    ecn = 0


@dataclass
class Link:
    """The likelihood that a datagram is lost, sent twice, or held up for some of ``latency``; ``drop`` loses what it
    says True to, ``mark`` makes other ECN bits of those that a datagram has."""

    seed: int = 0
    latency: int = 10 * MS
    loss: float = 0
    duplication: float = 0
    reordering: float = 0
    drop: Callable[[bytes], bool] = lambda datagram: False
    mark: Callable[[int], int] = lambda ecn: ecn
    queue: list[tuple[int, int, Any, bytes]] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def send(self, to: Any, datagram: bytes, now: int) -> None:
        self.sent += 1
        if self.drop(datagram) or self._random.random() < self.loss:
            return
        datagram = with_ecn(datagram, self.mark(getattr(datagram, "ecn", 0)))
        for _ in range(1 + (self._random.random() < self.duplication)):
            at = now + self.latency
            if self._random.random() < self.reordering:
                at += self._random.randrange(2 * self.latency)
            heapq.heappush(self.queue, (at, len(self.queue) + self.sent * 1_000, to, datagram))


class Side:
    """One engine, and a reader that consumes everything unless told not to."""

    def __init__(
        self,
        name: bytes,
        peer: bytes,
        size: int,
        window: int,
        updates: int = UPDATE_PACKETS,
        suite: Suite = SUITE,
        backend: str | None = None,
        limit: int = 0,
    ) -> None:
        ours, theirs = keys(name, 0, suite), keys(peer, 0, suite)
        self.cid, self.peer_cid = name.ljust(8, b"="), peer.ljust(8, b"=")
        self.engine = PacketEngine(
            Recovery(bytes(16), datagram_size=size),
            PacketRanges(),
            PacketKey(suite, ours.key, ours.iv, backend),
            HeaderKey(suite, ours.header),
            PacketKey(suite, theirs.key, theirs.iv, backend),
            HeaderKey(suite, theirs.header),
            size,
            self.accept,
            limit,
        )
        self.engine.set_peer_cid(self.peer_cid)
        self.engine.set_local_cids([self.cid])
        self.engine.set_credit(window, 0, window, 0)
        self.keys_made = 0
        self._later = later_keys(suite, secret(name, suite)), later_keys(suite, secret(peer, suite))
        self._suite, self._backend = suite, backend
        self.engine.set_key_updates(self.make_keys, False, updates, 2 * updates, INTEGRITY_LIMIT[suite])
        self.window = window
        self.consumes = True
        self._arrived: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.rare: list[tuple[Any, ...]] = []
        self.opened: list[int] = []

    @property
    def received(self) -> dict[int, bytes]:
        """What was taken of each stream."""
        return {stream_id: bytes(data) for stream_id, data in self._arrived.items()}

    def make_keys(self) -> tuple[PacketKey, PacketKey]:
        self.keys_made += 1
        sealing, opening = (PacketKey(self._suite, *next(each), self._backend) for each in self._later)
        return sealing, opening

    def due(self) -> int:
        """When it has something to do by itself."""
        at = self.engine.recovery.timeout()
        return min(at, self.engine.recovery.send_time()) if self.engine.wants_to_send() else at

    def accept(self, stream_id: int) -> ReceiveStream | None:
        self.opened.append(stream_id)
        if stream_id >= 400:
            self.engine.violate(0x04, 0x08, "more streams than this side allowed")
            return None
        stream = ReceiveStream(stream_id, self.window)
        self.engine.add_receive_stream(stream)
        return stream

    def open(self, stream_id: int) -> SendStream:
        stream = SendStream(stream_id, self.window)
        self.engine.add_send_stream(stream)
        return stream

    def write(self, stream: SendStream, data: bytes, fin: bool = False) -> None:
        stream.write(data, fin)
        self.engine.wake(stream)

    def receive(self, datagram: bytes, now: int, segment: int = 0) -> int:
        buffer = bytearray(datagram)  # must live until everything is taken
        count = self.engine.receive(buffer, segment or len(datagram), now, getattr(datagram, "ecn", 0))
        for stream in self.engine.news:
            if stream.intake is not None:
                stream.collect()
                continue
            data, fin = stream.take()
            self._arrived.setdefault(stream.stream_id, bytearray()).extend(data)
            if fin:
                self.ended.add(stream.stream_id)
            if self.consumes:
                self.grant(stream)
        self.engine.news.clear()
        self.rare += self.engine.rare
        self.engine.rare.clear()
        return count

    def grant(self, stream: ReceiveStream) -> None:
        """Let the peer send a window beyond what arrived."""
        stream.limit = stream.arrived + self.window
        self.engine.credit.limit = self.engine.credit.received + self.window
        self.engine.send_control(b"\x11" + varint(stream.stream_id) + varint(stream.limit))
        self.engine.send_control(b"\x10" + varint(self.engine.credit.limit))

    def build(self, now: int) -> list[bytes]:
        """What is to be sent now, as datagrams."""
        datagrams: list[bytes] = []
        while size := self.engine.build(now):
            batch = bytes(self.engine.batch[:size])
            step = self.engine.segment
            datagrams += [with_ecn(batch[at : at + step], self.engine.mark) for at in range(0, size, step)]
        return datagrams


class Pair:
    """Two sides and the link; ``run()`` lets time pass until nothing is left to do."""

    def __init__(
        self,
        link: Link | None = None,
        size: int = SIZE,
        window: int = WINDOW,
        updates: int = UPDATE_PACKETS,
        suite: Suite = SUITE,
        backend: str | None = None,
        limit: int = 0,
    ) -> None:
        self.link = link or Link()
        self.suite = suite
        self.a = Side(b"a", b"b", size, window, updates, suite, backend, limit)
        self.b = Side(b"b", b"a", size, window, updates, suite, backend, limit)
        self.now = 1_000_000
        self.after: Callable[[], None] = lambda: None

    def run(self, steps: int = 200_000) -> None:
        """Until nothing is under way; fails if that does not come to an end."""
        for _ in range(steps):
            for side in (self.a, self.b):
                for datagram in side.build(self.now):
                    self.link.send(self.b if side is self.a else self.a, datagram, self.now)
            self.after()
            at = min(side.due() for side in (self.a, self.b))
            if self.link.queue:
                at = min(at, self.link.queue[0][0])
            if at == NEVER:
                return
            self.now = max(self.now, at)
            while self.link.queue and self.link.queue[0][0] <= self.now:
                _, _, side, datagram = heapq.heappop(self.link.queue)
                side.receive(datagram, self.now)
            for side in (self.a, self.b):
                if side.engine.recovery.timeout() <= self.now:
                    side.engine.on_timer(self.now)
        raise AssertionError(f"still busy after {steps} steps")

    def seal(
        self,
        payload: bytes,
        pn: int,
        pn_size: int = 4,
        first: int = 0x40,
        sender: bytes = b"a",
        generation: int = 0,
    ) -> bytes:
        """A packet from one to the other with any payload, as a hostile peer would make it, after key updates."""
        ours = keys(sender, generation, self.suite)
        first ^= 0x04 * (generation % 2)
        to = self.a if sender == b"b" else self.b
        header = bytearray([first | (pn_size - 1)]) + to.cid + (pn % 256**pn_size).to_bytes(pn_size, "big")
        sealed = PacketKey(self.suite, ours.key, ours.iv).seal_packet(pn, bytes(header), payload)
        mask = HeaderKey(self.suite, ours.header).mask((bytes(header) + sealed)[13:29])
        header[0] ^= mask[0] & 0x1F
        for i in range(pn_size):
            header[9 + i] ^= mask[1 + i]
        return bytes(header) + sealed


def unseal(datagram: bytes, sender: bytes, generation: int = 0, suite: Suite = SUITE) -> tuple[int, bytes]:
    """Number and payload of a packet with a connection ID of 8 bytes and a number of 4, after key updates."""
    theirs = keys(sender, generation, suite)
    mask = HeaderKey(suite, theirs.header).mask(datagram[13:29])
    header = bytearray(datagram[:13])
    header[0] ^= mask[0] & 0x1F
    for i in range(4):
        header[9 + i] ^= mask[1 + i]
    pn = int.from_bytes(header[9:13], "big")
    assert header[0] >> 2 & 1 == generation % 2
    payload = PacketKey(suite, theirs.key, theirs.iv).open_packet(pn, bytes(header), datagram[13:])
    assert payload is not None
    return pn, payload


def with_ecn(datagram: bytes, ecn: int) -> Datagram:
    """The same bytes with other ECN bits."""
    marked = Datagram(datagram)
    marked.ecn = ecn
    return marked


def varint(value: int) -> bytes:
    """RFC 9000, section 16."""
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(f"{value} has no such form")
