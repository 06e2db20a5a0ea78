# Invariant: with every optional feature agreed on, whatever a hostile peer says in any order, the sender's and the
# receiver's state machine answer with events or a SpaceblockError; all that they want to send can be written. The
# receiver is resumed, repaired and amended within what it offered, and asks for nothing twice; the sender hashes and
# sends an item again once at most, and only what it offered.
"""The two state machines of a transfer that resumes, compares, repairs and renames, each against a hostile peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from itertools import chain

from spaceblock.blocks import Had, Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import SourceError, StorageError, TransferCancelled
from spaceblock.limits import Limits
from spaceblock.names import Problem, local_rules
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import Amended, ItemConfirmed, ItemDiffers, ItemRestarts, Offered, Settled
from spaceblock.protocol.sender import (
    Answered,
    BlocksWanted,
    Completed,
    NamesRefused,
    ResendWanted,
    Sender,
    SenderState,
)
from spaceblock.protocol.session import FEATURES
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import (
    Amend,
    Amendment,
    AnswerPage,
    BlockDigests,
    Done,
    Hashed,
    HaveReply,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    ItemFailed,
    Message,
    NameProblem,
    NameProblems,
    NameRule,
    NameUnit,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    Resend,
    Verdict,
    VerdictKind,
    VerifiedPage,
    Waiting,
    pages_of_manifest,
    pages_of_requests,
)

from .choices import Choices, large, piece
from .state_machines import driven, hear, said
from .vectors import wire_vectors

BLOCK = 1 << 17
LIMITS = Limits(items=8, manifest_bytes=4_000, total_size=1 << 22)
DIGEST, OTHER = bytes(range(32)), bytes(32)
SIZES = (5, 3 * BLOCK, 5_000)
OFFER = SpaceblockRequests(
    bytes(16),
    BLOCK,
    (
        SpaceblockRequest(5),
        SpaceblockRequest(3 * BLOCK, rereadable=True),
        SpaceblockRequest(2 * BLOCK, Partial(BLOCK - 100, BLOCK + 4_900), rereadable=True),
    ),
)
NAMES = Manifest.checked([Entry(EntryKind.FILE, name, item=item) for item, name in enumerate("abc")], 3)


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    return _receive(choices) if choices.byte() & 1 == 0 else _send(choices)


def seeds() -> dict[str, bytes]:
    offer = b"".join(said(page) for page in pages_of_requests(OFFER, True))
    offer += b"".join(said(page) for page in pages_of_manifest(NAMES.entries))
    accept = b"\6\0\0\7"  # nothing skipped or compared; all three had, as far as they can be
    blocks = b"\1\0" + large(1) + large(BLOCK) + large(BLOCK) + b"\1\0" + large(1) + large(2 * BLOCK) + large(BLOCK)
    ended = b"\2\0" + large(1) + large(3 * BLOCK)
    differs = said(ItemDigest(1, 3 * BLOCK, OTHER)) + b"\7\1"
    theirs = said(BlockDigests(1, 0, (DIGEST, OTHER, DIGEST))) + b"\x0c\1\3"
    again = b"\1\1" + large(1) + large(BLOCK) + large(BLOCK) + b"\2\1" + large(1) + large(BLOCK)
    repaired = said(ItemDigest(1, 3 * BLOCK, DIGEST)) + b"\7\1\x08\1"
    replied = said(HaveReply(1, True))
    answer = AnswerPage(
        True, 0, (Verdict(VerdictKind.ALL), Verdict(VerdictKind.HAVE, BLOCK, DIGEST), Verdict(VerdictKind.COMPARE))
    )
    verified = tuple(Outcome(OutcomeKind.VERIFIED, DIGEST, size, "x") for size in SIZES)
    sent = b"\1\0\1\1\1\2"
    problems = NameProblems(9, NameUnit.BYTES, 0, 0, True, (NameProblem(1, NameRule.TOO_LONG, "too long"),))
    repair = said(BlockDigests(1, 0, (OTHER,) * 3)) + b"\4\1" + said(Resend(1, (Partial(0, BLOCK),))) + b"\1\1"
    more = BlockDigests(1, 3, ())
    everything = b"".join(piece(dump) for dump in wire_vectors().values())
    return {
        "resumed": b"\0" + offer + accept + replied + blocks + ended + repaired,
        "restarted": b"\0" + offer + accept + said(HaveReply(1, False)) + b"\1\0" + large(1) + large(0) + large(BLOCK),
        "repaired": b"\0" + offer + accept + replied + blocks + ended + differs + theirs + again + repaired,
        "amended": b"\0" + offer + b"\x0d\1" + said(Amend(True, ())) + accept + said(Hashed(77)),
        "received-anything": b"\0" + offer + accept + everything,
        "sent": b"\1" + said(answer) + sent + said(VerifiedPage(True, 0, verified)) + said(Done()),
        "sent-again": b"\1" + said(answer) + sent + repair + said(VerifiedPage(True, 0, verified)),
        "hashed-twice": b"\1" + said(answer) + sent + said(BlockDigests(1, 0, (OTHER,) * 3)) + said(more),
        "resent-early": b"\1"
        + said(answer)
        + sent
        + repair[: repair.index(b"\4\1")]
        + repair[repair.index(b"\4\1") + 2 :],
        "renamed": b"\1" + said(problems) + b"\6\1" + said(answer),
        "sent-anything": b"\1" + said(answer) + sent + everything,
    }


def _receive(choices: Choices) -> Hashable:
    receiver = Receiver(LIMITS, FEATURES)
    count = 0
    blocks: dict[int, int] = {}

    def accept() -> object:
        if receiver.state is not State.OFFERED:
            return None
        skip, compare, had = (choices.byte() for _ in range(3))
        chosen = range(count)
        skipped = {item for item in chosen if skip >> item & 1}
        compared = {item for item in chosen if compare >> item & 1} - skipped
        found = {item: _had(item) for item in chosen if had >> item & 1 and item not in skipped | compared}
        resumed = {item: part for item, part in found.items() if part is not None}
        return receiver.accept(skipped, compared, resumed, repairable=True)

    def _had(item: int) -> Had | None:
        request = receiver._requests.items[item]
        if not request.rereadable or request.stop is None or request.length == 0:
            return None
        offset = min(request.start + BLOCK, request.stop)
        return Had(offset, max(request.start, offset - 10), DIGEST)

    def item() -> int:
        return choices.below(count)

    def blocks_hashed() -> object:
        which, size = item(), choices.below(4)
        left = blocks.get(which, 0)
        blocks[which] = left - min(left, size)
        return receiver.blocks_hashed(which, [DIGEST] * min(left, size)) if min(left, size) else None

    def ask() -> None:
        if receiver.state is State.OFFERED and receiver.may_ask_for_names:
            named = receiver._manifest is not None and len(receiver._manifest.entries)
            problems = [Problem(0, NameRule.TOO_LONG, "too long")] if named and choices.byte() & 1 else []
            receiver.ask_for_names(local_rules(), problems)

    steps: list[Callable[[], object]] = [
        lambda: hear(choices, receiver.receive_message),
        lambda: receiver.block(choices.below(3), choices.large(), choices.large(), choices.large()),
        lambda: receiver.item_end(choices.below(3), ItemEnd(choices.large(), choices.large())),
        lambda: receiver.item_abort(choices.below(3), ItemAbort(choices.large(), 0x30, 5, "reading", "gone")),
        lambda: receiver.stream_ended(choices.below(3)),
        lambda: receiver.receive_end(),
        accept,
        lambda: (
            receiver.item_stored(which, receiver.length_of(which) or 0, DIGEST)
            if count and (which := item()) is not None
            else None
        ),
        lambda: receiver.item_placed(item(), "name", True) if count else None,
        lambda: receiver.item_failed(item(), StorageError("the disk is full", errno=28)) if count else None,
        lambda: receiver.report(ReceiverState.MOVING),
        lambda: receiver.item_durable(item(), choices.number(2)) if count else None,
        lambda: blocks_hashed() if count else None,
        ask,
        lambda: receiver.hashed(choices.large()),
        lambda: receiver.item_found(which, DIGEST, "x") if count and receiver.compared(which := item()) else None,
        lambda: receiver.fail(TransferCancelled("enough")),
        lambda: receiver.receive_message(_as_a_sender(choices)),
        lambda: receiver.block(choices.below(2), choices.below(4), *_span(choices)),
        lambda: receiver.item_end(choices.below(2), ItemEnd(choices.below(4), _size(choices))),
    ]

    happened = Counter[str]()
    once = Counter[tuple[str, int]]()
    kinds: list[str] = []
    for event in chain.from_iterable(driven(receiver, steps, choices)):
        if isinstance(event, Offered):
            count = len(event.requests.items)
            assert count <= LIMITS.items
        elif isinstance(event, Amended):
            assert len(event.manifest.entries) <= 2 * LIMITS.items
        elif isinstance(event, ItemDiffers):
            request = receiver._requests.items[event.item]
            assert request.stop is not None
            size = receiver._requests.block_size
            blocks[event.item] = -(-request.stop // size) - request.start // size
        if isinstance(event, (ItemDiffers, ItemRestarts, ItemConfirmed)):
            once[type(event).__name__, event.item] += 1
        if isinstance(event, Settled):
            assert len(event.outcomes) == count
        happened[type(event).__name__] += 1
        kinds.append(type(event).__name__)
        assert receiver.resumed <= receiver.received <= LIMITS.total_size + receiver.resumed
    assert max(once.values(), default=0) <= 1
    assert happened["Offered"] <= 1
    assert happened["Amended"] <= 3
    assert happened["Settled"] <= 1
    return "receiver", receiver.state, tuple(kinds[:6])


def _send(choices: Choices) -> Hashable:
    sender = Sender(OFFER, NAMES, FEATURES)
    sent: dict[int, int] = {}
    wanted: dict[int, bool] = {}
    hashing: set[int] = set()
    amending = False

    def send() -> None:
        item = choices.below(3)
        if sender.state is SenderState.MOVING and (item not in sent or wanted.pop(item, False)):
            sent[item] = SIZES[item]
            sender.item_sent(item, SIZES[item], DIGEST)

    def amend() -> None:
        nonlocal amending
        if amending:
            amending = False
            sender.amend({choices.below(3): f"other {choices.byte()}"} if choices.byte() & 1 else {})

    def hash_blocks() -> None:
        item = choices.below(3)
        if item in hashing:
            hashing.discard(item)
            request = OFFER.items[item]
            assert request.stop is not None
            sender.blocks_hashed(item, [DIGEST] * (-(-request.stop // BLOCK) - request.start // BLOCK))

    steps: list[Callable[[], object]] = [
        lambda: hear(choices, sender.receive_message),
        send,
        lambda: sender.item_aborted(choices.below(3), SourceError("the disk is gone", errno=5)),
        lambda: sender.have_checked(choices.below(3), confirmed=bool(choices.byte() & 1)),
        hash_blocks,
        lambda: sender.waiting(),
        amend,
        lambda: sender.hashed(choices.large()),
        lambda: sender.receive_end(),
        lambda: sender.fail(TransferCancelled("enough")),
        lambda: sender.receive_message(_as_a_receiver(choices)),
    ]
    assert all(message.encode() for message in sender.offer())
    once = Counter[tuple[str, int]]()
    kinds: list[str] = []
    for event in chain.from_iterable(driven(sender, steps, choices)):
        kinds.append(type(event).__name__)
        if isinstance(event, Answered):
            assert len({*event.wanted, *event.compared, *event.had}) <= 3
            for item, had in event.had.items():
                request = OFFER.items[item]
                assert request.rereadable
                assert request.start <= had.checked <= had.offset <= (request.stop or 0)
        elif isinstance(event, NamesRefused):
            amending = True
            assert all(problem.entry < 3 for problem in event.problems)
        elif isinstance(event, BlocksWanted):
            once["blocks", event.item] += 1
            assert event.item in sent
            hashing.add(event.item)
        elif isinstance(event, ResendWanted):
            once["resend", event.item] += 1
            request = OFFER.items[event.item]
            assert request.start <= event.ranges[0].start
            assert event.ranges[-1].stop <= (request.stop or 0)
            assert event.item not in hashing, "asked for before this side's digests were told"
            wanted[event.item] = True
        elif isinstance(event, Completed):
            for item, outcome in enumerate(event.outcomes):
                if outcome.kind is OutcomeKind.VERIFIED:
                    assert (outcome.size, outcome.digest) == (sent[item], DIGEST)
    assert max(once.values(), default=0) <= 1
    assert kinds.count("NamesRefused") <= 3
    assert kinds.count("Completed") <= 1
    return "sender", sender.state, tuple(kinds[:6])


def _as_a_sender(choices: Choices) -> Message:
    """One of the messages that a sender may say at some time, with numbers that may fit."""
    item = choices.below(4)
    return (
        HaveReply(item, bool(choices.below(2))),
        ItemDigest(item, _size(choices), (DIGEST, OTHER)[choices.below(2)]),
        BlockDigests(item, choices.below(4), tuple((DIGEST, OTHER)[choices.below(2)] for _ in range(choices.below(4)))),
        Amend(bool(choices.below(2)), tuple(Amendment(item, f"n{choices.below(3)}") for _ in range(choices.below(3)))),
        Hashed(choices.number(2)),
        Waiting(),
        Done(),
    )[choices.below(7)]


def _as_a_receiver(choices: Choices) -> Message:
    """One of the messages that a receiver may say at some time, with numbers that may fit."""
    item, start, length = choices.below(4), *_span(choices)
    digests = tuple((DIGEST, OTHER)[choices.below(2)] for _ in range(choices.below(4)))
    verdicts = tuple(_verdict(choices) for _ in range(choices.below(4)))
    outcomes = tuple(
        (Outcome(OutcomeKind.VERIFIED, DIGEST, size), Outcome(OutcomeKind.SKIPPED))[choices.below(2)] for size in SIZES
    )
    problems = tuple(NameProblem(choices.below(4), 1, "no") for _ in range(choices.below(3)))
    return (
        AnswerPage(bool(choices.below(2)), choices.below(4), verdicts),
        NameProblems(9, NameUnit.BYTES, 0, 0, bool(choices.below(2)), problems),
        BlockDigests(item, choices.below(4), digests),
        Resend(item, (Partial(start, start + length),)),
        ItemFailed(item, 0x21, 28, "disk", "full"),
        VerifiedPage(True, 0, outcomes),
        Progress(ReceiverState(choices.below(5)), start, length, 0),
        Hashed(choices.number(2)),
    )[choices.below(8)]


def _verdict(choices: Choices) -> Verdict:
    kind = VerdictKind(choices.below(4))
    if kind is not VerdictKind.HAVE:
        return Verdict(kind)
    offset, ahead = _span(choices)
    return Verdict(kind, offset, DIGEST, min(ahead, offset))


def _size(choices: Choices) -> int:
    return (*SIZES, BLOCK)[choices.below(4)]


def _span(choices: Choices) -> tuple[int, int]:
    """An offset near a border of the grid or of an item's range, and a length of at least one byte."""
    border = (0, BLOCK, 2 * BLOCK, BLOCK - 100, BLOCK + 4_900)[choices.below(5)]
    return border + choices.below(2), (1, 5, 100, 4_900, 5_000, BLOCK)[choices.below(6)]
