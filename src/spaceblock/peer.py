"""A peer: one admitted connection, on which both sides send and receive any number of transfers at once."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import (
    AdmissionRefused,
    ConnectionLost,
    ErrorCode,
    LimitExceeded,
    LocalProtocolError,
    RemoteProtocolError,
    SpaceblockError,
    Stalled,
    TicketExpired,
    TransferRefused,
    WrongPeer,
    error_code,
)
from .events import Phase
from .options import Links, Options
from .process.forks import Maker
from .protocol.sender import error_message
from .protocol.session import FEATURES, StreamOpening, check_hello, local_hello
from .quic.interface import CloseReason, Connection, Stream, TransportOptions
from .storage.sources import hold_buffers
from .transfers.asking import Rename, check_rename
from .transfers.control import MessageStream
from .transfers.following import ShowProgress, follower
from .transfers.mailbox import Mailbox
from .transfers.query import Answering, give_up
from .transfers.reunions import CAME_BACK, Reunions
from .transfers.shares import Share, Stake
from .transfers.throttle import Throttle
from .transfers.transfer import Transfer, Unseen, either, error_of_close, error_of_greeting, may_go_unheard, spawn
from .trust.identity import Identity
from .trust.memory import Memory
from .wire.messages import Feature, Hello, Message, StreamType, encode_stream_header

if TYPE_CHECKING:
    from typing_extensions import Self

    from .transfers.incoming import Incoming
    from .transfers.offer import Offer
    from .transfers.outgoing import Outgoing

_logger = logging.getLogger("spaceblock")

SOFTWARE = "spaceblock"

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
"""Seconds between two attempts to connect again, doubled from the one to the other, more or less at random."""

_LEAVING = "the receiver is about to leave: connect again later"


class Peer:
    """The other side of a connection, whichever side opened it.

    Use it as an async context manager: leaving it waits for its transfers and raises the first error that nobody
    retrieved; leaving it by an exception cancels them.
    """

    def __init__(
        self,
        connection: Connection,
        peer_id: str,
        options: Options,
        on_gone: Callable[[Peer], None],
        memory: Memory,
        throttle: Throttle | None = None,
        share: Share | None = None,
        reunions: Reunions | None = None,
        redial: Callable[[], Coroutine[Any, Any, Connection]] | None = None,
    ) -> None:
        self.peer_id = peer_id
        """Who the peer is: the digest of its public key, in text form."""
        self.hello: Hello | None = None
        """What the peer said of itself."""
        self.finish_only: bool = False
        """The peer's ticket has expired: it may finish what it began to send, and nothing else."""
        self._maker = Maker()
        self._options = options
        self._memory = memory
        self._on_gone = on_gone
        self._throttle = throttle
        self._share = share or Share()
        self._reunions = reunions or Reunions()
        self.redial = redial
        """Connects to the peer once more, on the side that can."""
        self.siblings: Callable[[Peer], Peer | None] = lambda peer: None
        """Finds another connection to the same peer."""
        self._regained: asyncio.Future[None] | None = None
        self._regaining: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._session: MessageStream | None = None
        self._greeted: asyncio.Future[Hello]
        self._early: list[tuple[Stream, StreamOpening, bool]] = []
        self._outgoing: set[Outgoing] = set()
        self._incoming: set[Incoming] = set()
        self._by_uuid: dict[bytes, Incoming] = {}
        self._queries: set[Answering] = set()
        self.unseen: Unseen = Unseen()
        """Transfers of this peer that failed and that nobody has awaited."""
        self._own_offers: Mailbox[Offer] = Mailbox()
        self._offers = self._own_offers
        self._farewells: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._gone = False
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        """Speak over ``connection``, on which nothing was said yet."""
        self._connection = connection
        self.hello = None
        self._session = None
        self._greeted = self._loop.create_future()
        may_go_unheard(self._greeted)
        self._early = []
        self._by_uuid = {}
        self._gone = False
        self._keep_alive = self._loop.call_later(self._ping_interval, self._ping)
        self._hello_deadline = self._loop.call_later(self._options.timeouts.connect, self._hello_overdue)

        def closed(reason: CloseReason) -> None:
            if connection is self._connection:
                self._connection_closed(reason)

        connection.set_close_handler(closed)
        connection.set_stream_handler(self._stream_opened)

    def send(
        self,
        *sources: Any,
        links: Links = "skip",
        rename: Rename | None = None,
        progress: ShowProgress | None = None,
    ) -> Transfer:
        """Offer paths, buffers, streams and :class:`Item` to the peer; returns the started :class:`Transfer`.

        A path may be a file or a folder; a buffer is anything C-contiguous that exports one, held without copying until
        the transfer ends. A binary file object is sent from where it stands to its end; a pipe, or an asynchronous
        iterator of bytes-like pieces, until it ends, with nothing spooled, and it cannot be resumed. With
        ``links="copy"`` the symbolic links in folders are sent as links, but for those that lead out of the folder;
        otherwise they are left out, and what is left out is named in the log.

        Where the receiver cannot use a name, ``rename(item, problem)`` returns another for it
        (``problem.proposal`` would do) or None; it may be a coroutine function, and otherwise runs in a thread.
        Without it the receiver's user is asked, or the offer refused.

        ``progress`` is called on the event loop with the latest :class:`Progress`, at most ten times a second and once
        at the end, or shows it: a function or coroutine function, ``tqdm`` or one of its bars, or rich's ``Progress``.
        What a function raises cancels the transfer, and awaiting the transfer raises it.

        Raises :class:`LocalProtocolError` for what is none of these, :class:`BufferUnfit` for a buffer that is not
        contiguous or holds Python objects or pointers, :class:`SourceError` for an open file or pipe that cannot be
        held, :class:`TicketExpired` for a peer whose ticket is over and that came back only to finish what it sends;
        everything else is raised by awaiting the transfer.
        """
        self._check_open()
        if self.finish_only:
            raise TicketExpired(
                "the peer's ticket has expired, and lets it finish what it began alone: invite it again"
            )
        check_sending(sources, links, rename)
        if len(self._outgoing) >= self._options.limits.transfers:
            raise LimitExceeded(f"{len(self._outgoing)} transfers are on their way: wait until one is done")
        from .transfers.outgoing import Outgoing

        shown = None if progress is None else follower(progress)
        held, timeouts = hold_buffers(sources), self._options.timeouts
        shared = (self._throttle, self._memory)
        outgoing = Outgoing(self._connection, self.peer_id, held, timeouts, self._greeted, rename, links, *shared)
        outgoing.send_again = self._send_again
        outgoing.on_finished = lambda: self._forget_outgoing(outgoing)
        self._outgoing.add(outgoing)
        outgoing.start()
        if shown is not None:
            outgoing.show_on(shown)
        return outgoing.transfer

    def offers(self) -> AsyncIterator[Offer]:
        """What the peer wants to send, as it comes; ends with the connection."""
        self._maker.check("this connection")
        return aiter(self._own_offers)

    @property
    def closed(self) -> bool:
        """Whether the connection is over, and not being made again."""
        return self._gone and not self.awaits_connection

    async def close(self) -> None:
        """Wait for the transfers that run, decline what is unanswered, and close the connection.

        Harmless when done twice, and in a forked child. Raises the first error of a transfer that nobody awaited.
        """
        if self._maker.forked:
            return
        self._closing = True
        await self._decline_unanswered()
        await self.wait_finished()
        if self._farewells:
            await asyncio.wait(set(self._farewells))
        await self._close_connection(ErrorCode.NO_ERROR, "")
        error = self.unseen.take()
        if error is not None:
            raise error

    async def wait_finished(self) -> None:
        """Wait until no transfer lives."""
        while jobs := [*self._outgoing, *self._incoming]:
            await jobs[0].finished.wait()

    async def abort(self) -> None:
        """Cancel all transfers and close the connection; harmless in a forked child."""
        if self._maker.forked:
            return
        self._closing = True
        jobs = [*self._outgoing, *self._incoming]
        for job in jobs:
            job.cancel()
        for job in jobs:
            await job.finished_in_any_case()
        await self._close_connection(ErrorCode.CANCELLED, "cancelled")
        self.unseen.take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self.close()
            except asyncio.CancelledError:
                await self.abort()
                raise
        else:
            await self.abort()

    # The session.

    async def greet(self) -> None:
        """On the client: open the session and wait for the listener's ``Hello``, which means admission."""
        stream = self._connection.open_stream(unidirectional=False)
        stream.write(encode_stream_header(StreamType.SESSION))
        session = self._start_session(stream)
        session.send([local_hello(SOFTWARE)])
        session.start()
        await asyncio.shield(self._greeted)

    def deliver_offers_to(self, mailbox: Mailbox[Offer] | None) -> None:
        """Say who gets this peer's offers, those that wait too, instead of :meth:`offers`; None: :meth:`offers`."""
        mine = {incoming.offer for incoming in self._incoming}
        waiting = self._offers.take_out(mine.__contains__)
        self._offers = mailbox or self._own_offers
        for offer in waiting:
            self._offers.put(offer)

    def _start_session(self, stream: Stream) -> MessageStream:
        self._session = MessageStream(stream, self._receive_session, self._session_ended, self._fail_connection)
        return self._session

    def _receive_session(self, message: Message, payload_size: int) -> None:
        if self.hello is not None:
            raise RemoteProtocolError("the peer greeted twice")
        self.hello = check_hello(message)
        self._hello_deadline.cancel()
        assert self._session is not None
        if not self._connection.is_client:
            self._session.send([local_hello(SOFTWARE)])
        if not self._greeted.done():
            self._greeted.set_result(self.hello)
        early, self._early = self._early, []
        for stream, opening, fin in early:
            self._route(stream, opening, fin)

    def _session_ended(self) -> None:
        if self.hello is None:
            self._fail_connection(RemoteProtocolError("the peer ended the session before it greeted: connect again"))

    # Streams.

    def _stream_opened(self, stream: Stream) -> None:
        opening = StreamOpening(stream.is_unidirectional)
        patience = self._loop.call_later(self._options.timeouts.idle, self._give_up_stream, stream)

        def receive(data: bytes, fin: bool) -> None:
            try:
                opening.feed(data)
            except SpaceblockError as error:
                self._fail_connection(error)
                return
            stream.consume(len(data) - len(opening.rest))
            if opening.finished:
                patience.cancel()
                stream.set_handlers(on_data=None)
                self._route(stream, opening, fin)

        stream.set_handlers(on_data=receive)

    def _give_up_stream(self, stream: Stream) -> None:
        """The peer opened it and then did not say what was due on it."""
        if not self._gone:
            give_up(stream, ErrorCode.TIMEOUT)

    def _route(self, stream: Stream, opening: StreamOpening, fin: bool) -> None:
        kind = opening.stream_type
        if kind is StreamType.SESSION:
            if self._session is not None or self._connection.is_client:
                self._fail_connection(RemoteProtocolError("the peer opened a second session"))
                return
            self._consume_rest(stream, opening)
            self._start_session(stream).start(opening.rest, fin)
        elif self.hello is None:
            if len(self._early) >= self._options.limits.transfers:
                self._fail_connection(LimitExceeded("the peer opened too many streams before it greeted"))
                return
            self._early.append((stream, opening, fin))
        elif kind is StreamType.PUSH:
            self._open_incoming(stream, opening, fin)
        elif kind is StreamType.DATA:
            incoming = self._by_uuid.get(opening.uuid)
            if incoming is None:
                stream.stop(ErrorCode.CANCELLED)
            else:
                incoming.open_data_stream(stream, opening.rest, fin)
        elif kind is StreamType.QUERY and self.hello.features & FEATURES & Feature.QUERY:
            self._open_query(stream, opening, fin)
        else:
            give_up(stream, ErrorCode.PROTOCOL)

    def _open_query(self, stream: Stream, opening: StreamOpening, fin: bool) -> None:
        """Somebody asks how a transfer ended."""
        if len(self._queries) >= self._options.limits.transfers:
            give_up(stream, ErrorCode.LIMIT)
            return
        self._consume_rest(stream, opening)
        idle, turn = self._options.timeouts.idle, self._share.answer
        answering = Answering(stream, self.peer_id, self._memory, self._fail_connection, idle, self._settle, turn)
        self._queries.add(answering)
        answering.on_finished = lambda: self._forget_query(answering)
        answering.start(opening.rest, fin)

    async def _settle(self, uuid: bytes) -> None:
        incoming = self._reunions.find(self.peer_id, uuid)
        if incoming is not None:
            await incoming.asked_for()

    def _forget_query(self, answering: Answering) -> None:
        self._queries.discard(answering)
        self._let_arrive(answering.stream)

    def _open_incoming(self, stream: Stream, opening: StreamOpening, fin: bool) -> None:
        limits = self._options.limits
        refusal: SpaceblockError | None = None
        if self._closing and not self._reunions.expects(self.peer_id):
            refusal = TransferRefused(_LEAVING)
        elif len(self._incoming) >= limits.transfers:
            text = f"the receiver takes {limits.transfers} transfers at once and no more: send again when one is done"
            refusal = LimitExceeded(text)
        else:
            refusal = self._share.refusal(limits)
        if refusal is not None:
            stream.stop(error_code(refusal))
            stream.write(error_message(refusal).encode(), fin=True)
            self._let_arrive(stream)
            return
        features = FEATURES & self.hello.features if self.hello is not None else Feature.NONE
        from .transfers.incoming import Incoming

        incoming = Incoming(
            stream,
            self.peer_id,
            limits,
            self._options.timeouts,
            self._options.reports,
            self._offer_read,
            features,
            self._memory,
            Stake(self._share, limits),
        )
        incoming.on_finished = lambda: self._forget_incoming(incoming)
        self._incoming.add(incoming)
        incoming.start()
        self._consume_rest(stream, opening)
        incoming.read_control(opening.rest, fin)

    def _consume_rest(self, stream: Stream, opening: StreamOpening) -> None:
        """Control streams credit everything on arrival; what came with the stream's type is no exception."""
        if opening.rest:
            stream.consume(len(opening.rest))

    def _offer_read(self, incoming: Incoming, offer: Offer) -> None:
        if incoming.uuid in self._by_uuid:
            incoming.fail(RemoteProtocolError("the sender uses one transfer's UUID for another"))
            return
        if self.finish_only and not self._memory.is_unfinished(incoming.uuid, self.peer_id):
            incoming.fail(
                TicketExpired("the ticket has expired, and lets finish what was begun alone: ask for a new one")
            )
            return
        self._by_uuid[incoming.uuid] = incoming
        before = self._reunions.receive(incoming)
        goes_on = before is not None and not before.finished.is_set()
        if self._closing and not (before is not None and goes_on and before.may_outlive):
            incoming.fail(TransferRefused(_LEAVING))
        elif before is None or not goes_on:
            self._offers.put(offer)
        else:
            if before.may_become(incoming):
                before.succeeded_by(incoming)
            else:
                before.lose_connection(ConnectionLost(CAME_BACK))
            spawn(self._farewells, self._offer_after(before, incoming, offer))

    async def _offer_after(self, before: Incoming, incoming: Incoming, offer: Offer) -> None:
        """Two attempts at one transfer never write at once: the later is offered when the earlier has let go, unless
        that has taken it."""
        await before.finished.wait()
        if incoming.answered or incoming.finished.is_set():
            return
        if self._closing:
            incoming.fail(TransferRefused(_LEAVING))
        else:
            self._offers.put(offer)

    # The end.

    def _forget_outgoing(self, outgoing: Outgoing) -> None:
        self._outgoing.discard(outgoing)
        self.unseen.add(outgoing)
        self._let_arrive(outgoing.control_stream)

    def _forget_incoming(self, incoming: Incoming) -> None:
        self._incoming.discard(incoming)
        if self._by_uuid.get(incoming.uuid) is incoming:
            del self._by_uuid[incoming.uuid]
        self._reunions.forget(incoming)
        if incoming.answered:
            self.unseen.add(incoming)
        elif incoming.offer is not None:
            self._offers.discard(incoming.offer)
        self._let_arrive(incoming.control_stream)

    def _let_arrive(self, stream: Stream | None) -> None:
        """Remember what was said last, such as why a transfer ended: closing the connection would discard it."""

        async def drain(stream: Stream) -> None:
            with suppress(SpaceblockError, asyncio.TimeoutError):
                await asyncio.wait_for(stream.drain(0), self._options.timeouts.close)

        if stream is not None and stream.backlog and not self._gone:
            spawn(self._farewells, drain(stream))

    async def _decline_unanswered(self) -> None:
        for incoming in list(self._incoming):
            if not incoming.answered:
                await incoming.decline(TransferRefused("the receiver ended without answering the offer"))

    async def _close_connection(self, code: ErrorCode, reason: str) -> None:
        self._keep_alive.cancel()
        if self._regaining is not None:
            self._regaining.cancel()
            await asyncio.wait({self._regaining})
        self._connection.close(code, reason)
        await self._connection.wait_closed()
        if not self._gone:
            self._connection_closed(CloseReason(code, reason))
        if not self._memory.is_told:
            await asyncio.to_thread(self._memory.told)

    def _fail_connection(self, error: SpaceblockError) -> None:
        """The peer broke a rule that concerns the whole connection."""
        if not self._greeted.done():
            self._greeted.set_exception(error)
        self._connection.close(error_code(error), str(error))

    def _hello_overdue(self) -> None:
        text = f"the peer did not greet within {self._options.timeouts.connect:g} seconds: connect again"
        self._fail_connection(Stalled(text, phase=str(Phase.CONNECTING)))

    def _connection_closed(self, reason: CloseReason) -> None:
        if self._gone:
            return
        self._gone = True
        self._keep_alive.cancel()
        self._hello_deadline.cancel()
        if not self._greeted.done():
            self._greeted.set_exception(error_of_greeting(reason))
        for answering in self._queries:
            answering.close()
        if self._regained is not None and not self._regained.done():
            return  # one more attempt to connect again has failed
        error = error_of_close(reason)
        jobs = [*self._outgoing, *self._incoming]
        for job in jobs:
            job.lose_connection(error)
        may_return = isinstance(error, ConnectionLost) and self._options.timeouts.retry > 0
        if may_return and any(job.may_outlive for job in jobs):
            self._regained = self._loop.create_future()
            self._regaining = self._loop.create_task(self._regain(self._regained))
        else:
            self._leave()

    def _leave(self) -> None:
        self._own_offers.close()
        self._on_gone(self)

    # Another connection.

    @property
    def awaits_connection(self) -> bool:
        """Whether the connection was lost and transfers wait for another one that greets."""
        return self._regained is not None and not self._regained.done()

    def attach(self, connection: Connection) -> None:
        """Go on over ``connection``, which the peer opened in place of the one that was lost; the latest is meant."""
        regained = self._regained
        assert regained is not None
        if not self._gone:
            self._connection.close(ErrorCode.NO_ERROR, "")
            self._connection_closed(CloseReason(ErrorCode.NO_ERROR, ""))

        def greeted(future: asyncio.Future[Hello]) -> None:
            if not (future.cancelled() or future.exception() or regained.done()):
                regained.set_result(None)

        self._use(connection)
        self._greeted.add_done_callback(greeted)

    async def _regain(self, regained: asyncio.Future[None]) -> None:
        """Wait for another connection, or make one, again and again; then, or when the time is over, say so."""
        patience = self._options.timeouts.retry
        try:
            if self.redial is None:
                await asyncio.wait({regained}, timeout=patience)
            else:
                await asyncio.wait_for(self._dial_again(self.redial, regained), patience)
        except (SpaceblockError, asyncio.TimeoutError) as error:
            _logger.info("the connection to %s was lost and not regained: %s", self.peer_id, error)
        finally:
            if not regained.done():
                regained.cancel()
                if not self._gone:
                    self._connection.close(ErrorCode.NO_ERROR, "")
                self._leave()

    async def _dial_again(
        self, redial: Callable[[], Coroutine[Any, Any, Connection]], regained: asyncio.Future[None]
    ) -> None:
        pauses = pauses_between_attempts()
        while any(not job.finished.is_set() for job in (*self._outgoing, *self._incoming)):
            try:
                self._use(await redial())
                await self.greet()
            except (AdmissionRefused, WrongPeer):
                raise
            except SpaceblockError:
                await asyncio.sleep(next(pauses))
            else:
                regained.set_result(None)
                return

    async def _send_again(self, lost: Outgoing) -> Outgoing | None:
        """Send what ``lost`` did not bring to its end over another connection to the same peer, once there is one."""
        peer = self.siblings(self)
        if peer is None and self._regained is not None:
            await either(self._regained)  # nothing is sent after all where this task is cancelled meanwhile
            peer = None if self._gone else self
            if peer is None:
                peer = self.siblings(self)
        if peer is None:
            return None
        outgoing = lost.again(peer._connection, peer._greeted)
        outgoing.send_again = peer._send_again
        peer._outgoing.add(outgoing)
        outgoing.on_finished = lambda: peer._forget_outgoing(outgoing)
        outgoing.start()
        return outgoing

    def _check_open(self) -> None:
        self._maker.check("this connection")
        if self.closed or self._closing:
            raise ConnectionLost("the connection to the peer is over: connect again")

    def _ping(self) -> None:
        self._connection.keep_alive()
        self._keep_alive = self._loop.call_later(self._ping_interval, self._ping)

    @property
    def _ping_interval(self) -> float:
        return self._options.timeouts.idle / 3


def pauses_between_attempts() -> Iterator[float]:
    """Seconds to wait after each attempt to connect again that failed; many who lost the same peer at one moment do not
    come back at one moment."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * (0.5 + random.random())
        pause = min(2 * pause, _LONGEST_PAUSE)


def transport_options(options: Options) -> TransportOptions:
    """What the transport needs to know of the user's options."""
    timeouts = options.timeouts
    return TransportOptions(
        datagram_size=options.datagram_size,
        native=options.chosen_engine() == "native",
        idle_timeout=timeouts.idle,
        handshake_timeout=timeouts.connect,
    )


def load_identity(options: Options) -> Identity:
    """The identity that the options name; reads, or on first use makes, its key file."""
    return options.identity if isinstance(options.identity, Identity) else Identity.load(options.identity)


def check_sending(sources: Sequence[object], links: Links, rename: Rename | None) -> None:
    """Raise :class:`LocalProtocolError` for what nobody can be asked to send."""
    if links not in ("skip", "copy"):
        raise LocalProtocolError(f"links={links!r} is not 'skip' or 'copy'")
    check_rename(rename)
    if not sources:
        raise LocalProtocolError("nothing was given to send: name at least one path or buffer")
