"""A peer that speaks the wire itself, message by message, and so can lie: as a client, or as a listener of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from blake3 import blake3

import engines
import spaceblock
from framing import Rooms
from spaceblock.blocks import SpaceblockRequest, SpaceblockRequests
from spaceblock.core import MESSAGE_DATA_MAX, Deframer, encode_uint_var
from spaceblock.limits import MESSAGE_PAYLOAD_MAX
from spaceblock.options import Engine
from spaceblock.quic.endpoint import Endpoint
from spaceblock.quic.interface import CloseReason, Connection, HandshakeConfig, Stream, TransportOptions
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket, proof
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    Error,
    Feature,
    Hello,
    ItemEnd,
    Message,
    Progress,
    StreamType,
    decode_message,
    encode_stream_header,
    pages_of_manifest,
    pages_of_requests,
)

from .support import BLOCK, until, within

M = TypeVar("M", bound=Message)


def block(item: int, offset: int, data: bytes, *, announced: int | None = None) -> bytes:
    """A ``Block`` message; ``announced`` bytes of data instead of what there is."""
    head = encode_uint_var(item) + encode_uint_var(offset)
    length = len(head) + (len(data) if announced is None else announced)
    return b"\x20" + encode_uint_var(length) + head + data


def frame(message_type: int, payload: bytes, *, announced: int | None = None) -> bytes:
    """Any message, however malformed."""
    return encode_uint_var(message_type) + encode_uint_var(len(payload) if announced is None else announced) + payload


class RawStream:
    """One stream, its messages taken apart and nothing checked."""

    def __init__(self, stream: Stream, header: int = 0) -> None:
        self.stream = stream
        self.blocks: list[tuple[int, int, bytes]] = []
        self.ended = asyncio.Event()
        self.reset = asyncio.Event()
        self.stopped = asyncio.Event()
        self.stop_code = 0
        self.received = 0
        self.stream_type: int | None = None
        self.uuid = b""
        self._messages: list[Message] = []
        self._news = asyncio.Event()
        self._deframer = Deframer(MESSAGE_PAYLOAD_MAX, MESSAGE_DATA_MAX)
        self._header = header
        self._head = b""
        self._rooms = Rooms(self._deframer)
        stream.set_handlers(on_data=self._on_data, on_reset=lambda code: self.reset.set(), on_stop=self._on_stop)

    def write(self, data: bytes, fin: bool = False) -> None:
        self.stream.write(data, fin)

    def send(self, *messages: Message, fin: bool = False) -> None:
        self.write(b"".join(message.encode() for message in messages), fin)

    async def read(self, kind: type[M]) -> M:
        """The next message of that kind; reports of progress on the way are skipped, all else is a failure."""
        return await within(self._read(kind))

    async def hear(self, kind: type[M]) -> M:
        """The next message of that kind, whatever else is said before it."""
        return await within(self._read(kind, Message))

    async def _read(self, kind: type[M], skipped: type[Message] = Progress) -> M:
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if isinstance(message, kind):
                    return message
                assert isinstance(message, skipped), f"expected {kind.__name__}, not {message}"
            self._news.clear()
            await self._news.wait()

    def _on_stop(self, code: int) -> None:
        self.stop_code = code
        self.stopped.set()

    def _on_data(self, data: bytes, fin: bool) -> None:
        self.received += len(data)
        self.stream.consume(len(data))
        if self._header:
            # The type of a stream that the library opened; a data stream's UUID follows.
            self._head += data
            size = 17 if self._head[:1] == bytes([StreamType.DATA]) else 1
            if len(self._head) < size:
                return
            self.stream_type, self.uuid, data = self._head[0], self._head[1:size], self._head[size:]
            self._header = 0
        position = 0
        while position < len(data):
            position = self._deframer.feed(data, position)
            self.blocks += self._rooms.landed()
            if self._deframer.event == Deframer.MESSAGE:
                message = decode_message(self._deframer.message_type, self._deframer.payload)
                if message is not None:
                    self._messages.append(message)
            elif self._deframer.event == Deframer.BLOCK:
                self._rooms.provide()
        if fin:
            self.ended.set()
        self._news.set()


class RawPeer:
    """A connection that the library's other end has admitted, or is still judging."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._opened: asyncio.Queue[RawStream] = asyncio.Queue()
        connection.set_stream_handler(lambda stream: self._opened.put_nowait(RawStream(stream, header=1)))

    def open(self, kind: StreamType, uuid: bytes = b"") -> RawStream:
        """A stream that begins as it should."""
        stream = RawStream(self.connection.open_stream(unidirectional=kind is StreamType.DATA))
        stream.write(encode_stream_header(kind, uuid))
        return stream

    def raw(self, *, unidirectional: bool) -> RawStream:
        """A stream on which nothing was said yet."""
        return RawStream(self.connection.open_stream(unidirectional=unidirectional))

    async def opened(self) -> RawStream:
        """The next stream that the library opens."""
        return await within(self._opened.get())

    async def greet(self, features: Feature = Feature.NONE) -> RawStream:
        """As a client: open the session, and wait for the listener's greeting."""
        session = self.open(StreamType.SESSION)
        session.send(Hello(features=features))
        await session.read(Hello)
        return session

    async def answer_greeting(self, features: Feature = Feature.NONE) -> RawStream:
        """As a listener: read the client's greeting and return it, claiming ``features``."""
        session = await self.opened()
        await session.read(Hello)
        session.send(Hello(features=features))
        return session

    async def closed(self) -> CloseReason:
        """How the connection ended."""
        return await within(self.connection.wait_closed())

    def offer(self, *items: SpaceblockRequest, names: tuple[str, ...] = (), uuid: bytes | None = None) -> RawOffer:
        """Begin a transfer as an honest sender does, or begin the one called ``uuid`` once more."""
        return RawOffer(self, *items, names=names, uuid=uuid)


class RawOffer:
    """A transfer that a raw peer sends: the control stream is open and the offer is on it."""

    def __init__(
        self, peer: RawPeer, *items: SpaceblockRequest, names: tuple[str, ...] = (), uuid: bytes | None = None
    ) -> None:
        self.peer = peer
        self.uuid = uuid or os.urandom(16)
        self.control = peer.open(StreamType.PUSH)
        requests = SpaceblockRequests(self.uuid, BLOCK, items)
        self.control.send(*pages_of_requests(requests, bool(names)))
        if names:
            entries = [Entry(kind=EntryKind.FILE, name=name, item=item) for item, name in enumerate(names)]
            self.control.send(*pages_of_manifest(entries))

    def data(self) -> RawStream:
        """A data stream of this transfer."""
        return self.peer.open(StreamType.DATA, self.uuid)

    async def error(self) -> Error:
        """The receiver's last word."""
        error = await self.control.read(Error)
        await within(self.control.ended.wait())
        return error


def item_bytes(item: int, data: bytes) -> bytes:
    """An item as an honest sender puts it on a data stream."""
    blocks = [block(item, start, data[start : start + BLOCK]) for start in range(0, len(data), BLOCK)]
    return b"".join(blocks) + ItemEnd(item, len(data)).encode()


def digest(data: bytes | bytearray) -> bytes:
    return blake3(data).digest()


def transport(engine: Engine) -> TransportOptions:
    """Those of a raw peer's own socket."""
    return TransportOptions(native=engine == "native")


async def raw_connection(
    endpoint: Endpoint, ticket: str, identity: Identity | None = None, *, certificate: bool = True
) -> Connection:
    """Connect to a listener with its ticket and a proof of it, or without any certificate."""
    parsed = Ticket.parse(ticket)
    identity = identity or Identity.ephemeral()
    shown = identity.certificate(proof(parsed, identity.public_key)) if certificate else None
    handshake = HandshakeConfig(shown, identity.private_key if certificate else None)
    return await endpoint.connect(parsed.addresses[0], handshake, 10)


@asynccontextmanager
async def client_of(
    listener: spaceblock.Listener | str,
    identity: Identity | None = None,
    *,
    greets: bool = True,
    features: Feature = Feature.NONE,
) -> AsyncIterator[RawPeer]:
    """A raw client that ``listener`` admits by a ticket of its own, or whoever printed a ticket."""
    ticket = listener if isinstance(listener, str) else listener.invite(1)[0]
    endpoint = await Endpoint.bind("127.0.0.1", 0, transport(engines.in_use.client))
    try:
        peer = RawPeer(await raw_connection(endpoint, ticket, identity))
        if greets:
            await peer.greet(features)
        yield peer
    finally:
        await leave(endpoint)


async def leave(endpoint: Endpoint) -> None:
    """Close all connections and the socket at once: nobody in a test needs the answers of a closing period.

    The loop's next rounds let the other side notice, which then has no closing period of its own to wait for.
    """
    for connection in list(endpoint._connections):
        connection.close(0)
    endpoint._close_now()
    for _ in range(5):
        await asyncio.sleep(0)


class RawListener:
    """A listener that admits everybody and then does what the test says."""

    def __init__(self) -> None:
        self.identity = Identity.ephemeral()
        self.ticket = ""
        self._peers: asyncio.Queue[RawPeer] = asyncio.Queue()

    def connected(self, connection: Connection) -> None:
        self._peers.put_nowait(RawPeer(connection))

    async def peer(self) -> RawPeer:
        return await within(self._peers.get())


@asynccontextmanager
async def raw_listener() -> AsyncIterator[RawListener]:
    """A hostile listener, and a ticket that leads to it."""
    listener = RawListener()
    server = HandshakeConfig(listener.identity.certificate(), listener.identity.private_key)
    endpoint = await Endpoint.bind(
        "127.0.0.1", 0, transport(engines.in_use.server), server=server, on_connection=listener.connected
    )
    ticket = Ticket(
        listener.identity.peer_id_bytes,
        tuple(endpoint.local_addresses),
        os.urandom(16),
        os.urandom(32),
        int(time.time()) + 3600,
    )
    listener.ticket = ticket.encode()
    try:
        yield listener
    finally:
        await leave(endpoint)


@asynccontextmanager
async def hostile_receiver(
    options: spaceblock.Options | None = None, features: Feature = Feature.NONE
) -> AsyncIterator[tuple[spaceblock.Peer, RawPeer]]:
    """The library's peer, connected to a raw listener that has greeted it."""
    async with raw_listener() as listener:
        context = spaceblock.connect(listener.ticket, options=options)
        connecting = asyncio.ensure_future(context.__aenter__())
        raw = await listener.peer()
        await raw.answer_greeting(features)
        peer = await within(connecting)
        try:
            yield peer, raw
        finally:
            raw.connection.close(0)
            await until(lambda: peer.closed)
            await context.__aexit__(None, None, None)
