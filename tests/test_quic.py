"""Handshakes and streams: who is who, what moves, what stalls, and what is told to whom."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived
from cryptography import x509

from quic_pair import CLIENT, KIB, MIB, SERVER, Reader, Streams, endpoints, identity, pair
from spaceblock.errors import LocalProtocolError, VersionMismatch, WrongPeer
from spaceblock.quic import Connection, ConnectionEnded, HandshakeConfig, Stream, StreamStopped, TransportOptions
from spaceblock.quic import endpoint as endpoint_module
from spaceblock.quic.handshake.engine import Engine, client_engine, server_engine
from spaceblock.quic.handshake.private_names import OLD_SERIES

SMALL = TransportOptions(
    stream_window=16 * KIB, control_window=16 * KIB, connection_reserve=16 * KIB, max_streams_uni=2, max_streams_bidi=2
)


def payload(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# Handshakes.


async def test_each_side_sees_the_other_s_certificate() -> None:
    async with pair() as both:
        assert both.client.peer_certificate == SERVER.certificate
        assert both.server.peer_certificate == CLIENT.certificate
        assert both.client.is_client
        assert not both.server.is_client
        assert both.client.peer_address == both.server.local_address == both.server_endpoint.local_address
        assert both.server.peer_address == both.client_endpoint.local_address
        assert both.client.smoothed_rtt > 0


async def test_a_client_may_show_no_certificate() -> None:
    async with pair(client=HandshakeConfig()) as both:
        assert both.server.peer_certificate is None
        assert both.client.peer_certificate == SERVER.certificate


async def test_a_server_with_the_wrong_key_never_sees_the_client_s_certificate() -> None:
    shown: list[x509.Certificate] = []
    accepted: list[Connection] = []

    def refuse(certificate: x509.Certificate) -> None:
        raise WrongPeer("The key is not the one of the ticket; ask for a new ticket.")

    async with endpoints(server=identity("impostor", shown.append), on_connection=accepted.append) as (client, server):
        assert CLIENT.certificate is not None
        handshake = HandshakeConfig(CLIENT.certificate, CLIENT.private_key, refuse)
        with pytest.raises(WrongPeer, match="not the one of the ticket"):
            await client.connect(server.local_address, handshake, timeout=30)
    assert shown == []
    assert accepted == []


async def test_a_server_may_refuse_a_certificate_in_the_handshake() -> None:
    def refuse(certificate: x509.Certificate) -> None:
        raise WrongPeer("Nobody is welcome; go away.")

    accepted: list[Connection] = []
    async with endpoints(server=identity("server", refuse), on_connection=accepted.append) as (client, server):
        connection = await client.connect(server.local_address, CLIENT, timeout=30)
        reason = await connection.wait_closed()
    assert reason.by_peer
    assert not reason.is_application
    assert accepted == []


@pytest.mark.parametrize(
    ("setting", "value"), [("alpn_protocols", ["other/1"]), ("supported_versions", [0x6B3343CF])], ids=["alpn", "quic"]
)
async def test_sides_without_a_common_protocol_part(monkeypatch: pytest.MonkeyPatch, setting: str, value: Any) -> None:
    def foreign_engine(handshake: HandshakeConfig, options: TransportOptions, token_of: Any) -> Engine:
        engine = client_engine(handshake, options, token_of)
        setattr(engine.configuration, setting, value)
        return engine

    monkeypatch.setattr(endpoint_module, "client_engine", foreign_engine)
    async with endpoints() as (client, server):
        with pytest.raises(VersionMismatch, match="no protocol in common"):
            await client.connect(server.local_address, CLIENT, timeout=30)


def test_a_server_needs_a_certificate() -> None:
    with pytest.raises(LocalProtocolError, match="certificate"):
        server_engine(HandshakeConfig(), TransportOptions(), b"original", None)


@pytest.mark.parametrize("size", [1199, 65_508])
def test_datagrams_have_bounds(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=str(size)):
        TransportOptions(datagram_size=size)


def test_stock_aioquic_is_understood() -> None:
    """In memory: an unmodified client sends more than our window to our engine, which grants credit as it consumes."""
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["spaceblock/2"], verify_mode=0))
    engine = server_engine(SERVER, SMALL, client.original_destination_connection_id, None)
    data = payload(100 * KIB)
    client.connect(("server", 1), 0.0)
    received = bytearray()
    sent = False
    for step in range(200):
        now = step * 0.01
        for datagram, _ in client.datagrams_to_send(now):
            engine.receive_datagram(datagram, ("client", 2), now)
        while (event := engine.next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                received += event.data
                engine.grant_stream(event.stream_id, len(received))
                engine.grant_connection(len(event.data))
        for datagram, _ in engine.datagrams_to_send(now):
            client.receive_datagram(datagram, ("server", 1), now)
        while (event := client.next_event()) is not None:
            assert not isinstance(event, ConnectionTerminated)
            if isinstance(event, HandshakeCompleted) and not sent:
                sent = True
                client.send_stream_data(client.get_next_available_stream_id(is_unidirectional=True), data, True)
    assert bytes(received) == data


# Streams.


@pytest.mark.parametrize("datagram_size", [1200, 1452, 65_507])
async def test_streams_of_both_kinds_carry_bytes_both_ways(datagram_size: int) -> None:
    data = payload(5 * MIB)
    async with pair(TransportOptions(datagram_size=datagram_size)) as both:
        at_server, at_client = Streams(both.server), Streams(both.client)

        upload = both.client.open_stream(unidirectional=True)
        assert (upload.is_local, upload.is_unidirectional) == (True, True)
        upload.write(data[: 2 * MIB])
        upload.write(memoryview(data)[2 * MIB :], fin=True)
        received = await at_server.next()
        assert (received.stream.is_local, received.stream.is_unidirectional) == (False, True)
        assert received.stream.stream_id == upload.stream_id
        assert await received.read_all() == data

        question = both.server.open_stream(unidirectional=False)
        answer = Reader(question)
        question.write(b"what?", fin=True)
        asked = await at_client.next()
        assert await asked.read_all() == b"what?"
        asked.stream.write(data[:MIB], fin=True)
        assert await answer.read_all() == data[:MIB]

        await asked.stream.drain(0)
        await upload.drain(0)
        assert upload.finished
        assert received.stream.finished
        assert asked.stream.finished
        assert question.finished


async def test_what_arrives_before_its_handler_is_kept() -> None:
    async with pair() as both:
        stream = both.client.open_stream(unidirectional=True)
        stream.write(b"early ")
        stream.write(b"bird", fin=True)
        await stream.drain(0)
        streams: list[Stream] = []
        arrived = asyncio.Event()

        def keep(stream: Stream) -> None:
            streams.append(stream)
            arrived.set()

        both.server.set_stream_handler(keep)
        await arrived.wait()
        assert await Reader(streams[0]).read_all() == b"early bird"


async def test_a_stalled_reader_blocks_its_own_stream_and_nothing_else() -> None:
    data = payload(100 * KIB)
    async with pair(SMALL) as both:
        streams = Streams(both.server, consume=False)
        stalled = both.client.open_stream(unidirectional=True)
        stalled.write(data, fin=True)
        reader = await streams.next()
        await reader.until(lambda reader: len(reader.data) == SMALL.stream_window)

        streams = Streams(both.server)
        other = both.client.open_stream(unidirectional=True)
        other.write(data, fin=True)
        assert await (await streams.next()).read_all() == data
        control = both.client.open_stream(unidirectional=False)
        control.write(data, fin=True)
        assert await (await streams.next()).read_all() == data

        assert len(reader.data) == SMALL.stream_window
        assert stalled.backlog == len(data) - SMALL.stream_window + 1  # the end of the stream counts too
        async for count in reader.portions():
            assert count <= SMALL.stream_window
        assert bytes(reader.data) == data


async def test_streams_beyond_the_peer_s_limit_wait() -> None:
    async with pair(SMALL) as both:
        streams = Streams(both.server)
        opened = [both.client.open_stream(unidirectional=True) for _ in range(10)]
        for number, stream in enumerate(opened[2:]):
            stream.write(bytes([number]), fin=True)
        assert streams.seen == []  # the first two take all the places and are silent
        for stream in opened[:2]:
            stream.write(b"", fin=True)
        for stream in opened:
            await stream.drain(0)
        assert sorted(bytes(reader.data) for reader in streams.seen) == sorted(
            [b"", b"", *(bytes([number]) for number in range(8))]
        )


async def test_an_ended_stream_keeps_its_place_until_it_is_consumed() -> None:
    async with pair(SMALL) as both:
        streams = Streams(both.server, consume=False)
        opened = [both.client.open_stream(unidirectional=True) for _ in range(3)]
        for stream in opened:
            stream.write(bytes(SMALL.stream_window), fin=True)
        first, second = await streams.next(), await streams.next()
        await first.read_all()
        await second.read_all()
        control = both.client.open_stream(unidirectional=False)  # a round trip in which the third could have come
        control.write(b"?", fin=True)
        assert (await streams.next()).stream.stream_id == control.stream_id
        assert opened[2].backlog > SMALL.stream_window
        first.stream.consume(SMALL.stream_window)
        assert len(await (await streams.next()).read_all()) == SMALL.stream_window


@pytest.mark.skipif(OLD_SERIES, reason="aioquic 1.3 does not tell of a stream that was reset before its first byte")
async def test_a_waiting_stream_can_be_given_up() -> None:
    async with pair(SMALL) as both:
        streams = Streams(both.server)
        first = [both.client.open_stream(unidirectional=False) for _ in range(2)]
        waiting = both.client.open_stream(unidirectional=False)
        last = both.client.open_stream(unidirectional=False)
        waiting.write(b"never mind")
        waiting.reset(7)
        waiting.stop(8)
        last.write(b"last", fin=True)
        for stream in first:
            stream.write(b"", fin=True)
        for _ in first:
            (await streams.next()).stream.write(b"", fin=True)
        while bytes((reader := await streams.next()).data) != b"last":
            await reader.until(lambda reader: reader.reset_code == 7 and reader.stop_code == 8)
        assert both.client.close_reason is None


@pytest.mark.parametrize("end", ["end", "reset"])
async def test_streams_that_nobody_took_are_bounded(end: str) -> None:
    async with pair(SMALL) as both:
        opened = [both.client.open_stream(unidirectional=True) for _ in range(10)]
        for stream in opened:
            stream.write(b"?", fin=end == "end")
            if end == "reset":
                stream.reset(1)
        answers = Streams(both.client)

        async def round_trip() -> int:
            control = both.server.open_stream(unidirectional=False)
            control.write(b"?", fin=True)
            (await answers.next()).stream.write(b"!", fin=True)
            await Reader(control).read_all()
            return [stream.finished for stream in opened].count(True)

        while await round_trip() < SMALL.max_streams_uni:
            pass
        for _ in range(5):
            assert await round_trip() == SMALL.max_streams_uni

        streams = Streams(both.server)
        for _ in opened:
            reader = await streams.next()
            await reader.until(lambda reader: reader.fin or reader.reset_code == 1)
        assert len(streams.seen) == len(opened)


# Ends of streams.


async def test_a_reset_is_reported() -> None:
    async with pair() as both:
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(b"some")
        reader = await streams.next()
        await reader.until(lambda reader: reader.data == b"some")
        stream.write(bytes(MIB))
        waiting = asyncio.ensure_future(stream.drain(0))
        await asyncio.sleep(0)
        stream.reset(0x21)
        stream.reset(0x22)
        await reader.until(lambda reader: reader.reset_code is not None)
        assert reader.reset_code == 0x21
        with pytest.raises(StreamStopped) as stopped:
            await waiting
        assert (stopped.value.error_code, stopped.value.remote) == (0x21, False)
        assert stream.backlog == 0
        with pytest.raises(LocalProtocolError):
            stream.write(b"more")
        reader.stream.consume(1)  # harmless: the reset credited everything


async def test_a_stop_is_reported_and_resets() -> None:
    async with pair() as both:
        streams = Streams(both.server, consume=False)
        stream = both.client.open_stream(unidirectional=False)
        writer = Reader(stream)
        stream.write(bytes(5 * MIB))
        reader = await streams.next()
        await reader.until(lambda reader: len(reader.data) > 0)
        seen = len(reader.data)
        reader.stream.stop(0x30)
        reader.stream.stop(0x31)
        await writer.until(lambda writer: writer.stop_code is not None)
        assert writer.stop_code == 0x30
        with pytest.raises(StreamStopped) as stopped:
            await stream.drain(0)
        assert (stopped.value.error_code, stopped.value.remote) == (0x30, True)
        stream.write(b"dropped silently: the writer may not know yet")

        reader.stream.write(b"the other direction lives", fin=True)
        assert await writer.read_all() == b"the other direction lives"
        assert len(reader.data) == seen
        assert reader.reset_code is None


@pytest.mark.parametrize("end", ["stop", "reset", "stop after the end"])
async def test_credit_of_streams_that_nobody_reads_comes_back(end: str) -> None:
    """Many times the connection's window passes in streams that are given up; then a whole stream still fits."""
    async with pair(SMALL) as both:
        streams = Streams(both.server, consume=False)
        for _ in range(3 * SMALL.connection_window // SMALL.stream_window):
            stream = both.client.open_stream(unidirectional=True)
            if end == "stop after the end":
                stream.write(bytes(SMALL.stream_window), fin=True)
                reader = await streams.next()
                await reader.read_all()
                reader.stream.stop(1)
                continue
            stream.write(bytes(2 * SMALL.stream_window))
            reader = await streams.next()
            if end == "stop":
                reader.stream.stop(1)
                with pytest.raises(StreamStopped):
                    await stream.drain(0)
            else:
                stream.reset(1)
                await reader.until(lambda reader: reader.reset_code == 1)
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(bytes(2 * SMALL.connection_window), fin=True)
        assert len(await (await streams.next()).read_all()) == 2 * SMALL.connection_window


async def test_what_is_over_can_be_ended_again() -> None:
    async with pair() as both:
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(b"all", fin=True)
        reader = await streams.next()
        await reader.read_all()
        await stream.drain(0)
        for ended in (stream, reader.stream):
            ended.reset(1)
            ended.stop(1)
            assert ended.finished
            assert ended.backlog == 0
        with pytest.raises(LocalProtocolError):
            stream.write(b"more")
        with pytest.raises(LocalProtocolError):
            reader.stream.write(b"the wrong way")
        await stream.drain(0)
        assert both.client.close_reason is None


async def test_only_delivered_bytes_can_be_consumed() -> None:
    async with pair() as both:
        streams = Streams(both.server, consume=False)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(b"four")
        reader = await streams.next()
        await reader.until(lambda reader: reader.data == b"four")
        with pytest.raises(LocalProtocolError, match="only 4 bytes"):
            reader.stream.consume(5)
        reader.stream.consume(4)


async def test_draining_waits_for_acknowledgements_and_no_longer() -> None:
    async with pair(SMALL) as both:
        streams = Streams(both.server, consume=False)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(bytes(20 * KIB))
        assert stream.backlog == 20 * KIB
        await stream.drain(4 * KIB)  # all but what the window does not take
        assert stream.backlog == 4 * KIB
        waiting = asyncio.ensure_future(stream.drain(0))
        reader = await streams.next()
        await reader.until(lambda reader: len(reader.data) == 16 * KIB)
        assert not waiting.done()
        reader.stream.consume(16 * KIB)
        await waiting
        assert stream.backlog == 0

        stream.write(bytes(20 * KIB))
        waiting = asyncio.ensure_future(stream.drain(0))
        await asyncio.sleep(0)
        both.server.close(9, "enough")
        with pytest.raises(ConnectionEnded, match="enough") as ended:
            await waiting
        assert ended.value.reason.code == 9
        assert ended.value.remote
        stream.write(b"dropped silently")
        with pytest.raises(ConnectionEnded):
            both.client.open_stream(unidirectional=True)


async def test_a_cancelled_drain_leaves_the_stream_usable() -> None:
    async with pair(SMALL) as both:
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(bytes(64 * KIB))
        waiting = asyncio.ensure_future(stream.drain(0))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        stream.write(b"", fin=True)
        await stream.drain(0)
        assert len((await streams.next()).data) == 64 * KIB


async def test_a_datagram_that_trips_the_engine_ends_its_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))

    def stumble(engine: Engine, *arguments: Any) -> None:
        raise IndexError("a bug")

    monkeypatch.setattr(Engine, "_handle_stop_sending_frame", stumble)
    async with pair() as both:
        streams = Streams(both.server)
        other = await both.client_endpoint.connect(both.server_endpoint.local_address, CLIENT, timeout=30)
        both.client.open_stream(unidirectional=True).write(b"?")
        (await streams.next()).stream.stop(1)
        reason = await both.server.wait_closed()
        assert (reason.code, reason.by_peer, reason.is_application) == (1, True, False)
        assert other.close_reason is None
    assert [str(failure["exception"]) for failure in failures] == ["a bug"]


async def test_a_handler_that_fails_ends_its_connection_only() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))

    def fail(stream: Stream) -> None:
        raise RuntimeError("a bug")

    async with pair() as both:
        both.server.set_stream_handler(fail)
        other = await both.client_endpoint.connect(both.server_endpoint.local_address, CLIENT, timeout=30)
        both.client.open_stream(unidirectional=True).write(b"?")
        reason = await both.client.wait_closed()
        assert (reason.code, reason.by_peer) == (1, True)
        assert other.close_reason is None
    assert [str(failure["exception"]) for failure in failures] == ["a bug"]
