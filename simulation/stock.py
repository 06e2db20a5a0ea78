"""Stock aioquic on the simulated network, with its own connections, timers and server."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from spaceblock.errors import Unreachable
from spaceblock.limits import DATAGRAM_MIN
from spaceblock.quic import CloseReason, ConnectionEnded, HandshakeConfig, TransportOptions
from spaceblock.quic.interface import ALPN

from .clock import VirtualLoop
from .sockets import SimulatedSocket

CONNECTION_ID = 8
STOCK_DATAGRAM_MAX = 1_500


class StockStream:
    """One of its streams, with the handlers that ours have."""

    def __init__(self, connection: StockConnection, stream_id: int, *, is_local: bool) -> None:
        self.stream_id = stream_id
        self.is_unidirectional = bool(stream_id & 2)
        self.is_local = is_local
        self.on_data: Callable[[bytes, bool], None] | None = None
        self.on_reset: Callable[[int], None] | None = None
        self.on_stop: Callable[[int], None] | None = None
        self._connection = connection
        self._inbox: list[tuple[bytes, bool]] = []
        self._over = False

    def set_handlers(
        self,
        *,
        on_data: Callable[[bytes, bool], None] | None,
        on_reset: Callable[[int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        self.on_data, self.on_reset, self.on_stop = on_data, on_reset, on_stop
        self._deliver()

    def write(self, data: Any, fin: bool = False) -> None:
        if not self._over and self._connection.close_reason is None:
            self._connection.quic.send_stream_data(self.stream_id, bytes(data), fin)
            self._connection.soon()

    def reset(self, code: int) -> None:
        if self._connection.close_reason is None:
            self._over = True
            self._connection.quic.reset_stream(self.stream_id, code)
            self._connection.soon()

    def stop(self, code: int) -> None:
        self.set_handlers(on_data=None, on_stop=self.on_stop)
        if self._connection.close_reason is None:
            with contextlib.suppress(ValueError):  # it has forgotten the stream
                self._connection.quic.stop_stream(self.stream_id, code)
            self._connection.soon()

    def consume(self, count: int) -> None:
        """It grants credit for what arrives, consumed or not."""

    @property
    def finished(self) -> bool:
        return self.stream_id not in self._connection.quic._streams

    def take(self, data: bytes, fin: bool) -> None:
        self._inbox.append((data, fin))
        self._deliver()

    def was_stopped(self, code: int) -> None:
        self._over = True
        if self.on_stop is not None:
            self.on_stop(code)

    def _deliver(self) -> None:
        while self._inbox and self.on_data is not None:
            self.on_data(*self._inbox.pop(0))


class StockConnection(QuicConnectionProtocol):
    """One of its connections."""

    def __init__(
        self,
        quic: QuicConnection,
        stream_handler: Any = None,
        on_connection: Callable[[StockConnection], None] | None = None,
    ) -> None:
        super().__init__(quic)
        self.quic = quic
        self.close_reason: CloseReason | None = None
        self.connected: asyncio.Future[None] = self._loop.create_future()
        self.streams: dict[int, StockStream] = {}
        self._closed_by_us = False
        self._on_connection = on_connection
        self._on_stream: Callable[[StockStream], None] | None = None
        self._on_close: Callable[[CloseReason], None] | None = None
        self._unclaimed: list[StockStream] = []

    def set_stream_handler(self, handler: Callable[[StockStream], None] | None) -> None:
        self._on_stream = handler
        while handler is not None and self._unclaimed:
            handler(self._unclaimed.pop(0))

    def set_close_handler(self, handler: Callable[[CloseReason], None] | None) -> None:
        self._on_close = handler

    def open_stream(self, *, unidirectional: bool) -> StockStream:
        stream_id = self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self.quic.send_stream_data(stream_id, b"")
        stream = self.streams[stream_id] = StockStream(self, stream_id, is_local=True)
        return stream

    def close(self, error_code: int = 0, reason_phrase: str = "") -> None:
        if self.close_reason is None:
            self._closed_by_us = True
            super().close(error_code, reason_phrase)

    def keep_alive(self) -> None:
        self.quic.send_ping(0)
        self.soon()

    def soon(self) -> None:
        """Send what is due in the loop's next round."""
        self._transmit_soon()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.connected.set_result(None)
            if self._on_connection is not None:
                self._on_connection(self)
        elif isinstance(event, events.StreamDataReceived):
            self._stream(event.stream_id).take(event.data, event.end_stream)
        elif isinstance(event, events.StreamReset):
            stream = self._stream(event.stream_id)
            if stream.on_reset is not None:
                stream.on_reset(event.error_code)
        elif isinstance(event, events.StopSendingReceived):
            self._stream(event.stream_id).was_stopped(event.error_code)
        elif isinstance(event, events.ConnectionTerminated):
            self._ended(event)

    def _stream(self, stream_id: int) -> StockStream:
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = StockStream(self, stream_id, is_local=False)
            if self._on_stream is not None:
                self._on_stream(stream)
            else:
                self._unclaimed.append(stream)
        return stream

    def _ended(self, event: events.ConnectionTerminated) -> None:
        self.close_reason = CloseReason(
            int(event.error_code),
            event.reason_phrase,
            by_peer=not self._closed_by_us,
            is_application=event.frame_type is None,
            timed_out=event.reason_phrase == "Idle timeout",
        )
        if not self.connected.done():
            self.connected.set_exception(
                ConnectionEnded("the handshake failed", reason=self.close_reason, phase="connecting")
            )
            self.connected.exception()
        if self._on_close is not None:
            self._on_close(self.close_reason)


class StockClient:
    """A client with one connection."""

    def __init__(self, socket: SimulatedSocket, loop: VirtualLoop, options: TransportOptions) -> None:
        self.socket = socket
        self.connection = StockConnection(QuicConnection(configuration=_configuration(options, None)))
        self.connection.connection_made(_Transport(socket, loop, self.connection))

    async def connect(self, address: tuple[str, int], seconds: float) -> StockConnection:
        self.connection.connect((*address, 0, 0) if ":" in address[0] else address)
        try:
            await asyncio.wait_for(asyncio.shield(self.connection.connected), seconds)
        except asyncio.TimeoutError:
            self.connection.close()
            raise Unreachable("nobody answered in time", phase="connecting") from None
        return self.connection

    async def close(self) -> None:
        self.connection.close()
        await self.connection.wait_closed()
        self.socket.close()

    @property
    def connections(self) -> int:
        return int(self.connection.close_reason is None)


class StockServer:
    """A server with any number of connections."""

    def __init__(
        self,
        socket: SimulatedSocket,
        loop: VirtualLoop,
        options: TransportOptions,
        handshake: HandshakeConfig,
        on_connection: Callable[[Any], None] | None,
        retry: bool,
    ) -> None:
        self.socket = socket
        self._made: list[StockConnection] = []
        self._server = QuicServer(
            configuration=_configuration(options, handshake),
            create_protocol=partial(self._make, on_connection),
            retry=retry,
        )
        self._server.connection_made(_Transport(socket, loop, self._server))

    async def connect(self, address: tuple[str, int], seconds: float) -> StockConnection:
        raise NotImplementedError("a server answers")

    async def close(self) -> None:
        for connection in self._made:
            connection.close()
            if connection.quic._state.name != "FIRSTFLIGHT":  # else it waits for the idle time-out
                await connection.wait_closed()
        self._server.close()

    @property
    def connections(self) -> int:
        return len(self._server._protocols)

    def _make(self, on_connection: Any, quic: QuicConnection, stream_handler: Any) -> StockConnection:
        connection = StockConnection(quic, on_connection=on_connection)
        self._made.append(connection)
        return connection


class _Transport(asyncio.DatagramTransport):
    """Stands between its protocols and a simulated socket."""

    def __init__(self, socket: SimulatedSocket, loop: VirtualLoop, protocol: Any) -> None:
        super().__init__()
        self._socket = socket
        self._protocol = protocol
        loop.add_reader(socket, self._read)

    def sendto(self, data: Any, addr: Any = None) -> None:
        self._socket.sendto(data, addr)

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        data, source = self._socket.recvfrom(65_535)
        self._protocol.datagram_received(data, source)


def _configuration(options: TransportOptions, handshake: HandshakeConfig | None) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        certificate=handshake.certificate if handshake else None,
        cipher_suites=[tls.CipherSuite[name] for name in options.cipher_suites],
        connection_id_length=CONNECTION_ID,
        idle_timeout=options.idle_timeout,
        is_client=handshake is None,
        max_data=options.connection_window,
        max_datagram_size=min(options.datagram_size or DATAGRAM_MIN, STOCK_DATAGRAM_MAX),
        max_stream_data=options.stream_window,
        private_key=handshake.private_key if handshake else None,
        verify_mode=ssl.CERT_NONE,
    )
