"""Endpoints on the simulated network: ours, with either engine, and stock aioquic's; clients and servers.

Ours is the real :class:`~spaceblock.quic.endpoint.Endpoint` on a simulated socket, so that connections, handshake,
hand-over, routes, Retry and closing are those of every other program. Both kinds give connections with the part of
:mod:`spaceblock.quic.interface` that :class:`Talker` and :class:`Channel` name.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spaceblock.limits import DATAGRAM_MAX
from spaceblock.quic import CloseReason, HandshakeConfig, TransportOptions
from spaceblock.quic.endpoint import Endpoint

from .clock import VirtualLoop
from .identities import self_signed
from .network import Network
from .pump import SimulatedPump
from .sockets import SimulatedSocket
from .stock import StockClient, StockServer


class Kind(enum.Enum):
    """What one side runs."""

    NATIVE = "native"
    AIOQUIC = "aioquic"
    """Our connection on the handshake's engine, for good."""
    STOCK = "stock"
    """Unmodified aioquic, with nothing of ours."""


class Channel(Protocol):
    """What both kinds of streams can do; see :class:`spaceblock.quic.Stream`."""

    stream_id: int
    is_unidirectional: bool

    def set_handlers(
        self,
        *,
        on_data: Callable[[bytes, bool], None] | None,
        on_reset: Callable[[int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None: ...

    def write(self, data: Any, fin: bool = False) -> None: ...

    def reset(self, code: int) -> None: ...

    def stop(self, code: int) -> None: ...

    def consume(self, count: int) -> None: ...

    @property
    def finished(self) -> bool: ...


class Talker(Protocol):
    """What both kinds of connections can do; see :class:`spaceblock.quic.Connection`."""

    close_reason: CloseReason | None

    def set_stream_handler(self, handler: Callable[[Any], None] | None) -> None: ...

    def set_close_handler(self, handler: Callable[[CloseReason], None] | None) -> None: ...

    def open_stream(self, *, unidirectional: bool) -> Channel: ...

    def close(self, code: int, reason: str = "") -> None: ...

    def keep_alive(self) -> None: ...


class Host(Protocol):
    """What both kinds of endpoints can do."""

    socket: SimulatedSocket

    async def connect(self, address: tuple[str, int], seconds: float) -> Talker: ...

    async def close(self) -> None: ...

    @property
    def connections(self) -> int: ...


class SimulatedEndpoint(Endpoint):
    """An endpoint whose socket is simulated."""

    def __init__(
        self,
        socket: SimulatedSocket,
        loop: VirtualLoop,
        options: TransportOptions,
        server: HandshakeConfig | None,
        on_connection: Callable[[Any], None] | None,
    ) -> None:
        super().__init__(socket, options, server, on_connection)  # type: ignore[arg-type]
        if options.native:
            self._pump = SimulatedPump(socket, loop.time)  # type: ignore[assignment]
        loop.add_reader(socket, self._on_readable_pump if options.native else self._on_readable)

    def largest_datagram(self, address: Any) -> int:
        return DATAGRAM_MAX  # the real system knows no route here


class OurHost:
    """Our endpoint."""

    def __init__(
        self,
        socket: SimulatedSocket,
        loop: VirtualLoop,
        options: TransportOptions,
        handshake: HandshakeConfig,
        on_connection: Callable[[Any], None] | None = None,
    ) -> None:
        self.socket = socket
        self.endpoint = SimulatedEndpoint(socket, loop, options, handshake if on_connection else None, on_connection)
        self._handshake = handshake

    async def connect(self, address: tuple[str, int], seconds: float) -> Talker:
        return await self.endpoint.connect(address, self._handshake, seconds)

    async def close(self) -> None:
        await self.endpoint.close()

    @property
    def connections(self) -> int:
        return self.endpoint.connections


def host(
    kind: Kind,
    network: Network,
    address: tuple[str, int],
    options: TransportOptions,
    on_connection: Callable[[Any], None] | None = None,
    *,
    seed: int = 0,
    full: float = 0.0,
    retry: bool = False,
    certificate: int = 0,
) -> Host:
    """A server, if it is told of connections, or else a client; ``full`` is how often its socket has no room.

    With ``retry``, a server has every client prove its address first; its certificate has ``certificate`` bytes more
    than it needs. Stock aioquic takes the options' sizes, suites and idle time-out, and knows no others.
    """
    is_client = on_connection is None
    # Stock aioquic leaves it to its event loop to wait for room.
    socket = SimulatedSocket(network, address, forward=is_client, full=0 if kind is Kind.STOCK else full, seed=seed)
    if kind is not Kind.STOCK:
        options = replace(options, native=kind is Kind.NATIVE, retry_above=0 if retry else options.retry_above)
        return OurHost(
            socket, network.loop, options, identity("client" if is_client else "server", certificate), on_connection
        )
    if is_client:
        return StockClient(socket, network.loop, options)
    return StockServer(socket, network.loop, options, identity("server", certificate), on_connection, retry)


@functools.cache
def identity(name: str, padding: int = 0) -> HandshakeConfig:
    """The same key each time, with a self-signed certificate that has so many bytes more than it needs."""
    key = Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"-"))
    return HandshakeConfig(self_signed(name, key, padding), key)
