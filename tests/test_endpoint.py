"""Endpoints: how connections begin and end, what strangers may send, and what a bad network does."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import sys
from typing import Any

import pytest

from engines import why_not_native
from quic_pair import CLIENT, KIB, SERVER, Streams, endpoints, pair
from spaceblock.errors import ConnectionFailed, Unreachable
from spaceblock.quic import CloseReason, Connection, ConnectionEnded, Stream, TransportOptions
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.routes import look_up

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say where a datagram came to")


def drop_all(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
    return False


def lose_everything(endpoint: Endpoint) -> asyncio.Event:
    """From now on; the event tells of the first datagram."""
    lost = asyncio.Event()

    def lose(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
        lost.set()
        return False

    endpoint.packet_filter = lose
    return lost


# Ends of connections.


async def test_a_close_tells_both_sides_why() -> None:
    async with pair() as both:
        told: list[tuple[str, CloseReason]] = []
        both.client.set_close_handler(lambda reason: told.append(("client", reason)))
        both.server.set_close_handler(lambda reason: told.append(("server", reason)))
        both.server.close(0x11, "an unknown ticket")
        both.server.close(0x12, "ignored")
        assert await both.client.wait_closed() == CloseReason(0x11, "an unknown ticket", by_peer=True)
        assert await both.server.wait_closed() == CloseReason(0x11, "an unknown ticket")
        assert both.client.close_reason == await both.client.wait_closed()
        await asyncio.sleep(0)
        assert sorted(side for side, _ in told) == ["client", "server"]

        late: list[CloseReason] = []
        both.client.set_close_handler(late.append)
        await asyncio.sleep(0)
        assert late == [both.client.close_reason]


async def test_a_long_reason_is_cut_between_characters() -> None:
    async with pair() as both:
        both.client.close(1, "ä" * 10_000)
        assert (await both.server.wait_closed()).reason == "ä" * 256


async def test_what_arrived_before_the_close_is_delivered() -> None:
    async with pair() as both:
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(b"last words", fin=True)
        await stream.drain(0)
        both.client.close(0)
        await both.server.wait_closed()
        assert await (await streams.next()).read_all() == b"last words"


@pytest.mark.parametrize("native", [False, True])
async def test_nobody_is_told_that_what_is_written_after_the_end_arrived(native: bool) -> None:
    if native and why_not_native():
        pytest.skip(why_not_native() or "")
    async with pair(TransportOptions(native=native)) as both:
        streams = Streams(both.server)
        asked, later = both.client.open_stream(unidirectional=False), list[Stream]()
        released: list[bool] = []

        def answer(data: bytes, fin: bool) -> None:
            later.append(both.client.open_stream(unidirectional=True))
            for stream in (asked, *later):
                stream.write(b"too late", release=lambda: released.append(True))

        asked.set_handlers(on_data=answer)
        asked.write(b"what?")
        await asked.drain(0)
        there = (await streams.next()).stream
        there.write(b"last words")
        await asyncio.sleep(0)
        both.server.close(0)
        await both.client.wait_closed()
        assert released == [True, True]
        asked.write(b"too late as well", release=lambda: released.append(True))
        assert len(released) == 3
        for stream in (asked, *later):
            with pytest.raises(ConnectionEnded):
                await stream.drain(0)


async def test_a_lost_close_is_sent_again_to_whoever_still_talks() -> None:
    async with pair() as both:
        lost: list[bytes] = []

        def drop_first(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            if outgoing and not lost:
                lost.append(data)
                return False
            return True

        both.server_endpoint.packet_filter = drop_first
        both.server.close(0x14, "not trusted")
        assert len(lost) == 1
        assert both.client.close_reason is None
        both.client.keep_alive()
        assert (await both.client.wait_closed()).code == 0x14


async def test_a_peer_that_fell_silent_is_noticed() -> None:
    async with pair(TransportOptions(idle_timeout=1.0)) as both:
        stream = both.client.open_stream(unidirectional=True)
        both.client_endpoint.packet_filter = drop_all
        stream.write(b"into the void")
        draining = asyncio.ensure_future(stream.drain(0))
        for connection in (both.client, both.server):
            reason = await connection.wait_closed()
            assert reason.timed_out
            assert not reason.by_peer
        with pytest.raises(ConnectionEnded, match="nothing came from the peer"):
            await draining


async def test_keeping_alive_is_answered() -> None:
    async with pair() as both:
        await both.client.open_stream(unidirectional=True).drain(0)
        answered = asyncio.Event()

        def watch(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            if not outgoing:
                answered.set()
            return True

        both.client_endpoint.packet_filter = watch
        both.client.keep_alive()
        both.client.keep_alive()
        await answered.wait()


async def test_closing_an_endpoint_closes_its_connections_and_leaves_nothing_behind() -> None:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    async with pair() as both:
        streams = Streams(both.client)
        both.server.open_stream(unidirectional=True).write(bytes(300 * KIB))
        await streams.next()
        await asyncio.gather(both.server_endpoint.close(), both.server_endpoint.close())
        await both.server_endpoint.close()
        assert await both.client.wait_closed() == CloseReason(0, by_peer=True)
        with pytest.raises(ConnectionFailed, match="closed"):
            await both.server_endpoint.connect(("127.0.0.1", 9), CLIENT, timeout=30)
    assert asyncio.all_tasks() == before
    timers: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    assert [timer for timer in timers if not timer.cancelled() and "spaceblock" in repr(timer)] == []


async def test_whoever_closes_waits_no_longer_than_for_the_others_close(monkeypatch: pytest.MonkeyPatch) -> None:
    if why := why_not_native():
        pytest.skip(f"only the native engine answers a close: {why}")
    from spaceblock.quic.native.engine_shell import NativeEngine

    async with endpoints(TransportOptions(native=True)) as (calling, serving):
        connection = await calling.connect(serving.local_address, CLIENT, timeout=30)
        opened = connection.open_stream(unidirectional=True)
        opened.write(b"x")
        await opened.drain(0)
        with monkeypatch.context() as change:
            change.setattr("spaceblock.quic.endpoint.LINGER", 1_000.0)
            change.setattr(NativeEngine, "pto", 1_000.0)
            await asyncio.wait_for(calling.close(), 60)
        assert calling.connections == 0


async def test_closing_an_endpoint_ends_its_attempts_to_connect() -> None:
    async with endpoints() as (client, server):
        first_flight = lose_everything(client)
        connecting = asyncio.ensure_future(client.connect(server.local_address, CLIENT, timeout=30))
        await first_flight.wait()
        await client.close()
        with pytest.raises(ConnectionFailed):
            await connecting


async def test_closing_an_endpoint_that_looks_up_a_name_ends_its_attempt_to_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def look_up_slowly(*arguments: Any) -> Any:
        asked.set()
        await may_answer.wait()
        return await look_up(*arguments)

    client = await Endpoint.bind("127.0.0.1", 0)
    monkeypatch.setattr("spaceblock.quic.sockets.look_up", look_up_slowly)
    connecting = asyncio.ensure_future(client.connect(("localhost", 9), CLIENT, timeout=30))
    await asked.wait()
    await client.close()
    may_answer.set()
    with pytest.raises(ConnectionFailed, match="endpoint is closed"):
        await connecting
    assert client.connections == 0


# Beginnings.


async def test_many_clients_connect_at_once() -> None:
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with endpoints(on_connection=accepted.put_nowait) as (client, server):
        connections = await asyncio.gather(
            *(client.connect(server.local_address, CLIENT, timeout=60) for _ in range(20))
        )
        for number, connection in enumerate(connections):
            connection.open_stream(unidirectional=True).write(bytes([number]), fin=True)
        readers = [await Streams(await accepted.get()).next() for _ in connections]
        assert sorted([await reader.read_all() for reader in readers]) == [bytes([number]) for number in range(20)]


async def test_a_crowd_must_prove_its_address_first() -> None:
    answers: list[int] = []

    def watch(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
        if not outgoing:
            answers.append(data[0])
        return True

    async with endpoints(TransportOptions(retry_above=0)) as (client, server):
        client.packet_filter = watch
        connection = await client.connect(server.local_address, CLIENT, timeout=30)
        assert connection.close_reason is None
    assert answers[0] & 0xF0 == 0xF0  # a Retry packet (RFC 9000, section 17.2.5)


async def test_a_token_is_good_for_one_address_only() -> None:
    firsts: list[bytes] = []
    stolen = asyncio.Event()

    def steal(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
        if outgoing:
            firsts.append(data)
            if len(firsts) == 2:
                stolen.set()
        return len(firsts) < 2  # the second one, with the token, never arrives

    async with endpoints(TransportOptions(retry_above=0)) as (client, server):
        client.packet_filter = steal
        connecting = asyncio.ensure_future(client.connect(server.local_address, CLIENT, timeout=60))
        await stolen.wait()
        connecting.cancel()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.bind(("127.0.0.1", 0))
            thief.setblocking(False)
            loop = asyncio.get_running_loop()
            thief.sendto(firsts[1], server.local_address)
            thief.sendto(firsts[0], server.local_address)  # without a token: this one is answered
            answer = await loop.sock_recv(thief, 2000)
    assert answer[0] & 0xF0 == 0xF0


async def test_too_many_half_open_connections_are_ignored() -> None:
    async with endpoints(TransportOptions(half_open_limit=0)) as (client, server):
        with pytest.raises(Unreachable, match="did not answer"):
            await client.connect(server.local_address, CLIENT, timeout=0.3)


async def test_a_handshake_that_stops_halfway_is_forgotten() -> None:
    """The only place for a half-open connection is taken by one that stays so; it becomes free again."""
    async with endpoints(TransportOptions(handshake_timeout=1.0, half_open_limit=1)) as (client, server):
        sent: list[bytes] = []

        def first_only(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            if outgoing:
                sent.append(data)
            return outgoing and len(sent) == 1

        client.packet_filter = first_only
        with pytest.raises(Unreachable):
            await client.connect(server.local_address, CLIENT, timeout=0.1)
        client.packet_filter = None
        assert (await client.connect(server.local_address, CLIENT, timeout=30)).close_reason is None


async def test_nobody_answers() -> None:
    async with endpoints() as (client, server):
        server.packet_filter = drop_all
        host, port = server.local_address
        with pytest.raises(Unreachable, match=f"{host}:{port} did not answer") as failure:
            await client.connect(server.local_address, CLIENT, timeout=0.2)
        assert failure.value.phase == "connecting"


@pytest.mark.skipif(sys.platform != "linux", reason="needs the error queue of Linux")
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
async def test_a_closed_port_is_noticed_at_once(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
    client = await bind_or_skip(host)
    with pytest.raises(Unreachable, match="refused") as failure:
        await client.connect(address, CLIENT, timeout=60)
    assert failure.value.errno == errno.ECONNREFUSED
    await client.close()


async def test_names_that_cannot_be_found() -> None:
    async with endpoints() as (client, _):
        with pytest.raises(Unreachable, match="cannot be found"):
            await client.connect(("name.invalid", 1), CLIENT, timeout=30)


async def test_a_port_in_use_cannot_be_bound() -> None:
    async with endpoints() as (_, server):
        with pytest.raises(ConnectionFailed, match="cannot be used") as failure:
            await Endpoint.bind(*server.local_address)
        assert failure.value.errno == errno.EADDRINUSE


async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    async with endpoints() as (client, server):
        first_flight = lose_everything(client)
        connecting = asyncio.ensure_future(client.connect(server.local_address, CLIENT, timeout=60))
        await first_flight.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert client.connections == 0


async def bind_or_skip(host: str, **arguments: Any) -> Endpoint:
    try:
        return await Endpoint.bind(host, 0, **arguments)
    except ConnectionFailed:
        pytest.skip(f"this machine has no {host}")


async def test_one_socket_serves_both_families() -> None:
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    server = await bind_or_skip("::", server=SERVER, on_connection=accepted.put_nowait)
    port = server.local_address[1]
    assert ("127.0.0.1", port) in server.local_addresses
    assert all(address[1] == port and address[0] != "::" for address in server.local_addresses)
    for host in ("127.0.0.1", "::1"):
        client = await Endpoint.bind(host, 0)
        connection = await client.connect((host, port), CLIENT, timeout=30)
        assert (await accepted.get()).peer_address == client.local_address
        assert connection.peer_address == (host, port)
        await client.close()
    client = await Endpoint.bind("::", 0)
    connection = await client.connect(("127.0.0.1", port), CLIENT, timeout=30)
    assert connection.peer_address == ("127.0.0.1", port)
    await client.close()
    await server.close()


@on_linux
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_whoever_listens_everywhere_answers_from_where_it_was_called(host: str, native: bool) -> None:
    if native and why_not_native():
        pytest.skip(why_not_native() or "")
    options = TransportOptions(native=native, retry_above=0)
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    server = await bind_or_skip(host, options=options, server=SERVER, on_connection=accepted.put_nowait)
    called = ("127.0.0.2", server.local_address[1])  # the system would choose another one for its answers
    client = await Endpoint.bind("127.0.0.1", 0, options)
    connection = await client.connect(called, CLIENT, timeout=30)
    streams = Streams(await accepted.get())
    for address in ("127.0.0.1", "127.0.0.3"):
        if client.local_address[0] != address:
            await client.rebind(address)
        stream = connection.open_stream(unidirectional=True)
        stream.write(bytes(512 * KIB), fin=True)
        assert await (await streams.next()).read_all() == bytes(512 * KIB)
        await stream.drain(0)
    await client.close()
    await server.close()


@on_linux
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_strangers_too_are_answered_from_where_they_called(host: str) -> None:
    server = await bind_or_skip(host, server=SERVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind(("127.0.0.1", 0))
        stranger.connect(("127.0.0.2", server.local_address[1]))  # takes nothing from elsewhere
        for packet in (b"\xc0\x1a\x2a\x3a\x4a\x08of a new version", b"\x40of a connection that is over"):
            stranger.send(packet.ljust(1200, b"\0"))
            assert await asyncio.get_running_loop().sock_recv(stranger, 2000)
    await server.close()


# Strangers and bad networks.


async def test_packets_that_belong_to_nobody_are_ignored() -> None:
    chance = random.Random(1)
    async with pair() as both:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for first in (0x00, 0x40, 0x7F, 0x80, 0xC0, 0xC3, 0xE0, 0xFF):
                for size in (0, 1, 6, 7, 20, 1199, 1200, 1452):
                    noise = bytes([first]) + chance.randbytes(size)
                    stranger.sendto(noise[:size], both.server_endpoint.local_address)
                    initial = bytes([first]) + b"\0\0\0\1\x08" + chance.randbytes(8) + b"\x08" + chance.randbytes(1300)
                    stranger.sendto(initial[: max(size, 7)], both.server_endpoint.local_address)
        streams = Streams(both.server)
        both.client.open_stream(unidirectional=True).write(b"all is well", fin=True)
        assert await (await streams.next()).read_all() == b"all is well"


async def test_an_unknown_version_is_answered_with_ours() -> None:
    loop = asyncio.get_running_loop()
    async with endpoints() as (_, server):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.setblocking(False)
            for name, size in ((b"too small", 1199), (b"in answer", 1200)):
                packet = b"\xc0\x1a\x2a\x3a\x4a" + bytes([9]) + name + b"\x06client"
                stranger.sendto(packet.ljust(size, b"\0"), server.local_address)
            answer = await loop.sock_recv(stranger, 2000)
    assert answer[1:] == b"\0\0\0\0" + b"\x06client" + b"\x09in answer" + b"\0\0\0\1"


@pytest.mark.parametrize("fault", ["loss", "order", "twice"])
async def test_a_bad_network_is_mended(fault: str) -> None:
    chance = random.Random(2)
    data = chance.randbytes(512 * KIB)
    held: list[tuple[bytes, tuple[str, int]]] = []
    async with pair() as both:

        def disturb(packet: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            if not outgoing or chance.random() > 0.05:
                return True
            if fault == "twice":
                held.append((packet, peer))
            elif fault == "order" and not held:
                held.append((packet, peer))
                return False
            elif held:
                both.client_endpoint.packet_filter = None
                both.client_endpoint.send([held.pop()])
                both.client_endpoint.packet_filter = disturb
            return fault != "loss"

        both.client_endpoint.packet_filter = disturb
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(data, fin=True)
        assert await (await streams.next()).read_all() == data


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EIO, errno.EINVAL, errno.ECONNREFUSED])
async def test_a_socket_that_refuses_at_times_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """EAGAIN: it is full. EIO, EINVAL: it cannot send trains of datagrams. ECONNREFUSED: an old report, for another."""

    class RefusingAtTimes:
        """The endpoint's socket, every third write to which fails."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock
            self._attempts = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def sendto(self, data: bytes, address: Any) -> int:
            self._refuse_at_times()
            return self._sock.sendto(data, address)

        def sendmsg(self, *arguments: Any) -> int:
            self._refuse_at_times()
            return self._sock.sendmsg(*arguments)

        def _refuse_at_times(self) -> None:
            self._attempts += 1
            if self._attempts % 3 == 0:
                raise OSError(error, "not now")

    data = random.Random(3).randbytes(512 * KIB)
    async with pair() as both:
        monkeypatch.setattr(both.client_endpoint, "_sock", RefusingAtTimes(both.client_endpoint._sock))
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(data, fin=True)
        assert await (await streams.next()).read_all() == data
