"""What moves a simulated socket's datagrams to the native engines behind it, and back.

It is :mod:`spaceblock.quic.native.pump` in Python, with the same steps in the same order: the compiled one asks the
kernel for datagrams and for the time, and a seam there would be paid for by every packet. What keeps the two together
is ``tests/native/test_pump.py``, whose tests run on both, on real sockets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from spaceblock.quic.native.budget import LAPSE, Budget
from spaceblock.quic.native.engine import PacketEngine
from spaceblock.quic.native.pump import BUFFERS, ROUNDS, TRAINS, Pump

from .sockets import SOL_UDP, UDP_GRO, UDP_SEGMENT, SimulatedSocket

CID_STOP = 9
"""Where the connection ID of a short header ends."""

_Train = tuple[bytes, int, int, Any]
"""Datagrams, the size of each, their ECN bits, and where they go."""


class SimulatedPump:
    """One socket's; ``time`` tells seconds.

    See the methods of :class:`~spaceblock.quic.native.pump.Pump` for what they do.
    """

    SENT_ALL = Pump.SENT_ALL
    MORE = Pump.MORE
    FULL = Pump.FULL
    LIMIT = Pump.LIMIT

    def __init__(self, socket: SimulatedSocket, time: Callable[[], float], receive_buffer: int = 1 << 22) -> None:
        self._socket = socket
        self._time = time
        self._routes: dict[bytes, PacketEngine] = {}
        self._held: _Train | None = None
        self._room = memoryview(bytearray(65_535))
        self.budget = Budget(receive_buffer)
        socket.setsockopt(SOL_UDP, UDP_GRO, 1)

    def add_route(self, cid: bytes, engine: PacketEngine) -> None:
        self._routes[cid] = engine
        engine.share_credit(self.budget)
        engine.recovery.ecn.enable()  # what is built is marked as it asks

    def remove_route(self, cid: bytes) -> None:
        self._routes.pop(cid, None)

    def forget(self, engine: PacketEngine) -> None:
        engine.leave_credit()

    def receive(self) -> tuple[list[PacketEngine], list[tuple[bytes, Any]]]:
        touched: dict[PacketEngine, None] = {}
        others: list[tuple[bytes, Any]] = []
        for _ in range(ROUNDS):
            got = sum(self._take_buffer(touched, others) for _ in range(BUFFERS))
            touched.update(dict.fromkeys(self.take_turns()))
            for engine in touched:
                if engine.violation is None and not engine.is_closing and not engine.awaits_python:
                    self.send(engine)
            if got < BUFFERS:
                break
        for engine in touched:
            engine.news[:] = dict.fromkeys(engine.news)  # the real one asks for them once, in the end
        return list(touched), others

    @property
    def turn_wait(self) -> float | None:
        return LAPSE / 1_000_000 if self.budget.waiting else None

    def take_turns(self) -> list[PacketEngine]:
        given: dict[PacketEngine, None] = {}
        while (turn := self.budget.turn(self._microseconds())) is not None:
            engine, stream = turn
            engine.take_turn(stream, self._microseconds())
            given[engine] = None
        return list(given)

    def send(self, engine: PacketEngine) -> int:
        if not self.resume():
            return self.FULL
        for _ in range(TRAINS):
            if engine.recovery.next_number() >= engine.packets_max:
                return self.LIMIT
            size = engine.build(self._microseconds())
            if size == 0:
                return self.SENT_ALL
            train = bytes(engine.batch[:size]), engine.segment, engine.mark, engine.owner.raw_peer_address
            if not self._write(train):
                self._held = train
                return self.FULL
        return self.MORE

    def resume(self) -> bool:
        if self._held is not None and not self._write(self._held):
            return False
        self._held = None
        return True

    def _take_buffer(self, touched: dict[PacketEngine, None], others: list[tuple[bytes, Any]]) -> bool:
        """Take in one buffer, if there is one: runs of datagrams for one engine are handed to it together."""
        try:
            size, ancillary, _, source = self._socket.recvmsg_into([self._room], 64)
        except BlockingIOError:
            return False
        segment, ecn = size, 0
        for level, kind, value in ancillary:
            number = int.from_bytes(value, sys.byteorder)
            if (level, kind) == (SOL_UDP, UDP_GRO):
                segment = number
            elif (level, kind) == self._socket.traffic_class(0)[:2]:
                ecn = number & 3
        start = 0
        while start < size:
            stop = min(start + segment, size)
            engine = self._owner_of(start, stop)
            while stop < size and self._owner_of(stop, min(stop + segment, size)) is engine:
                stop = min(stop + segment, size)
            if engine is None:
                others += [
                    (bytes(self._room[at : min(at + segment, stop)]), source) for at in range(start, stop, segment)
                ]
            elif self._hand_on(engine, self._room[start:stop], segment, ecn, source):
                touched[engine] = None
            start = stop
        return True

    def _hand_on(self, engine: PacketEngine, data: memoryview, segment: int, ecn: int, source: Any) -> bool:
        elsewhere = None if source == engine.owner.raw_peer_address else source
        if elsewhere is not None and engine.peer_is_fixed:
            return False  # a client knows one address of its server
        return engine.receive(data, segment, self._microseconds(), ecn, elsewhere) > 0

    def _owner_of(self, start: int, stop: int) -> PacketEngine | None:
        if self._room[start] >= 0x80 or stop - start < CID_STOP:
            return None
        return self._routes.get(bytes(self._room[start + 1 : start + CID_STOP]))

    def _write(self, train: _Train) -> bool:
        data, segment, ecn, address = train
        ancillary = [(SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, sys.byteorder)), self._socket.traffic_class(ecn)]
        try:
            self._socket.sendmsg([data], ancillary, 0, address)
        except BlockingIOError:
            return False
        return True

    def _microseconds(self) -> int:
        return int(self._time() * 1_000_000)
