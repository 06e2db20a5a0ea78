"""One UDP socket with any number of QUIC connections on it, as client, as server, or both.

Rules: the endpoint reads datagrams in batches, finds each one's connection by its destination connection ID, lets every
connection that got something work once, and writes what they send. It keeps no state for packets that belong to nobody:
they are answered with a Version Negotiation or Retry packet or a stateless reset, begin a connection, or are ignored.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..display import address_text
from ..errors import ConnectionFailed, EngineUnavailable, ErrorCode, LocalProtocolError, Unreachable
from ..limits import DATAGRAM_MIN
from .connection import AioquicConnection, plain_address
from .handshake.engine import client_engine, server_engine
from .handshake.first_packets import CID_SIZE, VERSION, RetryTokens, initial_token, version_negotiation
from .interface import Address, Connection, HandshakeConfig, TransportOptions
from .resets import StatelessResets, reset_key
from .routes import answer_by, largest_datagram, reachable_addresses, tell_ways, way_of
from .sockets import (
    PASSING,
    SOCKET_BUFFER,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    UNREACHABLE,
    buffer_size,
    cannot_use,
    knows_trains,
    open_socket,
    report_errors,
    reported_errors,
    resolve,
    tell_small_buffer,
    train_stop,
)

_log = logging.getLogger("spaceblock")

if TYPE_CHECKING:
    from .native.engine import PacketEngine
    from .native.pump import Pump
    from .native.pump_thread import PumpThread

RECEIVE_BATCH = 64
"""Datagrams taken in before the connections work and other tasks of the loop get their turn."""

SHORT_HEADER = 1 + CID_SIZE
"""Bytes of a short header up to the end of the connection ID (RFC 8999, section 5.2)."""

SEND_QUEUE = 4_096
"""Datagrams that wait for a full socket; more are dropped, as a full router would."""

LINGER = 3.0
"""Seconds that :meth:`Endpoint.close` waits at most for closing periods to pass."""


class Strangers(Protocol):
    """What a server knows of addresses that have no connection yet."""

    def refuses(self, host: str) -> bool:
        """Whether packets from there begin no connection."""

    @property
    def many(self) -> bool:
        """Whether every address has to be proved first."""


PacketFilter = Callable[[bytes, Address, bool], bool]
"""For tests: given a datagram, its peer and whether it goes out, says whether it passes."""


class Endpoint:
    """A UDP socket and its connections; made by :meth:`bind`, and to be closed."""

    def __init__(
        self,
        sock: socket.socket,
        options: TransportOptions,
        server: HandshakeConfig | None,
        on_connection: Callable[[Connection], None] | None,
    ) -> None:
        self._packet_filter: PacketFilter | None = None
        self.local_address: Address = plain_address(sock.getsockname())
        self.strangers: Strangers | None = None
        """Says whose first packets are not worth an answer; None: all are."""

        self.receive_buffer: int = buffer_size(sock, socket.SO_RCVBUF)
        if self.receive_buffer < SOCKET_BUFFER:
            tell_small_buffer(self.receive_buffer)
        self._sock = sock
        self._options = options
        self._server = server
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._routes: dict[bytes, AioquicConnection] = {}
        self._connections: dict[AioquicConnection, set[bytes]] = {}  # with each one's routes
        self._half_open: set[AioquicConnection] = set()
        self._connecting: dict[AioquicConnection, Any] = {}  # with the socket address that each one calls
        self._retry = RetryTokens()
        self._resets: StatelessResets[AioquicConnection] = StatelessResets(reset_key(server, self.local_address))
        self._queue: deque[tuple[bytes, Any]] = deque()
        self._pump: Pump | None = None
        self._thread: PumpThread | None = None
        self._turn_timer: asyncio.TimerHandle | None = None
        self._engines: dict[AioquicConnection, PacketEngine] = {}  # of those that were handed over
        self._blocked: dict[AioquicConnection, None] = {}  # with a train that a full socket did not take
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))
        self._idle = asyncio.Event()  # no connection is left
        self._idle.set()
        self._is_closing = False
        self._has_trains = knows_trains(sock)
        self._has_ways = server is not None and tell_ways(sock)

    @classmethod
    async def bind(
        cls,
        host: str,
        port: int,
        options: TransportOptions | None = None,
        *,
        server: HandshakeConfig | None = None,
        on_connection: Callable[[Connection], None] | None = None,
    ) -> Endpoint:
        """Open a socket on ``host`` (``"::"`` takes IPv4 too) and ``port`` (0: any).

        With ``server``, it accepts connections: ``on_connection`` is called for each when its handshake is complete.
        Raises :class:`~spaceblock.errors.ConnectionFailed` when the address cannot be had.
        """
        sock = await open_socket(host, port)
        try:
            endpoint = cls(sock, options or TransportOptions(), server, on_connection)
            if endpoint._options.native:
                endpoint._start_pump()
            else:
                endpoint._loop.add_reader(sock, endpoint._on_readable)
        except NotImplementedError:
            sock.close()
            raise EngineUnavailable(
                "this event loop cannot watch a UDP socket; run Spaceblock on asyncio's selector event loop"
            ) from None
        except OSError as error:
            sock.close()
            raise cannot_use((host, port), error) from error
        except MemoryError as error:
            sock.close()
            raise cannot_use((host, port), OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))) from error
        except BaseException:
            sock.close()
            raise
        return endpoint

    async def connect(self, address: Address, handshake: HandshakeConfig, timeout: float) -> Connection:
        """Connect to a server; returns when the handshake is complete on this side.

        Raises :class:`~spaceblock.errors.Unreachable` when nobody answers within ``timeout`` seconds, what
        ``handshake.verify_peer`` raised, :class:`~spaceblock.errors.VersionMismatch` when the server speaks another
        protocol, :class:`ConnectionEnded` when it ended the connection, and
        :class:`~spaceblock.errors.ConnectionFailed` when this endpoint is closed before.
        """
        name = address_text(*address)
        self._check_open(name)
        deadline = self._loop.time() + timeout
        target = await resolve(self._sock, address, timeout)
        self._check_open(name)
        connection = AioquicConnection(
            client_engine(handshake, self._options, self.token_of),
            self,
            is_client=True,
            handshake_deadline=deadline,
            name=name,
            options=self._options,
        )
        self._add(connection)
        self._connecting[connection] = target
        report_errors(self._sock, True)
        try:
            connection.start(target)
            await connection.wait_established()
        except BaseException:
            if connection.is_established:
                connection.close(ErrorCode.NO_ERROR)
            elif not connection.lingers:
                connection.drop()
            raise
        finally:
            self._connecting.pop(connection, None)
            if not self._connecting:
                # Nobody needs the reports any more, and uvloop stops watching a socket that has one.
                report_errors(self._sock, False)
        return connection

    async def rebind(self, host: str, port: int = 0) -> None:
        """Go on from another address of this system, with all connections (RFC 9000, section 9.2): for clients alone.

        What arrives at the former one is lost, and sent again. Raises
        :class:`~spaceblock.errors.ConnectionFailed` when the address cannot be had, and
        :class:`~spaceblock.errors.LocalProtocolError` when this endpoint accepts connections, when the address is of
        another family, and while a connection cannot move: until its handshake is confirmed and the server has given
        it another connection ID, or if the server forbids it. Nothing has changed then.
        """
        if self._server is not None:
            raise LocalProtocolError("an endpoint that accepts connections cannot move; listen on another one as well")
        sock = await open_socket(host, port)
        if self._is_closing:
            sock.close()
            raise ConnectionFailed("the endpoint is closed, so it cannot move; open another one")
        if sock.family != self._sock.family:
            sock.close()
            raise LocalProtocolError(f"{host} is of another family than the present address; open another endpoint")
        if not all(connection.may_move for connection in self._connections):
            sock.close()
            raise LocalProtocolError("a connection cannot move now; try again later, or connect again from there")
        is_far = plain_address(sock.getsockname())[0] != self.local_address[0]
        self._exchange_socket(sock)
        for connection in list(self._connections):
            connection.move(is_far)

    def _exchange_socket(self, sock: socket.socket) -> None:
        old, self._sock = self._sock, sock
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.remove_reader(thread.bell)
            thread.end()
        self._loop.remove_reader(old)
        self._loop.remove_writer(old)
        self.local_address = plain_address(sock.getsockname())
        self._has_trains = knows_trains(sock)
        report_errors(sock, bool(self._connecting))
        if self._pump is None:
            self._loop.add_reader(sock, self._on_readable)
        else:
            self._pump.attach(sock)
            # While no thread touches the engines.
            for connection, packets in self._engines.items():
                packets.limit_datagrams(self.largest_datagram(connection.raw_peer_address))
            self._watch_pump(self._pump, thread is not None)
        old.close()
        self._queue.clear()
        self._blocked.clear()

    async def close(self) -> None:
        """Close all connections, answer late packets for a closing period (RFC 9000, section 10.2), close the socket.

        The wait is three probe time-outs of the slowest connection and at most :data:`LINGER` seconds; there is none
        when no connection was closed by this side, or where the peer has said that it closes, too. An endpoint that
        only connects waits for one of the three: its socket is closed then, so that nothing late is answered any more,
        which is what the RFC asks for. A second call only waits for the same end.
        """
        self._is_closing = True
        for connection in list(self._connections):
            if connection.is_established:
                connection.close(ErrorCode.NO_ERROR)
            if not connection.lingers:
                connection.drop()
        period = max((connection.closing_period for connection in self._connections), default=0.0)
        patience = LINGER if self._server is not None else min(period / 3, LINGER)
        idle = asyncio.ensure_future(self._idle.wait())
        try:
            # asyncio.wait_for() of Python 3.11 and older loses a cancellation in the moment when the wait is over.
            await asyncio.wait({idle}, timeout=patience)
        finally:
            idle.cancel()
            self._close_now()

    @property
    def local_addresses(self) -> list[Address]:
        """Where others may reach this endpoint; for a wildcard address those of the default routes, then loopback."""
        return reachable_addresses(*self.local_address)

    @property
    def packet_filter(self) -> PacketFilter | None:
        """For tests: what says of each datagram whether it passes. From the first one on, no thread does."""
        return self._packet_filter

    @packet_filter.setter
    def packet_filter(self, passes: PacketFilter | None) -> None:
        self._packet_filter = passes
        self._leave_thread()

    @property
    def connections(self) -> int:
        """How many connections there are: half-open ones, living ones, and those that still answer late packets."""
        return len(self._connections)

    # For connections.

    def send(self, datagrams: list[tuple[bytes, Any]]) -> None:
        """Write datagrams; those that a full socket does not take wait for it."""
        if self.packet_filter is not None:
            passes = self.packet_filter
            datagrams = [(data, to) for data, to in datagrams if passes(data, plain_address(to), True)]
        if self._queue:
            self._queue.extend(datagrams)
            while len(self._queue) > SEND_QUEUE:
                self._queue.pop()
            return
        start = 0
        while start < len(datagrams):
            stop = train_stop(datagrams, start) if self._has_trains else start + 1
            data, address = datagrams[start]
            ancillary = answer_by(address)
            if stop - start > 1:
                ancillary.append((SOL_UDP, UDP_SEGMENT, len(data).to_bytes(2, sys.byteorder)))
            try:
                self._write([data for data, _ in datagrams[start:stop]], ancillary, address)
            except OSError as error:
                if stop - start > 1 and error.errno not in PASSING:
                    # A device without checksum offload, or a path for smaller datagrams: one at a time, from now on.
                    self._has_trains = False
                if not self._send_again(data, address):
                    self._queue.extend(datagrams[start:])
                    self._loop.add_writer(self._sock, self._on_writable)
                    return
                stop = start + 1
            start = stop

    def join(self, connection: AioquicConnection, packets: PacketEngine) -> None:
        assert self._pump is not None
        packets.set_peer_address(connection.raw_peer_address, self._sock.family)
        packets.owner = connection
        packets.recovery.ecn.enable()
        packets.limit_datagrams(self.largest_datagram(connection.raw_peer_address))
        self._engines[connection] = packets
        for cid in self._connections.get(connection, ()):
            self._pump.add_route(cid, packets)

    def pump(self, connection: AioquicConnection) -> int | None:
        packets = self._engines.get(connection)
        if self._pump is None or packets is None:
            return None
        if self._pump.budget.waiting:
            self._watch_turns()
        if self._packet_filter is not None:
            return None
        result = self._pump.send(packets)
        if result == self._pump.FULL:
            self._wait_for_room(connection)
        return result

    def send_train(self, connection: AioquicConnection, data: Any, segment: int, address: Any) -> bool:
        if self.packet_filter is not None or not self._has_trains:
            pieces = [bytes(data[start : start + segment]) for start in range(0, len(data), segment)]
            self.send([(piece, address) for piece in pieces])
            return True
        train = [(SOL_UDP, UDP_SEGMENT, segment.to_bytes(2, sys.byteorder))] if len(data) > segment else []
        try:
            self._sock.sendmsg([data], train + answer_by(address), 0, address)
        except (BlockingIOError, InterruptedError):
            self._wait_for_room(connection)
            return False
        except OSError as error:
            if error.errno in PASSING:
                return True  # lost, as on a full road; recovery finds out
            self._has_trains = False
            return self.send_train(connection, data, segment, address)
        return True

    @property
    def shared_pump(self) -> Pump | None:
        return None if self._thread is None else self._pump

    def add_route(self, cid: bytes, connection: AioquicConnection) -> None:
        if connection in self._connections:
            self._routes[cid] = connection
            self._connections[connection].add(cid)
            if self._pump is not None and connection in self._engines:
                self._pump.add_route(cid, self._engines[connection])

    def remove_route(self, cid: bytes) -> None:
        connection = self._routes.pop(cid, None)
        if self._pump is not None:
            self._pump.remove_route(cid)
        if connection is not None:
            self._connections[connection].discard(cid)

    def largest_datagram(self, address: Any) -> int:
        """Bytes of UDP payload that leave this system for a socket address; the path may carry less."""
        return largest_datagram(address)

    def token_of(self, cid: bytes) -> bytes:
        return self._resets.token(cid)

    def watch_resets(self, connection: AioquicConnection, tokens: tuple[bytes, ...]) -> None:
        self._resets.watch(connection, tokens if connection in self._connections else ())

    def established(self, connection: AioquicConnection) -> None:
        self._half_open.discard(connection)
        self._connecting.pop(connection, None)
        if not connection.is_client and self._on_connection is not None:
            self._on_connection(connection)

    def forget(self, connection: AioquicConnection) -> None:
        for cid in self._connections.pop(connection, ()):
            self._routes.pop(cid, None)
            if self._pump is not None:
                self._pump.remove_route(cid)
        packets = self._engines.pop(connection, None)
        if self._pump is not None and packets is not None:
            self._pump.forget(packets)
        self._resets.watch(connection, ())
        self._half_open.discard(connection)
        self._connecting.pop(connection, None)
        if not self._connections:
            self._idle.set()

    # Reading.

    def _on_readable_pump(self) -> None:
        if self.packet_filter is not None:
            self._on_readable_native()
            return
        assert self._pump is not None
        try:
            try:
                news = self._pump.receive()
            except Exception as error:
                self._lose_all(error)
                return
            if news is not None:
                self._take_news(*news)
        finally:
            self._leave_pump()

    def _on_bell(self) -> None:
        assert self._pump is not None
        try:
            news = self._pump.collect()
        except Exception as error:
            self._leave_thread()
            self._lose_all(error)
            return
        try:
            if news is not None:
                self._take_news(*news)
        finally:
            self._leave_pump()

    def _lose_all(self, error: Exception) -> None:
        """What came could not be taken in, as there is no memory: nobody knows of which connection it was, and what
        that has acknowledged without having it. So none goes on, and whoever uses one is told at once."""
        self._loop.call_exception_handler({"message": "Packets could not be taken in", "exception": error})
        for connection in list(self._engines):
            connection.close(
                ErrorCode.INTERNAL, "packets could not be taken in: let that side have more memory and connect again"
            )

    def _leave_pump(self) -> None:
        if self._pump is not None and self._thread is not None:
            self._pump.leave()

    def _take_news(self, engines: list[PacketEngine], others: list[tuple[bytes, Any]]) -> None:
        now = self._loop.time()
        touched: dict[AioquicConnection, None] = {}
        for packets in engines:
            touched[packets.owner] = None
            packets.owner.take_news(now)
        for data, address in others:
            self._take_in(data, address, now, touched)
        self._work(touched)

    def _on_readable_native(self) -> None:
        now = self._loop.time()
        touched: dict[AioquicConnection, None] = {}
        for _ in range(RECEIVE_BUFFERS):
            try:
                size, ancillary, _, address = self._sock.recvmsg_into([self._buffer], _ANCILLARY_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                break  # an error that an earlier datagram met; _take_errors finds which
            address = way_of(address, ancillary)
            segment = size
            for level, kind, value in ancillary:
                if level == SOL_UDP and kind == UDP_GRO:
                    segment = int.from_bytes(value[:4], sys.byteorder)
            data = self._buffer[:size]
            connection = self._routes.get(bytes(data[1:SHORT_HEADER])) if size and data[0] < 0x80 else None
            if connection is not None and self.packet_filter is None:
                connection.receive_buffer(data, segment, address, now)
                touched[connection] = None
            else:
                for start in range(0, size, max(segment, 1)):
                    self._take_in(bytes(data[start : start + segment]), address, now, touched)
        self._work(touched)

    def _on_readable(self) -> None:
        routes = self._routes
        now = self._loop.time()
        touched: dict[AioquicConnection, None] = {}
        for _ in range(RECEIVE_BATCH):
            try:
                data, address = self._read()
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                break  # an error that an earlier datagram met; _take_errors finds which
            if self.packet_filter is not None and not self.packet_filter(data, plain_address(address), False):
                continue
            short = data and data[0] < 0x80
            connection = routes.get(data[1:SHORT_HEADER]) if short else self._find(data, address, now)
            if connection is None and short:
                self._take_stray(data, address, now, touched)
            if connection is not None:
                connection.receive(data, address, now)
                touched[connection] = None
        self._work(touched)

    def _read(self) -> tuple[bytes, Any]:
        if not self._has_ways:
            return self._sock.recvfrom(65_535)
        data, ancillary, _, address = self._sock.recvmsg(65_535, _ANCILLARY_SIZE)
        return data, way_of(address, ancillary)

    def _take_in(self, data: bytes, address: Any, now: float, touched: dict[AioquicConnection, None]) -> None:
        if self.packet_filter is not None and not self.packet_filter(data, plain_address(address), False):
            return
        short = data and data[0] < 0x80
        connection = self._routes.get(data[1:SHORT_HEADER]) if short else self._find(data, address, now)
        if connection is not None:
            connection.receive(data, address, now)
            touched[connection] = None
        elif short:
            self._take_stray(data, address, now, touched)

    def _take_stray(self, data: bytes, address: Any, now: float, touched: dict[AioquicConnection, None]) -> None:
        """A packet with a short header and an unknown connection ID: a stateless reset, or what one answers."""
        connection = self._resets.connection_of(data)
        if connection is not None and address is not None and connection.raw_peer_address[:2] == address[:2]:
            connection.reset_by_peer(now)
            touched[connection] = None
        elif not self._is_closing and (answer := self._resets.answer(data, now)) is not None:
            self.send([(answer, address)])

    def _work(self, touched: dict[AioquicConnection, None]) -> None:
        """Let each connection that got something work once."""
        for connection in touched:
            if connection.has_heard or connection.is_client:
                connection.serve()
            else:
                connection.drop()  # what seemed a client's first packet was none
        if not touched:
            self._take_errors()

    def _find(self, data: bytes, address: Any, now: float) -> AioquicConnection | None:
        """The connection that a datagram with a long header belongs to, which may be a new one.

        Every version of QUIC begins its long headers with version and connection IDs (RFC 8999, section 5.1).
        """
        if len(data) < 7:
            return None
        stop = 6 + data[5]
        destination_cid = data[6:stop]
        connection = self._routes.get(destination_cid)
        if connection is not None or self._server is None or self._is_closing or len(data) < DATAGRAM_MIN:
            return connection
        version = int.from_bytes(data[1:5], "big")
        if version != VERSION:
            if version:
                source_cid = data[stop + 1 : stop + 1 + data[stop]]
                self.send([(version_negotiation(destination_cid, source_cid), address)])
            return None
        return self._accept(data, destination_cid, address, now)

    def _accept(self, data: bytes, destination_cid: bytes, address: Any, now: float) -> AioquicConnection | None:
        """Begin a connection with a client's first packet."""
        assert self._server is not None
        if self.strangers is not None and self.strangers.refuses(plain_address(address)[0]):
            return None
        token = initial_token(data)
        if token is None or len(destination_cid) < 8 or len(self._half_open) >= self._options.half_open_limit:
            return None
        original_cid, retry_cid = destination_cid, None
        if token:
            # Tokens come from our Retry packets only, so a bad one is a client whose handshake could not succeed.
            validated = self._retry.validate(token, destination_cid, address, now)
            if validated is None:
                return None
            original_cid, retry_cid = validated, destination_cid
        elif len(self._half_open) >= self._options.retry_above or (self.strangers is not None and self.strangers.many):
            self.send([(self._retry.retry(data, address, now), address)])
            return None
        connection = AioquicConnection(
            server_engine(self._server, self._options, original_cid, retry_cid, self.token_of),
            self,
            is_client=False,
            handshake_deadline=now + self._options.handshake_timeout,
            name=address_text(*plain_address(address)),
            options=self._options,
        )
        self._add(connection)
        self.add_route(destination_cid, connection)
        self._half_open.add(connection)
        return connection

    def _check_open(self, name: str) -> None:
        if self._is_closing:
            raise ConnectionFailed(f"the endpoint is closed, so it cannot connect to {name}; open another one")

    def _add(self, connection: AioquicConnection) -> None:
        self._connections[connection] = set()
        self._idle.clear()
        self.add_route(connection.host_cid, connection)

    # Writing.

    def _on_writable(self) -> None:
        queue = self._queue
        if self._pump is not None and not self._pump.resume():
            return
        while queue:
            if not self._send_again(*queue[0]):
                return
            queue.popleft()
        self._loop.remove_writer(self._sock)
        blocked, self._blocked = self._blocked, {}
        for connection in blocked:
            connection.serve()

    def _wait_for_room(self, connection: AioquicConnection) -> None:
        self._blocked[connection] = None
        self._loop.add_writer(self._sock, self._on_writable)

    def _watch_turns(self) -> None:
        """Connections wait for credit that others have: see to it that they get it even if nothing arrives any more."""
        if self._turn_timer is None and self._pump is not None and (wait := self._pump.turn_wait) is not None:
            self._turn_timer = self._loop.call_later(wait, self._take_turns)

    def _take_turns(self) -> None:
        self._turn_timer = None
        if self._pump is not None:
            try:
                self._take_news(self._pump.take_turns(), [])
            finally:
                self._watch_turns()

    def _start_pump(self) -> None:
        from .native.pump import Pump

        self._pump = Pump(self._sock, self.receive_buffer)
        self._watch_pump(self._pump, self._options.threaded)

    def _watch_pump(self, pump: Pump, threaded: bool) -> None:
        from .native.pump_thread import may_begin
        from .native.udp import prepare_socket

        prepare_socket(self._sock, gro=True, receive_buffer=SOCKET_BUFFER, send_buffer=SOCKET_BUFFER)
        self._loop.add_reader(self._sock, self._on_readable_pump)
        if threaded and may_begin():
            try:
                self._start_thread(pump)
            except (OSError, RuntimeError) as error:
                _log.warning("no thread helps the event loop to move packets, which costs speed: %s", error)

    def _start_thread(self, pump: Pump) -> None:
        from .native.pump_thread import PumpThread

        thread = PumpThread(pump)
        try:
            self._loop.add_reader(thread.bell, self._on_bell)
            thread.start()
        except BaseException:
            self._loop.remove_reader(thread.bell)
            thread.end()
            raise
        self._thread = thread

    def _leave_thread(self) -> None:
        """From now on nobody stands in for the event loop."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.remove_reader(thread.bell)
            thread.end()
            self._on_readable_pump()
            for connection in list(self._engines):
                connection.serve()

    def _write(self, data: list[bytes], ancillary: list[tuple[int, int, bytes]], address: Any) -> None:
        if ancillary:
            self._sock.sendmsg(data, ancillary, 0, address)
        else:
            self._sock.sendto(data[0], address)

    def _send_again(self, data: bytes, address: Any) -> bool:
        """Send a datagram after an error, or lose it to another one; False when the socket is full.

        The first error need not be about this datagram: the socket tells of earlier ones in this way too.
        """
        self._take_errors()
        try:
            self._write([data], answer_by(address), address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in UNREACHABLE:
                self._refuse(address, error.errno)
        return True

    # Errors of the network.

    def _take_errors(self) -> None:
        """Read what the network reported about datagrams sent earlier, and end first flights that nobody will answer.

        Only connections that got no packet at all are ended: such reports can be forged.
        """
        for code, address in reported_errors(self._sock):
            if code in UNREACHABLE:
                self._refuse(address, code)

    def _refuse(self, address: Any, code: int) -> None:
        for connection, target in list(self._connecting.items()):
            if target[:2] == address[:2] and not connection.has_heard:
                reason = os.strerror(code)
                connection.fail(
                    Unreachable(
                        f"{address_text(*plain_address(target))} cannot be reached: {reason[:1].lower()}{reason[1:]}; "
                        "check the address, and that the other side listens",
                        phase="connecting",
                        errno=code,
                    )
                )

    def _close_now(self) -> None:
        for connection in list(self._connections):
            connection.drop()
        self._leave_thread()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._pump = None  # it knows the socket by its number, which may soon be another file's
            self._sock.close()
        self._queue.clear()
        self._on_connection = None


RECEIVE_BUFFERS = 8
"""Receive buffers, of up to 64 KiB each, taken in before the connections work."""

_BUFFER_SIZE = 65_535
_ANCILLARY_SIZE = 128
