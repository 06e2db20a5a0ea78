"""One stream of a QUIC connection: what waits between the engine and whoever reads and writes it.

Rules: the connection calls it when the engine has something; handlers run in :meth:`AioquicStream.deliver` only. Every
byte that arrived is credited once, whether somebody took it, gave it up, or it never came before a reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import LocalProtocolError, SpaceblockError
from .handshake.engine import Engine
from .interface import CloseReason, ConnectionEnded, Intake, Stream, StreamStopped

if TYPE_CHECKING:
    from .native.engine_shell import NativeEngine


class Owner(Protocol):
    """What a stream needs of its connection."""

    close_reason: CloseReason | None

    @property
    def engine(self) -> Engine | NativeEngine:
        """The engine that has the connection now: credit for a stream may come due after it was handed over."""

    draining: set[AioquicStream]
    """Somebody waits in :meth:`AioquicStream.drain`."""
    ending: set[AioquicStream]
    """Ended by both sides, not yet acknowledged."""

    def schedule(self) -> None:
        """Something is to be sent."""

    def deliver_soon(self, stream: AioquicStream) -> None:
        """The stream has something for its handlers."""

    def guarded(self, handler: Callable[..., None], *arguments: Any) -> None:
        """Call a handler; its failure ends the connection and nothing else."""

    def ended_error(self) -> ConnectionEnded:
        """Why the connection is over; it is."""

    def forget_stream(self, stream_id: int) -> None:
        """The stream is over in both directions."""


class AioquicStream(Stream):
    """A stream's two ends: what arrived and was not delivered or consumed, and who waits for acknowledgements."""

    def __init__(self, owner: Owner, stream_id: int, *, is_local: bool) -> None:
        self.stream_id = stream_id
        self.is_unidirectional: bool = bool(stream_id & 2)
        self.is_local = is_local
        self._owner = owner
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
        self._dropped = False  # something that was written after the end
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
            self._owner.deliver_soon(self)

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
        self._owner.deliver_soon(self)

    def resume(self) -> bool:
        self._feed_intake()
        if self._inbox or self._intake is None:
            return False
        fin, self._fin_waits = self._fin_waits, False
        if self._receiving and not isinstance(self._owner.engine, Engine) and not self._given_up:
            if not self._is_attached:
                self._is_attached = True
                self._owner.engine.set_intake(self.stream_id, self._intake)
            count, fin = self._owner.engine.pull(self.stream_id)
            self._account_for(count, fin)
        return fin

    def write(self, data: Any, fin: bool = False, release: Callable[[], None] | None = None) -> None:
        owner = self._owner
        # A handler may write in the turn in which the connection ends, before that is told.
        if owner.close_reason is not None or owner.engine.ended() is not None or self._stopped_by_peer:
            self._dropped = True
            if release is not None:
                release()
            return
        if self._write_ended:
            raise LocalProtocolError(f"stream {self.stream_id} takes no more bytes; open another one")
        if not isinstance(data, (bytes, bytearray)):
            data = memoryview(data).cast("B")
        is_next = True
        if isinstance(self._owner.engine, Engine):
            self._owner.engine.send_stream_data(self.stream_id, data, fin)
            if release is not None:
                release()
        else:
            is_next = self._owner.engine.send_stream_data(self.stream_id, data, fin, release)
        if fin:
            self._write_ended = True
            self._check_ending()
        if is_next:
            self._owner.schedule()

    @property
    def backlog(self) -> int:
        return self._owner.engine.backlog(self.stream_id) if self._sending and self._stop_code is None else 0

    async def drain(self, limit: int) -> None:
        while not self._is_drained(limit):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = limit
            self._owner.draining.add(self)
            self.await_backlog()
            try:
                await waiter
            finally:
                del self._waiters[waiter]
                self.await_backlog()
                if not self._waiters:
                    self._owner.draining.discard(self)

    def reset(self, code: int) -> None:
        if not self._sending or self._stop_code is not None or self._owner.close_reason is not None:
            return
        if self._owner.engine.sender_finished(self.stream_id):
            return
        self._owner.engine.abandon_sending(self.stream_id, code)
        self._sending_failed(code)
        self._owner.schedule()

    def stop(self, code: int) -> None:
        if self._given_up or (self.is_unidirectional and self.is_local):
            return
        if self._receiving and self._owner.close_reason is None:
            self._owner.engine.abandon_receiving(self.stream_id, code)
            self._owner.schedule()
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
        final_size = self._owner.engine.highest_offset(self.stream_id)
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
        guarded = self._owner.guarded
        if self._on_data is not None and (self._inbox or self._fin_waits):
            inbox, self._inbox = self._inbox, []
            fin, self._fin_waits = self._fin_waits, False
            data = inbox[0] if len(inbox) == 1 else b"".join(inbox)
            self._delivered += len(data)
            guarded(self._on_data, data, fin)
        elif self._intake is not None and self._on_taken is not None:
            guarded(self._on_taken, self.resume())
        if self._reset_waits is not None and self._on_reset is not None:
            code, self._reset_waits = self._reset_waits, None
            guarded(self._on_reset, code)
        if self._stop_waits is not None and self._on_stop is not None:
            code, self._stop_waits = self._stop_waits, None
            guarded(self._on_stop, code)

    def wake(self) -> None:
        """Let go of those in :meth:`drain` whose wait is over."""
        backlog = self.backlog
        over = self._owner.close_reason is not None or self._stop_code is not None
        for waiter, limit in self._waiters.items():
            if (over or backlog <= limit) and not waiter.done():
                waiter.set_result(None)

    def await_backlog(self) -> None:
        """Have the engine say when those in :meth:`drain` can go on."""
        self._owner.engine.await_backlog(self.stream_id, max(self._waiters.values(), default=-1))

    def sent_all(self) -> None:
        """The engine says that our direction is done: all acknowledged, or its reset was."""
        self._sending = False
        self._owner.ending.discard(self)
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
        if self.backlog <= limit and not self._dropped:
            return True
        if self._owner.close_reason is not None:
            raise self._owner.ended_error()
        return False

    def _engine_has_sent_all(self) -> bool:
        return self._write_ended and self._owner.engine.sender_finished(self.stream_id)

    def _sending_failed(self, code: int) -> None:
        self._stop_code = code
        self._write_ended = True
        self._check_ending()
        self.wake()

    def _check_ending(self) -> None:
        self._owner.ending.add(self)

    def _receiving_ended(self) -> None:
        self._receiving = False
        if not self.is_local:
            self._held = True
            self._owner.engine.hold_stream(self.is_unidirectional)
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

    def _feed_intake(self) -> None:
        """Give the intake what waits here."""
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

    def _account_for(self, count: int, fin: bool) -> None:
        """The intake of the native engine took bytes, which the engine has credited itself."""
        self._received += count
        self._delivered += count
        self._consumed += count
        if fin:
            self._receiving_ended()
        elif count:
            self._owner.schedule()

    def _credit(self, count: int) -> None:
        self._consumed += count
        due = self._owner.engine.grant_connection(count)
        if self._receiving and not self._given_up:
            due = self._owner.engine.grant_stream(self.stream_id, self._consumed) or due
        self._release_place()
        if due:
            self._owner.schedule()

    def _release_place(self) -> None:
        if self._held and self._claimed and self._consumed == self._received:
            self._held = False
            self._owner.engine.release_stream(self.is_unidirectional)
            self._owner.schedule()

    def _forget_if_done(self) -> None:
        if not self._sending and not self._receiving:
            self._owner.forget_stream(self.stream_id)
