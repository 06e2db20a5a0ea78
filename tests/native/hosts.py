"""A client and a server in memory, each on the handshake's engine until it is handed over, and a path between them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from quic_pair import CLIENT, SERVER
from spaceblock.quic import TransportOptions
from spaceblock.quic.handover import HandOver
from spaceblock.quic.handshake.engine import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    Engine,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
    client_engine,
    server_engine,
)
from spaceblock.quic.handshake.leaving import hand_over
from spaceblock.quic.native.engine_shell import NativeEngine

LATENCY = 0.01
TICK = 1e-6
STEPS_MAX = 20_000


class Host:
    """One side of the connection, which remembers what it was told and consumes what it reads."""

    def __init__(self, name: str, engine: Engine, options: TransportOptions, peer: tuple[str, int]) -> None:
        self.name = name
        self.address = (name, 1 if name == "client" else 2)
        """Where it is; the other side was told another one if it has moved."""

        self.engine: Engine | NativeEngine = engine
        self.options = options
        self.peer = peer
        self.state: HandOver | None = None
        self.established = False
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
        self.taken = 0  # datagrams, since the handshake was confirmed
        self._trains: list[tuple[bytes, Any]] = []

    @property
    def confirmed(self) -> bool:
        return isinstance(self.engine, NativeEngine) or self.engine.confirmed

    @property
    def native(self) -> NativeEngine:
        assert isinstance(self.engine, NativeEngine)
        return self.engine

    def hand_over(self) -> None:
        assert isinstance(self.engine, Engine)
        self.take_events()
        self.state = hand_over(self.engine)
        self.engine = NativeEngine(self.state, self.options, self._transmit)
        assert self.engine.packets.recovery.next_pn == self.state.next_packet_number

    def take(self, datagram: bytes, now: float, source: Any = None) -> None:
        self.taken += self.confirmed
        self.engine.receive_datagram(datagram, source or self.peer, now)
        self.take_events()

    def take_events(self) -> None:
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                known = self.received.get(event.stream_id, b"") + event.data
                self.received[event.stream_id] = known
                if event.end_stream:
                    assert event.stream_id not in self.ended
                    self.ended.add(event.stream_id)
                self.engine.grant_connection(len(event.data))
                self.engine.grant_stream(event.stream_id, len(known))
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, StopSendingReceived):
                self.stops[event.stream_id] = event.error_code
            elif isinstance(event, HandshakeCompleted):
                self.established = True
            elif isinstance(event, ConnectionIdIssued):
                self.issued.append(event.connection_id)
            elif isinstance(event, ConnectionIdRetired):
                self.retired.append(event.connection_id)

    def send(self, now: float) -> list[bytes]:
        return [data for data, _ in self.send_to(now)]

    def send_to(self, now: float) -> list[tuple[bytes, Any]]:
        """The same with addresses."""
        if self.engine.get_peer_address() is None:
            return []
        datagrams = self.engine.datagrams_to_send(now)
        trains, self._trains = self._trains, []
        return trains + datagrams

    def _transmit(self, batch: Any, segment: int, address: Any) -> bool:
        data = bytes(batch)
        self._trains += [(data[at : at + segment], address) for at in range(0, len(data), segment)]
        return True


class Path:
    """Both hosts, connected; ``lose(host, datagram)`` says which datagrams of a host are lost."""

    def __init__(self, seed: int = 0, loss: float = 0, reordering: float = 0, **options: Any) -> None:
        self.options = TransportOptions(**options)
        self.loss, self.reordering = loss, reordering
        self.lose: Callable[[Host, bytes], bool] = lambda host, datagram: False
        self.now = 100.0
        self._random = random.Random(seed)
        self.strayed: list[tuple[bytes, Any]] = []  # sent to where nobody is
        self._queue: list[tuple[float, int, Host, bytes, Any]] = []
        self._sent = 0
        client = client_engine(CLIENT, self.options)
        client.connect(("server", 2), now=self.now)
        first = client.datagrams_to_send(self.now)
        hello = first[0][0]
        server = server_engine(SERVER, self.options, hello[6 : 6 + hello[5]], None)
        self.client = Host("client", client, self.options, ("server", 2))
        self.server = Host("server", server, self.options, ("client", 1))
        for data, address in first:
            self._carry(self.client, data, address)

    def run(self, until: Callable[[], bool], seconds: float = 60) -> None:
        """Until a condition holds; fails if it does not in so many seconds of virtual time."""
        limit = self.now + seconds
        steps = 0
        while not until():
            steps += 1
            assert steps < STEPS_MAX, f"busy without an end at {self.now}"
            self.flush()
            times = [host.engine.get_timer() for host in (self.client, self.server)]
            timer = min((at for at in times if at is not None), default=limit)
            at = min(timer, self._queue[0][0] if self._queue else timer)
            assert at < limit, f"not reached at {self.now}"
            self.now = max(self.now + TICK, at)  # aioquic's pacer may name the present again and again
            if self._queue and self._queue[0][0] <= self.now:
                _, _, host, datagram, source = heapq.heappop(self._queue)
                self.deliver(host, datagram, source)
                continue
            for host in (self.client, self.server):
                due = host.engine.get_timer()
                if due is not None and due <= self.now:
                    host.engine.handle_timer(self.now)
                    host.take_events()

    def confirm(self) -> None:
        self.run(lambda: self.client.confirmed and self.server.confirmed)

    def settle(self) -> None:
        """A second without anything new."""
        stop = self.now + 1
        self.run(lambda: self.now >= stop or not self._moves_before(stop))
        self.now = stop

    def flush(self) -> None:
        for host in (self.client, self.server):
            for datagram, address in host.send_to(self.now):
                self._carry(host, datagram, address)

    def _moves_before(self, stop: float) -> bool:
        self.flush()
        times = [host.engine.get_timer() for host in (self.client, self.server)]
        return bool(self._queue) or any(at is not None and at < stop for at in times)

    def deliver(self, host: Host, datagram: bytes, source: Any) -> None:
        """Bring a datagram to its end."""
        host.take(datagram, self.now, source)

    def inject(self, host: Host, datagram: bytes, source: Any, latency: float = LATENCY) -> None:
        """Bring ``host`` a datagram that somebody else sends."""
        self._sent += 1
        heapq.heappush(self._queue, (self.now + latency, self._sent, host, datagram, source))

    def _carry(self, host: Host, datagram: bytes, address: Any) -> None:
        self._sent += 1
        other = self.server if host is self.client else self.client
        if address != other.address:
            self.strayed.append((datagram, address))
            return
        if self.lose(host, datagram) or self._random.random() < self.loss:
            return
        at = self.now + LATENCY
        if self._random.random() < self.reordering:
            at += self._random.random() * LATENCY
        heapq.heappush(self._queue, (at, self._sent, other, datagram, host.address))


def is_short(datagram: bytes) -> bool:
    """A datagram that holds a 1-RTT packet only."""
    return datagram[0] & 0x80 == 0
