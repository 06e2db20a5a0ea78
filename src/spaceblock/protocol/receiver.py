"""The receiver of one transfer, as a state machine over its control stream and its data streams.

========= ======================================= ============================================== =================
state     the peer may send                       this side may do                               next
========= ======================================= ============================================== =================
READING   Requests pages, Manifest pages, Error   fail                                           OFFERED, FAILED
OFFERED   Error; Amend pages where it was asked   ask_for_names, accept, fail                    MOVING, FAILED
MOVING    HaveReply, ItemDigest, BlockDigests,    report, hashed, item_stored, item_placed,      VERIFIED, FAILED
          Waiting, Hashed, Error; on data:        item_failed, blocks_hashed, fail
          blocks, ItemEnd, ItemAbort
VERIFIED  Done, Error; of items that failed here  (Verified is queued)                           DONE
          also what MOVING allows
DONE, FAILED: nothing more is done
========= ======================================= ============================================== =================

An item that is only compared is ENDED from the start: it is PLACED where both digests are equal, else SKIPPED.

Each item goes its own way: WAITING, MOVING (its blocks ride one stream, in ascending offsets), ENDED (all bytes came),
STORED (all bytes are written and hashed), AGREED (both digests are equal), and at last PLACED, SKIPPED or FAILED. Where
the digests differ it is REPAIRING instead, once: both sides' block digests tell which ranges are to come again, after
which it is MOVING, ENDED and STORED once more. When every item has come to its end, Verified is queued.

Of an item that was had, moving begins where that ends, or at the start where the sender says restart: on its data
stream by the first offset, on the control stream by HaveReply, and the two may arrive in any order.

Each data stream carries one item at a time, so what is open at once is bounded by the number of streams.

Rules: every number from the peer is checked here before anyone uses it. Once Verified is queued the outcome stands;
only the sender's finding that the digests differ still changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import field
from enum import Enum, IntEnum, auto

from ..blocks import Full, Had, Partial, SpaceblockRequests
from ..core import UINT_VAR_MAX, make_records
from ..errors import (
    ErrorCode,
    IntegrityError,
    LimitExceeded,
    RemoteProtocolError,
    SourceError,
    SpaceblockError,
    TransferCancelled,
    error_code,
)
from ..limits import PHASE_MAX, TEXT_MAX, Limits
from ..names import NameRules, Problem
from ..process.lazily import dataclass
from ..wire.manifest import Manifest
from ..wire.messages import (
    Amend,
    BlockDigests,
    Done,
    Error,
    Feature,
    Hashed,
    HaveReply,
    ItemAbort,
    ItemDigest,
    ItemDigests,
    ItemEnd,
    ItemFailed,
    Message,
    Outcome,
    OutcomeKind,
    Progress,
    Resend,
    Verdict,
    VerdictKind,
    Waiting,
    pages_of_answer,
    pages_of_block_digests,
    pages_of_verified,
)
from ..wire.messages import (
    ReceiverState as Reported,
)
from .hashed import HashedFigures
from .name_rounds import NameRounds
from .offer_reading import OfferReading
from .receiver_events import (
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
from .repair import Repair
from .sender import cut, error_message, remote_error


class State(Enum):
    READING = auto()
    OFFERED = auto()
    MOVING = auto()
    VERIFIED = auto()
    DONE = auto()
    FAILED = auto()


class Status(IntEnum):
    """How far one item has come; from PLACED on it has come to its end."""

    WAITING = 0
    MOVING = 1
    ENDED = 2
    STORED = 3
    REPAIRING = 4
    AGREED = 5
    PLACED = 6
    SKIPPED = 7
    FAILED = 8


_STATUS = tuple(Status)
"""By their numbers: looking one up is several times as fast as making it."""


@dataclass(slots=True)
class _Moving:
    """An item on its way: the stream that carries it and where its next block must begin."""

    stream: int
    start: int
    next_offset: int
    stop: int | None
    ranges: list[Partial] = field(default_factory=list)  # what comes after ``stop``, when it comes once more
    passed: int = 0  # bytes of earlier ranges


class Receiver:
    """One incoming transfer. Call :meth:`receive_message` for what arrives on the control stream and the ``block``,
    ``item_end``, ``item_abort`` and ``stream_ended`` family for data streams; after every call, act on the events, send
    :meth:`messages_to_send` and, when ``ends_stream`` is true, finish the control stream.

    ``features`` are those that both sides announced.
    """

    def __init__(self, limits: Limits, features: Feature = Feature.NONE) -> None:
        self.state: State = State.READING
        self.ends_stream: bool = False
        self.received: int = 0
        self.verified: int = 0
        self.durable: int = 0
        self._limits = limits
        self._features = features
        self._manifest: Manifest | None = None
        self._names = NameRounds(limits)
        self._compared: set[int] = set()
        self._found: dict[int, str] = {}
        self._hashed = HashedFigures()
        self._reading = OfferReading(limits)
        self._queue: list[Message] = []
        self._requests = SpaceblockRequests(b"", 0, ())
        self._status = bytearray()
        self._left = 0
        self._to_come = 0
        self._moving: dict[int, _Moving] = {}
        self._carried: dict[int, int] = {}
        self._theirs: dict[int, tuple[int, bytes]] = {}
        self._mine: dict[int, tuple[int, bytes]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._errors: dict[int, SpaceblockError] = {}
        self._had: Mapping[int, Had] = {}
        self._replies: dict[int, bool] = {}  # by item that was had: whether that was confirmed
        self._durable_of: dict[int, int] = {}
        self._repairable = False
        self._repairs: dict[int, Repair] = {}
        self.resumed: int = 0
        """Bytes that need not come, as they were had and confirmed."""
        self.repaired: dict[int, int] = {}
        """By item, the bytes that had to come once more."""

    # What comes on the control stream.

    def receive_message(self, message: Message, payload_size: int = 0) -> list[ReceiverEvent]:
        """Process one message of ``payload_size`` bytes; raises :class:`RemoteProtocolError` if it may not come now."""
        if isinstance(message, Error):
            return self._receive_error(message)
        if self.state is State.FAILED or self.state is State.DONE:
            return []
        if self.state is State.READING:
            return self._read_offer(message, payload_size)
        if isinstance(message, Amend) and self.state is State.OFFERED:
            return self._receive_amend(message, payload_size)
        if isinstance(message, ItemDigest) and self.state in (State.MOVING, State.VERIFIED):
            return self._receive_digest(message)
        if isinstance(message, HaveReply) and self.state in (State.MOVING, State.VERIFIED):
            return self._receive_reply(message)
        if isinstance(message, BlockDigests) and self.state in (State.MOVING, State.VERIFIED):
            return self._receive_blocks(message)
        if isinstance(message, Waiting) and self.state in (State.MOVING, State.VERIFIED):
            return []
        if isinstance(message, Hashed) and self.state in (State.MOVING, State.VERIFIED):
            self._hashed.receive(message)
            return []
        if isinstance(message, Done) and self.state is State.VERIFIED:
            self.state = State.DONE
            self.ends_stream = True
            return [Finished()]
        raise RemoteProtocolError(f"the sender sent {type(message).__name__} while the transfer was {self._word()}")

    def receive_digests(self, message: ItemDigests) -> list[ReceiverEvent]:
        """As :meth:`receive_message` for each of them."""
        if self.state is not State.MOVING:
            single = (ItemDigest(*digest) for digest in message.digests)
            return [event for each in single for event in self.receive_message(each)]
        events: list[ReceiverEvent] = []
        status, theirs = self._status, self._theirs
        for item, size, digest in message.digests:
            if item >= len(status) or status[item] >= Status.AGREED or item in theirs:
                events += self._receive_digest(ItemDigest(item, size, digest))
                continue
            theirs[item] = (size, digest)
            if status[item] == Status.STORED:
                events += self._compare(item)
        return events

    def receive_end(self) -> list[ReceiverEvent]:
        """The peer finished the control stream."""
        if self.state is State.VERIFIED:
            self.state = State.DONE
            self.ends_stream = True
            return [Finished()]
        if self.state in (State.DONE, State.FAILED):
            return []
        return self.fail(RemoteProtocolError("the sender ended the transfer's control stream without saying why"))

    # What this side decides.

    def may(self, feature: Feature) -> bool:
        """Whether both sides announced ``feature``."""
        return bool(self._features & feature)

    @property
    def may_ask_for_names(self) -> bool:
        """Whether the sender can be asked for other names now: it has not answered too often, and owes no answer."""
        return self.may(Feature.RENAME) and self._names.may_begin

    def ask_for_names(self, limits: NameRules, problems: Iterable[Problem]) -> None:
        """Ask the sender for other names, of which :class:`Amended` tells."""
        self._expect(State.OFFERED)
        assert self.may_ask_for_names
        self._queue.extend(self._names.ask(limits, problems))

    def accept(
        self,
        skip: Iterable[int] = (),
        compare: Iterable[int] = (),
        had: Mapping[int, Had] | None = None,
        *,
        repairable: bool = False,
    ) -> list[ReceiverEvent]:
        """Take the offer, but for the items in ``skip``; of those in ``compare`` the sender's digest alone; of those in
        ``had`` what is missing. ``repairable`` items can be read and written again when all of them has come."""
        self._expect(State.OFFERED)
        self.state = State.MOVING
        self._repairable = repairable and self.may(Feature.REPAIR)
        verdicts = [Verdict(VerdictKind.ALL)] * len(self._requests.items)
        for item in compare:
            verdicts[item] = Verdict(VerdictKind.COMPARE)
            self._status[item] = Status.ENDED
            self._to_come -= 1
            self._compared.add(item)
        self._had = had or {}
        for item, found in self._had.items():
            verdicts[item] = Verdict(VerdictKind.HAVE, found.offset, found.digest, found.offset - found.checked)
        for item in skip:
            verdicts[item] = Verdict(VerdictKind.SKIP)
            self._settle(item, Status.SKIPPED, Outcome(OutcomeKind.SKIPPED))
        self._queue.extend(pages_of_answer(verdicts))
        return self._check_settled()

    def item_stored(self, item: int, size: int, digest: bytes) -> list[ReceiverEvent]:
        """All ``size`` bytes of an ENDED item are written and hashed; those of one that is had whole may be hashed
        before the sender has said that it has no more."""
        if self.state is not State.MOVING:
            return []
        if self._status[item] == Status.WAITING and item in self._had:
            self._mine[item] = (size, digest)
            return []
        if self._status[item] != Status.ENDED:
            return []
        self._status[item] = Status.STORED
        self._mine[item] = (size, digest)
        return self._compare(item)

    def items_stored(self, items: Iterable[tuple[int, int, bytes]]) -> list[ReceiverEvent]:
        """As :meth:`item_stored`, for many items at once."""
        events: list[ReceiverEvent] = []
        status, mine, theirs = self._status, self._mine, self._theirs
        for item, size, digest in items:
            if status[item] != Status.ENDED or self.state is not State.MOVING:
                events += self.item_stored(item, size, digest)
                continue
            status[item] = Status.STORED
            mine[item] = (size, digest)
            if item in theirs:
                events += self._compare(item)
        return events

    def item_found(self, item: int, digest: bytes, name: str) -> list[ReceiverEvent]:
        """What is here of an item that is only compared, under ``name``, has ``digest``."""
        if self._status[item] != Status.ENDED or self.state is not State.MOVING:
            return []
        self._status[item] = Status.STORED
        self._mine[item] = (self._requests.items[item].length or 0, digest)
        self._found[item] = name
        return self._compare(item)

    def item_placed(self, item: int, name: str, durable: bool) -> list[ReceiverEvent]:
        """An AGREED item is where it belongs, under ``name`` (empty: in a buffer)."""
        return self.items_placed([(item, name)], durable)

    def items_placed(self, items: Iterable[tuple[int, str]], durable: bool) -> list[ReceiverEvent]:
        """As :meth:`item_placed`, for many items at once."""
        if self.state is not State.MOVING:
            return []
        placed = [(item, name) for item, name in items if self._status[item] == Status.AGREED]
        rows = []
        for item, name in placed:
            size, digest = self._mine.pop(item)
            if durable:
                self.item_durable(item, size)
            self._status[item] = Status.PLACED
            rows.append((OutcomeKind.VERIFIED, digest, size, name, 0))
        self._outcomes.update(zip((item for item, _ in placed), make_records(Outcome, rows), strict=True))
        self._left -= len(placed)
        return self._check_settled()

    def item_durable(self, item: int, size: int) -> None:
        """The first ``size`` bytes of an item's range are on the disk."""
        before = self._durable_of.get(item, 0)
        if size > before and self._status[item] < Status.PLACED:
            self._durable_of[item] = size
            self.durable += size - before

    def blocks_hashed(self, item: int, digests: Sequence[bytes]) -> list[ReceiverEvent]:
        """The digests of the blocks of an item that differs, as it is here."""
        repair = self._repairs.get(item)
        if repair is None or self._status[item] != Status.REPAIRING or self.state is not State.MOVING:
            return []
        repair.mine.extend(repair.mine.next, digests)
        self._queue.extend(pages_of_block_digests(item, repair.mine.first, digests))
        return self._ask_again(item)

    def item_failed(self, item: int, error: SpaceblockError) -> list[ReceiverEvent]:
        """This side cannot take ``item``; the others go on."""
        if self._status[item] >= Status.PLACED or self.state is not State.MOVING:
            return []
        if error.item is None:
            error.item = item
        elif error.item != item:
            cause, error = error, copy(error)  # it may be that of other items too
            error.item, error.__cause__ = item, cause.__cause__
        text = cut(error.told(), TEXT_MAX)
        phase = cut(error.phase, PHASE_MAX)
        self._queue.append(ItemFailed(item, error_code(error), error.errno or 0, phase, text))
        return self._lose(item, error)

    def report(self, state: Reported) -> None:
        """Queue one report of this side's figures."""
        if self.state in (State.OFFERED, State.MOVING):
            self._queue.append(Progress(state, self.received, self.verified, self.durable))

    def hashed(self, size: int) -> None:
        """Say that this side has read ``size`` bytes of what is here already."""
        if self.state in (State.OFFERED, State.MOVING):
            self._queue.extend(self._hashed.tell(size))

    def fail(self, error: SpaceblockError) -> list[ReceiverEvent]:
        """End the transfer with ``error``, a decline or a cancel among them; too late after Verified."""
        if self.state in (State.VERIFIED, State.DONE, State.FAILED):
            return []
        self.state = State.FAILED
        self._queue.append(error_message(error))
        self.ends_stream = True
        return [Failed(error)]

    def messages_to_send(self) -> list[Message]:
        """Take what is queued for the control stream."""
        queue, self._queue = self._queue, []
        return queue

    # What comes on the data streams.

    def take_whole(self, stream: int, items: Sequence[tuple[int, int]]) -> int:
        """Take items that came on ``stream`` one after the other, each whole in one ``Block`` and ended: by index and
        size. Returns how many of them are as plain as can be; what to say of the next, :meth:`block` knows."""
        if self.state is not State.MOVING or stream in self._carried:
            return 0
        status, requests, had, block_size = self._status, self._requests.items, self._had, self._requests.block_size
        left = self.left_of_limit
        taken = 0
        for item, size in items:
            if item >= len(status) or status[item] != Status.WAITING or item in had:
                break
            request = requests[item]
            if request.size != size or type(request.range) is not Full or size > block_size or size > left:
                break
            status[item] = Status.ENDED
            left -= size
            taken += 1
        self.received = self._limits.total_size - left
        self._to_come -= taken
        return taken

    def block(self, stream: int, item: int, offset: int, length: int, *, is_run: bool = False) -> bool:
        """Check the header of a ``Block`` (or ``Hole``) message before a byte of it is used.

        ``is_run``: of several that go on from each other, of which each was seen to lie within one block of the grid.
        False means that the bytes are to be dropped: the item failed here, and the sender does not know yet.
        """
        status = self._asked_for(item)
        if status is Status.FAILED:
            return False
        if status == Status.WAITING or self._comes_again(item):
            moving = self._begin(stream, item, offset)
        elif status == Status.MOVING:
            moving = self._moving[item]
        else:
            raise RemoteProtocolError(f"the sender sent a block of item {item}, which is complete or was not asked for")
        if moving.stream != stream:
            raise RemoteProtocolError(f"the sender spread item {item} over two streams")
        if offset != moving.next_offset:
            raise RemoteProtocolError(f"the sender sent offset {offset} of item {item}, expected {moving.next_offset}")
        if moving.stop is not None and length > moving.stop - offset:
            raise RemoteProtocolError(f"the sender sent more of item {item} than it announced")
        block_size = self._requests.block_size
        if not is_run and length > block_size - offset % block_size:
            raise RemoteProtocolError(f"the sender sent a block of item {item} that crosses the block grid")
        if not moving.ranges and item not in self._repairs:
            if length > self.left_of_limit:
                raise LimitExceeded(
                    "the sender sent more bytes than this side takes: raise limits.total_size to allow it"
                )
            self.received += length
        moving.next_offset = offset + length
        if moving.ranges and moving.next_offset == moving.stop:
            moving.passed += moving.next_offset - moving.start
            following = moving.ranges.pop(0)
            moving.start = moving.next_offset = following.start
            moving.stop = following.stop
        return True

    def due(self, stream: int, item: int, offset: int) -> int:
        """Bytes of ``item`` that may come on ``stream`` from ``offset`` on; 0 where :meth:`block` would take none."""
        if self.state is not State.MOVING or item >= len(self._status):
            return 0
        request = self._requests.items[item]
        start, stop = request.start, request.stop
        if self._comes_again(item):
            part = self._repairs[item].ranges[0]
            start, stop = part.start, part.stop
        elif self._status[item] == Status.WAITING:
            had = self._had.get(item)
            if had is not None and offset == had.offset:
                start = offset
        elif self._status[item] == Status.MOVING and self._moving[item].stream == stream:
            start, stop = self._moving[item].next_offset, self._moving[item].stop
        else:
            return 0
        return (UINT_VAR_MAX if stop is None else stop) - offset if offset == start else 0

    def due_in_order(self, stream: int, item: int, offset: int) -> int:
        """As :meth:`due`, of an item that comes for the first time and from its start on."""
        return 0 if item in self._had or item in self._repairs else self.due(stream, item, offset)

    @property
    def left_of_limit(self) -> int:
        """Bytes that may still come of all items together, by this side's limits."""
        return self._limits.total_size - self.received

    @property
    def block_size(self) -> int:
        """Bytes of one block of the grid."""
        return self._requests.block_size

    def item_end(self, stream: int, message: ItemEnd) -> bool:
        """All bytes of an item came; False means that the item failed here before."""
        item = message.item
        status = self._asked_for(item)
        if status is Status.FAILED:
            return False
        if status == Status.WAITING:
            self._begin(stream, item, self._requests.items[item].start)
        elif status != Status.MOVING or self._moving[item].stream != stream:
            raise RemoteProtocolError(f"the sender ended item {item}, which is not moving on that stream")
        moving = self._moving[item]
        moved = moving.passed + moving.next_offset - moving.start
        if message.size != moved or moving.stop not in (None, moving.next_offset) or moving.ranges:
            raise RemoteProtocolError(f"the sender ended item {item} at a size that is not what it announced and sent")
        self._leave(item)
        self._status[item] = Status.ENDED
        self._to_come -= 1
        return True

    def item_abort(self, stream: int, message: ItemAbort) -> list[ReceiverEvent]:
        """The sender gives up one item and goes on with the others."""
        item = message.item
        status = self._asked_for(item)
        if status is Status.FAILED:
            return []
        if status not in (Status.WAITING, Status.MOVING, Status.REPAIRING) and not self._awaits_digest(item):
            raise RemoteProtocolError(f"the sender gave up item {item} after its end")
        if status is Status.MOVING and self._moving[item].stream != stream:
            raise RemoteProtocolError(f"the sender gave up item {item}, which is not moving on that stream")
        return self._lose(item, remote_error(message))

    def stream_ended(self, stream: int) -> list[ReceiverEvent]:
        """A data stream ended or was reset: what still moved on it will not come."""
        item = self._carried.get(stream)
        if item is None:
            return []
        text = f"the sender broke off item {item} in the middle: send it again"
        return self.item_failed(item, SourceError(text, item=item, remote=True))

    def expects_data(self) -> bool:
        """Whether bytes of some item are still to come from the sender."""
        return self.state is State.MOVING and self._to_come > 0

    def first_moving(self) -> tuple[int, int] | None:
        """Of the items that move, the one that began first, and how many of its bytes came."""
        for item, moving in self._moving.items():
            return item, moving.next_offset - moving.start
        return None

    def length_of(self, item: int) -> int | None:
        """Bytes of ``item`` that were announced; None where only the end will tell."""
        return self._requests.items[item].length

    def ends(self) -> dict[int, Outcome]:
        """How the items ended that have come to their end."""
        return dict(self._outcomes)

    def compared(self, item: int) -> bool:
        """Whether ``item`` was not to travel, but to be compared with what is here."""
        return item in self._compared

    def is_resumed(self, item: int) -> bool:
        """Whether an item that has begun to move goes on from what was had."""
        return self._replies.get(item, False)

    def is_repairing(self, item: int) -> bool:
        """Whether parts of an item come once more, or are to."""
        return item in self._repairs

    def wants(self, item: int) -> bool:
        """Whether ``item`` is still on its way to its place."""
        return self._status[item] < Status.PLACED

    # Helpers.

    def _asked_for(self, item: int) -> Status:
        """How far an item is that a data stream names; FAILED for any once the transfer has."""
        if self.state in (State.READING, State.OFFERED) or item >= len(self._status):
            raise RemoteProtocolError(f"the sender sent something of item {item}, which nobody asked for")
        return Status.FAILED if self.state is State.FAILED else _STATUS[self._status[item]]

    def _read_offer(self, message: Message, payload_size: int) -> list[ReceiverEvent]:
        offer = self._reading.receive(message, payload_size)
        if offer is None:
            return []
        requests, self._manifest = offer
        self._reading = OfferReading(self._limits)
        self._requests = requests
        self._status = bytearray(len(requests.items))
        self._hashed = HashedFigures(requests.items)
        self._left = self._to_come = len(requests.items)
        self.state = State.OFFERED
        return [Offered(requests, self._manifest)]

    def _receive_amend(self, message: Amend, payload_size: int) -> list[ReceiverEvent]:
        before = self._manifest
        manifest = self._names.receive(message, payload_size, before)
        if manifest is None:
            return []
        self._manifest = manifest
        return [Amended(manifest, manifest != before)]

    def _receive_error(self, message: Error) -> list[ReceiverEvent]:
        error = remote_error(message)
        if self.state is State.VERIFIED:
            self.ends_stream = True
            if message.code == ErrorCode.INTEGRITY:
                self.state = State.FAILED
                return [Failed(error)]
            self.state = State.DONE
            return [Finished()]
        if self.state in (State.DONE, State.FAILED):
            return []
        self.state = State.FAILED
        self.ends_stream = True
        return [Failed(error)]

    def _receive_digest(self, message: ItemDigest) -> list[ReceiverEvent]:
        item = message.item
        status = self._asked_for(item)
        if status is Status.FAILED:
            return []
        if status >= Status.AGREED or item in self._theirs:
            raise RemoteProtocolError(f"the sender sent a digest of item {item} that nobody asked for")
        self._theirs[item] = (message.size, message.digest)
        return self._compare(item)

    def _compare(self, item: int) -> list[ReceiverEvent]:
        theirs = self._theirs.get(item)
        if theirs is None or self._status[item] != Status.STORED:
            return []
        mine = size, digest = self._mine[item]
        if item in self._compared:
            return self._settle_compared(item, equal=theirs == mine)
        if theirs != mine:
            return self._differs(item, can_be_repaired=theirs[0] == size)
        del self._theirs[item]
        self.verified += size
        had = self._had.get(item)
        if had is not None and had.place is not None and self._replies.get(item):
            self._mine.pop(item)
            self.item_durable(item, size)
            self._settle(item, Status.PLACED, Outcome(OutcomeKind.VERIFIED, digest, size, had.place))
            return [ItemConfirmed(item), *self._check_settled()]
        self._status[item] = Status.AGREED
        return [ItemAgreed(item, digest)]

    def _differs(self, item: int, *, can_be_repaired: bool) -> list[ReceiverEvent]:
        """The digests of an item are not the same: find out where, unless that was done before."""
        request = self._requests.items[item]
        had = self._had.get(item)
        in_place = had is not None and had.place is not None and self._replies.get(item)
        if not (can_be_repaired and self._repairable and request.rereadable) or item in self._repairs or in_place:
            text = f"the digests of item {item} differ: what arrived is not what was sent; send it again"
            spoilt = [ItemSpoilt(item)] if item in self._repairs else []
            return [*spoilt, *self.item_failed(item, IntegrityError(text, item=item))]
        assert request.stop is not None
        self._repairs[item] = Repair(request.start, request.stop, self._requests.block_size)
        del self._theirs[item], self._mine[item]
        self._status[item] = Status.REPAIRING
        return [ItemDiffers(item)]

    def _receive_blocks(self, message: BlockDigests) -> list[ReceiverEvent]:
        status = self._asked_for(message.item)
        if status is Status.FAILED:
            return []
        repair = self._repairs.get(message.item)
        if repair is None or status != Status.REPAIRING or repair.ranges:
            raise RemoteProtocolError(f"the sender sent block digests of item {message.item} that nobody asked for")
        repair.theirs.extend(message.first, message.digests)
        return self._ask_again(message.item)

    def _ask_again(self, item: int) -> list[ReceiverEvent]:
        """Once both lists are whole, ask for what differs."""
        repair = self._repairs[item]
        if not repair.may_compare:
            return []
        if not repair.compare():
            text = f"the digests of item {item} differ and those of its blocks do not: send it again"
            return [ItemSpoilt(item), *self.item_failed(item, IntegrityError(text, item=item))]
        self._theirs.pop(item, None)
        self.repaired[item] = sum(part.stop - part.start for part in repair.ranges)
        self._queue.append(Resend(item, tuple(repair.ranges)))
        self._to_come += 1
        return [ItemDamaged(item, self.repaired[item])]

    def _comes_again(self, item: int) -> bool:
        repair = self._repairs.get(item)
        return repair is not None and bool(repair.ranges) and self._status[item] == Status.REPAIRING

    def _receive_reply(self, message: HaveReply) -> list[ReceiverEvent]:
        item = message.item
        if self._asked_for(item) is Status.FAILED:
            return []
        had = self._had.get(item)
        if had is None or self._replies.get(item, message.confirmed) != message.confirmed:
            raise RemoteProtocolError(f"the sender sent HaveReply for item {item}, which contradicts what it sends")
        return self._reply(item, had, confirmed=message.confirmed)

    def _reply(self, item: int, had: Had, *, confirmed: bool) -> list[ReceiverEvent]:
        """The sender goes on from what was had, or begins anew; told twice it is the same."""
        if item in self._replies:
            return []
        self._replies[item] = confirmed
        if not confirmed:
            self._mine.pop(item, None)
            return [ItemRestarts(item)]
        request = self._requests.items[item]
        self.received += had.offset - request.start
        self.resumed += had.offset - request.start
        if had.offset != request.stop:
            return []
        self._status[item] = Status.ENDED
        self._to_come -= 1
        if had.place is not None:
            return self.item_stored(item, had.offset - request.start, had.digest)
        if item in self._mine:
            return self.item_stored(item, *self._mine.pop(item))
        return []

    def _settle_compared(self, item: int, *, equal: bool) -> list[ReceiverEvent]:
        size, digest = self._mine.pop(item)
        name = self._found.pop(item)
        del self._theirs[item]
        if equal:
            self._settle(item, Status.PLACED, Outcome(OutcomeKind.VERIFIED, digest, size, name))
        else:
            self._settle(item, Status.SKIPPED, Outcome(OutcomeKind.SKIPPED))
        return self._check_settled()

    def _awaits_digest(self, item: int) -> bool:
        settled = self._status[item] >= Status.PLACED
        late = item in self._compared or item in self._had or item in self._repairs
        return late and not settled and item not in self._theirs

    def _begin(self, stream: int, item: int, offset: int) -> _Moving:
        other = self._carried.setdefault(stream, item)
        if other != item:
            raise RemoteProtocolError(f"the sender began item {item} on a stream before the end of item {other}")
        if self._comes_again(item):
            first, *following = self._repairs[item].ranges
            moving = _Moving(stream, first.start, first.start, first.stop, following)
        else:
            request = self._requests.items[item]
            moving = _Moving(stream, request.start, request.start, request.stop)
            had = self._had.get(item)
            if had is not None:
                # Where there is nothing to go on from, as of no bytes at all, what comes is a beginning.
                confirmed = self._replies.get(item, offset == had.offset != request.start)
                self._reply(item, had, confirmed=confirmed)
                if confirmed:
                    moving.next_offset = had.offset
        self._moving[item] = moving
        self._status[item] = Status.MOVING
        return moving

    def _lose(self, item: int, error: SpaceblockError) -> list[ReceiverEvent]:
        self._leave(item)
        self._mine.pop(item, None)
        self._theirs.pop(item, None)
        self._found.pop(item, None)
        self._errors[item] = error
        self._settle(item, Status.FAILED, Outcome(OutcomeKind.FAILED, code=error_code(error)))
        return [ItemLost(item, error), *self._check_settled()]

    def _leave(self, item: int) -> None:
        moving = self._moving.pop(item, None)
        if moving is not None:
            del self._carried[moving.stream]

    def _settle(self, item: int, status: Status, outcome: Outcome) -> None:
        if self._status[item] < Status.ENDED or self._comes_again(item):
            self._to_come -= 1
        self._status[item] = status
        self._outcomes[item] = outcome
        self._left -= 1

    def _check_settled(self) -> list[ReceiverEvent]:
        if self._left or self.state is not State.MOVING:
            return []
        outcomes = tuple(self._outcomes[item] for item in range(len(self._status)))
        self._queue.extend(pages_of_verified(outcomes))
        self.state = State.VERIFIED
        return [Settled(outcomes, self._errors)]

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise TransferCancelled(f"the offer is no longer open: the transfer is {self._word()}")

    def _word(self) -> str:
        return self.state.name.lower()
