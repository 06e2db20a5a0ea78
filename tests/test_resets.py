"""Stateless resets: who may send them, what they look like, how many there are, and what they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from quic_pair import CLIENT, KIB, SERVER, Pair, Streams, engine_of, identity, pair
from spaceblock.errors import ConnectionLost
from spaceblock.quic import CloseReason, Connection, ConnectionEnded, HandshakeConfig, TransportOptions
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.resets import RATE, SIZE_MIN, TOKEN_SIZE, StatelessResets, reset_key
from spaceblock.transfers.transfer import error_of_close

CID = b"8 bytes."
ADDRESS = ("127.0.0.1", 4433)
PATIENCE = 60.0


def short(size: int, cid: bytes = CID) -> bytes:
    """A packet with a short header that nobody can open."""
    return (b"\x41" + cid + os.urandom(2_000))[:size]


def resets() -> StatelessResets[str]:
    return StatelessResets(bytes(32))


# ---- What is sent ----


def test_a_reset_ends_with_the_token_and_looks_like_any_other_packet() -> None:
    sender = resets()
    seen = set()
    for _ in range(50):
        answer = sender.answer(short(1_200), 0.0)
        assert answer is not None
        assert answer[0] & 0xC0 == 0x40
        assert answer[-TOKEN_SIZE:] == sender.token(CID)
        seen.add(answer[:-TOKEN_SIZE])
    assert len(seen) == 50


@pytest.mark.parametrize("size", range(SIZE_MIN + 1, 100))
def test_a_reset_is_smaller_than_what_it_answers(size: int) -> None:
    answer = resets().answer(short(size), 0.0)
    assert answer is not None
    assert SIZE_MIN <= len(answer) < size
    assert len(answer) == size - 1 or size > 43


def test_two_endpoints_that_forgot_do_not_answer_each_other_for_ever() -> None:
    sides = resets(), StatelessResets[str](b"x" * 32)
    datagram: bytes | None = short(1_452)
    count = 0
    while datagram is not None:
        datagram = sides[count % 2].answer(datagram, 0.0)
        count += 1
    assert count <= 60


def test_nothing_to_answer() -> None:
    for datagram in (short(SIZE_MIN), short(5), b"\x41", b"\x00" + bytes(100), b"\xc1" + bytes(100)):
        assert resets().answer(datagram, 0.0) is None


def test_there_are_only_so_many_a_second() -> None:
    sender = resets()
    assert sum(sender.answer(short(100), 7.0) is not None for _ in range(5 * RATE)) == RATE
    assert sender.answer(short(100), 7.0) is None
    assert sum(sender.answer(short(100), 7.5) is not None for _ in range(5 * RATE)) == RATE // 2


def test_the_key_outlives_the_process_but_not_the_place() -> None:
    key = reset_key(SERVER, ADDRESS)
    assert key == reset_key(HandshakeConfig(None, SERVER.private_key), ADDRESS)
    others = [reset_key(SERVER, ("127.0.0.1", 4434)), reset_key(SERVER, ("127.0.0.2", 4433))]
    others += [reset_key(CLIENT, ADDRESS), reset_key(None, ADDRESS), reset_key(None, ADDRESS)]
    assert len({key, *others}) == 6
    assert {len(each) for each in others} == {32}


# ---- What is recognised ----


def test_only_tokens_in_use_are_recognised() -> None:
    mine = resets()
    tokens = [os.urandom(TOKEN_SIZE) for _ in range(3)]
    datagrams = [short(40) + token for token in tokens]
    assert [mine.connection_of(datagram) for datagram in datagrams] == [None, None, None]
    mine.watch("one", (tokens[0], tokens[1]))
    mine.watch("two", (tokens[1], b""))
    assert [mine.connection_of(datagram) for datagram in datagrams] == ["one", "one", None]
    mine.watch("one", (tokens[2], tokens[2]))
    assert [mine.connection_of(datagram) for datagram in datagrams] == [None, None, "one"]
    assert mine.connection_of(tokens[2]) is None
    assert mine.connection_of(bytes([0x40]) * (SIZE_MIN - TOKEN_SIZE) + tokens[2]) == "one"
    mine.watch("one", ())
    mine.watch("one", ())
    assert [mine.connection_of(datagram) for datagram in datagrams] == [None, None, None]


@pytest.fixture(params=[True, False], ids=["native", "aioquic"])
def options(request: pytest.FixtureRequest) -> TransportOptions:
    return TransportOptions(native=request.param)


async def talk(both: Pair) -> None:
    """Let both sides use what the handshake left behind."""
    streams = Streams(both.server)
    stream = both.client.open_stream(unidirectional=True)
    stream.write(bytes(KIB), fin=True)
    assert len(await (await streams.next()).read_all()) == KIB
    await stream.drain(0)


async def test_a_server_that_was_started_again(options: TransportOptions) -> None:
    async with pair(options) as both:
        await talk(both)
        port = both.server_endpoint.local_address[1]
        both.server_endpoint._close_now()
        async with bound(port, options):
            stream = both.client.open_stream(unidirectional=True)
            stream.write(bytes(KIB))
            reason = await asyncio.wait_for(both.client.wait_closed(), PATIENCE)
            assert reason == CloseReason(0, by_peer=True, is_application=False, was_reset=True)
            with pytest.raises(ConnectionEnded, match="does not know the connection any more"):
                await stream.drain(0)
            error = error_of_close(reason)
            assert isinstance(error, ConnectionLost)
            assert "restart" in str(error)


async def test_a_server_with_another_key_ends_nothing(options: TransportOptions) -> None:
    async with pair(options) as both:
        await talk(both)
        port = both.server_endpoint.local_address[1]
        both.server_endpoint._close_now()
        async with bound(port, options, identity("another")) as server:
            answered = asyncio.Event()

            def watch(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
                if outgoing:
                    answered.set()
                return True

            server.packet_filter = watch
            heard = asyncio.Event()

            def hear(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
                if not outgoing:
                    heard.set()
                return True

            both.client_endpoint.packet_filter = hear
            both.client.keep_alive()
            await asyncio.wait_for(answered.wait(), PATIENCE)
            await asyncio.wait_for(heard.wait(), PATIENCE)
            assert both.client.close_reason is None


async def test_a_reset_from_elsewhere_ends_nothing(options: TransportOptions) -> None:
    async with pair(options) as both:
        await talk(both)
        token = engine_of(both.client).reset_tokens[0]
        with stranger() as sock:
            for _ in range(3):
                sock.sendto(short(50) + token, both.client_endpoint.local_address)
        await talk(both)
        assert both.client.close_reason is None
        # The same from where the server is.
        both.server_endpoint.send([(short(50) + token, both.client_endpoint.local_address)])
        assert (await asyncio.wait_for(both.client.wait_closed(), PATIENCE)).was_reset


async def test_after_a_reset_nothing_is_sent(options: TransportOptions) -> None:
    async with pair(options) as both:
        await talk(both)
        token = engine_of(both.client).reset_tokens[0]
        sent: list[bytes] = []

        def watch(data: bytes, peer: tuple[str, int], outgoing: bool) -> bool:
            if outgoing and both.client.close_reason is not None:
                sent.append(data)
            return True

        both.client_endpoint.packet_filter = watch
        both.server_endpoint.send([(short(50) + token, both.client_endpoint.local_address)])
        await both.client.wait_closed()
        both.client.close(5, "too late")
        both.server.keep_alive()
        await both.client_endpoint.close()
        assert sent == []


async def test_strangers_get_resets_and_no_more(options: TransportOptions) -> None:
    async with pair(options) as both:
        with stranger() as sock:
            loop = asyncio.get_running_loop()
            sock.sendto(short(1_200), both.server_endpoint.local_address)
            answer = await asyncio.wait_for(loop.sock_recv(sock, 65_535), PATIENCE)
            assert SIZE_MIN <= len(answer) < 100
            sock.sendto(short(SIZE_MIN), both.server_endpoint.local_address)
            sock.sendto(short(500, b"another."), both.server_endpoint.local_address)
            other = await asyncio.wait_for(loop.sock_recv(sock, 65_535), PATIENCE)
            assert answer[-TOKEN_SIZE:] != other[-TOKEN_SIZE:]
        await talk(both)


@contextlib.asynccontextmanager
async def bound(port: int, options: TransportOptions, server: HandshakeConfig = SERVER) -> AsyncIterator[Endpoint]:
    accepted: list[Connection] = []
    endpoint = await Endpoint.bind("127.0.0.1", port, options, server=server, on_connection=accepted.append)
    try:
        yield endpoint
    finally:
        await endpoint.close()


@contextlib.contextmanager
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        yield sock
