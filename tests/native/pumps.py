"""Two packet engines behind two real sockets, each with a pump."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from link import Pair, Side

from spaceblock.quic.native.engine import PacketEngine
from spaceblock.quic.native.pump import Pump
from spaceblock.quic.native.udp import prepare_socket

SIZE = 100_000  # less than any receive buffer: nothing is lost, so that no timer is needed


class Peer:
    """One side of a pair on a socket of its own; the pair's memory path is not used."""

    def __init__(self, side: Side) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(("127.0.0.1", 0))
        prepare_socket(self.sock, gro=True, receive_buffer=1 << 20, send_buffer=1 << 20)
        self.side = side
        self.pump = Pump(self.sock)
        self.data = bytearray()
        self.ended = False

    @property
    def engine(self) -> PacketEngine:
        return self.side.engine

    def turn(self) -> list[tuple[bytes, object]]:
        """Take in what came, as an event loop would; returns what was left over."""
        engines, others = self.pump.receive()
        for engine in engines:
            for stream in engine.news:
                data, fin = stream.take()
                self.data += data
                self.ended |= fin
                self.side.grant(stream)
            engine.news.clear()
        return others


@contextlib.contextmanager
def joined() -> Iterator[tuple[Peer, Peer]]:
    pair = Pair()
    a, b = Peer(pair.a), Peer(pair.b)
    try:
        for one, other in ((a, b), (b, a)):
            one.engine.set_peer_address(other.sock.getsockname(), socket.AF_INET)
            one.pump.add_route(one.side.cid, one.engine)
        yield a, b
    finally:
        a.sock.close()
        b.sock.close()
