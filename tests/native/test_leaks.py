"""Connections that come and go leave nothing behind: no thread, no descriptor, no object and no memory."""

from __future__ import annotations

import asyncio
import gc
import mmap
import threading
from collections import Counter
from pathlib import Path

from quic_pair import CLIENT, KIB, MIB, Reader, Streams, endpoints
from spaceblock.quic import Connection, TransportOptions
from spaceblock.quic.endpoint import Endpoint
from support import open_descriptors

OPTIONS = TransportOptions(native=True)
CONNECTIONS = 120
"""As many come before anything is counted: while they close, so many are there at once."""

GROWTH_MAX = 16 * MIB
"""Bytes of growth that are nobody's fault; a leak of every connection's buffers would be more than twice as much."""

BATCHES = 3
"""A busy machine closes more connections at once in one of them than before; a leak would show in each."""

KINDS = (
    *("AioquicConnection", "AioquicStream", "Engine", "NativeEngine", "PacketEngine", "SendStream", "ReceiveStream"),
    *("Recovery", "PacketKey", "HeaderKey", "RareFrames", "Path"),
)


async def test_connections_that_come_and_go() -> None:
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with endpoints(OPTIONS, on_connection=accepted.put_nowait) as (calling, serving):
        for _ in range(CONNECTIONS):
            await _meet(calling, serving, accepted)
        await _rest(calling, serving)
        objects, threads, descriptors, memory = _objects(), threading.active_count(), open_descriptors(), _memory()
        for _ in range(BATCHES):
            for _ in range(CONNECTIONS):
                await _meet(calling, serving, accepted)
            await _rest(calling, serving)
            grown, memory = _memory() - memory, _memory()
            if grown < GROWTH_MAX:
                break
        assert _objects() == objects
        assert threading.active_count() == threads
        assert open_descriptors() == descriptors
        assert grown < GROWTH_MAX
        assert not serving._routes
        assert not serving._engines


async def _meet(calling: Endpoint, serving: Endpoint, accepted: asyncio.Queue[Connection]) -> None:
    """One connection with streams of both kinds, one of which is given up, closed by the client."""
    here = await calling.connect(serving.local_address, CLIENT, timeout=30)
    there = await asyncio.wait_for(accepted.get(), 30)
    streams = Streams(there)
    here.open_stream(unidirectional=True).write(bytes(200 * KIB), fin=True)
    assert len(await asyncio.wait_for((await streams.next()).read_all(), 30)) == 200 * KIB
    given_up = Reader(here.open_stream(unidirectional=False))
    given_up.stream.write(bytes(100 * KIB))
    await asyncio.wait_for((await streams.next()).until(lambda reader: len(reader.data) > 0), 30)
    given_up.stream.reset(7)
    here.close(0)
    await asyncio.wait_for(there.wait_closed(), 30)


async def _rest(*sides: Endpoint) -> None:
    """Until all closing periods are over."""
    for side in sides:
        await asyncio.wait_for(side._idle.wait(), 30)


def _objects() -> Counter[str]:
    gc.collect()
    kinds = Counter(type(each).__name__ for each in gc.get_objects())
    return Counter({kind: kinds[kind] for kind in KINDS if kinds[kind]})


def _memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
