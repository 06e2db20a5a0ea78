"""The receiving side of a transfer: the offer, the receiver's state machine, and the streams that fill the sink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ..display import printable
from ..errors import (
    ConnectionLost,
    ErrorCode,
    InternalError,
    LocalProtocolError,
    OfferExpired,
    SpaceblockError,
    Stalled,
    StorageError,
    TransferCancelled,
    error_code,
)
from ..events import Phase, Receipt
from ..limits import NAME_ROUNDS, RATE_MIN, Limits, Timeouts
from ..names import Problem, refusal
from ..options import Reports
from ..protocol.receiver import Receiver, State
from ..protocol.receiver_events import (
    Amended,
    Failed,
    Finished,
    ItemAgreed,
    ItemConfirmed,
    ItemDamaged,
    ItemDiffers,
    ItemLost,
    ItemRestarts,
    ItemSpoilt,
    Offered,
    ReceiverEvent,
    Settled,
)
from ..protocol.sender import first_error
from ..quic.interface import Stream
from ..storage.comparing import Comparison
from ..storage.debts import Debts
from ..storage.rereading import Pursuit
from ..storage.ring import Ring
from ..storage.sinks import IntoSink, Mark, Sink
from ..trust.memory import Memory
from ..wire.manifest import Manifest, entries_of, new_names
from ..wire.messages import (
    Amend,
    BlockDigests,
    Feature,
    HaveReply,
    ItemDigests,
    Message,
    Outcome,
    OutcomeKind,
    ReceiverState,
    VerifiedPage,
    Waiting,
)
from .arrivals import Arrivals
from .asking import Rename, ask_for_names
from .control import MessageStream
from .offer import Offer
from .receipts import given, receipt_of
from .rehashing import Rehashing
from .reunions import CAME_BACK, Successors
from .shares import Share, Stake
from .transfer import HASHED_INTERVAL, Current, Job, Transfer, cancel_all, damaged, either, may_go_unheard, typed_error

if TYPE_CHECKING:
    from ..blocks import SpaceblockRequests
    from ..storage.journal import Keeper

_T = TypeVar("_T")

_logger = logging.getLogger("spaceblock")

_USER_HEARTBEAT = 1.0
"""Seconds between reports while this side's user thinks about an offer."""


_PLACED_AT_ONCE = 1_024
"""Items of one batch that is put into place: few enough that the figures of durable bytes go on."""


class Incoming(Job):
    """One transfer from the peer to this side; implements :class:`spaceblock.storage.landing.Host`."""

    def __init__(
        self,
        stream: Stream,
        peer_id: str,
        limits: Limits,
        timeouts: Timeouts,
        reports: Reports,
        on_offer: Callable[[Incoming, Offer], None],
        features: Feature = Feature.NONE,
        memory: Memory | None = None,
        stake: Stake | None = None,
    ) -> None:
        super().__init__(timeouts.idle)
        self._stake = stake or Stake(Share(), limits)
        self._offer_size = 0
        self._memory = memory
        resumes = memory is not None and features & Feature.RESUME
        self.keeper: Keeper | None = memory.keeper(peer_id) if memory is not None and resumes else None
        self._successors = Successors()
        self.came_after: Incoming | None = None
        """What this is to go on with."""
        self._recording = False
        self._to_record: Settled | None = None
        self._is_lost = False
        self._verified: list[Message] = []
        self.debts: Debts | None = None
        self._limits = limits
        self._marks: dict[int, Mark] = {}
        self._flushing = False
        self._confirmed: list[int] = []
        self.peer_id = peer_id
        self.uuid: bytes = b""
        self.receiver: Receiver = Receiver(limits, features)
        self.ring: Ring = Ring()
        self.sink: Sink = IntoSink([])
        self._rehashing = Rehashing(self, self.receiver, lambda item: self.sink.reread(item), self.act)
        self.pursuits: dict[int, Pursuit] = self._rehashing.pursuits
        self.answered: bool = False
        self._timeouts = timeouts
        self._reports = reports
        self._on_offer = on_offer
        self._control = MessageStream(stream, self._receive, self._receive_end, self.fail, self._receive_digests)
        self._make_sink: Callable[[], Sink] | None = None
        self._rename: Rename | None = None
        self._asks_user = False
        self._amended: asyncio.Future[Amended] | None = None
        self._manifest: Manifest | None = None
        self._unseen: frozenset[str] = frozenset()
        self._decision: asyncio.Future[None] = self.loop.create_future()
        self._settled: asyncio.Future[Settled] = self.loop.create_future()
        self._said: asyncio.Future[None] = self.loop.create_future()
        self._is_over = False  # every item has its end, good or bad
        for future in (self._decision, self._settled, self._said):
            may_go_unheard(future)
        self._arrivals = Arrivals(self, timeouts.close, self._blocks_taken)
        self._agreed: dict[int, bytes] = {}
        self._placing = False
        self.offer: Offer | None = None
        self._offered_event: Offered | None = None
        self._reported_at = 0.0
        self._unreported_blocks = 0
        self._items_done = 0
        self._moved: tuple[int, ...] = ()
        self._source_waits = False
        self._comparison: Comparison | None = None
        self._told_hashed = 0.0

    @property
    def control_stream(self) -> Stream:
        """The transfer's control stream."""
        return self._control.stream

    def read_control(self, first: bytes, fin: bool) -> None:
        """Begin with what came behind the stream's type."""
        self._control.start(first, fin)

    async def run(self) -> Receipt:
        try:
            await self._decision
            self.enter(Phase.PREPARING)
            skip, compare = await self._prepare()
            self.enter(Phase.MOVING)
            had = {item: found for item, found in self.sink.had.items() if item not in compare}
            self.act(self.receiver.accept(skip, compare, had, repairable=self.sink.repairable))
            assert self._offered_event is not None
            self._rehashing.begin(self._offered_event.requests, had)
            if compare:
                self.start_beside(self._compare(compare))
            settled = await self._settled
            if settled.errors:
                await self.in_worker(self.sink.conclude)
            self.enter(Phase.CLOSING)
            await either(self._said, timeout=self._timeouts.close)
            if self._said.done():
                self._said.result()
            return self._receipt(settled)
        except Exception as cause:
            error = typed_error(cause)
            error.phase = error.phase or str(self.phase)
            self._is_lost = isinstance(error, ConnectionLost)
            self.act(self.receiver.fail(error))
            if error.receipt is None:
                error.receipt = self._receipt_so_far()
            if error is cause:
                raise
            raise error from cause
        finally:
            await self._clean_up()

    def accept(
        self, make_sink: Callable[[], Sink], rename: Rename | None = None, *, in_memory: bool = False
    ) -> Transfer:
        """The user takes the offer; ``in_memory``: into few things that are all in memory."""
        self._answer()
        self.in_memory = in_memory
        self._rename = rename
        self._make_sink = make_sink
        if not self._decision.done():
            self._decision.set_result(None)
            self.enter(Phase.PREPARING)  # nobody is waited for any more, which is seen before the work begins
        return self.transfer

    async def decline(self, error: SpaceblockError) -> None:
        """The user, or the end of the program, refuses the offer."""
        self._answer()
        self.seen = True
        self.fail(error)
        await self.finished.wait()

    def cancel_attempt(self) -> None:
        self.fail(TransferCancelled("the receiver cancelled the transfer", phase=str(self.phase)))

    @property
    def may_outlive(self) -> bool:
        """Whether the transfer goes on when the sender comes back on another connection."""
        if self._make_sink is None or not self._timeouts.retry:
            return False
        return self.sink.keeps or self.sink.repairable

    def may_become(self, incoming: Incoming) -> bool:
        """Whether this can go on as ``incoming``, which has to offer what was accepted here. Names may differ, as the
        sender may have been asked for others."""
        mine, other = self._offered_event, incoming._offered_event
        assert mine is not None
        assert other is not None
        kinds = [[(entry.kind, entry.item) for entry in entries_of(offer.manifest)] for offer in (mine, other)]
        return self.may_outlive and mine.requests.items == other.requests.items and kinds[0] == kinds[1]

    def succeeded_by(self, incoming: Incoming) -> None:
        """The sender came back on another connection, and offers the same again."""
        incoming.came_after = self
        self._successors.put(incoming)
        self.lose_connection(ConnectionLost(CAME_BACK))

    async def asked_for(self) -> None:
        """The sender came back and asks how this ended. So that the answer stays true: what is over is recorded before
        there is one, and all else comes to no end over this connection."""
        if self._is_over:
            await either(self._settled)
        self.lose_connection(ConnectionLost(CAME_BACK))

    async def find_successor(self) -> Job | None:
        incoming = await self._successors.next(self._timeouts.retry)
        if incoming is None:
            return None
        make_sink = self._make_sink
        mine, other = self._offered_event, incoming._offered_event
        assert make_sink is not None
        assert mine is not None
        assert other is not None
        incoming._unseen = self._unseen | new_names(mine.manifest, other.manifest)
        incoming.accept(make_sink, self._rename, in_memory=self.in_memory)
        return incoming

    def connection_lost(self, error: SpaceblockError) -> None:
        """The connection is over; what was verified stays verified."""
        if self._settled.done() or self.receiver.state is State.VERIFIED:
            if not self._said.done():
                self._said.set_result(None)
        else:
            self._break(error)

    def stalled(self, error: Stalled) -> None:
        if self.phase is Phase.USER:
            self.fail(
                OfferExpired("nobody answered the offer in time: ask the receiver and send again", phase=error.phase)
            )
        else:
            self.fail(error)

    def limit(self) -> float:
        limits = self._timeouts
        if self.offer is None:
            return limits.idle
        return {
            Phase.PREPARING: limits.verify,
            Phase.USER: limits.offer,
            Phase.NAMES: limits.offer,
            Phase.SOURCE: limits.source + limits.idle,
            Phase.SINK: limits.sink,
            Phase.DISK: limits.sink,
            Phase.VERIFYING: limits.verify,
            Phase.CLOSING: limits.close + limits.idle,
        }.get(self.phase, 1.5 * limits.idle)  # a lost connection is noticed before

    def figures(self) -> tuple[int, int | None, int, int, int, int, Current | None]:
        offer = self.offer
        receiver = self.receiver
        total = offer.total_size if offer is not None else None
        count = len(offer.items) if offer is not None else 0
        item = self._present_item()
        return receiver.received, total, receiver.verified, receiver.durable, self._items_done, count, item

    @property
    def resumed(self) -> int:
        return self.receiver.resumed

    def _present_item(self) -> Current | None:
        moving = self.receiver.first_moving()
        if moving is None or self.offer is None:
            return None
        item, arrived = moving
        offered = self.offer.items[item]
        return Current(item, offered.name, arrived, self.receiver.length_of(item))

    def tick(self) -> None:
        if self.offer is None and self.seconds > self._timeouts.offer + self._offer_size / RATE_MIN:
            text = "the offer takes too long to arrive: check the network and send again"
            self.fail(Stalled(text, phase=str(self.phase)))
        if self.debts is not None and self.debts.wants_marks:
            self.mark_all()  # where nothing comes now that would have it looked at
        moved = (self.receiver.received, self.receiver.verified, self.receiver.durable, self._items_done)
        if moved != self._moved:
            self._source_waits = False
        phase = self._present_phase()
        if moved != self._moved or phase is not self.phase:
            self._moved = moved
            self.phase = phase
            self.changed()
        compared = 0 if self._comparison is None else self._comparison.hashed
        if compared + self.reread and monotonic() - self._told_hashed >= HASHED_INTERVAL:
            self._told_hashed = monotonic()
            self.receiver.hashed(compared + self.reread)
            self.act([])
        interval = self._reports.interval
        if interval is None:
            return
        if phase is Phase.USER:
            interval = max(interval, _USER_HEARTBEAT)
        if monotonic() - self._reported_at >= interval * 0.9:
            self._report()

    # What the landings need.

    def open_data_stream(self, stream: Stream, first: bytes, fin: bool) -> None:
        """A data stream of this transfer; ``first`` is what came behind its UUID."""
        if self.receiver.state is not State.MOVING:
            stream.stop(ErrorCode.CANCELLED)
            return
        self._arrivals.open(stream, first, fin)

    def act(self, events: list[ReceiverEvent]) -> None:
        for event in events:
            if isinstance(event, Offered):
                self._offered(event)
            elif isinstance(event, Amended):
                if self._amended is not None and not self._amended.done():
                    self._amended.set_result(event)
            elif isinstance(event, ItemAgreed):
                self._agreed[event.item] = event.digest
            elif isinstance(event, ItemConfirmed):
                self._items_done += 1
                self._confirmed.append(event.item)
            elif isinstance(event, ItemRestarts):
                self._rehashing.forget(event.item)
            elif isinstance(event, ItemDiffers):
                self._rehashing.differs(event.item)
            elif isinstance(event, ItemDamaged):
                self._tell_damage(event.item, event.size)
            elif isinstance(event, ItemSpoilt):
                self._set_aside(event.item)
            elif isinstance(event, ItemLost):
                self._items_done += 1
                if self.debts is not None:
                    self.debts.settled(event.item)
            elif isinstance(event, Settled):
                self._settle(event)
            elif isinstance(event, Finished):
                if not self._said.done():
                    self._said.set_result(None)
            elif isinstance(event, Failed):
                self._break(event.error)
        if self._agreed or self._confirmed:
            self._place()
        if self._to_record is not None and not self._placing:
            self._record(self._to_record)
        if not self._recording:
            messages, ends = self.receiver.messages_to_send(), self.receiver.ends_stream
            if messages or ends:
                self._control.send(messages, ends)

    def _settle(self, event: Settled) -> None:
        """Every item has its end: say everything else now, and that when it is recorded."""
        self._is_over = True
        messages = self.receiver.messages_to_send()
        self._verified = [message for message in messages if isinstance(message, VerifiedPage)]
        self._control.send(message for message in messages if not isinstance(message, VerifiedPage))
        self._recording, self._to_record = True, event

    def _record(self, event: Settled) -> None:
        """Keep the outcome, and leave nothing unfinished behind, before the sender hears of it: it need not come back
        then, whatever happens to this side."""
        self._to_record = None
        memory, sink = self._memory, self.sink

        def record() -> None:
            try:
                if memory is not None:
                    memory.finish(self.uuid, self.peer_id, event.outcomes, sink.place_of_all, durable=sink.durable)
            finally:
                if not event.errors:
                    sink.tidy()

        self.at_once(record, self.beside).add_done_callback(lambda future: self._is_settled(event, future.exception()))

    def _is_settled(self, event: Settled, error: BaseException | None) -> None:
        self._recording = False
        if error is not None:
            # Everything is in its place; only a sender that loses the connection now may send it once more.
            _logger.warning("the end of a transfer could not be recorded: %s", error)
        self._control.send(self._verified)
        if not self._settled.done():
            self._settled.set_result(event)
        self.act([])

    def fail(self, error: SpaceblockError) -> None:
        """End the transfer with ``error``; too late once everything is verified."""
        self.act(self.receiver.fail(error))

    def work(self, job: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        def finished(future: asyncio.Future[None]) -> None:
            done(future.exception())

        self.in_worker(job).add_done_callback(finished)

    def soon(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the transfer with it
            self.loop.call_soon_threadsafe(call)

    def mark_all(self) -> None:
        if self.debts is not None:
            self.debts.marked()
        self._arrivals.mark()

    def marked(self, marks: list[Mark]) -> None:
        self._marks.update({mark.item: mark for mark in marks})
        self._flush()

    def written(self, item: int, size: int) -> None:
        if self.receiver.is_repairing(item):
            self._rehashing.repaired(item)

    # What is damaged, and what is durable.

    def _tell_damage(self, item: int, size: int) -> None:
        assert self.offer is not None
        _logger.warning("%s", damaged(self.offer.items[item].name, item, size))

    def _set_aside(self, item: int) -> None:
        def told(future: asyncio.Future[str]) -> None:
            if not future.cancelled() and future.exception() is None and future.result():
                _logger.warning("what arrived of item %d stays in %s", item, printable(future.result()))

        self.beside(lambda: self.sink.set_aside(item)).add_done_callback(told)

    def _flush(self) -> None:
        """Make what is marked durable, one batch at a time, beside what arrives."""
        if self._flushing or not self._marks:
            return
        marks, self._marks = list(self._marks.values()), {}
        self._flushing = True

        def flushed(future: asyncio.Future[dict[int, StorageError]]) -> None:
            self._flushing = False
            error = future.exception()
            if error is not None:
                self.fail(_typed(error))
                return
            events: list[ReceiverEvent] = []
            assert self._offered_event is not None
            for mark in marks:
                if mark.item in future.result():
                    events += self.receiver.item_failed(mark.item, future.result()[mark.item])
                    continue
                start = self._offered_event.requests.items[mark.item].start
                if self.sink.durable:
                    self.receiver.item_durable(mark.item, mark.offset - start)
                if self.debts is not None:
                    self.debts.durable(mark.item, mark.offset)
            self.act(events)
            self._flush()

        self.beside(lambda: self.sink.checkpoint(marks)).add_done_callback(flushed)

    # Helpers.

    def _answer(self) -> None:
        self.maker.check("this offer")
        if self.answered:
            raise LocalProtocolError("the offer was answered before: wait for the next one")
        self.answered = True
        self._stake.answered()

    async def _prepare(self) -> tuple[set[int], frozenset[int]]:
        """Make the sink, see to the names, and check the rest; returns the items to skip and those to compare."""
        offer, make_sink = self._offered_event, self._make_sink
        assert offer is not None
        assert make_sink is not None
        self._manifest = offer.manifest

        def prepare() -> list[Problem]:
            self.sink = make_sink()
            self.sink.unseen = self._unseen
            self.sink.on_work = self.alive
            return self.sink.name_problems(offer.requests, offer.manifest)

        problems = await self._from_worker(prepare)
        if problems:
            await self._settle_names(offer.requests, problems)
        skip = await self._from_worker(lambda: self.sink.prepare(offer.requests, self._manifest))
        if self.sink.keeps:
            self.debts = Debts(self._limits.not_durable, lambda: self._arrivals.room)
            if self._memory is not None:
                memory, place = self._memory, self.sink.place_of_all
                await self._from_worker(lambda: memory.begin(self.uuid, self.peer_id, place))
        compare = self.sink.comparable if self.receiver.may(Feature.COMPARE) else frozenset()
        return skip - compare, compare

    async def _settle_names(self, requests: SpaceblockRequests, problems: list[Problem]) -> None:
        """Find other names: the sender's user is asked first, then this side's. Raises :class:`NameRejected`."""
        asked = 0
        while problems:
            assert self._manifest is not None
            self.enter(Phase.NAMES)
            if self.receiver.may_ask_for_names and not self._asks_user:
                self._amended = self.loop.create_future()
                self.receiver.ask_for_names(self.sink.limits, problems)
                self.act([])
                amended = await self._unless_over(self._amended)
                self._unseen |= new_names(self._manifest, amended.manifest)
                self.sink.unseen = self._unseen
                self._manifest = amended.manifest
                self._asks_user = not amended.changed  # the sender has nobody to ask, or who gave up
            elif self._rename is not None and asked < NAME_ROUNDS:
                asked += 1
                self._asks_user = True
                entries, items = self._manifest.entries, requests.items
                asking = ask_for_names(self._rename, entries, items, self.sink.limits, problems)
                renaming = await self._unless_over(self.start_beside(asking))
                self._manifest = self._manifest.renamed(renaming.changes())
            else:
                raise refusal(self._manifest.entries, problems)
            self.enter(Phase.PREPARING)
            problems = await self._from_worker(lambda: self.sink.name_problems(requests, self._manifest))

    async def _from_worker(self, work: Callable[[], _T]) -> _T:
        return await self._unless_over(self.at_once(work, self.in_worker))

    async def _unless_over(self, work: asyncio.Future[_T]) -> _T:
        """The result of ``work``, or what ended the transfer before."""
        may_go_unheard(work)  # as where the transfer is over before
        await either(work, self._settled)
        if self._settled.done():
            self._settled.result()
        return work.result()

    async def _compare(self, items: Iterable[int]) -> None:
        """Hash what is here already of items that are not to travel."""
        self._comparison = comparison = Comparison(self.sink, items)
        while not comparison.done and self.receiver.state is State.MOVING:
            job = self.in_worker(comparison.work)
            try:
                found = await asyncio.shield(job)
            except asyncio.CancelledError:
                job.add_done_callback(lambda _: comparison.close())
                raise
            events: list[ReceiverEvent] = []
            for item, result in found:
                if isinstance(result, bytes):
                    events += self.receiver.item_found(item, result, self.sink.name_of(item))
                else:
                    events += self.receiver.item_failed(item, result)
            self.changed()
            self.act(events)
        comparison.close()

    def _offered(self, event: Offered) -> None:
        self._offered_event = event
        self.uuid = event.requests.uuid
        self.offer = Offer(self, event.requests, event.manifest)
        self.enter(Phase.USER)
        self._report()
        self._on_offer(self, self.offer)

    def _receive(self, message: Message, payload_size: int) -> None:
        try:
            if self.receiver.state is State.READING:
                self._offer_size += payload_size
                self._stake.grow(payload_size)
            events = self.receiver.receive_message(message, payload_size)
        except SpaceblockError as error:
            self.fail(error)
            return
        if isinstance(message, Waiting):
            self._source_waits = True
        elif _is_news(message, events):
            self.changed()
        self.act(events)

    def _receive_digests(self, message: ItemDigests) -> None:
        try:
            events = self.receiver.receive_digests(message)
        except SpaceblockError as error:
            self.fail(error)
            return
        self.changed()
        self.act(events)

    def _receive_end(self) -> None:
        self.act(self.receiver.receive_end())

    def _blocks_taken(self, count: int) -> None:
        self._unreported_blocks += count
        if self._reports.blocks is not None and self._unreported_blocks >= self._reports.blocks:
            self._unreported_blocks = 0
            self._report()

    def _report(self) -> None:
        self._reported_at = monotonic()
        phase = self._present_phase()
        if phase is Phase.NAMES and self._asks_user:
            phase = Phase.USER
        self.receiver.report(_REPORTED.get(phase, ReceiverState.MOVING))
        self.act([])

    def _present_phase(self) -> Phase:
        if self.receiver.state is not State.MOVING or self.phase is Phase.DONE:
            return self.phase
        if self._waits_for_flush or self._arrivals.waits_for_disk:
            return Phase.SINK if self.sink.is_program else Phase.DISK
        if not self.receiver.expects_data():
            return Phase.VERIFYING
        return Phase.SOURCE if self._source_waits else Phase.MOVING

    @property
    def _waits_for_flush(self) -> bool:
        """Whether nothing more is read until the disk has made durable what came."""
        return (self._flushing or self._placing) and self.debts is not None and self.debts.too_high

    def _place(self) -> None:
        """Put what both sides agree on into place, one batch at a time."""
        if self._placing or not (self._agreed or self._confirmed) or self.receiver.state is State.FAILED:
            return
        batch = dict(islice(self._agreed.items(), _PLACED_AT_ONCE))
        for item in batch:
            del self._agreed[item]
        confirmed, self._confirmed = self._confirmed, []
        self._placing = True

        def place() -> list[str | SpaceblockError]:
            for item in confirmed:
                self.sink.confirmed(item)
            return self.sink.place(list(batch), batch) if batch else []

        def placed(future: asyncio.Future[list[str | SpaceblockError]]) -> None:
            self._placing = False
            error = future.exception()
            if error is not None:
                self.fail(_typed(error))
                return
            events: list[ReceiverEvent] = []
            results = list(zip(batch, future.result(), strict=True))
            names = [(item, result) for item, result in results if isinstance(result, str)]
            self._items_done += len(names)
            for item, result in results:
                if isinstance(result, SpaceblockError):
                    events += self.receiver.item_failed(item, result)
            if self.debts is not None:
                self.debts.settled_all(batch)
            events += self.receiver.items_placed(names, self.sink.durable)
            self.act(events)

        self.at_once(place, self.beside).add_done_callback(placed)

    def _break(self, error: SpaceblockError) -> None:
        """Stop taking data and let :meth:`run` end with ``error``."""
        self.sink.stop()
        self._arrivals.close(error_code(error))
        for future in (self._decision, self._settled, self._said):
            if not future.done():
                future.set_exception(error)

    async def _clean_up(self) -> None:
        self._stake.over()
        self._arrivals.stop_waiting()
        await cancel_all(self.tasks)
        self._arrivals.close(ErrorCode.CANCELLED)
        self._control.stop_reading()
        self._control.send([], fin=True)
        self.sink.stop()
        await self.when_workers_idle(self._close_sink, self._timeouts.close)
        self.ring = Ring()

    def _close_sink(self) -> None:
        keeps = self.sink.keeps
        is_left = self.sink.close(lost=self._is_lost, over=self._is_over)
        if keeps and not is_left and not self._is_over and self._memory is not None:
            self._memory.forget(self.uuid, self.peer_id)

    def _receipt_so_far(self) -> Receipt | None:
        """What is in its place although the transfer failed, or None if that is nothing."""
        placed = {item: end for item, end in self.receiver.ends().items() if end.kind is OutcomeKind.VERIFIED}
        return self._receipt_of(placed) if placed else None

    def _receipt_of(self, outcomes: Mapping[int, Outcome]) -> Receipt:
        assert self.offer is not None
        offered = self._offered_event
        return receipt_of(
            self.offer.uuid,
            self.peer_id,
            [(item, self.offer.items[item].name, outcome) for item, outcome in sorted(outcomes.items())],
            is_compared=self.receiver.compared,
            before=() if offered is None or offered.manifest is None else offered.manifest.entries,
            after=() if self._manifest is None else self._manifest.entries,
            seconds=self.seconds,
            resumed=self.receiver.resumed,
            repaired=sum(self.receiver.repaired.values()),
        )

    def _receipt(self, settled: Settled) -> Receipt:
        receipt = self._receipt_of(dict(enumerate(settled.outcomes)))
        return given(receipt, first_error(settled.errors, settled.outcomes))


def _is_news(message: Message, events: list[ReceiverEvent]) -> bool:
    """Whether a message that was borne says anything; what does not could come for ever."""
    if isinstance(message, Amend):
        return message.last
    if isinstance(message, HaveReply):  # where it confirms, figures grow
        return bool(events)
    return not isinstance(message, BlockDigests) or bool(message.digests)


def _typed(error: BaseException) -> SpaceblockError:
    return typed_error(error) if isinstance(error, Exception) else InternalError(repr(error))


_REPORTED = {
    Phase.USER: ReceiverState.USER,
    Phase.SINK: ReceiverState.SINK,
    Phase.DISK: ReceiverState.DISK,
    Phase.VERIFYING: ReceiverState.VERIFYING,
}
