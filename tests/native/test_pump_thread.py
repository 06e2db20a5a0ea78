"""A pump's thread: it stands in for an event loop that does not come, tells of what it did, and ends when asked."""

from __future__ import annotations

import contextlib
import os
import random
import select
import time
from collections.abc import Callable, Iterator

import pytest
from pumps import SIZE, Peer, joined

from spaceblock.quic.native.pump import Pump
from spaceblock.quic.native.pump_thread import PumpThread

PATIENCE = 60.0


@contextlib.contextmanager
def served(*peers: Peer) -> Iterator[list[PumpThread]]:
    threads = [PumpThread(peer.pump) for peer in peers]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.end()


def until(condition: Callable[[], bool], step: Callable[[], object] = lambda: None) -> None:
    """Wait for what threads do; nothing but this keeps the test from going on for ever."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        step()
        time.sleep(0.001)


def answer(peer: Peer) -> None:
    """What an event loop does when the bell was rung."""
    engines, others = peer.pump.collect() or ([], [])
    assert not others
    with peer.pump.lock:
        peer.take_news(engines)
    peer.pump.send(peer.engine)
    peer.pump.leave()


def test_packets_are_taken_in_and_acknowledged_while_nobody_comes() -> None:
    data = random.Random(1).randbytes(SIZE)
    with joined() as (a, b), served(a, b):
        stream = a.side.open(2)
        with a.pump.lock:
            a.side.write(stream, data, fin=True)
            a.pump.send(a.engine)
        until(lambda: stream.acknowledged == SIZE)
        answer(b)
        assert (bytes(b.data), b.ended) == (data, True)


def test_the_bell_is_rung_once_until_somebody_comes() -> None:
    with joined() as (a, b), served(b) as (thread,):
        a.side.write(a.side.open(2), b"one", fin=True)
        a.pump.send(a.engine)
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        a.side.write(a.side.open(6), b"two", fin=True)
        a.pump.send(a.engine)
        until(lambda: b.engine.opened == 2)
        assert os.eventfd_read(thread.bell) == 1
        assert b.pump.collect() == ([b.engine], [])
        assert b.pump.collect() == ([], [])


def test_what_belongs_to_no_engine_waits_for_the_event_loop() -> None:
    with joined() as (a, b), served(b) as (thread,):
        a.sock.sendto(b"\xc0long header", b.sock.getsockname())
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        assert b.pump.collect() == ([], [(b"\xc0long header", a.sock.getsockname())])


def test_no_more_waits_for_the_event_loop_than_the_socket_would_hold() -> None:
    size, room = 1_000, 1 << 18
    with joined(lambda sock: Pump(sock, room)) as (a, b), served(b) as (thread,):
        for _ in range(10 * room // size):
            a.sock.sendto(b"\xc0".ljust(size), b.sock.getsockname())
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        until(lambda: not select.select([b.sock], [], [], 0)[0])
        _, others = b.pump.collect() or ([], [])
        assert 0 < sum(len(data) for data, _ in others) <= room + (1 << 16)
        b.pump.leave()
        a.sock.sendto(b"\xc0 and there is room again", b.sock.getsockname())
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        assert len((b.pump.collect() or ([], []))[1]) == 1


def test_an_event_loop_that_comes_in_time_does_all_the_work() -> None:
    with joined() as (a, b), served(b) as (thread,):
        assert b.pump.receive() == ([], [])  # and is not back yet, so that nobody stands in
        a.side.write(a.side.open(2), b"hello", fin=True)
        a.pump.send(a.engine)
        assert select.select([b.sock], [], [], PATIENCE)[0]
        time.sleep(0.05)
        assert b.engine.opened == 0
        b.pump.leave()
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        assert b.engine.opened == 1


def test_more_than_a_window_moves_with_a_loop_that_only_answers_the_bell() -> None:
    data = random.Random(2).randbytes(20 * SIZE)
    with joined() as (a, b), served(a, b) as threads:
        stream = a.side.open(2)
        with a.pump.lock:
            a.side.write(stream, data, fin=True)
            a.pump.send(a.engine)

        def answer_bells() -> None:
            rung, _, _ = select.select([thread.bell for thread in threads], [], [], PATIENCE)
            for thread, peer in zip(threads, (a, b), strict=True):
                if thread.bell in rung:
                    answer(peer)

        until(lambda: b.ended, answer_bells)
        assert bytes(b.data) == data


def test_what_fails_in_the_thread_is_raised_where_the_bell_is_answered() -> None:
    with joined() as (a, b), served(b) as (thread,):
        b.side.opened = None  # type: ignore[assignment]
        a.side.write(a.side.open(2), b"hello")
        a.pump.send(a.engine)
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        with pytest.raises(AttributeError, match="append"):
            b.pump.collect()


def test_an_engine_that_is_forgotten_is_not_told_of() -> None:
    with joined() as (a, b), served(b) as (thread,):
        a.side.write(a.side.open(2), b"hello")
        a.pump.send(a.engine)
        assert select.select([thread.bell], [], [], PATIENCE)[0]
        b.pump.remove_route(b.side.cid)
        b.pump.forget(b.engine)
        assert b.pump.collect() == ([], [])
