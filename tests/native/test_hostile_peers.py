"""A peer with the right keys and no manners, over real sockets: it is sent away with the right code, what it makes this
side hold has a bound, and nobody else on the socket notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import mmap
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from forger import OPTIONS, PATIENCE, Close, Forger, forger
from link import varint

from quic_pair import CLIENT, KIB, MIB, Reader, Streams, endpoints
from spaceblock.quic import Connection
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.native.engine import RARE_FRAMES_AHEAD
from spaceblock.quic.native.engine_shell import NativeEngine
from spaceblock.quic.native.streams import GAPS_MAX

T = TypeVar("T")

TOP = 2**62 - 1
FLOOD = 4 * RARE_FRAMES_AHEAD
GROWTH_MAX = 64 * MIB
"""Bytes by which a flood may make the process grow, the interpreter's own habits included."""

NO_ERROR = 0x00
FLOW_CONTROL = 0x03
STREAM_LIMIT = 0x04
STREAM_STATE = 0x05
FINAL_SIZE = 0x06
FRAME_ENCODING = 0x07
CONNECTION_ID_LIMIT = 0x09
PROTOCOL_VIOLATION = 0x0A
KEY_UPDATE = 0x0E


@dataclass
class Table:
    """A server on the native engine with an honest client and a hostile one: ``here`` and ``theirs`` are the server's
    ends of the two connections."""

    endpoint: Endpoint
    honest: Connection
    there: Connection
    hostile: Forger
    theirs: Connection
    accepted: asyncio.Queue[Connection]

    @property
    def engine(self) -> NativeEngine:
        """What the server has of the hostile client."""
        engine = self.theirs._engine  # type: ignore[attr-defined]
        assert isinstance(engine, NativeEngine)
        return engine

    async def told(self) -> Close:
        """How the hostile client was sent away, which both ends agree upon."""
        close = await self.hostile.closed()
        assert (await soon(self.theirs.wait_closed())).code == close.code
        return close

    async def nobody_else_noticed(self) -> None:
        """The honest client's connection carries bytes both ways, and another client may come."""
        reader = Streams(self.there)
        self.honest.open_stream(unidirectional=True).write(CONTENT, fin=True)
        assert await soon((await soon(reader.next())).read_all()) == CONTENT
        there = Streams(self.honest)
        self.there.open_stream(unidirectional=True).write(CONTENT, fin=True)
        assert await soon((await soon(there.next())).read_all()) == CONTENT
        async with contextlib.AsyncExitStack() as stack:
            another = await Endpoint.bind("127.0.0.1", 0, OPTIONS)
            stack.push_async_callback(another.close)
            await another.connect(self.endpoint.local_address, CLIENT, timeout=PATIENCE)
            await soon(self.accepted.get())


CONTENT = bytes(range(256)) * 4 * KIB


@contextlib.asynccontextmanager
async def table() -> AsyncIterator[Table]:
    """A server that both clients have reached."""
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with endpoints(OPTIONS, on_connection=accepted.put_nowait) as (calling, serving):
        honest = await calling.connect(serving.local_address, CLIENT, timeout=PATIENCE)
        there = await soon(accepted.get())
        async with forger(serving.local_address) as hostile:
            yield Table(serving, honest, there, hostile, await soon(accepted.get()), accepted)


async def soon(what: Awaitable[T]) -> T:
    return await asyncio.wait_for(what, PATIENCE)


def stream(stream_id: int, offset: int, data: bytes, fin: bool = False) -> bytes:
    return bytes([0x0E | fin]) + varint(stream_id) + varint(offset) + varint(len(data)) + data


def new_id(sequence: int, retire: int = 0, size: int = 8) -> bytes:
    cid = sequence.to_bytes(size, "big")
    return b"\x18" + varint(sequence) + varint(retire) + bytes([size]) + cid + bytes(16)


# ---- One lie ----

WINDOW = OPTIONS.stream_window
BEYOND_STREAMS = 4 * OPTIONS.max_streams_uni + 2

LIES = [
    ("an acknowledgement of a packet far ahead", b"\x02" + varint(TOP) + b"\0\0\0", PROTOCOL_VIOLATION),
    ("an acknowledgement of the next packet", b"\x02" + varint(100_000) + b"\0\0\0", PROTOCOL_VIOLATION),
    ("an acknowledgement below packet 0", b"\x02\0\0\0\x01", FRAME_ENCODING),
    ("a gap below packet 0", b"\x02\x05\0\x01\0\x05\0", FRAME_ENCODING),
    ("more ranges than there are", b"\x02\x05\0" + varint(1_000) + b"\0", FRAME_ENCODING),
    ("data beyond a stream's credit", stream(2, WINDOW, b"x"), FLOW_CONTROL),
    ("data beyond any offset", stream(2, TOP, b"x"), FRAME_ENCODING),
    ("a reset beyond a stream's credit", b"\x04\x02\0" + varint(WINDOW + 1), FLOW_CONTROL),
    ("data behind a stream's end", stream(2, 5, b"", True) + stream(2, 5, b"x"), FINAL_SIZE),
    ("another end of a stream", stream(2, 5, b"", True) + stream(2, 6, b"", True), FINAL_SIZE),
    ("an end before what came", stream(2, 0, b"abc") + stream(2, 2, b"", True), FINAL_SIZE),
    ("a reset before what came", stream(2, 0, b"abc") + b"\x04\x02\0\x02", FINAL_SIZE),
    ("a stream beyond the limit", stream(BEYOND_STREAMS, 0, b"x"), STREAM_LIMIT),
    ("a reset of a stream beyond the limit", b"\x04" + varint(BEYOND_STREAMS) + b"\0\0", STREAM_LIMIT),
    ("a blocked stream beyond the limit", b"\x15" + varint(BEYOND_STREAMS) + b"\0", STREAM_LIMIT),
    ("credit for a stream beyond the limit", b"\x11" + varint(4 * OPTIONS.max_streams_bidi) + b"\0", STREAM_LIMIT),
    ("a stop of a stream beyond the limit", b"\x05" + varint(4 * OPTIONS.max_streams_bidi) + b"\0", STREAM_LIMIT),
    ("data on a stream of the other side", stream(3, 0, b"x"), STREAM_STATE),
    ("data on a stream that the other side did not open", stream(1, 0, b"x"), STREAM_STATE),
    ("credit for a stream that does not send", b"\x11\x02\x05", STREAM_STATE),
    ("a stop of a stream that does not send", b"\x05\x02\0", STREAM_STATE),
    ("a reset of a stream of the other side", b"\x04\x03\0\0", STREAM_STATE),
    ("more streams than can be numbered", b"\x12" + varint(2**60 + 1), FRAME_ENCODING),
    ("more blocked streams than can be numbered", b"\x17" + varint(2**60 + 1), FRAME_ENCODING),
    ("a connection ID without bytes", b"\x18\x09\0\0" + bytes(16), FRAME_ENCODING),
    ("a connection ID of 21 bytes", new_id(9, size=21), FRAME_ENCODING),
    ("a connection ID that retires itself", new_id(9, retire=10), FRAME_ENCODING),
    ("too many connection IDs", b"".join(map(new_id, range(100, 110))), CONNECTION_ID_LIMIT),
    ("the end of an ID that was not issued", b"\x19" + varint(1_000), PROTOCOL_VIOLATION),
    ("a token for a server", b"\x07\x01x", PROTOCOL_VIOLATION),
    ("a handshake confirmed by the client", b"\x1e", PROTOCOL_VIOLATION),
    ("an unknown frame", varint(0x40) + bytes(8), FRAME_ENCODING),
    ("a frame type in a longer form", b"\x40\x01", FRAME_ENCODING),
    ("a frame that is cut short", b"\x0e\x02\0\x05abc", FRAME_ENCODING),
]


@pytest.mark.parametrize(("payload", "code"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
async def test_a_lie_ends_its_connection_alone(payload: bytes, code: int) -> None:
    async with table() as at:
        await at.hostile.send(payload)
        assert (await at.told()).code == code
        await at.nobody_else_noticed()


@pytest.mark.parametrize(("payload", "first"), [(b"\x01", 0x48), (b"\x01", 0x50), (b"", 0x40)])
async def test_reserved_bits_and_packets_without_frames(payload: bytes, first: int) -> None:
    async with table() as at:
        await at.hostile.send_raw(at.hostile.seal(payload, first=first))
        assert (await at.told()).code == PROTOCOL_VIOLATION
        await at.nobody_else_noticed()


async def test_packets_that_nobody_sealed_are_ignored() -> None:
    async with table() as at:
        honest = at.hostile.seal(b"\x01")
        for place in range(0, len(honest), 3):
            forged = bytearray(honest)
            forged[place] ^= 0x55
            await at.hostile.send_raw(bytes(forged))
        await at.nobody_else_noticed()
        assert at.theirs.close_reason is None
        at.theirs.close(7, "enough")
        assert (await at.hostile.closed()).code == 7


async def test_optimistic_acknowledgements() -> None:
    """A peer that acknowledges whatever could have been sent, without having read it, meets a number that was not."""
    async with table() as at:
        outgoing = at.theirs.open_stream(unidirectional=True)
        outgoing.write(bytes(16 * MIB))
        await at.hostile.send(b"\x10" + varint(TOP) + b"\x11\x03" + varint(TOP))
        while at.hostile.close is None:
            await at.hostile.heard()
            await at.hostile.send(b"\x02" + varint(at.hostile.largest) + b"\0\0" + varint(at.hostile.largest))
        assert (await at.told()).code == PROTOCOL_VIOLATION
        await at.nobody_else_noticed()


# ---- Floods ----


def memory() -> int:
    """Bytes that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


RARE = [
    ("credit of streams", b"\x12" + varint(2**60)),
    ("a blocked connection", b"\x14" + varint(TOP)),
    ("a blocked stream", b"\x15\x02\x05"),
    ("blocked streams", b"\x16\x05"),
    ("a reset", b"\x04\x02\0\0"),
    ("a stop", b"\x05\0\x05"),
    ("handshake bytes", b"\x06\0\x03abc"),
    ("an ID that was retired before", b"\x19\x01"),
    ("a connection ID again", new_id(7)),
    ("an answer to no challenge", b"\x1b" + bytes(8)),
    ("data of a stream that is over", stream(2, 0, b"", True)),
]


@pytest.mark.parametrize("frame", [each[1] for each in RARE], ids=[each[0] for each in RARE])
async def test_a_flood_of_rare_frames(frame: bytes) -> None:
    async with table() as at:
        before = memory()
        await at.hostile.flood(frame, FLOOD)
        assert (await at.told()).code == PROTOCOL_VIOLATION
        await at.nobody_else_noticed()
        assert memory() - before < GROWTH_MAX


async def test_a_flood_of_challenges_leaves_nothing_to_do() -> None:
    """Only the last ones of a batch are answered, in one datagram, and no answer is kept for later."""
    async with table() as at:
        for number in range(FLOOD // 20):
            await at.hostile.send(b"\x1a" + number.to_bytes(8, "big"))
            assert at.engine.packets.waiting < 10
        await at.nobody_else_noticed()
        assert at.theirs.close_reason is None


BORNE = [
    ("pings", b"\x01"),
    ("padding", b"\0"),
    ("no data", stream(2, 0, b"")),
    ("the same data", stream(2, 0, b"the same")),
    ("credit of the connection", b"\x10" + varint(TOP)),
    ("credit of a stream", b"\x11\0" + varint(TOP)),
]


@pytest.mark.parametrize("frame", [each[1] for each in BORNE], ids=[each[0] for each in BORNE])
async def test_floods_that_cost_only_the_flooder(frame: bytes) -> None:
    """What is legal at any rate is borne, in bounds."""
    async with table() as at:
        before = memory()
        await at.hostile.flood(frame, FLOOD)
        await at.nobody_else_noticed()
        assert at.theirs.close_reason is None
        assert memory() - before < GROWTH_MAX


async def test_a_flood_of_acknowledgements() -> None:
    async with table() as at:
        outgoing = at.theirs.open_stream(unidirectional=True)
        outgoing.write(bytes(KIB))
        while at.hostile.largest < 3:
            await at.hostile.heard()
        ranges = b"\x02" + varint(at.hostile.largest) + b"\0\0\0"
        await at.hostile.flood(ranges, 50_000)
        await at.nobody_else_noticed()
        assert at.theirs.close_reason is None


async def test_too_many_gaps_in_a_stream() -> None:
    async with table() as at:
        frames = [stream(2, 2 + 2 * gap, b"x") for gap in range(GAPS_MAX + 1)]
        for start in range(0, len(frames), 200):
            await at.hostile.send(b"".join(frames[start : start + 200]))
        assert (await at.told()).code == PROTOCOL_VIOLATION
        await at.nobody_else_noticed()


async def test_bytes_far_apart_in_every_stream_reserve_no_more_than_the_credit() -> None:
    async with table() as at:
        before = memory()
        for number in range(OPTIONS.max_streams_uni):
            await at.hostile.send(stream(4 * number + 2, WINDOW - 1, b"x"))
            if at.theirs.close_reason is not None:
                break
        assert memory() - before < 2 * OPTIONS.connection_window + GROWTH_MAX
        await at.nobody_else_noticed()


async def test_credit_is_given_for_what_was_read_and_for_nothing_else() -> None:
    async with table() as at:
        reader = Streams(at.theirs, consume=False)
        sent = 0
        while sent < WINDOW:
            size = min(1_000, WINDOW - sent)
            await at.hostile.send(stream(2, sent, bytes(size)))
            sent += size
        held: Reader = await soon(reader.next())
        await soon(held.until(lambda reader: len(reader.data) == WINDOW))
        assert at.engine.packets.receive_streams[2].limit == WINDOW
        await at.hostile.send(stream(2, WINDOW, b"x"))
        assert (await at.told()).code == FLOW_CONTROL


async def test_what_comes_after_the_close_costs_nothing() -> None:
    async with table() as at:
        packets = at.engine.packets
        await at.hostile.send(b"\x1e")
        assert (await at.told()).code == PROTOCOL_VIOLATION
        await at.hostile.flood(b"\x14\x05", FLOOD)
        await at.hostile.flood(stream(2, 0, b"data"), 10_000)
        await at.nobody_else_noticed()
        assert not packets.rare
        assert not packets.news


async def test_noise_from_strangers_is_ignored() -> None:
    async with table() as at:
        before, known = memory(), at.endpoint.connections
        for number in range(20_000):
            noise = (0x40 | number & 0x3F).to_bytes(1, "big") + number.to_bytes(8, "big") + bytes(number % 1_300)
            await at.hostile.send_raw(noise)
        await at.nobody_else_noticed()
        assert at.endpoint.connections <= known + 1
        assert memory() - before < GROWTH_MAX
