"""Two packet engines behind two real sockets, each with a pump: the compiled one, or the simulation's."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from link import Pair, Side
from simulation.pump import SimulatedPump

from spaceblock.quic.native.engine import PacketEngine
from spaceblock.quic.native.pump import Pump
from spaceblock.quic.native.udp import prepare_socket

MakePump = Callable[[socket.socket], Pump]
SIZE = 100_000
"""Bytes that are under way at once, at most: less than any receive buffer holds, so that nothing is lost. What is lost
at the end of a flight would take a timer, which these tests do not have."""


class OwnSocket(socket.socket):
    """A real UDP socket with what a simulated one has besides."""

    def traffic_class(self, ecn: int) -> tuple[int, int, bytes]:
        return socket.IPPROTO_IP, socket.IP_TOS, bytes([ecn])


@dataclass
class Owner:
    """Who knows where an engine's peer is."""

    raw_peer_address: Any


class Peer:
    """One side of a pair on a socket of its own; the pair's memory path is not used."""

    def __init__(self, side: Side, make_pump: MakePump) -> None:
        self.sock = OwnSocket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(("127.0.0.1", 0))
        prepare_socket(self.sock, gro=True, receive_buffer=1 << 20, send_buffer=1 << 20)
        self.side = side
        self.pump = make_pump(self.sock)
        self.data = bytearray()
        self.ended = False

    @property
    def engine(self) -> PacketEngine:
        return self.side.engine

    def turn(self) -> list[tuple[bytes, object]]:
        """Take in what came, as an event loop would; returns what was left over."""
        engines, others = self.pump.receive() or ([], [])
        self.take_news(engines)
        return others

    def take_news(self, engines: list[PacketEngine]) -> None:
        """Read all streams that something came on."""
        for engine in engines:
            for stream in engine.news:
                data, fin = stream.take()
                self.data += data
                self.ended |= fin
                self.side.grant(stream)
            engine.news.clear()


@contextlib.contextmanager
def joined(make_pump: MakePump = Pump) -> Iterator[tuple[Peer, Peer]]:
    pair = Pair(window=SIZE)
    a, b = Peer(pair.a, make_pump), Peer(pair.b, make_pump)
    try:
        for one, other in ((a, b), (b, a)):
            one.engine.set_peer_address(other.sock.getsockname(), socket.AF_INET)
            one.engine.owner = Owner(other.sock.getsockname())
            one.pump.add_route(one.side.cid, one.engine)
        yield a, b
    finally:
        a.sock.close()
        b.sock.close()


def simulated(sock: Any) -> Any:
    """The simulation's pump, in real time; by its methods alone it is a :class:`Pump`."""
    return SimulatedPump(sock, time.monotonic)
