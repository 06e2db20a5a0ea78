"""Two endpoints on loopback, connected to each other, and readers that remember what streams brought."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from simulation.identities import self_signed

from spaceblock.quic import Connection, HandshakeConfig, Stream, TransportOptions
from spaceblock.quic.connection import AioquicConnection
from spaceblock.quic.endpoint import Endpoint

if TYPE_CHECKING:
    from spaceblock.quic.handshake.engine import Engine
    from spaceblock.quic.native.engine_shell import NativeEngine

KIB = 1024
MIB = 1024 * KIB


def identity(name: str, verify_peer: Callable[[x509.Certificate], None] | None = None) -> HandshakeConfig:
    """A fresh key with a self-signed certificate."""
    key = Ed25519PrivateKey.generate()
    return HandshakeConfig(self_signed(name, key), key, verify_peer)


CLIENT = identity("client")
SERVER = identity("server")


@dataclass
class Pair:
    """``client`` and ``server`` are the two ends of one connection."""

    client: Connection
    server: Connection
    client_endpoint: Endpoint
    server_endpoint: Endpoint


def engine_of(connection: Connection) -> Engine | NativeEngine:
    """What makes and reads the packets of ``connection`` at present."""
    assert isinstance(connection, AioquicConnection)
    return connection._engine


@contextlib.asynccontextmanager
async def pair(options: TransportOptions | None = None, client: HandshakeConfig = CLIENT) -> AsyncIterator[Pair]:
    """A connected pair, whose endpoints are closed in the end."""
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with endpoints(options, on_connection=accepted.put_nowait) as (client_endpoint, server_endpoint):
        connection = await client_endpoint.connect(server_endpoint.local_address, client, timeout=30)
        yield Pair(connection, await accepted.get(), client_endpoint, server_endpoint)


@contextlib.asynccontextmanager
async def endpoints(
    options: TransportOptions | None = None,
    server: HandshakeConfig = SERVER,
    on_connection: Callable[[Connection], None] | None = None,
) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """An endpoint to connect from and one to connect to."""
    async with contextlib.AsyncExitStack() as stack:
        serving = await Endpoint.bind("127.0.0.1", 0, options, server=server, on_connection=on_connection)
        stack.push_async_callback(serving.close)
        calling = await Endpoint.bind("127.0.0.1", 0, options)
        stack.push_async_callback(calling.close)
        yield calling, serving


class Reader:
    """Takes in one stream; what it is told can be awaited."""

    def __init__(self, stream: Stream, *, consume: bool = True) -> None:
        self.stream = stream
        self.data = bytearray()
        self.fin = False
        self.reset_code: int | None = None
        self.stop_code: int | None = None
        self.consumed = 0
        self._consume = consume
        self._changed = asyncio.Event()
        stream.set_handlers(on_data=self._on_data, on_reset=self._on_reset, on_stop=self._on_stop)

    async def until(self, condition: Callable[[Reader], bool]) -> None:
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    async def portions(self) -> AsyncIterator[int]:
        """How many bytes have come each time; they are consumed before the next are waited for."""
        while not self.fin:
            count = len(self.data) - self.consumed
            yield count
            self.stream.consume(count)
            self.consumed += count
            await self.until(lambda reader: len(reader.data) > reader.consumed or reader.fin)

    async def read_all(self) -> bytes:
        await self.until(lambda reader: reader.fin)
        return bytes(self.data)

    def _on_data(self, data: bytes, fin: bool) -> None:
        self.data += data
        self.fin = fin
        if self._consume:
            self.stream.consume(len(data))
        self._changed.set()

    def _on_reset(self, code: int) -> None:
        self.reset_code = code
        self._changed.set()

    def _on_stop(self, code: int) -> None:
        self.stop_code = code
        self._changed.set()


class Streams:
    """Takes in the streams that the peer opens, in order."""

    def __init__(self, connection: Connection, *, consume: bool = True) -> None:
        self.seen: list[Reader] = []
        self._consume = consume
        self._queue: asyncio.Queue[Reader] = asyncio.Queue()
        connection.set_stream_handler(self._on_stream)

    async def next(self) -> Reader:
        return await self._queue.get()

    def _on_stream(self, stream: Stream) -> None:
        reader = Reader(stream, consume=self._consume)
        self.seen.append(reader)
        self._queue.put_nowait(reader)
