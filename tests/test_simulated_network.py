"""The simulated network itself: a clock that jumps, and datagrams that fare as the conditions say."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from simulation.clock import START, Busy, Stuck, VirtualLoop
from simulation.network import CE, ECT_0, NOT_ECT, Conditions, Fate, Network
from simulation.sockets import SOL_UDP, UDP_GRO, UDP_SEGMENT, SimulatedSocket

HERE = ("192.0.2.1", 1)
THERE = ("198.51.100.7", 2)


@dataclass
class Way:
    """A network with a client and a server that keeps what arrives, and when."""

    loop: VirtualLoop
    network: Network
    client: SimulatedSocket
    server: SimulatedSocket
    arrived: list[tuple[float, bytes, Any]] = field(default_factory=list)

    def send(self, *datagrams: bytes, ecn: int = NOT_ECT) -> list[bytes]:
        """What has arrived when nothing is under way any more."""
        before = len(self.arrived)
        for datagram in datagrams:
            self.network.send(self.client, datagram, self.server.address, ecn)
        self.loop.pass_time(1_000)
        return [data for _, data, _ in self.arrived[before:]]

    def keep(self) -> None:
        data, source = self.server.recvfrom(65_535)
        self.arrived.append((self.network.now, data, source))


@contextmanager
def way(**conditions: Any) -> Iterator[Way]:
    loop = VirtualLoop()
    network = Network(loop, 0, Conditions(**conditions), Conditions())
    it = Way(
        loop,
        network,
        SimulatedSocket(network, HERE, forward=True),
        SimulatedSocket(network, THERE, forward=False),
    )
    loop.add_reader(it.server, it.keep)
    yield it
    loop.close()


def numbered(count: int, size: int = 1_000) -> list[bytes]:
    return [number.to_bytes(2, "big") * (size // 2) for number in range(count)]


# The clock.


def test_a_day_passes_at_once() -> None:
    loop = VirtualLoop()
    loop.run(asyncio.sleep(86_400))
    assert loop.time() == pytest.approx(START + 86_400)
    assert loop.rounds < 10
    loop.close()


def test_whoever_waits_for_nothing_is_told_so() -> None:
    loop = VirtualLoop()

    async def wait() -> None:
        await loop.create_future()

    with pytest.raises(Stuck, match="nothing is left"):
        loop.run(wait())
    loop.close()


def test_whoever_goes_round_and_round_is_told_so() -> None:
    loop = VirtualLoop(rounds_max=1_000)

    async def spin() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)

    with pytest.raises(Busy, match="without an end"):
        loop.run(spin())
    assert loop.time() < START + 1
    loop.close()


def test_a_failure_of_a_callback_is_not_swallowed() -> None:
    loop = VirtualLoop()

    def fail() -> None:
        raise KeyError("lost")

    loop.call_later(1, fail)
    with pytest.raises(KeyError, match="lost"):
        loop.run(asyncio.sleep(2))
    loop.close()


# The network.


def test_datagrams_arrive_in_order_after_the_latency() -> None:
    with way(latency=0.25) as it:
        assert it.send(*numbered(50)) == numbered(50)
        assert all(0.25 <= at < 0.2502 for at, *_ in it.arrived)
        assert {source for _, _, source in it.arrived} == {HERE}


def test_a_rate_spreads_them_and_a_queue_has_an_end() -> None:
    with way(latency=0, rate=1_028_000, queue=10_000) as it:
        assert it.send(*numbered(100)) == numbered(9)
        assert it.network.fates[Fate.OVERFLOWED] == 91
        assert [round(at, 4) for at, *_ in it.arrived] == [round(0.001 * n, 4) for n in range(1, 10)]


def test_some_are_lost_and_some_come_twice_or_late() -> None:
    with way(loss=0.2) as it:
        assert 350 < len(it.send(*numbered(500))) < 450
    with way(duplication=0.2) as it:
        assert 550 < len(it.send(*numbered(500))) < 650
    with way(reordering=0.2) as it:
        arrived = it.send(*numbered(500))
        assert arrived != numbered(500)
        assert sorted(arrived) == numbered(500)


def test_some_are_changed_or_cut() -> None:
    with way(corruption=0.2) as it:
        arrived = it.send(*numbered(500))
        assert len(arrived) == 500
        wrong = [data for data, sent in zip(arrived, numbered(500), strict=True) if data != sent]
        assert 50 < len(wrong) == it.network.fates[Fate.CHANGED] < 150
        assert any(len(data) < 1_000 for data in wrong)
        assert any(len(data) == 1_000 for data in wrong)


def test_a_blackhole_and_an_mtu_swallow() -> None:
    with way(blackholes=((1, 2_000),), mtu=1_280) as it:
        assert it.send(bytes(1_252), bytes(1_253)) == [bytes(1_252)]
        assert it.send(bytes(1)) == []
        assert it.send(bytes(1)) == [bytes(1)]
        assert it.network.fates[Fate.SWALLOWED] == it.network.fates[Fate.TOO_LARGE] == 1


def test_a_nat_forgets_the_old_address() -> None:
    with way() as it:
        it.client.rebind("192.0.2.9", 77)
        it.send(b"from the new address")
        assert it.arrived[0][2] == ("192.0.2.9", 77)
        it.network.send(it.server, b"to the new address", ("192.0.2.9", 77))
        it.network.send(it.server, b"to the old address", HERE)
        it.loop.pass_time(1)
        assert it.client.recvfrom(100) == (b"to the new address", THERE)
        with pytest.raises(BlockingIOError):
            it.client.recvfrom(100)
        assert it.network.fates[Fate.NOWHERE] == 1


def test_the_network_marks_only_what_allows_it() -> None:
    with way(marking=1.0) as it:
        it.loop.remove_reader(it.server)
        it.send(b"allows", ecn=ECT_0)
        it.send(b"does not", ecn=NOT_ECT)
        buffer = memoryview(bytearray(100))
        marks = [it.server.recvmsg_into([buffer], 64)[1] for _ in range(2)]
        assert marks == [[(socket.IPPROTO_IP, socket.IP_TOS, bytes([mark]))] for mark in (CE, NOT_ECT)]
    with way(marking=1.0, bleaching=True) as it:
        it.loop.remove_reader(it.server)
        it.send(b"allows", ecn=ECT_0)
        assert it.server.recvmsg_into([buffer], 64)[1][0][2] == bytes([NOT_ECT])


# The sockets.


def test_a_train_is_cut_and_coalesced_again() -> None:
    with way() as it:
        it.loop.remove_reader(it.server)
        it.server.setsockopt(SOL_UDP, UDP_GRO, 1)
        train = [(SOL_UDP, UDP_SEGMENT, (100).to_bytes(2, sys.byteorder))]
        it.client.sendmsg([bytes(250)], train, 0, THERE)
        it.client.sendmsg([bytes(100)], [], 0, THERE)
        it.loop.pass_time(1)
        buffer = memoryview(bytearray(1_000))
        size, ancillary, _, source = it.server.recvmsg_into([buffer], 64)
        assert (size, source) == (250, HERE)
        assert ancillary[1] == (SOL_UDP, UDP_GRO, (100).to_bytes(4, sys.byteorder))
        assert it.server.recvmsg_into([buffer], 64)[0] == 100
        assert it.network.fates[Fate.ARRIVES] == 4


def test_a_full_socket_has_room_again() -> None:
    with way() as it:
        full = SimulatedSocket(it.network, ("192.0.2.2", 1), forward=True, full=1.0)
        told: list[float] = []

        def write() -> None:
            told.append(it.network.now)
            it.loop.remove_writer(full)

        with pytest.raises(BlockingIOError):
            full.sendto(b"never", THERE)
        it.loop.add_writer(full, write)
        it.loop.pass_time(1)
        assert told == [pytest.approx(0.001, abs=1e-4)]


def test_a_receive_buffer_has_an_end() -> None:
    with way() as it:
        small = SimulatedSocket(it.network, ("192.0.2.2", 1), forward=False, buffer=3_500)
        for datagram in numbered(5):
            it.network.send(it.client, datagram, small.address)
        it.loop.pass_time(1)
        assert small.overflowed == 2


def test_the_same_seed_does_the_same_in_another_process() -> None:
    """Whatever the order of Python's sets, and wherever its objects lie."""
    program = (
        "from simulation.seeds import scenario\n"
        "from simulation.transfers import simulate\n"
        "for seed in (6, 17, 42, 44): print(simulate(scenario(seed)).trace)"
    )
    root = Path(__file__).parent.parent
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1
    assert len(set(said.pop().split())) == 4
