"""The sender of one transfer, as a state machine over its control stream.

=========== ============================== ============================================= ===========
state       the peer may send              this side may do                              next
=========== ============================== ============================================= ===========
OFFERED     Answer pages, Progress, Error, amend, once for each list of NameProblems;    MOVING, FAILED
            Hashed, NameProblems pages     fail
MOVING      Progress, Hashed, ItemFailed,  have_checked, item_sent, item_aborted,        VERIFIED, FAILED
            BlockDigests pages, Resend,    blocks_hashed, waiting, hashed, fail
            Verified pages, Error
VERIFIED    nothing                        (Done is queued)
FAILED      Verified pages, Error          (Error is queued, unless the peer's came first)
=========== ============================== ============================================= ===========

Rules: the first ``Error`` fixes the outcome, but a ``Verified`` that was under way when this side cancelled beats it.
No outcome is believed that this side's own digest does not bear out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import Enum, auto

from ..blocks import Had, Partial, SpaceblockRequest, SpaceblockRequests
from ..display import printable, shortened
from ..errors import (
    IntegrityError,
    RemoteProtocolError,
    SpaceblockError,
    TransferCancelled,
    error_code,
    error_from_wire,
)
from ..limits import ITEM_TEXT_MAX, NAME_PROBLEMS_MAX, NAME_ROUNDS, PHASE_MAX, TEXT_MAX
from ..names import NameRules, Problem
from ..process.lazily import dataclass
from ..wire.manifest import Manifest
from ..wire.messages import (
    Amendment,
    AnswerPage,
    BlockDigests,
    Done,
    Error,
    Feature,
    Hashed,
    HaveReply,
    ItemAbort,
    ItemDigest,
    ItemDigests,
    ItemFailed,
    Message,
    NameProblems,
    Outcome,
    OutcomeKind,
    Progress,
    Resend,
    System,
    Verdict,
    VerdictKind,
    VerifiedPage,
    Waiting,
    pages_of_amend,
    pages_of_block_digests,
    pages_of_manifest,
    pages_of_requests,
)
from .hashed import HashedFigures
from .repair import BlockList

_REASON_MAX = 500
"""Characters of why a name cannot be used."""


class SenderState(Enum):
    OFFERED = auto()
    MOVING = auto()
    VERIFIED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class Answered:
    """The receiver's answer is whole: ``wanted`` are the items to send, in order; of those in ``compared`` it wants the
    digest alone, and of those in ``had`` it has something already."""

    wanted: tuple[int, ...]
    compared: tuple[int, ...] = ()
    had: Mapping[int, Had] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamesRefused:
    """The receiver cannot use some names: find others within ``limits`` and call :meth:`Sender.amend`."""

    limits: NameRules
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """The receiver's own figures."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class ItemRefused:
    """The receiver cannot take this item: stop sending it, end it with ItemAbort and go on with the next."""

    item: int
    error: SpaceblockError


@dataclass(frozen=True, slots=True)
class BlocksWanted:
    """The receiver has something else of this item: hash its blocks and call :meth:`Sender.blocks_hashed`."""

    item: int


@dataclass(frozen=True, slots=True)
class ResendWanted:
    """The receiver wants these ranges of the item once more, on a new data stream."""

    item: int
    ranges: tuple[Partial, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """Both sides agree; ``outcomes`` is indexed by item, ``errors`` are those of the items that failed."""

    outcomes: tuple[Outcome, ...]
    errors: dict[int, SpaceblockError]


@dataclass(frozen=True, slots=True)
class Failed:
    """The transfer ended with this error."""

    error: SpaceblockError


SenderEvent = Answered | NamesRefused | Reported | ItemRefused | BlocksWanted | ResendWanted | Completed | Failed


class Sender:
    """One outgoing transfer. Call :meth:`offer` once, then :meth:`receive_message` for each message that arrives;
    after every call, send :meth:`messages_to_send` and, when ``ends_stream`` is true, finish the control stream.

    ``features`` are those that both sides announced, ``system`` is the receiver's.
    """

    def __init__(
        self,
        requests: SpaceblockRequests,
        manifest: Manifest | None,
        features: Feature = Feature.NONE,
        system: System = System.UNKNOWN,
    ) -> None:
        self.requests = requests
        self.manifest = manifest
        self._features = features
        self._system = system
        self._problems: dict[int, Problem] = {}
        self._name_rounds = 0
        self._must_amend = False
        self.state: SenderState = SenderState.OFFERED
        self.ends_stream: bool = False
        self._queue: list[Message] = []
        self._verdicts: list[Verdict] = []
        self._outcomes: list[Outcome] = []
        self._digests: dict[int, tuple[int, bytes]] = {}
        self._errors: dict[int, SpaceblockError] = {}
        self._hashed = HashedFigures(requests.items)
        self._answered = False
        self._cancelled = False
        self._unchecked: set[int] = set()  # items that are had, and of which the receiver was not told what follows
        self._blocks: dict[int, BlockList] = {}  # of items that differ: how many digests the receiver sent
        self._told_blocks: set[int] = set()  # items whose block digests this side has sent
        self.repaired: dict[int, int] = {}
        """By item, the bytes that the receiver wanted once more."""

    def offer(self) -> Iterator[Message]:
        """The opening messages, page by page, to be made as the stream takes them."""
        yield from pages_of_requests(self.requests, self.manifest is not None)
        if self.manifest is not None:
            yield from pages_of_manifest(self.manifest.entries)

    def amend(self, names: Mapping[int, str]) -> None:
        """Answer :class:`NamesRefused` with other names for some entries, by index; harmless if the transfer ended.

        Raises :class:`LocalProtocolError` for names of which two are equal.
        """
        if self.state is not SenderState.OFFERED:
            return
        assert self._must_amend
        assert self.manifest is not None
        self.manifest = self.manifest.renamed(names)
        self._must_amend = False
        self._queue.extend(pages_of_amend([Amendment(entry, name) for entry, name in sorted(names.items())]))

    def messages_to_send(self) -> list[Message]:
        """Take what is queued for the control stream."""
        queue, self._queue = self._queue, []
        return queue

    def receive_message(self, message: Message) -> list[SenderEvent]:
        """Process one message; raises :class:`RemoteProtocolError` if it may not come now."""
        if isinstance(message, Error):
            return self._receive_error(message)
        if isinstance(message, VerifiedPage):
            return self._receive_verified(message)
        if self.state in (SenderState.FAILED, SenderState.VERIFIED):
            return []
        if isinstance(message, Progress):
            return [Reported(message)]
        if isinstance(message, Hashed):
            self._hashed.receive(message)
            return []
        if self.state is SenderState.OFFERED and not self._must_amend:
            if isinstance(message, AnswerPage) and not self._problems:
                return self._receive_answer(message)
            if isinstance(message, NameProblems) and not self._verdicts:
                return self._receive_problems(message)
        if isinstance(message, ItemFailed) and self.state is SenderState.MOVING:
            return self._receive_item_failed(message)
        if isinstance(message, BlockDigests) and self.state is SenderState.MOVING:
            return self._receive_blocks(message)
        if isinstance(message, Resend) and self.state is SenderState.MOVING:
            return self._receive_resend(message)
        raise RemoteProtocolError(f"the receiver sent {type(message).__name__} while the transfer was {self._word()}")

    def receive_end(self) -> list[SenderEvent]:
        """The peer finished the control stream."""
        if self.state in (SenderState.FAILED, SenderState.VERIFIED):
            return []
        return self.fail(
            RemoteProtocolError("the receiver ended the transfer's control stream without saying how it went"),
        )

    @property
    def may_repair(self) -> bool:
        """Whether the receiver can ask for parts of an item once more."""
        return bool(self._features & Feature.REPAIR)

    def have_checked(self, item: int, *, confirmed: bool) -> None:
        """Say whether what the receiver has of ``item`` is its beginning: its data begins behind that, or anew."""
        if self.state is SenderState.MOVING and item in self._unchecked:
            self._unchecked.discard(item)
            self._queue.append(HaveReply(item, confirmed))

    def blocks_hashed(self, item: int, digests: Sequence[bytes]) -> None:
        """The digests of the blocks of an item that differs, as it is here."""
        if self.state is SenderState.MOVING:
            self._told_blocks.add(item)
            self._queue.extend(pages_of_block_digests(item, self._blocks[item].first, digests))

    def item_sent(self, item: int, size: int, digest: bytes) -> None:
        """All bytes of ``item`` are on their stream; ``digest`` is BLAKE3 over them."""
        if self.state is SenderState.MOVING:
            self._digests[item] = (size, digest)
            self._queue.append(ItemDigest(item, size, digest))

    def items_sent(self, items: Sequence[tuple[int, int, bytes]]) -> None:
        """As :meth:`item_sent`, for many items at once."""
        if items and self.state is SenderState.MOVING:
            self._digests.update({item: (size, digest) for item, size, digest in items})
            self._queue.append(ItemDigests(tuple(items)))

    def item_aborted(self, item: int, error: SpaceblockError) -> None:
        """This side cannot send (the rest of) ``item``, and said so by :func:`abort_message` on its data stream."""
        self._errors.setdefault(item, error)

    def waiting(self) -> None:
        """Say that this side's source gives nothing at present."""
        if self.state is SenderState.MOVING:
            self._queue.append(Waiting())

    def hashed(self, size: int) -> None:
        """Say that this side has read ``size`` bytes of what need not travel."""
        if self.state is SenderState.MOVING:
            self._queue.extend(self._hashed.tell(size))

    def fail(self, error: SpaceblockError) -> list[SenderEvent]:
        """End the transfer with ``error``, a :class:`TransferCancelled` among them; too late after Verified."""
        if self.state in (SenderState.FAILED, SenderState.VERIFIED):
            return []
        self._cancelled = isinstance(error, TransferCancelled)
        self.state = SenderState.FAILED
        self._queue.append(error_message(error))
        self.ends_stream = True
        return [Failed(error)]

    def _receive_error(self, message: Error) -> list[SenderEvent]:
        if self.state in (SenderState.FAILED, SenderState.VERIFIED):
            return []
        self.state = SenderState.FAILED
        self.ends_stream = True
        return [Failed(remote_error(message))]

    def _receive_answer(self, page: AnswerPage) -> list[SenderEvent]:
        count = len(self.requests.items)
        if page.first != len(self._verdicts) or len(page.verdicts) > count - page.first:
            raise RemoteProtocolError("the receiver's answer does not fit the items that were offered")
        kinds = {verdict.kind for verdict in page.verdicts}
        if VerdictKind.HAVE in kinds:
            self._check_had(page)
        if VerdictKind.COMPARE in kinds and not self._features & Feature.COMPARE:
            raise RemoteProtocolError("the receiver wants to compare, which was not agreed on")
        self._verdicts.extend(page.verdicts)
        if not page.last:
            return []
        if len(self._verdicts) != count:
            raise RemoteProtocolError("the receiver's answer leaves items without a verdict")
        self.state = SenderState.MOVING
        self._answered = True
        had = {}
        for item in self._items(VerdictKind.HAVE):
            verdict = self._verdicts[item]
            had[item] = Had(verdict.offset, verdict.offset - verdict.ahead, verdict.digest)
        self._unchecked.update(had)
        return [Answered(self._items(VerdictKind.ALL), self._items(VerdictKind.COMPARE), had)]

    def _check_had(self, page: AnswerPage) -> None:
        if not self._features & Feature.RESUME:
            raise RemoteProtocolError("the receiver wants to resume, which was not agreed on")
        for index, verdict in enumerate(page.verdicts, page.first):
            if verdict.kind is not VerdictKind.HAVE:
                continue
            request = self.requests.items[index]
            inside = request.stop is not None and request.start <= verdict.offset - verdict.ahead
            if not inside or verdict.offset > (request.stop or 0) or not request.rereadable:
                raise RemoteProtocolError(f"the receiver has something of item {index} that it cannot have")

    def _receive_blocks(self, message: BlockDigests) -> list[SenderEvent]:
        item = message.item
        request = self._repairable(item)
        assert request.stop is not None
        blocks = self._blocks.setdefault(item, BlockList(request.start, request.stop, self.requests.block_size))
        if blocks.whole:
            # Each whole list costs this side a reading of all of the item.
            raise RemoteProtocolError(f"the receiver sent more block digests of item {item} than it has blocks")
        blocks.extend(message.first, message.digests)
        return [BlocksWanted(item)] if blocks.whole else []

    def _receive_resend(self, message: Resend) -> list[SenderEvent]:
        item = message.item
        request = self._repairable(item)
        assert request.stop is not None
        if item not in self._told_blocks or item in self.repaired:
            raise RemoteProtocolError(f"the receiver wants parts of item {item} again before it is known which differ")
        if message.ranges[0].start < request.start or message.ranges[-1].stop > request.stop:
            raise RemoteProtocolError(f"the receiver wants parts of item {item} that were not offered")
        self.repaired[item] = sum(part.stop - part.start for part in message.ranges)
        return [ResendWanted(item, message.ranges)]

    def _repairable(self, item: int) -> SpaceblockRequest:
        """The request of an item that may be repaired; raises :class:`RemoteProtocolError`."""
        if not self.may_repair or item not in self._digests or not self.requests.items[item].rereadable:
            raise RemoteProtocolError(f"the receiver wants to repair item {item}, which was not agreed on or not sent")
        return self.requests.items[item]

    def _items(self, kind: VerdictKind) -> tuple[int, ...]:
        return tuple(item for item, verdict in enumerate(self._verdicts) if verdict.kind is kind)

    def _receive_problems(self, page: NameProblems) -> list[SenderEvent]:
        count = 0 if self.manifest is None else len(self.manifest.entries)
        if not self._features & Feature.RENAME:
            raise RemoteProtocolError("the receiver asks for other names, which was not agreed on")
        for problem in page.problems:
            if problem.entry >= count or problem.entry in self._problems:
                raise RemoteProtocolError(
                    f"the receiver refused a name of entry {problem.entry} that it was not offered"
                )
            reason = shortened(printable(problem.text), _REASON_MAX) or "cannot be used there"
            self._problems[problem.entry] = Problem(problem.entry, problem.rule, reason)
        if len(self._problems) > NAME_PROBLEMS_MAX:
            raise RemoteProtocolError(f"the receiver refused more than {NAME_PROBLEMS_MAX} names at once")
        if not page.last:
            return []
        self._name_rounds += 1
        if self._name_rounds > NAME_ROUNDS:
            raise RemoteProtocolError(f"the receiver asked for other names more than {NAME_ROUNDS} times")
        limits = NameRules(self._system, page.name_limit, page.name_unit, page.path_limit, page.suffix_limit)
        problems, self._problems = tuple(self._problems.values()), {}
        self._must_amend = True
        return [NamesRefused(limits, problems)]

    def _receive_item_failed(self, message: ItemFailed) -> list[SenderEvent]:
        if message.item >= len(self._verdicts) or self._verdicts[message.item].kind is VerdictKind.SKIP:
            raise RemoteProtocolError(f"the receiver failed item {message.item}, which it did not ask for")
        error = remote_error(message)
        self._errors.setdefault(message.item, error)
        return [ItemRefused(message.item, error)]

    def _receive_verified(self, page: VerifiedPage) -> list[SenderEvent]:
        if self.state is SenderState.FAILED and not (self._cancelled and self._answered):
            return []
        if self.state in (SenderState.OFFERED, SenderState.VERIFIED):
            raise RemoteProtocolError(f"the receiver sent Verified while the transfer was {self._word()}")
        if page.first != len(self._outcomes) or len(page.outcomes) > len(self._verdicts) - page.first:
            raise RemoteProtocolError("the receiver's Verified does not fit the items that were offered")
        for index, outcome in enumerate(page.outcomes, page.first):
            # There may be a million, nearly all of which are plainly right: to ask for each takes twice as long.
            same = outcome.kind is OutcomeKind.VERIFIED and (outcome.size, outcome.digest) == self._digests.get(index)
            if not same or self._verdicts[index].kind is not VerdictKind.ALL or index in self._errors:
                self._check_outcome(index, outcome)
        self._outcomes.extend(page.outcomes)
        if not page.last:
            return []
        if len(self._outcomes) != len(self._verdicts):
            raise RemoteProtocolError("the receiver's Verified leaves items without an outcome")
        self.state = SenderState.VERIFIED
        if not self.ends_stream:
            self._queue.append(Done())
            self.ends_stream = True
        return [Completed(tuple(self._outcomes), self._errors)]

    def _check_outcome(self, index: int, outcome: Outcome) -> None:
        verdict, skipped = self._verdicts[index].kind, outcome.kind is OutcomeKind.SKIPPED
        if verdict is not VerdictKind.COMPARE and skipped != (verdict is VerdictKind.SKIP):
            raise RemoteProtocolError(f"the receiver's outcome of item {index} contradicts its own answer")
        if outcome.kind is OutcomeKind.VERIFIED:
            mine = self._digests.get(index)
            if mine is None or index in self._errors:
                raise RemoteProtocolError(f"the receiver verified item {index}, which was not sent or had failed")
            if mine != (outcome.size, outcome.digest):
                raise IntegrityError(
                    f"the receiver's digest of item {index} is not this side's: send it again", item=index
                )
        elif outcome.kind is OutcomeKind.FAILED:
            text = f"the receiver could not take item {index}: send it again"
            self._errors.setdefault(index, error_from_wire(outcome.code, text, item=index))

    def _word(self) -> str:
        return self.state.name.lower()


def error_message(error: SpaceblockError) -> Error:
    """The ``Error`` message that tells the peer about ``error``."""
    return Error(
        error_code(error), error.item, cut(error.phase, PHASE_MAX), error.errno or 0, cut(error.told(), TEXT_MAX)
    )


def abort_message(item: int, error: SpaceblockError) -> ItemAbort:
    """The message that ends ``item`` inline on its data stream without ending the stream."""
    phase, text = cut(error.phase, PHASE_MAX), cut(error.told(), TEXT_MAX)
    return ItemAbort(item, error_code(error), error.errno or 0, phase, text)


def remote_error(message: Error | ItemFailed | ItemAbort) -> SpaceblockError:
    """The typed error that a peer tells of; its words are made safe to print, which may make them longer."""
    text = printable(message.text)
    if not isinstance(message, Error):
        text = shortened(text, ITEM_TEXT_MAX)
    return error_from_wire(
        message.code,
        text or "the peer did not say why",
        item=message.item,
        phase=printable(message.phase) or None,
        errno=message.errno or None,
    )


def cut(text: str | None, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8, ending between characters."""
    return (text or "").encode(errors="replace")[:limit].decode(errors="ignore")


def first_error(errors: dict[int, SpaceblockError], outcomes: Sequence[Outcome]) -> SpaceblockError | None:
    """The error of the first item that failed, or None."""
    for index, outcome in enumerate(outcomes):
        if outcome.kind is OutcomeKind.FAILED:
            return errors[index]
    return None
