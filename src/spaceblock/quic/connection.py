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

from ..errors import ErrorCode, LocalProtocolError, SpaceblockError, Unreachable, VersionMismatch
from .handover import StreamDataTaken
from .handshake import (
    NO_COMMON_PROTOCOL,
    ConnectionIdIssued,
    ConnectionIdRetired,
    Engine,
    HandshakeCompleted,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from .interface import (
    REASON_MAX,
    Address,
    CloseReason,
    Connection,
    ConnectionEnded,
    Intake,
    Stream,
    StreamStopped,
    TransportOptions,
)

if TYPE_CHECKING:
    from cryptography import x509

    from .native.engine import PacketEngine
    from .native.engine_shell import NativeEngine

RESEND_INTERVAL = 0.001
"""Seconds between the first two closes that answer late packets; every further one waits twice as long."""


class Carrier(Protocol):
    """What a connection needs of its endpoint."""

    local_address: Address
    receive_buffer: int
    """Bytes that the kernel keeps for us until we read them."""

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

    def add_route(self, cid: bytes, connection: AioquicConnection) -> None:
        """Bring packets for ``cid`` to ``connection``."""

    def remove_route(self, cid: bytes) -> None:
        """Forget a connection ID."""

    def established(self, connection: AioquicConnection) -> None:
        """The handshake is complete on this side."""

    def forget(self, connection: AioquicConnection) -> None:
        """The connection is over and will answer no packet any more."""


class AioquicConnection(Connection):
    """A :class:`Connection` on unmodified aioquic; made by the endpoint alone."""

    def __init__(
        self,
        engine: Engine,
        carrier: Carrier,
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
        self._carrier = carrier
        self._loop = asyncio.get_running_loop()
        self._name = name  # how errors call the peer
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[CloseReason] = self._loop.create_future()
        self._handshake_deadline: float | None = handshake_deadline

        self._streams: dict[int, _AioquicStream] = {}
        self._ready: dict[_AioquicStream, None] = {}  # with something to deliver, in order of arrival
        self._draining: set[_AioquicStream] = set()  # somebody waits in drain()
        self._ending: set[_AioquicStream] = set()  # ended by both sides, not yet acknowledged
        self._unclaimed: list[_AioquicStream] = []  # opened by the peer, not yet given to the stream handler
        self._stream_handler: Callable[[Stream], None] | None = None
        self._close_handler: Callable[[CloseReason], None] | None = None

        self._in_service = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0  # what the timer is for; the timer itself may be set for earlier
        self._farewell: list[tuple[bytes, Any]] = []  # what closed the connection, to answer late packets with
        self._resend_at = 0.0
        self._resend_interval = RESEND_INTERVAL

    # The interface.

    @property
    def peer_address(self) -> Address:
        return plain_address(self._engine.get_peer_address() or ("", 0))

    @property
    def local_address(self) -> Address:
        return self._carrier.local_address

    @property
    def smoothed_rtt(self) -> float:
        return self._engine.smoothed_rtt

    @property
    def congestion_window(self) -> int:
        return self._engine.congestion_window

    def set_stream_handler(self, handler: Callable[[Stream], None] | None) -> None:
        self._stream_handler = handler
        if self._unclaimed:
            self._schedule()

    def set_close_handler(self, handler: Callable[[CloseReason], None] | None) -> None:
        self._close_handler = handler
        if handler is not None and self.close_reason is not None:
            self._loop.call_soon(self._tell_closed)

    def open_stream(self, *, unidirectional: bool) -> Stream:
        if self.close_reason is not None:
            raise self._ended_error()
        stream_id = self._engine.open_stream(unidirectional)
        stream = self._streams[stream_id] = _AioquicStream(self, stream_id, is_local=True)
        return stream

    def close(self, code: int, reason: str = "") -> None:
        if self.close_reason is not None:
            return
        reason = reason.encode("utf-8", "replace")[:REASON_MAX].decode("utf-8", "ignore")
        self._transmit()  # a last chance for what is queued, since a closing engine sends nothing but its close
        self._engine.close(error_code=code, reason_phrase=reason)
        self._transmit()
        self._finish(self._engine.ended() or CloseReason(code, reason))
        self._schedule()

    async def wait_closed(self) -> CloseReason:
        return await asyncio.shield(self._closed)

    def keep_alive(self) -> None:
        if self.close_reason is None:
            self._engine.ping()
            self._schedule()

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
            self._answer_late_packet(now)
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
            if self._farewell:
                self._answer_late_packet(now)
            else:
                self._engine.take_news(now)

    def service(self) -> None:
        """Deliver what arrived, send what is due, set the timer."""
        if self._in_service:
            return
        self._in_service = True
        try:
            self._take_events()
            self._deliver()
            if self._draining or self._ending:
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
        self._carrier.forget(self)

    def _hand_over(self, engine: Engine) -> None:
        """Go on with the native engine; what arrived and was not delivered is kept by the streams."""
        from .native.engine_shell import NativeEngine

        self._take_events()
        state = engine.hand_over()
        self._engine = NativeEngine(
            state,
            self._options,
            partial(self._carrier.send_train, self),
            partial(self._carrier.pump, self),
            self._carrier.receive_buffer,
        )
        # Nothing may have arrived under these keys yet; the handshake's packets count as well.
        self._engine.packets.idle_since = int(self._loop.time() * 1_000_000)
        self._carrier.join(self, self._engine.packets)
        for stream in self._streams.values():
            stream.change_engine(self._engine)
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
                self._carrier.add_route(event.connection_id, self)
            elif isinstance(event, ConnectionIdRetired):
                self._carrier.remove_route(event.connection_id)
            elif isinstance(event, HandshakeCompleted):
                self.peer_certificate = self._engine.peer_certificate
                self.is_established = True
                self._handshake_deadline = None
                if not self._connected.done():
                    self._connected.set_result(None)
                self._guarded(self._carrier.established, self)

    def _accept_stream(self, stream_id: int) -> _AioquicStream:
        stream = self._streams[stream_id] = _AioquicStream(self, stream_id, is_local=False)
        self._unclaimed.append(stream)
        return stream

    def _deliver(self) -> None:
        # A handler may set other handlers, and so make more to deliver.
        while True:
            if self._unclaimed and self._stream_handler is not None:
                claimed = self._unclaimed.pop(0)
                claimed.was_claimed()
                self._guarded(self._stream_handler, claimed)
            elif self._ready:
                stream = next(iter(self._ready))
                del self._ready[stream]
                stream.deliver()
            else:
                return

    def _check_acknowledged(self) -> None:
        for stream in list(self._draining):
            stream.wake()
        for stream in list(self._ending):
            if self._engine.sender_finished(stream.stream_id):
                stream.sent_all()

    def _guarded(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Call a handler; its failure ends this connection and nothing else."""
        try:
            handler(*arguments)
        except Exception as error:
            self._report("A handler of a QUIC connection failed", error)
            self.close(ErrorCode.INTERNAL)

    def _report(self, message: str, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"{message} ({self._name})", "exception": error})

    # Sending.

    def _schedule(self) -> None:
        if not self._scheduled and not self._in_service:
            self._scheduled = True
            self._loop.call_soon(self._scheduled_service)

    def _scheduled_service(self) -> None:
        self._scheduled = False
        if not self._engine.terminated:
            self.service()
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
            self._carrier.send(datagrams)
            if engine.closing:
                self._farewell = datagrams

    def _answer_late_packet(self, now: float) -> None:
        # RFC 9000, section 10.2.1: answer with the close, and ever more rarely.
        if self._engine.closing and now >= self._resend_at:
            self._resend_at = now + self._resend_interval
            self._resend_interval *= 2
            self._carrier.send(self._farewell)

    def _set_timer(self) -> None:
        if self._engine.terminated:
            self.drop()
            return
        at = self._engine.get_timer()
        if self._handshake_deadline is not None and (at is None or self._handshake_deadline < at):
            at = self._handshake_deadline
        if at is None:
            return
        self._deadline = at
        # A timer that fires too early is set again: cheaper than replacing it every time.
        if self._timer is None or at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._start_timer(at)

    def _start_timer(self, at: float) -> None:
        self._timer_at = at  # uvloop's handles do not always know it
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now < self._deadline:
            self._start_timer(self._deadline)
            return
        if self._handshake_deadline is not None and now >= self._handshake_deadline:
            self._handshake_deadline = None
            self.fail(self._unreachable())
            return
        at = self._engine.get_timer()
        if at is not None and now >= at:
            self._engine.handle_timer(now)
        self.service()

    # The end.

    def _finish(self, reason: CloseReason, error: Exception | None = None) -> None:
        self.close_reason = reason
        self._handshake_deadline = None
        if not self._closed.done():
            self._closed.set_result(reason)
        if not self._connected.done():
            self._connected.set_exception(error or self._handshake_error(reason))
            self._connected.exception()  # a connection that nobody waits for, such as a server's, fails silently
        for stream in list(self._draining):
            stream.wake()
        if self._close_handler is not None:
            self._loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        handler, self._close_handler = self._close_handler, None
        if handler is not None and self.close_reason is not None:
            self._guarded(handler, self.close_reason)

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
        return self._ended_error("connecting")

    def _unreachable(self) -> Unreachable:
        answered = "did not complete the handshake" if self._engine.started else "did not answer"
        return Unreachable(
            f"{self._name} {answered} in time; check the address, and that the other side listens", phase="connecting"
        )

    def _ended_error(self, phase: str | None = None) -> ConnectionEnded:
        assert self.close_reason is not None
        return ConnectionEnded(
            f"the connection with {self._name} is over: {self.close_reason}; connect again",
            reason=self.close_reason,
            phase=phase,
            remote=self.close_reason.by_peer,
        )


class _AioquicStream(Stream):
    """A stream's two ends: what arrived and was not delivered or consumed, and who waits for acknowledgements."""

    def __init__(self, connection: AioquicConnection, stream_id: int, *, is_local: bool) -> None:
        self.stream_id = stream_id
        self.is_unidirectional = bool(stream_id & 2)
        self.is_local = is_local
        self._connection = connection
        self._engine: Engine | NativeEngine = connection._engine
        self._on_data: Callable[[bytes, bool], None] | None = None
        self._on_reset: Callable[[int], None] | None = None
        self._on_stop: Callable[[int], None] | None = None

        # Receiving.
        self._intake: Intake | None = None
        self._on_taken: Callable[[bool], None] | None = None
        self._is_attached = False  # the native engine feeds the intake
        self._inbox: list[bytes] = []
        self._fin_waits = False  # FIN arrived and was not delivered
        self._reset_waits: int | None = None
        self._stop_waits: int | None = None
        self._receiving = not (self.is_unidirectional and is_local)  # neither FIN nor reset arrived
        self._given_up = False  # stopped by us or reset by the peer: everything is credited
        self._received = 0  # bytes that arrived in order
        self._delivered = 0  # of these, given to on_data
        self._consumed = 0  # of these, credited again
        self._claimed = is_local  # somebody was told of the stream
        self._held = False  # ended, but not yet claimed and consumed: counts against the peer's stream limit

        # Sending.
        self._sending = is_local or not self.is_unidirectional  # not yet all acknowledged
        self._write_ended = not self._sending  # FIN written, reset or stopped
        self._stop_code: int | None = None  # why what was written will not arrive
        self._stopped_by_peer = False
        self._waiters: dict[asyncio.Future[None], int] = {}  # with each one's limit

    # The interface.

    def set_handlers(
        self,
        *,
        on_data: Callable[[bytes, bool], None] | None,
        on_reset: Callable[[int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        self._on_data, self._on_reset, self._on_stop = on_data, on_reset, on_stop
        if self._inbox or self._fin_waits or self._reset_waits is not None or self._stop_waits is not None:
            self._connection._ready[self] = None
            self._connection._schedule()

    def set_intake(
        self,
        intake: Intake,
        *,
        on_taken: Callable[[bool], None],
        on_reset: Callable[[int], None],
        first: bytes = b"",
        fin: bool = False,
    ) -> None:
        self._on_data, self._on_stop = None, None
        self._intake, self._on_taken, self._on_reset = intake, on_taken, on_reset
        self._fin_waits |= fin
        if first:
            self._inbox.insert(0, first)
            self._delivered -= len(first)
        self._connection._ready[self] = None
        self._connection._schedule()

    def resume(self) -> tuple[int, bool]:
        count = self._feed_intake()
        if self._inbox or self._intake is None:
            return count, False
        fin, self._fin_waits = self._fin_waits, False
        if self._receiving and not isinstance(self._engine, Engine) and not self._given_up:
            if not self._is_attached:
                self._is_attached = True
                self._engine.set_intake(self.stream_id, self._intake)
            more, fin = self._engine.pull(self.stream_id)
            count += more
            self._account_for(more, fin)
        return count, fin

    def write(self, data: Any, fin: bool = False, release: Callable[[], None] | None = None) -> None:
        if self._connection.close_reason is not None or self._stopped_by_peer:
            if release is not None:
                release()
            return
        if self._write_ended:
            raise LocalProtocolError(f"stream {self.stream_id} takes no more bytes; open another one")
        if not isinstance(data, (bytes, bytearray)):
            data = memoryview(data).cast("B")
        if isinstance(self._engine, Engine):
            self._engine.send_stream_data(self.stream_id, data, fin)
            if release is not None:
                release()
        else:
            self._engine.send_stream_data(self.stream_id, data, fin, release)
        if fin:
            self._write_ended = True
            self._check_ending()
        self._connection._schedule()

    @property
    def backlog(self) -> int:
        return self._engine.backlog(self.stream_id) if self._sending and self._stop_code is None else 0

    async def drain(self, limit: int) -> None:
        while not self._is_drained(limit):
            waiter = self._connection._loop.create_future()
            self._waiters[waiter] = limit
            self._connection._draining.add(self)
            try:
                await waiter
            finally:
                del self._waiters[waiter]
                if not self._waiters:
                    self._connection._draining.discard(self)

    def reset(self, code: int) -> None:
        if not self._sending or self._stop_code is not None or self._connection.close_reason is not None:
            return
        if self._engine.sender_finished(self.stream_id):
            return
        self._engine.abandon_sending(self.stream_id, code)
        self._sending_failed(code)
        self._connection._schedule()

    def stop(self, code: int) -> None:
        if self._given_up or (self.is_unidirectional and self.is_local):
            return
        if self._receiving and self._connection.close_reason is None:
            self._engine.abandon_receiving(self.stream_id, code)
            self._connection._schedule()
        self._give_up(self._received)

    def consume(self, count: int) -> None:
        if self._given_up:
            return
        unconsumed = self._delivered - self._consumed
        if not 0 <= count <= unconsumed:
            raise LocalProtocolError(
                f"only {unconsumed} bytes of stream {self.stream_id} were delivered and not yet consumed, not {count}; "
                "count what on_data was given"
            )
        self._credit(count)

    @property
    def finished(self) -> bool:
        return not self._sending and not self._receiving and not (self._inbox or self._fin_waits)

    # For the connection.

    def change_engine(self, engine: NativeEngine) -> None:
        """From now on another engine has this stream."""
        self._engine = engine

    def received(self, data: bytes, fin: bool) -> None:
        """Take in what the engine found next in order."""
        self._received += len(data)
        if self._given_up:
            self._credit(len(data))
        else:
            self._inbox.append(data)
            self._fin_waits = fin
        if fin:
            self._receiving_ended()

    def was_taken(self, count: int, fin: bool) -> None:
        """The engine has given bytes to the intake."""
        self._fin_waits |= fin
        self._account_for(count, fin)

    def was_reset(self, code: int) -> None:
        """The peer abandoned its direction."""
        reset_waits = None if self._given_up else code
        final_size = self._engine.highest_offset(self.stream_id)
        # Bytes between those delivered in order and the final size were counted against the connection's credit.
        self._received = max(self._received, final_size or 0)
        self._receiving_ended()
        # What nobody takes now is dropped: credited bytes that were kept would know no bound.
        self._give_up(self._received, keep=self._on_data is not None or self._intake is not None)
        self._reset_waits = reset_waits

    def was_claimed(self) -> None:
        """Somebody is told of the stream, which was opened by the peer."""
        self._claimed = True
        self._release_place()

    def was_stopped(self, code: int) -> None:
        """The peer reads no more; the engine has reset our direction."""
        if self._sending and self._stop_code is None and not self._engine_has_sent_all():
            self._stopped_by_peer = True
            self._stop_waits = code
            self._sending_failed(code)

    def deliver(self) -> None:
        """Call the handlers with what waits."""
        guarded = self._connection._guarded
        if self._on_data is not None and (self._inbox or self._fin_waits):
            inbox, self._inbox = self._inbox, []
            fin, self._fin_waits = self._fin_waits, False
            data = inbox[0] if len(inbox) == 1 else b"".join(inbox)
            self._delivered += len(data)
            guarded(self._on_data, data, fin)
        elif self._intake is not None and self._on_taken is not None:
            _, fin = self.resume()
            guarded(self._on_taken, fin)
        if self._reset_waits is not None and self._on_reset is not None:
            code, self._reset_waits = self._reset_waits, None
            guarded(self._on_reset, code)
        if self._stop_waits is not None and self._on_stop is not None:
            code, self._stop_waits = self._stop_waits, None
            guarded(self._on_stop, code)

    def wake(self) -> None:
        """Let go of those in :meth:`drain` whose wait is over."""
        backlog = self.backlog
        over = self._connection.close_reason is not None or self._stop_code is not None
        for waiter, limit in self._waiters.items():
            if (over or backlog <= limit) and not waiter.done():
                waiter.set_result(None)

    def sent_all(self) -> None:
        """The engine says that our direction is done: all acknowledged, or its reset was."""
        self._sending = False
        self._connection._ending.discard(self)
        self._forget_if_done()

    # Helpers.

    def _is_drained(self, limit: int) -> bool:
        if self._stop_code is not None:
            who = "the peer stopped" if self._stopped_by_peer else "this side reset"
            raise StreamStopped(
                f"{who} stream {self.stream_id} with code {self._stop_code:#x}; what was written to it is lost",
                error_code=self._stop_code,
                remote=self._stopped_by_peer,
            )
        if self.backlog <= limit:
            return True
        if self._connection.close_reason is not None:
            raise self._connection._ended_error()
        return False

    def _engine_has_sent_all(self) -> bool:
        return self._write_ended and self._engine.sender_finished(self.stream_id)

    def _sending_failed(self, code: int) -> None:
        self._stop_code = code
        self._write_ended = True
        self._check_ending()
        self.wake()

    def _check_ending(self) -> None:
        self._connection._ending.add(self)

    def _receiving_ended(self) -> None:
        self._receiving = False
        if not self.is_local:
            self._held = True
            self._engine.hold_stream(self.is_unidirectional)
            self._release_place()
        self._forget_if_done()

    def _give_up(self, received: int, keep: bool = False) -> None:
        """Credit everything up to ``received``; ``keep`` what was not delivered, to deliver it soon."""
        outstanding = received - self._consumed
        self._given_up = True
        if not keep:
            self._intake = None
            self._inbox.clear()
            self._fin_waits = False
            self._reset_waits = None
        self._credit(outstanding)

    def _feed_intake(self) -> int:
        """Give the intake what waits here; returns the bytes that it took."""
        count = 0
        while self._intake is not None and self._inbox and self._intake.ready():
            data = self._inbox[0]
            try:
                position = self._intake.feed(data)
            except SpaceblockError:
                break  # the intake raises it again to whom it belongs
            count += position
            if position < len(data):
                self._inbox[0] = data[position:]
            else:
                del self._inbox[0]
        self._delivered += count
        if count and not self._given_up:
            self._credit(count)
        return count

    def _account_for(self, count: int, fin: bool) -> None:
        """The intake of the native engine took bytes."""
        self._received += count
        self._delivered += count
        if count:
            self._credit(count)
        if fin:
            self._receiving_ended()

    def _credit(self, count: int) -> None:
        self._consumed += count
        due = self._engine.grant_connection(count)
        if self._receiving and not self._given_up:
            due = self._engine.grant_stream(self.stream_id, self._consumed) or due
        self._release_place()
        if due:
            self._connection._schedule()

    def _release_place(self) -> None:
        if self._held and self._claimed and self._consumed == self._received:
            self._held = False
            self._engine.release_stream(self.is_unidirectional)
            self._connection._schedule()

    def _forget_if_done(self) -> None:
        if not self._sending and not self._receiving:
            self._connection._streams.pop(self.stream_id, None)


def plain_address(address: Any) -> Address:
    """Host and port of a socket's address; an IPv4 address in IPv6 clothes is undressed."""
    host, port = address[:2]
    return (host.removeprefix("::ffff:") if "." in host else host, port)
