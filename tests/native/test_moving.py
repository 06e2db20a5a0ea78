"""Clients whose address changes, over real sockets and a box in between; and strangers who claim to be one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pytest

from nat import Nat, nat
from quic_pair import CLIENT, MIB, Reader, Streams, endpoints, pair
from spaceblock.errors import ConnectionFailed, LocalProtocolError
from spaceblock.quic import Connection, Stream, TransportOptions

T = TypeVar("T")

PATIENCE = 60.0
SIZE = 12 * MIB
HOSTS = ["127.0.0.1"] + ["127.0.0.2"] * (sys.platform == "linux")  # elsewhere a loopback network is one address

OPTIONS = TransportOptions(native=True)


@dataclass
class Boxed:
    client: Connection
    server: Connection
    box: Nat


@contextlib.asynccontextmanager
async def boxed() -> AsyncIterator[Boxed]:
    """A connected pair with a box between, after each side has heard of the other since the handshake."""
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with contextlib.AsyncExitStack() as stack:
        client, server = await stack.enter_async_context(endpoints(OPTIONS, on_connection=accepted.put_nowait))
        box = await stack.enter_async_context(nat(server.local_address))
        connection = await client.connect(box.address, CLIENT, timeout=30)
        both = Boxed(connection, await accepted.get(), box)
        await move_bytes(both.client, both.server, 1_000)
        yield both


async def move_bytes(
    sender: Connection, receiver: Connection, size: int, at_shares: tuple[Callable[[], Awaitable[None]], ...] = ()
) -> None:
    """Send bytes and compare them; at equal shares of the way something may be done."""
    data = random.Random(size).randbytes(size)
    streams = Streams(receiver)
    stream = sender.open_stream(unidirectional=True)
    writing = asyncio.ensure_future(_write(stream, data))
    reader = await within(streams.next())
    for number, act in enumerate(at_shares, 1):
        await within(reader.until(partial(_has, number * size // (len(at_shares) + 1))))
        await act()
    assert await within(reader.read_all()) == data
    await within(writing)


async def _write(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), MIB):
        stream.write(data[start : start + MIB], fin=start + MIB >= len(data))
        await stream.drain(2 * MIB)
    await stream.drain(0)


def _has(count: int, reader: Reader) -> bool:
    return len(reader.data) >= count


async def within(what: Awaitable[T]) -> T:
    return await asyncio.wait_for(what, PATIENCE)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
async def test_a_transfer_survives_new_ports_and_hosts(host: str, upload: bool) -> None:
    async with boxed() as both:
        before = both.server.peer_address

        async def rebind() -> None:
            await both.box.rebind(host)
            both.client.keep_alive()

        sender, receiver = (both.client, both.server) if upload else (both.server, both.client)
        await move_bytes(sender, receiver, SIZE, (rebind, rebind, rebind))
        both.client.keep_alive()
        await move_bytes(both.client, both.server, 1_000)
        assert both.server.peer_address == both.box.outside != before
        assert both.server.close_reason is None


async def test_the_end_of_what_was_sent_is_sent_again_when_it_is_lost() -> None:
    """All before it was acknowledged, which the event loop need not have heard of; its timer has to find out."""
    async with boxed() as both:
        passed = lost = 0

        def watch(datagram: bytes) -> bool:
            nonlocal passed, lost
            passes = passed < 100_000 or lost >= 15
            passed += passes * len(datagram)
            lost += not passes
            return passes

        both.box.watch = watch
        await move_bytes(both.client, both.server, 200_000)
        assert lost == 15
        assert both.client.close_reason is both.server.close_reason is None


async def test_strangers_do_not_move_a_connection() -> None:
    """Copies of the client's packets, damaged ones, and others with its connection ID, by the thousand."""
    async with boxed() as both:
        server = both.server.local_address
        with stranger() as sock:
            copies: list[bytes] = []

            def watch(datagram: bytes) -> bool:
                copies.append(datagram)
                if len(copies) > 64:
                    old = copies.pop(0)
                    sock.sendto(old, server)
                    sock.sendto(old[:-3] + b"abc", server)
                    sock.sendto(old[:9] + bytes(len(old) - 9), server)
                return True

            both.box.watch = watch
            await move_bytes(both.client, both.server, SIZE)
            await move_bytes(both.server, both.client, MIB)
            assert both.server.peer_address == both.box.outside
            assert received_by(sock) == 0


async def test_somebody_who_overtakes_the_client_gets_three_times_what_it_sends() -> None:
    """It is on the path, so it can lead packets astray; but not for long, and not as a multiplier."""
    async with boxed() as both:
        server = both.server.local_address
        with stranger() as sock:
            sent = got = turn = 0

            def overtake(datagram: bytes) -> bool:
                nonlocal sent, got, turn
                turn += 1
                if turn % 20 == 0:
                    sock.sendto(datagram, server)
                    sent += len(datagram)
                    got += received_by(sock)
                    assert got <= 3 * sent
                return True

            both.box.watch = overtake
            await move_bytes(both.server, both.client, SIZE)
            await move_bytes(both.client, both.server, SIZE)
            both.box.watch = lambda datagram: True
            await move_bytes(both.client, both.server, 1_000)
            assert both.server.peer_address == both.box.outside
            assert 0 < got + received_by(sock) <= 3 * sent


@contextlib.contextmanager
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        sock.bind(("127.0.0.1", 0))
        yield sock


def received_by(sock: socket.socket) -> int:
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += len(sock.recv(65_535))
    return size


@pytest.mark.parametrize("native", [True, False], ids=["native", "aioquic"])
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
async def test_a_client_that_moves_by_itself(host: str, upload: bool, native: bool) -> None:
    options = TransportOptions(native=native)
    async with pair(options) as both:
        await move_bytes(both.client, both.server, 1_000)
        before = both.server.peer_address
        places = [before]

        async def move() -> None:
            await both.client_endpoint.rebind(host)
            places.append(both.client_endpoint.local_address)

        sender, receiver = (both.client, both.server) if upload else (both.server, both.client)
        await move_bytes(sender, receiver, SIZE if native else MIB, (move, move))
        await move_bytes(both.client, both.server, 1_000)
        assert len(set(places)) == 3
        assert both.server.peer_address == both.client.local_address == places[-1]
        assert both.server.close_reason is both.client.close_reason is None


async def test_nobody_else_touches_a_connection_while_its_datagrams_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pair(OPTIONS) as both:
        await move_bytes(both.client, both.server, 1_000)
        threads: list[int] = []

        def largest(address: object) -> int:
            threads.append(sum(thread.name == "spaceblock-packets" for thread in threading.enumerate()))
            return 1_400

        largest(None)
        monkeypatch.setattr(both.client_endpoint, "largest_datagram", largest)
        await both.client_endpoint.rebind("127.0.0.1")
        largest(None)
        assert threads == [2, 1, 2]
        await move_bytes(both.client, both.server, MIB)


async def test_a_client_that_moves_shows_another_connection_id() -> None:
    seen: set[bytes] = set()

    def watch(datagram: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
        if outgoing and datagram[0] < 0x80:
            seen.add(datagram[1:9])
        return True

    async with pair(OPTIONS) as both:
        await move_bytes(both.client, both.server, 1_000)
        both.client_endpoint.packet_filter = watch
        for moves in range(4):
            await move_bytes(both.client, both.server, 1_000)
            assert len(seen) == 1 + moves
            await both.client_endpoint.rebind("127.0.0.1")


async def test_who_cannot_move() -> None:
    async with pair(OPTIONS) as both:
        with pytest.raises(LocalProtocolError, match="accepts connections"):
            await both.server_endpoint.rebind("127.0.0.1")
        await move_bytes(both.client, both.server, 1_000)
        before = both.client_endpoint.local_address
        with pytest.raises(ConnectionFailed, match="cannot be used"):
            await both.client_endpoint.rebind(*both.server_endpoint.local_address)
        with pytest.raises(LocalProtocolError, match="another family"):
            await both.client_endpoint.rebind("::1")
        assert both.client_endpoint.local_address == before
        await move_bytes(both.client, both.server, 1_000)
        await both.client_endpoint.close()
        with pytest.raises(ConnectionFailed, match="closed"):
            await both.client_endpoint.rebind("127.0.0.1")


async def test_nobody_moves_before_the_handshake_is_confirmed() -> None:
    async with endpoints(OPTIONS) as (client, server):
        came = asyncio.Event()

        def ignore(datagram: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            came.set()
            return False

        server.packet_filter = ignore
        calling = asyncio.ensure_future(client.connect(server.local_address, CLIENT, timeout=30))
        await within(came.wait())
        before = client.local_address
        with pytest.raises(LocalProtocolError, match="cannot move now"):
            await client.rebind("127.0.0.1")
        assert client.local_address == before
        server.packet_filter = None
        await within(calling)
