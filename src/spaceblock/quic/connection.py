"""One QUIC connection on aioquic: the engine's events become calls of handlers, and calls become datagrams.

Rules: the endpoint feeds a batch of datagrams with :meth:`AioquicConnection.receive` and then calls
:meth:`AioquicConnection.service` once. Handlers run in ``service`` only, after the engine took in the whole batch; what
they do is sent once, at the end of it. A call from elsewhere schedules one ``service`` for the loop's next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ErrorCode, Unreachable, VersionMismatch
from .handover import StreamDataTaken
from .handshake.engine import (
    NO_COMMON_PROTOCOL,
    ConnectionIdIssued,
    ConnectionIdRetired,
    Engine,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from .handshake.leaving import hand_over
from .interface import (
    REASON_MAX,
    Address,
    CloseReason,
    Connection,
    ConnectionEnded,
    Stream,
    TransportOptions,
)
from .stream import AioquicStream

if TYPE_CHECKING:
    from cryptography import x509

    from .native.engine import PacketEngine
    from .native.engine_shell import NativeEngine
    from .native.pump import Pump

RESEND_INTERVAL = 0.001
"""Seconds between the first two closes that answer late packets; every further one waits twice as long."""


class HomeEndpoint(Protocol):
    """What a connection needs of its endpoint."""

    local_address: Address
    receive_buffer: int
    """Bytes that the kernel keeps for us until we read them."""

    def token_of(self, cid: bytes) -> bytes:
        """The stateless reset token of a connection ID of ours."""

    def send(self, datagrams: list[tuple[bytes, Any]]) -> None:
        """Put datagrams on the wire, or drop them."""

    def send_train(self, connection: AioquicConnection, data: Any, segment: int, address: Any) -> bool:
        """Write datagrams of ``segment`` bytes, the last one maybe shorter.

        False means a full socket: the connection is serviced when it has room again.
        """

    def join(self, connection: AioquicConnection, packets: PacketEngine) -> None:
        """From now on a native engine has the connection's packets, straight from the socket where that can be."""

    def pump(self, connection: AioquicConnection) -> int | None:
        """Send what the connection's native engine has to send, without Python.

        Says how it went as ``Pump.send`` does; None where datagrams are to be given to :meth:`send_train`.
        """

    @property
    def shared_pump(self) -> Pump | None:
        """The pump, where it has a thread."""

    def add_route(self, cid: bytes, connection: AioquicConnection) -> None:
        """Bring packets for ``cid`` to ``connection``."""

    def remove_route(self, cid: bytes) -> None:
        """Forget a connection ID."""

    def watch_resets(self, connection: AioquicConnection, tokens: tuple[bytes, ...]) -> None:
        """From now on a stateless reset with one of these tokens, and with no others, ends the connection."""

    def established(self, connection: AioquicConnection) -> None:
        """The handshake is complete on this side."""

    def forget(self, connection: AioquicConnection) -> None:
        """The connection is over and will answer no packet any more."""


class AioquicConnection(Connection):
    """A :class:`Connection` on unmodified aioquic; made by the endpoint alone."""

    def __init__(
        self,
        engine: Engine,
        endpoint: HomeEndpoint,
        *,
        is_client: bool,
        handshake_deadline: float,
        name: str,
        options: TransportOptions,
    ) -> None:
        self.is_client = is_client
        self.peer_certificate: x509.Certificate | None = None
        self.close_reason: CloseReason | None = None
        self.is_established: bool = False

        self._engine: Engine | NativeEngine = engine
        self._options = options
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._name = name  # how errors call the peer
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[CloseReason] = self._loop.create_future()
        self._handshake_deadline: float | None = handshake_deadline

        self._streams: dict[int, AioquicStream] = {}
        self._ready: dict[AioquicStream, None] = {}  # with something to deliver, in order of arrival
        self.draining: set[AioquicStream] = set()  # somebody waits in drain()
        self.ending: set[AioquicStream] = set()  # ended by both sides, not yet acknowledged
        self._unclaimed: list[AioquicStream] = []  # opened by the peer, not yet given to the stream handler
        self._stream_handler: Callable[[Stream], None] | None = None
        self._close_handler: Callable[[CloseReason], None] | None = None

        self._in_service = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when that fires, which may be too early
        self._farewell: list[tuple[bytes, Any]] = []  # what closed the connection, to answer late packets with
        self._reset_tokens: tuple[bytes, ...] = ()
        self._late_room = 0
        self._resend_at = 0.0
        self._resend_interval = RESEND_INTERVAL

    # The interface.

    @property
    def peer_address(self) -> Address:
        return plain_address(self._engine.get_peer_address() or ("", 0))

    @property
    def local_address(self) -> Address:
        return self._endpoint.local_address

    @property
    def smoothed_rtt(self) -> float:
        return self._engine.smoothed_rtt

    @property
    def congestion_window(self) -> int:
        return self._engine.congestion_window

    def set_stream_handler(self, handler: Callable[[Stream], None] | None) -> None:
        self._stream_handler = handler
        if self._unclaimed:
            self.schedule()

    def set_close_handler(self, handler: Callable[[CloseReason], None] | None) -> None:
        self._close_handler = handler
        if handler is not None and self.close_reason is not None:
            self._loop.call_soon(self._tell_closed)

    def open_stream(self, *, unidirectional: bool) -> Stream:
        if self.close_reason is not None:
            raise self.ended_error()
        stream_id = self._engine.open_stream(unidirectional)
        stream = self._streams[stream_id] = AioquicStream(self, stream_id, is_local=True)
        return stream

    def close(self, code: int, reason: str = "") -> None:
        if self.close_reason is not None:
            return
        reason = reason.encode("utf-8", "replace")[:REASON_MAX].decode("utf-8", "ignore")
        self._transmit()  # a last chance for what is queued, since a closing engine sends nothing but its close
        self._engine.close(error_code=code, reason_phrase=reason)
        self._transmit()
        self._finish(self._engine.ended() or CloseReason(code, reason))
        self.schedule()

    async def wait_closed(self) -> CloseReason:
        return await asyncio.shield(self._closed)

    def keep_alive(self) -> None:
        if self.close_reason is None:
            self._engine.ping()
            self.schedule()

    # For its streams.

    @property
    def engine(self) -> Engine | NativeEngine:
        return self._engine

    def schedule(self) -> None:
        if not self._scheduled and not self._in_service:
            self._scheduled = True
            self._loop.call_soon(self._scheduled_service)

    def deliver_soon(self, stream: AioquicStream) -> None:
        self._ready[stream] = None
        self.schedule()

    def forget_stream(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def guarded(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Call a handler; its failure ends this connection and nothing else."""
        try:
            handler(*arguments)
        except Exception as error:
            self._report("A handler of a QUIC connection failed", error)
            self.close(ErrorCode.INTERNAL)

    def ended_error(self, phase: str | None = None) -> ConnectionEnded:
        assert self.close_reason is not None
        return ConnectionEnded(
            f"the connection with {self._name} is over: {self.close_reason}; connect again",
            reason=self.close_reason,
            phase=phase,
            remote=self.close_reason.by_peer,
        )

    # For the endpoint.

    @property
    def host_cid(self) -> bytes:
        """The connection ID under which the peer first answers."""
        return self._engine.host_cid

    @property
    def raw_peer_address(self) -> Any:
        """Where the peer is, as the socket names it."""
        return self._engine.get_peer_address()

    @property
    def has_heard(self) -> bool:
        """At least one packet came that only the peer could have made."""
        return self._engine.started

    @property
    def lingers(self) -> bool:
        """It was closed by this side and still answers late packets."""
        return self._engine.closing

    @property
    def closing_period(self) -> float:
        """Seconds for which late packets will still be answered."""
        at = self._engine.get_timer() if self._engine.closing else None
        return 0.0 if at is None else max(at - self._loop.time(), 0.0)

    def start(self, address: Any) -> None:
        """Send a client's first flight to ``address``."""
        assert isinstance(self._engine, Engine), "a connection begins with a handshake"
        self._engine.connect(address, self._loop.time())
        self.service()

    async def wait_established(self) -> None:
        """Wait for the handshake; raises what ``verify_peer`` raised, or a :class:`ConnectionFailed`."""
        await asyncio.shield(self._connected)

    def receive(self, data: bytes, address: Any, now: float) -> None:
        """Take in one datagram; :meth:`service` must follow."""
        engine = self._engine
        if self._farewell:
            if address[:2] == self._farewell[0][1][:2]:
                self._answer_late_packet(len(data), now)
            return
        try:
            engine.receive_datagram(data, address, now)
        except Exception as error:
            # A parser that stumbles over hostile bytes must not take the other connections down.
            self._report("A datagram could not be processed", error)
            engine.close(error_code=1, frame_type=0, reason_phrase="")  # INTERNAL_ERROR

    def receive_buffer(self, data: memoryview, segment: int, address: Any, now: float) -> None:
        """Take in datagrams of ``segment`` bytes each, the last one maybe shorter; they are changed in place."""
        engine = self._engine
        if isinstance(engine, Engine) or self._farewell:
            for start in range(0, len(data), segment):
                self.receive(bytes(data[start : start + segment]), address, now)
        else:
            engine.receive_buffer(data, segment, address, now)

    def take_news(self, now: float) -> None:
        """Take in what the native engine's packets have brought; :meth:`service` must follow."""
        if not isinstance(self._engine, Engine):
            self._or_drop(self._engine.take_news, now)
            if self._farewell and not self._engine.terminated:
                self._answer_late_packet(0, now)

    @property
    def may_move(self) -> bool:
        """:meth:`move` is possible now, or needless."""
        return self.close_reason is not None or self._engine.may_move

    def move(self, is_far: bool) -> None:
        """What is sent from now on leaves from another address, on another host if it is ``is_far``."""
        if self.close_reason is None:
            self._engine.move(is_far, self._loop.time())
            self.service()

    def reset_by_peer(self, now: float) -> None:
        """The peer has sent a stateless reset; :meth:`service` must follow."""
        self._engine.reset_by_peer(now)

    def serve(self) -> None:
        """:meth:`service` for those who have other connections, too: a failure ends this one and nothing else."""
        self._or_drop(self.service)

    def service(self) -> None:
        """Deliver what arrived, send what is due, set the timer."""
        if self._in_service:
            return
        self._in_service = True
        try:
            self._take_events()
            self._deliver()
            if self.draining or self.ending:
                self._check_acknowledged()
            self._transmit()
            if self._options.native and isinstance(self._engine, Engine) and self._engine.confirmed:
                self._hand_over(self._engine)
            if self.close_reason is None and (reason := self._engine.ended()) is not None:
                self._finish(reason)
        finally:
            self._in_service = False
        self._set_timer()

    def fail(self, error: Exception) -> None:
        """Give up a handshake that cannot succeed, without a word to the peer."""
        if not self.is_established and self.close_reason is None:
            self._engine.abort()
            self._finish(CloseReason(0, str(error), is_application=False), error)
            self.drop()

    def drop(self) -> None:
        """Forget everything: no timer, no route, no further packet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._engine.abort()
        if self.close_reason is None:
            self._finish(CloseReason(0, "dropped", is_application=False))
        self._endpoint.forget(self)

    def _hand_over(self, engine: Engine) -> None:
        """Go on with the native engine; what arrived and was not delivered is kept by the streams."""
        from .native.engine_shell import NativeEngine
        from .native.shared_engine import SharedEngine

        self._take_events()
        pump = self._endpoint.shared_pump
        state = hand_over(engine)
        self._engine = (NativeEngine if pump is None else partial(SharedEngine, pump))(
            state,
            self._options,
            partial(self._endpoint.send_train, self),
            partial(self._endpoint.pump, self),
            self._endpoint.receive_buffer,
            self._endpoint.token_of,
            lambda cid: self._endpoint.add_route(cid, self),
        )
        # Nothing may have arrived under these keys yet; the handshake's packets count as well.
        self._engine.packets.idle_since = int(self._loop.time() * 1_000_000)
        for local in state.local_ids:
            self._endpoint.add_route(local.cid, self)  # among them those of which the peer is yet to be told
        self._endpoint.join(self, self._engine.packets)
        for stream in self.draining:
            stream.await_backlog()
        if self._timer is not None:
            self._engine.set_timer(self._timer_at)
        self._transmit()
        self._deliver()

    # Events.

    def _take_events(self) -> None:
        next_event = self._engine.next_event
        streams = self._streams
        ready = self._ready
        while (event := next_event()) is not None:
            if isinstance(event, StreamDataReceived):
                stream = streams.get(event.stream_id) or self._accept_stream(event.stream_id)
                stream.received(event.data, event.end_stream)
                ready[stream] = None
            elif isinstance(event, StreamDataTaken):
                stream = streams[event.stream_id]
                stream.was_taken(event.count, event.end_stream)
                ready[stream] = None
            elif isinstance(event, StreamReset):
                stream = streams.get(event.stream_id) or self._accept_stream(event.stream_id)
                stream.was_reset(event.error_code)
                ready[stream] = None
            elif isinstance(event, StopSendingReceived):
                stopped = streams.get(event.stream_id)
                if stopped is None:
                    if (event.stream_id & 1 == 0) is self.is_client or event.stream_id & 2:
                        continue  # finished long ago
                    stopped = self._accept_stream(event.stream_id)
                stopped.was_stopped(event.error_code)
                ready[stopped] = None
            elif isinstance(event, ConnectionIdIssued):
                self._endpoint.add_route(event.connection_id, self)
            elif isinstance(event, ConnectionIdRetired):
                self._endpoint.remove_route(event.connection_id)
            elif isinstance(event, HandshakeCompleted):
                self.peer_certificate = self._engine.peer_certificate
                self.is_established = True
                self._handshake_deadline = None
                if not self._connected.done():
                    self._connected.set_result(None)
                self.guarded(self._endpoint.established, self)

    def _accept_stream(self, stream_id: int) -> AioquicStream:
        stream = self._streams[stream_id] = AioquicStream(self, stream_id, is_local=False)
        self._unclaimed.append(stream)
        return stream

    def _deliver(self) -> None:
        # A handler may set other handlers, and so make more to deliver.
        while True:
            if self._unclaimed and self._stream_handler is not None:
                claimed = self._unclaimed.pop(0)
                claimed.was_claimed()
                self.guarded(self._stream_handler, claimed)
            elif self._ready:
                stream = next(iter(self._ready))
                del self._ready[stream]
                stream.deliver()
            else:
                return

    def _check_acknowledged(self) -> None:
        for stream in list(self.draining):
            stream.wake()
        for stream in list(self.ending):
            if self._engine.sender_finished(stream.stream_id):
                stream.sent_all()

    def _or_drop(self, act: Callable[..., None], *arguments: Any) -> None:
        # Without its timer a connection would be there for ever, and whoever waits for it as well.
        try:
            act(*arguments)
        except Exception as error:
            self._report("A QUIC connection failed", error)
            self.drop()

    def _report(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"{message} ({self._name})", "exception": error})

    # Sending.

    def _scheduled_service(self) -> None:
        self._scheduled = False
        if not self._engine.terminated:
            self.serve()
        elif self._ready or self._unclaimed:
            self._deliver()

    def _transmit(self) -> None:
        engine = self._engine
        if engine.terminated:
            return
        datagrams = engine.datagrams_to_send(self._loop.time())
        if isinstance(engine, Engine):
            # Connection IDs are issued while writing, and the peer may use them at once.
            self._take_events()
            if self._ready:
                self._loop.call_soon(self._scheduled_service)
        elif engine.has_more:
            self._loop.call_soon(self._scheduled_service)
        if datagrams:
            self._endpoint.send(datagrams)
            if engine.closing:
                self._farewell = datagrams
        if engine.reset_tokens != self._reset_tokens:
            self._reset_tokens = engine.reset_tokens
            self._endpoint.watch_resets(self, self._reset_tokens)

    def _answer_late_packet(self, size: int, now: float) -> None:
        # RFC 9000, section 10.2.1: answer with the close, ever more rarely, and with at most three times what came from
        # where the peer may not be.
        self._late_room += 3 * size
        if self._engine.closing and now >= self._resend_at:
            if not self._engine.path_is_valid:
                needed = sum(len(data) for data, _ in self._farewell)
                if needed > self._late_room:
                    return
                self._late_room -= needed
            self._resend_at = now + self._resend_interval
            self._resend_interval *= 2
            self._endpoint.send(self._farewell)

    def _set_timer(self) -> None:
        if self._engine.terminated:
            self.drop()
            return
        at = self._engine.get_timer()
        if self._handshake_deadline is not None and (at is None or self._handshake_deadline < at):
            at = self._handshake_deadline
        if at is None:
            return
        # A timer that fires too early is set again: cheaper than replacing it every time.
        if self._timer is None or at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at  # uvloop's handles do not always know it
            self._timer = self._loop.call_at(at, self._on_timer)
            self._engine.set_timer(at)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._handshake_deadline is not None and now >= self._handshake_deadline:
            self._handshake_deadline = None
            self.fail(self._unreachable())
            return
        at = self._engine.get_timer()
        if at is not None and now < at:
            self._set_timer()
            return
        if at is not None:
            self._or_drop(self._engine.handle_timer, now)
        self.serve()

    # The end.

    def _finish(self, reason: CloseReason, error: Exception | None = None) -> None:
        self.close_reason = reason
        self._handshake_deadline = None
        if not self._closed.done():
            self._closed.set_result(reason)
        if not self._connected.done():
            self._connected.set_exception(error or self._handshake_error(reason))
            self._connected.exception()  # a connection that nobody waits for, such as a server's, fails silently
        for stream in list(self.draining):
            stream.wake()
        if self._close_handler is not None:
            self._loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        handler, self._close_handler = self._close_handler, None
        if handler is not None and self.close_reason is not None:
            self.guarded(handler, self.close_reason)

    def _handshake_error(self, reason: CloseReason) -> Exception:
        if self._engine.verify_error is not None:
            return self._engine.verify_error
        if reason.timed_out:
            return self._unreachable()
        if self._engine.version_mismatch or (not reason.is_application and reason.code in NO_COMMON_PROTOCOL):
            return VersionMismatch(
                f"the other side at {self._name} speaks no protocol in common with this one; update the older one",
                phase="connecting",
            )
        return self.ended_error("connecting")

    def _unreachable(self) -> Unreachable:
        answered = "did not complete the handshake" if self._engine.started else "did not answer"
        return Unreachable(
            f"{self._name} {answered} in time; check the address, and that the other side listens", phase="connecting"
        )


def plain_address(address: Any) -> Address:
    """Host and port of a socket's address; an IPv4 address in IPv6 clothes is undressed."""
    host, port = address[:2]
    return (host.removeprefix("::ffff:") if "." in host else host, port)
