"""The sending side of a transfer: sources, the sender's state machine, and the streams that carry both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from ..blocks import Had, Partial
from ..errors import (
    ErrorCode,
    RemoteProtocolError,
    SpaceblockError,
    Stalled,
    TransferCancelled,
    error_code,
)
from ..events import Phase, Receipt
from ..limits import CONTROL_BACKLOG, DATA_STREAMS, Timeouts
from ..names import WIRE_RULES, find_problems
from ..options import Links
from ..protocol.sender import (
    Answered,
    BlocksWanted,
    Completed,
    Failed,
    ItemRefused,
    NamesRefused,
    Reported,
    ResendWanted,
    Sender,
    SenderEvent,
    abort_message,
    first_error,
)
from ..protocol.session import FEATURES
from ..quic.interface import Connection, Stream, StreamStopped
from ..storage.feed import Feed, Filled
from ..storage.files import FileSource
from ..storage.rereading import BlockHashing, Pursuit, Reread
from ..storage.sources import (
    BufferSource,
    Held,
    Prepared,
    Source,
    description,
    prepare,
    release_buffers,
    reread,
    source_length,
    stop_reading,
)
from ..trust.memory import Claim, Memory
from ..wire.manifest import Entry
from ..wire.messages import (
    Feature,
    Hashed,
    Hello,
    Message,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    StreamType,
    encode_stream_header,
)
from .asking import Rename, ask_for_names
from .carrier import Carrier
from .control import MessageStream
from .lanes import lanes_of
from .query import ask
from .receipts import given, receipt_of
from .rehashing import rehash
from .throttle import Throttle
from .transfer import (
    AT_ONCE_MAX,
    HASHED_INTERVAL,
    Current,
    Job,
    cancel_all,
    damaged,
    either,
    may_go_unheard,
    spawn,
    typed_error,
)

_T = TypeVar("_T")

_logger = logging.getLogger("spaceblock")

_PHASES = {
    ReceiverState.MOVING: Phase.MOVING,
    ReceiverState.SINK: Phase.SINK,
    ReceiverState.DISK: Phase.DISK,
    ReceiverState.USER: Phase.USER,
    ReceiverState.VERIFYING: Phase.VERIFYING,
}

_VERDICT_WAIT = 1.0
"""Seconds that a cancel waits for the receiver to say that it had everything already."""

_PAGES_AT_ONCE = 2
"""Pages of an offer that are made before they are sent: the receiver reads them while the next ones are made."""

_WAITING_INTERVAL = 1.0
"""Seconds between two messages that say that this side's source gives nothing."""


class Outgoing(Job):
    """One transfer from this side to the peer."""

    def __init__(
        self,
        connection: Connection,
        peer_id: str,
        held: Sequence[Held],
        timeouts: Timeouts,
        greeted: asyncio.Future[Hello],
        rename: Rename | None = None,
        links: Links = "skip",
        throttle: Throttle | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__(timeouts.idle)
        self._greeted = greeted
        self._rename = rename
        self._connection = connection
        self._peer_id = peer_id
        self._held = held
        self.in_memory: bool = len(held) <= AT_ONCE_MAX and all(isinstance(thing, BufferSource) for thing in held)
        self._links = links
        self._throttle = throttle
        self._carrier = Carrier(self, connection, throttle, self._sent)
        self._memory = memory
        self._claim: Claim | None = None
        self._is_later = False
        self.send_again: Callable[[Outgoing], Coroutine[Any, Any, Outgoing | None]] = _not_again
        """Waits for another connection and sends the same over that."""
        self._timeouts = timeouts
        self._prepared: Prepared | None = None
        self._sender: Sender | None = None
        self._control: MessageStream | None = None
        self._refused: dict[int, SpaceblockError] = {}
        self._answer: asyncio.Future[Answered] = self.loop.create_future()
        self._end: asyncio.Future[Completed] = self.loop.create_future()
        may_go_unheard(self._end)
        self._verdict: asyncio.Future[Completed | None] = self.loop.create_future()
        self._told = Progress(ReceiverState.MOVING, 0, 0, 0)
        self._backlog = 0
        self._told_waiting = 0.0
        self._told_hashed = 0.0
        self._total: int | None = None
        self._items_sent = 0
        self._compared: frozenset[int] = frozenset()
        self._pursuits: dict[int, tuple[int, Pursuit]] = {}
        self._ended: set[int] = set()
        self._hashed_again: dict[int, bytes] = {}
        self._resumed = 0

    @property
    def control_stream(self) -> Stream | None:
        """The transfer's control stream, once there is one."""
        return None if self._control is None else self._control.stream

    async def run(self) -> Receipt:
        try:
            if self._prepared is None:
                self._prepared = await self._prepare()
            # A listener may be asked to send before the peer has greeted, and nothing is said before that.
            await self._unless_over(self._greeted)
            hello = self._greeted.result()
            features = hello.features & FEATURES
            told = await self._ask_for_the_end(features)
            if told is not None:
                self._forget()
                return told
            self._sender = Sender(self._prepared.requests, self._prepared.manifest, features, hello.system)
            await self._offer(self._sender)
            answered = await self._wait_for_answer()
            self._resumed = 0
            wanted = answered.wanted
            lengths = [source_length(self._prepared.sources[item]) for item in (*wanted, *answered.had)]
            self._total = None if None in lengths else sum(length or 0 for length in lengths)
            self.enter(Phase.MOVING)
            self._compared = frozenset(answered.compared)
            if answered.compared:
                self.start_beside(self._compare(answered.compared, {}))
            parts, restarted = self._resume(answered.had)
            await self._move(sorted((*wanted, *parts)))
            if restarted is not None:
                await self._unless_over(restarted)
                if restarted.done():
                    await self._move(restarted.result())
            completed = await self._end
            self._forget()
            await self._say_done()
            return self._receipt(completed)
        except Exception as cause:
            error = typed_error(cause)
            error.phase = error.phase or str(self.phase)
            if self._sender is not None:
                self._act(self._sender.fail(error))
            completed_after_all = await self._retreat(error)
            if completed_after_all is not None:
                self._forget()
                return self._receipt(completed_after_all)
            if error is cause:
                raise
            raise error from cause
        finally:
            await self._clean_up()

    @property
    def may_outlive(self) -> bool:
        """Whether all of it can be sent once more, over another connection."""
        prepared = self._prepared
        if prepared is None or not self._timeouts.retry:
            return False
        return all(request.rereadable for request in prepared.requests.items)

    def again(self, connection: Connection, greeted: asyncio.Future[Hello]) -> Outgoing:
        """The same over another connection; what is held is still this one's to give back."""
        assert self._prepared is not None
        later = Outgoing(
            connection,
            self._peer_id,
            self._held,
            self._timeouts,
            greeted,
            self._rename,
            self._links,
            self._throttle,
            self._memory,
        )
        manifest = self._prepared.manifest if self._sender is None else self._sender.manifest
        later._prepared = replace(self._prepared, manifest=manifest)
        later._claim = self._claim or Claim(self._prepared.requests.uuid)
        later._claim.is_known = True
        later._is_later = True
        later._total, later._resumed = self._total, self._told.durable  # as far as is known before the answer
        later.send_again = self.send_again
        return later

    async def find_successor(self) -> Job | None:
        return await self.send_again(self)

    def cancel_attempt(self) -> None:
        self.fail(TransferCancelled("the sender cancelled the transfer", phase=str(self.phase)))

    def fail(self, error: SpaceblockError) -> None:
        """End the transfer with ``error``, from outside; too late once it is over."""
        if self._sender is not None:
            self._act(self._sender.fail(error))
        self._break(error)

    def connection_lost(self, error: SpaceblockError) -> None:
        """The connection is over: nothing can be said any more."""
        self._break(error)
        if not self._verdict.done():
            self._verdict.set_result(None)

    def stalled(self, error: Stalled) -> None:
        self.fail(error)

    def limit(self) -> float:
        limits = self._timeouts
        if self._end.done():
            return limits.close + limits.idle
        return {
            Phase.PREPARING: limits.verify,
            Phase.NAMES: limits.offer,
            Phase.USER: limits.offer + limits.idle,
            Phase.SOURCE: limits.source,
            Phase.SINK: limits.sink + limits.idle,
            Phase.DISK: limits.sink + limits.idle,
            Phase.VERIFYING: limits.verify + limits.idle,
        }.get(self.phase, 1.5 * limits.idle)  # a lost connection is noticed before

    def tick(self) -> None:
        backlog = self._carrier.backlog
        if self._control is not None:
            backlog += self._control.stream.backlog
        if backlog < self._backlog and self.phase in (Phase.MOVING, Phase.OFFERING):
            self.changed()
        self._backlog = backlog
        self._look_at_source()
        if self._sender is not None and monotonic() - self._told_hashed >= HASHED_INTERVAL:
            self._told_hashed = monotonic()
            self._sender.hashed(self._carrier.hashed + self.reread)
            self._act([])

    def figures(self) -> tuple[int, int | None, int, int, int, int, Current | None]:
        prepared = self._prepared
        count = len(prepared.sources) if prepared is not None else 0
        told = self._told
        done = max(told.received, self._resumed)
        return done, self._total, told.verified, told.durable, self._items_sent, count, self._present_item()

    @property
    def resumed(self) -> int:
        return self._resumed

    def _present_item(self) -> Current | None:
        """What moves on the data stream that began first, less what the peer has not acknowledged."""
        current = self._carrier.current
        if current is None or self._prepared is None:
            return None
        item, done = current
        source = self._prepared.sources[item]
        return Current(item, source.name, done, source_length(source))

    def _look_at_source(self) -> None:
        """Tell both users, and the peer, when somebody else's program is what keeps the transfer waiting."""
        waits = self._carrier.waits_for_source()
        if self.phase is (Phase.MOVING if waits else Phase.SOURCE):
            self.phase = Phase.SOURCE if waits else Phase.MOVING
            self.changed()
        if self.phase is not Phase.SOURCE or self._sender is None:
            return
        if monotonic() - self._told_waiting >= _WAITING_INTERVAL:
            self._told_waiting = monotonic()
            self._sender.waiting()
            self._act([])

    async def _prepare(self) -> Prepared:
        prepared = await self._from_worker(
            lambda: prepare(self._held, self._links, names_later=True, on_work=self.alive)
        )
        entries: Sequence[Entry] = prepared.entries
        if self._rename is not None:
            problems = await self._from_worker(lambda: find_problems(WIRE_RULES, entries))
            if problems:
                self.enter(Phase.NAMES)
                asking = ask_for_names(self._rename, entries, prepared.requests.items, WIRE_RULES, problems)
                entries = (await self._unless_ended(asking)).entries
                self.enter(Phase.PREPARING)
        return await self._claim_uuid(await self._from_worker(lambda: prepared.named(entries)))

    async def _claim_uuid(self, prepared: Prepared) -> Prepared:
        """Send under the UUID of an earlier attempt to send the same to the same peer, if there was one."""
        if self._memory is None:
            return prepared
        memory, what = self._memory, description(self._held, self._links)

        def claim() -> Claim:
            self._claim = memory.claim(self._peer_id, what)  # which is released, too, if nobody waits for it any more
            return self._claim

        claimed = await self._from_worker(claim)
        return replace(prepared, requests=replace(prepared.requests, uuid=claimed.uuid))

    async def _ask_for_the_end(self, features: Feature) -> Receipt | None:
        """The receipt, if an earlier attempt completed without this side hearing of it, and what was sent then is what
        would be sent now; otherwise None, with another UUID where that one has come to its end."""
        prepared, claim = self._prepared, self._claim
        assert prepared is not None
        if claim is None or not claim.is_known or not features & Feature.QUERY:
            return None
        outcomes = await self._unless_ended(ask(self._connection, claim.uuid, len(prepared.sources)))
        if outcomes is None:
            return None
        if len(outcomes) == len(prepared.sources) and await self._unless_ended(self._are_ours(outcomes)):
            self._resumed = sum(outcome.size for outcome in outcomes)
            return self._receipt(Completed(outcomes, {}))
        await self._from_worker(partial(claim.release, forget=True))
        self._prepared = await self._claim_uuid(prepared)
        return None

    async def _are_ours(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether everything arrived, and is what this side has now."""
        assert self._prepared is not None
        items = [item for item, outcome in enumerate(outcomes) if outcome.kind is not OutcomeKind.SKIPPED]
        if any(outcomes[item].kind is not OutcomeKind.VERIFIED for item in items):
            return False
        async with aclosing(self._read_and_hash(items)) as found:  # what is left early is not left to the collector
            async for filled in found:
                for item, size, digest in filled.sent:
                    if (size, digest) != (outcomes[item].size, outcomes[item].digest):
                        return False
                if filled.aborted:
                    return False
        return True

    def _read_and_hash(self, items: Sequence[int]) -> AsyncGenerator[Filled, None]:
        """Hash ``items``, of which nothing is to be sent."""
        return self._carrier.read(self._feed_of(items))

    def _forget(self) -> None:
        """The transfer has come to its end: sending the same again is another one."""
        if self._claim is not None and self._memory is not None:
            self.at_once(partial(self._memory.complete, self._claim), self.in_worker)

    async def _from_worker(self, work: Callable[[], _T]) -> _T:
        job = self.at_once(work, self.in_worker)
        may_go_unheard(job)  # as where the transfer is over before
        await either(job, self._end)
        if self._end.done():
            self._end.result()
        return job.result()

    async def _find_names(self, refused: NamesRefused) -> None:
        """Answer a receiver that cannot use some names; without a way to ask the names stay, and it must find some."""
        sender = self._sender
        assert sender is not None
        assert sender.manifest is not None
        names: dict[int, str] = {}
        if self._rename is not None:
            self.enter(Phase.NAMES)
            entries, items = sender.manifest.entries, sender.requests.items
            renaming = await ask_for_names(self._rename, entries, items, refused.limits, refused.problems)
            names = renaming.changes()
            self.enter(Phase.OFFERING)
        sender.amend(names)
        self._act([])

    async def _compare(self, items: Sequence[int], had: Mapping[int, Had]) -> list[int]:
        """Hash what the receiver has already, and send the digests alone; what cannot be read is said on a stream.

        Returns those of the items in ``had`` of which the receiver has something else.
        """
        restarted: list[int] = []
        prepared, sender = self._prepared, self._sender
        assert prepared is not None
        assert sender is not None
        aborted: list[Message] = []
        async for filled in self._read_and_hash(items):
            for item, size, digest in filled.sent:
                assert digest is not None
                found = had.get(item)
                if found is None or self._is_confirmed(item, found, size, digest):
                    sender.item_sent(item, size, digest)
                else:
                    restarted.append(item)
                    self._items_sent -= 1  # as it is sent after all
            for item, error in filled.aborted:
                sender.item_aborted(item, error)
                aborted.append(abort_message(item, error))
            self._items_sent += len(filled.sent) + len(filled.aborted)
            self._act([])
        if aborted:
            self._abort_on_a_stream(aborted)
        return restarted

    def _is_confirmed(self, item: int, found: Had, size: int, digest: bytes) -> bool:
        """Answer a receiver that has all of ``item``; where its digest covers less, repair would find a difference."""
        assert self._sender is not None
        confirmed = found.digest == digest if found.checked == found.offset else self._sender.may_repair
        self._sender.have_checked(item, confirmed=confirmed)
        self._resumed += size if confirmed else 0
        return confirmed

    def _resume(self, had: Mapping[int, Had]) -> tuple[list[int], asyncio.Future[list[int]] | None]:
        """Go on with what the receiver has: the items of which something is missing, and later those that it has to
        have anew, if any can be.

        Where differences can be repaired nothing is checked first: new bytes move while the old ones are hashed.
        """
        prepared, sender = self._prepared, self._sender
        assert prepared is not None
        assert sender is not None
        whole: list[int] = []
        parts: list[int] = []
        for item, found in had.items():
            request = prepared.requests.items[item]
            if found.offset == request.stop:
                whole.append(item)
                continue
            parts.append(item)
            sender.have_checked(item, confirmed=sender.may_repair)
            if sender.may_repair:
                pursuit = Pursuit(request.start, found.offset)
                self._pursuits[item] = found.offset, pursuit
                self._resumed += found.offset - request.start
                self.start_beside(self._chase(item, pursuit))
        self._act([])
        return parts, self.start_beside(self._compare(whole, had)) if whole else None

    async def _chase(self, item: int, pursuit: Pursuit) -> None:
        """Hash what the receiver has of ``item`` already, until that has caught up with what moves."""
        assert self._prepared is not None
        assert self._sender is not None
        source = self._prepared.sources[item]
        try:
            digest = await rehash(self, _opening(source), pursuit)
        except SpaceblockError as error:
            self._give_up(item, error)
            return
        if digest is not None:
            self._sender.item_sent(item, source_length(source) or 0, digest)
            self._act([])

    async def _hash_blocks(self, item: int) -> None:
        """The receiver has something else of ``item``: find its blocks' digests here, and its own once more."""
        prepared, sender = self._prepared, self._sender
        assert prepared is not None
        assert sender is not None
        request = prepared.requests.items[item]
        assert request.stop is not None
        hashing = BlockHashing(request.start, request.stop, prepared.requests.block_size)
        try:
            await rehash(self, _opening(prepared.sources[item]), hashing)
        except SpaceblockError as error:
            self._give_up(item, error)
            return
        self._hashed_again[item] = hashing.digest()
        sender.blocks_hashed(item, hashing.blocks)
        self._act([])

    async def _resend(self, wanted: ResendWanted) -> None:
        """Send parts of an item once more."""
        prepared, sender = self._prepared, self._sender
        assert prepared is not None
        assert sender is not None
        source, item = prepared.sources[wanted.item], wanted.item
        _logger.warning("%s", damaged(source.name, item, sender.repaired[item]))
        sender.item_sent(item, source_length(source) or 0, self._hashed_again.pop(item))
        self._act([])
        async with self.rereads:
            await self._carry(self._feed_of([item], {item: wanted.ranges}))

    def _give_up(self, item: int, error: SpaceblockError) -> None:
        """This side cannot send ``item`` after all, whatever has moved of it."""
        assert self._sender is not None
        error.item = item
        error.phase = error.phase or str(Phase.MOVING)
        self._refused[item] = error
        self._sender.item_aborted(item, error)
        if item in self._ended:
            self._abort_on_a_stream([abort_message(item, error)])
        self._carrier.refuse(item, error)
        self._act([])

    def _abort_on_a_stream(self, aborted: Sequence[Message]) -> None:
        assert self._prepared is not None
        self._carrier.say(self._prepared.requests.uuid, aborted)

    async def _offer(self, sender: Sender) -> None:
        self.enter(Phase.OFFERING)
        stream = self._connection.open_stream(unidirectional=False)
        self._control = control = MessageStream(stream, self._receive, self._receive_end, self.fail)
        stream.write(encode_stream_header(StreamType.PUSH))
        control.start()
        pages: list[Message] = []
        for page in sender.offer():
            pages.append(page)
            if len(pages) >= _PAGES_AT_ONCE:
                control.send(pages)
                pages.clear()
                await self._unless_ended(stream.drain(CONTROL_BACKLOG))
        control.send(pages)

    async def _wait_for_answer(self) -> Answered:
        await either(self._answer, self._end)
        if not self._answer.done():
            self._end.result()
            raise RemoteProtocolError("the receiver verified what it never answered to")
        return self._answer.result()

    async def _move(self, wanted: Sequence[int]) -> None:
        assert self._prepared is not None
        lanes = list(lanes_of(wanted, self._prepared.sources))
        waiting = iter(lanes)
        pumps = [spawn(self.tasks, self._pump(waiting)) for _ in lanes[:DATA_STREAMS]]
        all_sent = asyncio.gather(*pumps)
        may_go_unheard(all_sent)
        await either(all_sent, self._end)
        if not self._end.done():
            all_sent.result()

    async def _pump(self, lanes: Iterator[list[int]]) -> None:
        """Carry one lane after another, each on a data stream of its own."""
        for lane in lanes:
            feed = self._feed_of(lane)
            for item in self._refused.keys() & set(lane):
                feed.refuse(item, self._refused[item])
            await self._carry(feed)

    def _feed_of(self, items: Sequence[int], again: Mapping[int, Sequence[Partial]] | None = None) -> Feed:
        assert self._prepared is not None
        return Feed(items, self._prepared.sources, self._prepared.requests.block_size, self._pursuits, again)

    async def _carry(self, feed: Feed) -> None:
        assert self._prepared is not None
        try:
            await self._carrier.carry(feed, self._prepared.requests.uuid)
        except StreamStopped as error:
            # The receiver's Error on the control stream says why; it may come later than the stop.
            await either(self._end, timeout=self._timeouts.close)
            if not self._end.done():
                raise RemoteProtocolError("the receiver stopped a data stream without saying why") from error
            self._end.result()

    def _sent(self, filled: Filled) -> None:
        """What ended with ``filled`` is on its way."""
        assert self._sender is not None
        again = sum(item in self._ended for item, *_ in (*filled.sent, *filled.aborted))
        self._ended.update(item for item, _, _ in filled.sent)
        self._items_sent += len(filled.sent) + len(filled.aborted) - again
        sent = [(item, size, digest) for item, size, digest in filled.sent if digest is not None]
        if len(sent) == 1:
            self._sender.item_sent(*sent[0])
        else:
            self._sender.items_sent(sent)
        for item, error in filled.aborted:
            self._sender.item_aborted(item, error)
        self._act([])

    def _receive(self, message: Message, payload_size: int) -> None:
        assert self._sender is not None
        try:
            events = self._sender.receive_message(message)
        except SpaceblockError as error:
            self.fail(error)
            return
        if isinstance(message, Hashed):
            self.changed()
        self._act(events)

    def _receive_end(self) -> None:
        assert self._sender is not None
        self._act(self._sender.receive_end())
        if not self._verdict.done():
            self._verdict.set_result(None)

    def _act(self, events: list[SenderEvent]) -> None:
        assert self._sender is not None
        for event in events:
            if isinstance(event, Answered):
                self._answer.set_result(event)
            elif isinstance(event, NamesRefused):
                self.start_beside(self._find_names(event))
            elif isinstance(event, Reported):
                self._receive_report(event.progress)
            elif isinstance(event, ItemRefused):
                self._refused[event.item] = event.error
                self._carrier.refuse(event.item, event.error)
            elif isinstance(event, BlocksWanted):
                self.start_beside(self._hash_blocks(event.item))
            elif isinstance(event, ResendWanted):
                self.start_beside(self._resend(event))
            elif isinstance(event, Completed):
                moved = self._moved_bytes(event)
                durable = min(self._told.durable, moved)
                self._told = replace(self._told, received=moved, verified=moved, durable=durable)
                verdict: asyncio.Future[Any] = self._verdict if self._end.done() else self._end
                if not verdict.done():
                    verdict.set_result(event)
            elif isinstance(event, Failed):
                self._break(event.error)
        if self._control is not None:
            self._control.send(self._sender.messages_to_send(), self._sender.ends_stream)

    def _receive_report(self, report: Progress) -> None:
        phase = _PHASES[report.state]
        if self.phase is Phase.NAMES:
            return  # this side's user is being asked, whatever the receiver does
        if phase is Phase.MOVING and self.phase is Phase.SOURCE:
            phase = Phase.SOURCE
        if report != self._told or phase is not self.phase:
            self._told = report
            if self._answer.done() or phase is Phase.USER:
                self.phase = phase
            self.changed()

    def _break(self, error: SpaceblockError) -> None:
        """Stop moving data and let :meth:`run` end with ``error``."""
        stop_reading(self._held)
        self._carrier.reset(error_code(error))
        if not self._end.done():
            self._end.set_exception(error)

    async def _unless_over(self, work: asyncio.Future[Any]) -> None:
        """Wait for ``work``, unless the transfer ends before."""
        await either(work, self._end)
        if not work.done():
            self._end.result()

    async def _unless_ended(self, work: Coroutine[Any, Any, _T]) -> _T:
        task = spawn(self.tasks, work)
        await either(task, self._end)
        if self._end.done():
            task.cancel()
            self._end.result()
        return task.result()

    async def _say_done(self) -> None:
        """Let ``Done`` reach the receiver; that it gets lost does not change what both sides know."""
        assert self._control is not None
        with suppress(SpaceblockError, asyncio.TimeoutError):
            await asyncio.wait_for(self._control.stream.drain(0), self._timeouts.close)

    async def _retreat(self, error: SpaceblockError) -> Completed | None:
        """After this side cancelled: a ``Verified`` that was under way means that the receiver has it all."""
        if not isinstance(error, TransferCancelled) or error.remote or not self._answer.done() or self._control is None:
            return None
        await either(self._verdict, timeout=min(_VERDICT_WAIT, self._timeouts.close))
        return self._verdict.result() if self._verdict.done() else None

    async def _clean_up(self) -> None:
        await cancel_all(self.tasks)
        # The receiver has all of what it verified; an engine that still waits to hear so gives the memory back.
        self._carrier.reset(ErrorCode.CANCELLED)
        if self._control is not None:
            self._control.stop_reading()
            self._control.send([], fin=True)
        await self.when_workers_idle(lambda: None, self._timeouts.close)
        self._carrier.drop_buffers()

    def release(self) -> None:
        if self._is_later:
            return
        if self._claim is not None:
            self._claim.release(forget=False)
        release_buffers(self._held)

    def _receipt(self, completed: Completed) -> Receipt:
        prepared = self._prepared
        assert prepared is not None
        manifest = prepared.manifest if self._sender is None else self._sender.manifest
        ends = enumerate(zip(prepared.sources, completed.outcomes, strict=True))
        receipt = receipt_of(
            prepared.requests.uuid.hex(),
            self._peer_id,
            [(item, source.name, outcome) for item, (source, outcome) in ends],
            is_compared=self._compared.__contains__,
            before=prepared.entries,
            after=() if manifest is None else manifest.entries,
            seconds=self.seconds,
            resumed=self._resumed,
            repaired=0 if self._sender is None else sum(self._sender.repaired.values()),
        )
        return given(receipt, first_error(completed.errors, completed.outcomes))

    def _moved_bytes(self, completed: Completed) -> int:
        return sum(outcome.size for item, outcome in enumerate(completed.outcomes) if item not in self._compared)


async def _not_again(outgoing: Outgoing) -> Outgoing | None:
    return None


def _opening(source: Source) -> Callable[[], Reread]:
    assert isinstance(source, (FileSource, BufferSource)), "what is read once is never had"
    return partial(reread, source)
