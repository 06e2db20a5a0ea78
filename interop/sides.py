"""Our side of a connection with a foreign peer: one of the engines, as client or as server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from foreign import PATIENCE, Peer, Stack, start, write_identity
from nat import Nat, nat
from quic_pair import CLIENT, SERVER, Reader, Streams, identity
from spaceblock.quic import Connection, HandshakeConfig, TransportOptions
from spaceblock.quic.endpoint import Endpoint

THEIRS = identity("foreign")

NEVER = 2**40
"""Packets of one key, where a key update is not what a case is about."""

T = TypeVar("T")


@dataclass(slots=True)
class Both:
    """``ours`` and ``peer`` are the two ends of one connection; ``streams`` are those that the peer opens."""

    ours: Connection
    peer: Peer
    endpoint: Endpoint
    streams: Streams
    box: Nat | None

    @property
    def engine(self) -> str:
        """The class of the engine that the connection is on now: it changes soon after the handshake, or never."""
        return type(getattr(self.ours, "_engine", None)).__name__

    @property
    def key_updates(self) -> int:
        """By either side, since the connection is on the native engine."""
        engine: Any = getattr(self.ours, "_engine", None)
        return int(engine.packets.phases.count)

    def send(self, size: int, *, kind: str = "uni") -> Reader:
        """Open a stream, send so much of the pattern on it with FIN, and read what comes back."""
        stream = self.ours.open_stream(unidirectional=kind == "uni")
        stream.write(pattern(size), fin=True)
        return Reader(stream)

    async def arrived(self, stream_id: int, size: int) -> None:
        """Wait until the peer has read a stream to its end, and compare."""
        count, digest = await self.peer.heard("received", stream_id)
        assert (int(count), digest) == (size, hashlib.sha256(pattern(size)).hexdigest())


@dataclass(frozen=True, slots=True)
class Side:
    """What we are in a case: the engine, our role, and whom we meet."""

    stack: Stack
    is_client: bool
    native: bool
    folder: Path

    @contextlib.asynccontextmanager
    async def meet(
        self,
        options: TransportOptions | None = None,
        *,
        ours: HandshakeConfig | None = None,
        boxed: bool = False,
        loss: float = 0,
        host: str = "127.0.0.1",
        **theirs: object,
    ) -> AsyncIterator[Both]:
        """Connect with a peer that gets the options ``theirs``, ``boxed`` or with ``loss`` through a NAT.

        Raises whatever our engine reported to the event loop.
        """
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        used = replace(options or TransportOptions(), native=self.native)
        settings = {"key_update": NEVER, "ask": self.is_client, **self.shown(), **theirs}
        shown = f"[{host}]" if ":" in host else host
        async with contextlib.AsyncExitStack() as stack:
            if self.is_client:
                peer = await stack.enter_async_context(start(self.stack, listen=f"{shown}:0", **settings))
                target, box = await _reach((host, await peer.listening()), boxed, loss, stack)
                endpoint = await Endpoint.bind(host, 0, used)
                stack.push_async_callback(endpoint.close)
                connection = await endpoint.connect(target, ours or CLIENT, timeout=PATIENCE)
            else:
                accepted: asyncio.Queue[Connection] = asyncio.Queue()
                server = ours or SERVER
                endpoint = await Endpoint.bind(host, 0, used, server=server, on_connection=accepted.put_nowait)
                stack.push_async_callback(endpoint.close)
                target, box = await _reach(endpoint.local_address, boxed, loss, stack)
                address = f"{shown}:{target[1]}"
                peer = await stack.enter_async_context(start(self.stack, connect=address, **settings))
                connection = await soon(accepted.get())
            await peer.heard("connected")
            yield Both(connection, peer, endpoint, Streams(connection), box)
        for complaint in complaints:
            raise complaint.get("exception") or AssertionError(complaint["message"])

    def shown(self) -> dict[str, Path]:
        """The options that name what the peer shows in the handshake."""
        return write_identity(self.folder, THEIRS)


async def soon(what: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    return await asyncio.wait_for(what, PATIENCE)


def pattern(size: int) -> bytes:
    """What both sides send: each byte is the exclusive or of the bytes of its offset."""
    low = bytes((at ^ at >> 8) & 0xFF for at in range(_PIECE))
    masks = ((piece ^ piece >> 8) & 0xFF for piece in range(-(-size // _PIECE)))
    return b"".join(low.translate(bytes(byte ^ mask for byte in range(256))) for mask in masks)[:size]


_PIECE = 65_536


async def _reach(
    server: tuple[str, int], boxed: bool, loss: float, stack: contextlib.AsyncExitStack
) -> tuple[tuple[str, int], Nat | None]:
    if not boxed and not loss:
        return server, None
    box = await stack.enter_async_context(nat(server, loss))
    return box.address, box
