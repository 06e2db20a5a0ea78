"""The pump over real sockets: who gets which datagrams, what is left for Python, and what a full socket keeps.

The simulation's pump runs the same tests, but for the last ones: simulated sockets are full by chance, and everything
is told of.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import sys
import time
from collections.abc import Iterator

import pytest
from link import Pair
from pumps import SIZE, MakePump, Peer, joined, simulated

from framing import block
from spaceblock import core
from spaceblock.quic.native.ecn import ECN_CAPABLE
from spaceblock.quic.native.pump import Pump
from spaceblock.quic.native.streams import SendStream
from spaceblock.quic.sockets import UDP_SEGMENT, offloads

PATIENCE = 60.0


@pytest.fixture(params=[Pump, simulated], ids=["compiled", "simulated"])
def make_pump(request: pytest.FixtureRequest) -> MakePump:
    made: MakePump = request.param
    return made


def test_a_stream_between_two_sockets(make_pump: MakePump) -> None:
    data = random.Random(1).randbytes(SIZE)
    with joined(make_pump) as (a, b):
        stream = a.side.open(2)
        a.side.write(stream, data, fin=True)
        for _ in range(1_000):
            a.pump.send(a.engine)
            b.turn()
            b.pump.send(b.engine)
            a.turn()
            if b.ended and stream.finished:
                break
            select.select([a.sock, b.sock], [], [], 0.01)
        assert bytes(b.data) == data
        assert stream.finished


def test_packets_carry_marks_from_one_socket_to_the_other(make_pump: MakePump) -> None:
    with joined(make_pump) as (a, b):
        for each in (a, b):
            each.engine.recovery.ecn.enable()
        stream = a.side.open(2)
        a.side.write(stream, bytes(SIZE), fin=True)
        for _ in range(1_000):
            a.pump.send(a.engine)
            b.turn()
            b.pump.send(b.engine)
            a.turn()
            if stream.finished:
                break
            select.select([a.sock, b.sock], [], [], 0.01)
        assert a.engine.recovery.ecn.state == ECN_CAPABLE
        assert 10 < b.engine.received.ect0 <= a.engine.recovery.ecn.sent  # an acknowledgement may be under way
        assert (b.engine.received.ect1, b.engine.received.ce) == (0, 0)


def test_what_belongs_to_no_engine_is_left_as_single_datagrams(make_pump: MakePump) -> None:
    with joined(make_pump) as (a, b):
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with stranger:
            stranger.bind(("127.0.0.1", 0))
            for datagram in (b"\xc0long header", b"\x40unknown connection", b"\x40", b"x"):
                stranger.sendto(datagram, b.sock.getsockname())
            assert select.select([b.sock], [], [], PATIENCE)[0]
            found = b.turn()
            assert [data for data, _ in found] == [b"\xc0long header", b"\x40unknown connection", b"\x40", b"x"]
            assert {address for _, address in found} == {stranger.getsockname()}
        assert a.turn() == []


def test_datagrams_too_short_for_an_id_lead_nowhere(make_pump: MakePump) -> None:
    """Though what lies behind them in the same train would continue to a known one."""
    with joined(make_pump) as (a, b):
        a.sock.connect(b.sock.getsockname())
        train = b"\x40" + b.side.cid + b"\0\0\0"
        a.sock.sendmsg([train], [(socket.IPPROTO_UDP, 103, (4).to_bytes(2, "little"))])  # UDP_SEGMENT
        assert select.select([b.sock], [], [], PATIENCE)[0]
        assert [data for data, _ in b.turn()] == [train[:4], train[4:8], train[8:]]


def test_a_route_that_is_gone_leads_nowhere(make_pump: MakePump) -> None:
    with joined(make_pump) as (a, b):
        a.side.write(a.side.open(2), b"hello", fin=True)
        b.pump.remove_route(b.side.cid)
        assert a.pump.send(a.engine) == Pump.SENT_ALL
        assert select.select([b.sock], [], [], PATIENCE)[0]
        ((data, _),) = b.turn()
        assert data[1:9] == b.side.cid
        b.pump.add_route(b.side.cid, b.engine)
        assert not b.data


def test_nothing_is_sent_after_a_close_before_python_has_looked(make_pump: MakePump) -> None:
    pair = Pair()
    with joined(make_pump) as (a, b):
        b.side.write(b.side.open(3), b"more to say", fin=True)
        for pn, payload in enumerate((b"\x0a\x02\x02hi", b"\x1d\x00\x00")):
            a.sock.sendto(pair.seal(payload, pn), b.sock.getsockname())
        assert select.select([b.sock], [], [], PATIENCE)[0]
        assert b.turn() == []
        assert bytes(b.data) == b"hi"
        assert b.engine.rare == [(0x1D, 0, 0, b"")]
        assert not select.select([a.sock], [], [], 0)[0]


def test_thousands_of_routes_come_and_go(make_pump: MakePump) -> None:
    rng = random.Random(2)
    with joined(make_pump) as (a, b):
        cids = [rng.randbytes(8) for _ in range(5_000)]
        for cid in cids:
            b.pump.add_route(cid, b.engine)
        rng.shuffle(cids)
        for cid in cids[:4_990]:
            b.pump.remove_route(cid)
        b.pump.remove_route(cids[0])
        a.side.write(a.side.open(2), b"still here", fin=True)
        a.pump.send(a.engine)
        assert select.select([b.sock], [], [], PATIENCE)[0]
        assert b.turn() == []
        assert bytes(b.data) == b"still here"


def test_a_key_at_its_limit_seals_no_more(make_pump: MakePump) -> None:
    with joined(make_pump) as (a, b):
        a.engine.packets_max = a.engine.recovery.next_number()
        a.side.write(a.side.open(2), b"hello", fin=True)
        assert a.pump.send(a.engine) == Pump.LIMIT
        assert not select.select([b.sock], [], [], 0)[0]


def test_a_full_socket_keeps_the_train_and_its_order() -> None:
    data = random.Random(3).randbytes(300_000)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    pair = Pair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        pump = Pump(left)
        stream: SendStream = pair.a.open(2)
        pair.a.write(stream, data, fin=True)
        assert pump.send(pair.a.engine) == Pump.FULL
        assert not pump.resume()
        seen = []
        while True:
            try:
                seen.append(right.recv(65_536))
            except BlockingIOError:
                if pump.resume():
                    break
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(right.recv(65_536))
        assert len({packet[9:13] for packet in seen}) == len(seen), "no packet was sent twice"


def test_what_a_former_socket_did_not_take_costs_the_next_one_nothing() -> None:
    pair = Pair()
    old, nobody = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    new, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with old, nobody, new, peer:
        for each in (old, new, peer):
            each.setblocking(False)
        old.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        pump = Pump(old)
        pair.a.write(pair.a.open(2), bytes(SIZE), fin=True)
        assert pump.send(pair.a.engine) == Pump.FULL
        assert pump.outgoing.sent, "a part of the train is gone"
        pump.attach(new)
        pair.a.engine.on_timer(pair.a.engine.recovery.timeout())
        assert pump.send(pair.a.engine) == Pump.SENT_ALL
        assert [len(peer.recv(65_536)) for _ in range(2)] == [1_200] * 2


def test_whose_pace_is_over_while_others_fill_the_socket_waits_for_that_and_no_time() -> None:
    paced, other = Pair(size=9_000), Pair(size=9_000)
    stream = paced.a.open(2)
    paced.a.write(stream, bytes(SIZE * 5))
    paced.run()
    paced.a.write(stream, bytes(SIZE * 5))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.setblocking(False)
        pump = Pump(left)
        assert pump.send(paced.a.engine) == Pump.SENT_ALL
        go_on_at = paced.a.engine.recovery.send_time()
        assert paced.a.engine.next_timer(FAR) == go_on_at
        other.a.write(other.a.open(2), bytes(SIZE))
        while pump.send(other.a.engine) != Pump.FULL:
            other.a.engine.on_timer(other.a.engine.recovery.timeout())
        until_time(go_on_at)
        assert pump.send(paced.a.engine) == Pump.FULL
        assert paced.a.engine.next_timer(FAR) > go_on_at


def until_time(microseconds: int) -> None:
    while time.monotonic() * 1_000_000 <= microseconds:
        time.sleep(0.001)


@pytest.mark.skipif(not all(offloads()), reason="the kernel makes no trains")
def test_a_round_trip_within_one_call_is_measured(make_pump: MakePump) -> None:
    trains, per_train = 8, 54
    with joined(make_pump) as (a, b):
        stream = a.side.open(2)
        a.side.write(stream, b"hello")
        # Enough for an answer before the last datagram is looked at, which acknowledges that answer.
        pair = Pair()
        ask = b"\x01".ljust(1_200 - 29, b"\0")
        for train in range(trains):
            data = b"".join(pair.seal(ask, per_train * train + i, sender=b"b") for i in range(per_train))
            b.sock.sendmsg(
                [data], [(socket.IPPROTO_UDP, UDP_SEGMENT, (1_200).to_bytes(2, sys.byteorder))], 0, a.sock.getsockname()
            )
        acknowledgement = b"\x02\x00\x00\x00\x00"
        b.sock.sendto(pair.seal(acknowledgement, trains * per_train, sender=b"b"), a.sock.getsockname())
        a.turn()
        assert a.engine.opened == trains * per_train + 1
        assert stream.acknowledged == len(b"hello")
        assert 0 < a.engine.recovery.latest_rtt < PATIENCE * 1_000_000


FAR = 1 << 60
"""Microseconds that nobody lives to see."""

FLIGHT = 10_000
"""Bytes that a first window lets go."""


@contextlib.contextmanager
def acknowledged(fin: bool = False) -> Iterator[tuple[Peer, SendStream]]:
    """A side that has nothing to do but to hear that what it sent has arrived."""
    with joined() as (a, b):
        a.engine.look_at = FAR
        a.engine.next_timer(FAR)
        a.engine.timer_set = 0
        stream = a.side.open(2)
        a.side.write(stream, bytes(FLIGHT), fin=fin)
        a.pump.send(a.engine)
        while len(b.data) < FLIGHT:
            assert select.select([b.sock], [], [], PATIENCE)[0]
            b.turn()
        b.pump.send(b.engine)
        assert select.select([a.sock], [], [], PATIENCE)[0]
        yield a, stream


def test_what_lies_on_a_belt_is_settled_before_anybody_is_told() -> None:
    kept: list[tuple[int, bytes]] = []
    data = random.Random(2).randbytes(4_000)
    intake = core.Deframer(100, 1 << 20)
    intake.provide(bytearray(10))
    with joined() as (a, b):

        def move(stream: SendStream, written: bytes) -> None:
            a.side.write(stream, written)
            a.pump.send(a.engine)
            select.select([b.sock], [], [], PATIENCE)
            b.pump.receive()

        stream = a.side.open(2)
        receiver = b.side.accept(2)
        assert receiver is not None
        receiver.set_intake(intake)
        move(stream, block(core, 3, 0, data[:10]))
        assert intake.landed() == [(3, 0, 10, 0, 0)]
        assert intake.convey(3, len(data), 1 << 20, lambda at, part: kept.append((at, bytes(part))), [bytearray(5_000)])
        move(stream, block(core, 3, 10, data[10:]))
        assert kept == [(10, data[10:])]
        assert intake.landed() == [(3, 10, len(data) - 10, -1, 1)]


def test_what_nobody_waits_for_is_not_told_of() -> None:
    with acknowledged() as (a, stream):
        assert a.pump.receive() is None
        assert stream.acknowledged == FLIGHT
        assert a.pump.receive() == ([], []), "nothing came: there may be an error to look for"


def test_it_is_told_that_as_much_was_acknowledged_as_is_waited_for() -> None:
    with acknowledged() as (a, stream):
        stream.awaited = FLIGHT
        assert a.pump.receive() == ([a.engine], [])


def test_it_is_told_that_a_stream_is_finished() -> None:
    with acknowledged(fin=True) as (a, stream):
        assert a.pump.receive() == ([a.engine], [])
        assert stream.finished


def test_it_is_told_that_something_is_due_before_the_timer_fires() -> None:
    with acknowledged() as (a, _):
        a.engine.timer_set = FAR
        a.engine.send_control(b"\x01")  # sent with the answer, and so to be acknowledged in time
        assert a.pump.receive() == ([a.engine], [])


def test_it_is_told_when_python_wants_to_look() -> None:
    with acknowledged() as (a, _):
        a.engine.look_at = 0
        assert a.pump.receive() == ([a.engine], [])


def test_it_is_told_that_not_all_could_be_sent() -> None:
    with acknowledged() as (a, stream):
        a.engine.packets_max = 0
        a.side.write(stream, bytes(100))
        assert a.pump.receive() == ([a.engine], [])
        a.engine.packets_max = FAR
        assert a.pump.send(a.engine) == Pump.SENT_ALL


def test_only_what_leaves_this_computer_is_paced() -> None:
    with joined() as (a, _):
        assert a.engine.recovery.pacer.is_needless
        a.engine.move_to(("192.0.2.1", 9), bytes(8))
        assert not a.engine.recovery.pacer.is_needless


def test_it_is_made_of_a_socket() -> None:
    with pytest.raises(AttributeError):
        Pump(object())  # type: ignore[arg-type]
