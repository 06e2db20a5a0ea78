"""What happens on connections while their event loop is kept busy by something else: a thread stands in for it."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from typing import Any

import pytest

from engines import why_not_native
from framing import block
from quic_pair import CLIENT, KIB, MIB, Pair, Streams, engine_of, pair
from spaceblock import core
from spaceblock.errors import ErrorCode
from spaceblock.quic import Stream, StreamStopped, TransportOptions
from spaceblock.quic.connection import AioquicConnection
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.handshake.engine import Engine

pytestmark = pytest.mark.skipif(bool(why_not_native()), reason=why_not_native() or "")

PATIENCE = 60.0
DATA = bytes(range(256)) * 1_024
"""More than a first flight and no more than a window; and less than any receive buffer holds, so that nothing is lost:
what is lost at the end of a flight takes the event loop's timer."""


async def handed_over(both: Pair) -> None:
    """Both sides' connections have their native engines."""
    deadline = time.monotonic() + PATIENCE
    while any(isinstance(engine_of(each), Engine) for each in (both.client, both.server)):
        assert time.monotonic() < deadline, "still in the handshake"
        await asyncio.sleep(0.001)


def block_until_acknowledged(stream: Stream) -> None:
    """Never give the event loop its turn."""
    deadline = time.monotonic() + PATIENCE
    while stream.backlog:
        assert time.monotonic() < deadline, "nobody acknowledges"
        time.sleep(0.001)


def be_busy(seconds: float) -> None:
    time.sleep(seconds)


async def test_data_moves_and_is_acknowledged_while_the_event_loop_does_nothing() -> None:
    async with pair(TransportOptions(native=True)) as both:
        await handed_over(both)
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(DATA, fin=True)
        await asyncio.sleep(0)  # so that it is sent
        block_until_acknowledged(stream)
        assert not streams.seen
        reader = await streams.next()
        assert await reader.read_all() == DATA


async def test_what_was_taken_meanwhile_is_credited_once_where_its_stream_is_stopped() -> None:
    async with pair(TransportOptions(native=True)) as both:
        await handed_over(both)
        reached: list[Stream] = []
        both.server.set_stream_handler(reached.append)
        data = block(core, 0, 0, DATA)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(data[:1])
        await stream.drain(0)
        intake = core.Deframer(1 << 16, 1 << 24)
        intake.provide(bytearray(len(DATA)))
        reached[0].set_intake(intake, on_taken=lambda fin: None, on_reset=lambda code: None)
        await asyncio.sleep(0)
        stream.write(data[1:])
        await asyncio.sleep(0)
        block_until_acknowledged(stream)
        reached[0].stop(7)
        with pytest.raises(StreamStopped):
            await stream.drain(-1)
        deadline = time.monotonic() + PATIENCE
        while not reached[0].finished:
            assert time.monotonic() < deadline, "the reset does not arrive"
            await asyncio.sleep(0.001)
        engine = engine_of(both.server)
        assert not isinstance(engine, Engine)
        credit = engine.packets.credit
        assert (credit.received, credit.consumed) == (len(data), len(data))


async def test_what_was_acknowledged_meanwhile_is_let_go_of_where_its_stream_is_looked_at_before() -> None:
    async with pair(TransportOptions(native=True)) as both:
        await handed_over(both)
        Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        released: list[bool] = []
        stream.write(DATA, True, lambda: released.append(True))
        await asyncio.sleep(0)
        block_until_acknowledged(stream)
        both.client.keep_alive()  # so that the connection has its turn before what the thread did is collected
        await asyncio.sleep(0)
        assert stream.finished
        assert released == [True]


async def test_without_a_thread_nothing_moves_meanwhile() -> None:
    async with pair(TransportOptions(native=True, threaded=False)) as both:
        await handed_over(both)
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(DATA, fin=True)
        await asyncio.sleep(0)
        be_busy(0.05)
        assert stream.backlog
        assert await (await streams.next()).read_all() == DATA


async def test_what_is_written_behind_waiting_bytes_follows_them_without_a_turn_of_its_own() -> None:
    async with pair(TransportOptions(native=True, stream_window=16 * KIB)) as both:
        await handed_over(both)
        streams = Streams(both.server, consume=False)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(DATA[: 20 * KIB])
        await stream.drain(4 * KIB)  # all but what the window does not take
        turns: list[float] = []
        assert isinstance(both.client, AioquicConnection)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(both.client, "service", lambda: turns.append(time.monotonic()))
            stream.write(DATA[20 * KIB :], fin=True)
            await asyncio.sleep(0)
            assert not turns
            both.client.open_stream(unidirectional=True).write(b"with nothing before it")
            await asyncio.sleep(0)
            assert len(turns) == 1
        both.client.service()
        reader = await streams.next()
        async for _ in reader.portions():
            pass
        assert bytes(reader.data) == DATA


@pytest.mark.parametrize("missing", ["a thread", "a bell", "an alarm"])
@pytest.mark.usefixtures("nothing_stays_open")
async def test_where_no_thread_can_be_had_the_event_loop_moves_everything(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing == "a thread":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    else:
        monkeypatch.setattr(os, "eventfd", Scarce(2 if missing == "an alarm" else 1))
    async with pair(TransportOptions(native=True)) as both:
        streams = Streams(both.server)
        stream = both.client.open_stream(unidirectional=True)
        stream.write(DATA, fin=True)
        assert await (await streams.next()).read_all() == DATA
    assert caplog.text.count("no thread helps the event loop to move packets, which costs speed") == 2


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class Scarce:
    """``os.eventfd`` where every call whose number divides by ``every`` finds no descriptor."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._calls = 0
        self._honest = os.eventfd

    def __call__(self, value: int, flags: int) -> int:
        self._calls += 1
        if self._calls % self._every == 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._honest(value, flags)


async def test_a_loop_that_is_busy_again_and_again_gets_everything_in_order() -> None:
    async with pair(TransportOptions(native=True)) as both:
        await handed_over(both)
        there, here = Streams(both.server), Streams(both.client)
        pieces = [bytes([number]) * (MIB // 4) for number in range(16)]
        streams = [(both.client, both.client.open_stream(unidirectional=True)) for _ in range(4)]
        streams += [(both.server, both.server.open_stream(unidirectional=True)) for _ in range(4)]
        for _, stream in streams:
            for piece in pieces:
                stream.write(piece)
            stream.write(b"", fin=True)
        readers = [await there.next() for _ in range(4)] + [await here.next() for _ in range(4)]
        while not all(reader.fin for reader in readers):
            be_busy(0.004)
            await asyncio.sleep(0.001)
        assert all(reader.data == b"".join(pieces) for reader in readers)


class Short:
    """A pump that takes packets in as it should, and then has no memory to tell of them, once."""

    def __init__(self, pump: Any) -> None:
        self._pump = pump
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pump, name)

    def receive(self) -> Any:
        return self._fail_once(self._pump.receive())

    def collect(self) -> Any:
        return self._fail_once(self._pump.collect())

    def _fail_once(self, news: Any) -> Any:
        if news[0] and not self.failed:
            self.failed = True
            raise MemoryError
        return news


@pytest.mark.parametrize("threaded", [True, False])
async def test_where_packets_cannot_be_taken_in_both_sides_know_at_once(
    threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of waiting for what was acknowledged and is not there."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with pair(TransportOptions(native=True, threaded=threaded)) as both:
        await handed_over(both)
        monkeypatch.setattr(both.server_endpoint, "_pump", Short(both.server_endpoint._pump))
        both.client.open_stream(unidirectional=True).write(DATA, fin=True)
        for connection in (both.client, both.server):
            reason = await asyncio.wait_for(connection.wait_closed(), PATIENCE)
            assert (reason.code, reason.by_peer) == (ErrorCode.INTERNAL, connection is both.client)
            assert "memory" in reason.reason
        assert [type(context["exception"]) for context in complaints] == [MemoryError]
        another = await both.client_endpoint.connect(both.server_endpoint.local_address, CLIENT, timeout=PATIENCE)
        await another.open_stream(unidirectional=True).drain(0)


@pytest.mark.parametrize("part", ["take_news", "handle_timer", "datagrams_to_send"])
async def test_an_engine_that_fails_ends_its_connection_only(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))

    def fail(*arguments: Any) -> None:
        raise MemoryError("nothing left")

    async with pair(TransportOptions(native=True)) as both:
        streams = Streams(both.server)
        other = await both.client_endpoint.connect(both.server_endpoint.local_address, CLIENT, timeout=30)
        both.client.open_stream(unidirectional=True).write(b"?")
        await streams.next()
        await handed_over(both)
        monkeypatch.setattr(engine_of(both.server), part, fail)
        answer = both.server.open_stream(unidirectional=True)
        if part == "handle_timer":
            both.client_endpoint.packet_filter = lambda datagram, peer, outgoing: outgoing
        if part == "take_news":
            both.client.open_stream(unidirectional=True).write(b"?")
        else:
            answer.write(b"!")
        reason = await asyncio.wait_for(both.server.wait_closed(), PATIENCE)
        assert reason.reason == "dropped"
        assert other.close_reason is None
    assert [str(failure["exception"]) for failure in failures] == ["nothing left"]


async def test_its_thread_ends_with_the_endpoint() -> None:
    async with pair(TransportOptions(native=True)):
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("spaceblock-packets") == 2
    assert "spaceblock-packets" not in [thread.name for thread in threading.enumerate()]


async def test_only_a_few_endpoints_of_a_process_have_threads() -> None:
    from spaceblock.quic.native.pump_thread import THREADS_MAX

    options = TransportOptions(native=True)
    endpoints = [await Endpoint.bind("127.0.0.1", 0, options) for _ in range(THREADS_MAX + 2)]
    try:
        assert [thread.name for thread in threading.enumerate()].count("spaceblock-packets") == THREADS_MAX
        await endpoints.pop(0).close()
        endpoints.append(await Endpoint.bind("127.0.0.1", 0, options))
        assert [thread.name for thread in threading.enumerate()].count("spaceblock-packets") == THREADS_MAX
    finally:
        for endpoint in endpoints:
            await endpoint.close()
