# Invariant: whatever a hostile peer says, in any order, the sender's and the receiver's state machine answer with
# events or a SpaceblockError; all that they want to send can be written; the receiver counts no byte that was not
# allowed, and the sender completes with no digest that is not its own.
"""The two state machines of a transfer, each against a peer that says anything."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain

from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import SourceError, StorageError, TransferCancelled
from spaceblock.limits import Limits
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import Offered, Settled
from spaceblock.protocol.sender import Completed, Sender, SenderState
from spaceblock.wire.messages import (
    AnswerPage,
    Done,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    Outcome,
    OutcomeKind,
    ReceiverState,
    Verdict,
    VerdictKind,
    VerifiedPage,
    pages_of_requests,
)

from .choices import Choices, large, piece
from .state_machines import driven, hear, said
from .vectors import wire_vectors

BLOCK = 1 << 17
LIMITS = Limits(items=8, manifest_bytes=2_000, total_size=1 << 21)
DIGEST = bytes(range(32))
OFFER = SpaceblockRequests(
    bytes(16),
    BLOCK,
    (SpaceblockRequest(5), SpaceblockRequest(None), SpaceblockRequest(3 * BLOCK, Partial(100, 5_100))),
)


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    return _receive(choices) if choices.byte() & 1 == 0 else _send(choices)


def seeds() -> dict[str, bytes]:
    (page,) = pages_of_requests(OFFER, False)
    offer = said(page) + b"\6\0"
    stored = b"".join(
        b"\1\0" + large(item) + large(start) + large(length) + b"\2\0" + large(item) + large(length)
        for item, start, length in ((0, 0, 5), (1, 0, 9), (2, 100, 5_000))
    )
    digests = b"".join(said(ItemDigest(item, size, DIGEST)) for item, size in enumerate((5, 9, 5_000)))
    placed = b"".join(bytes([7, item, item, 8, item]) for item in range(3))
    answer = AnswerPage(True, 0, (Verdict(VerdictKind.ALL), Verdict(VerdictKind.SKIP), Verdict(VerdictKind.ALL)))
    verified = Outcome(OutcomeKind.VERIFIED, DIGEST, 5, "x")
    outcomes = VerifiedPage(True, 0, (verified, Outcome(OutcomeKind.SKIPPED), Outcome(OutcomeKind.FAILED, code=0x21)))
    everything = b"".join(piece(dump) for dump in wire_vectors().values())
    return {
        "received": b"\0" + offer + stored + digests + placed + said(Done()),
        "broken-off": b"\0" + offer + stored[:40] + b"\4\0" + b"\x0b",
        "received-anything": b"\0" + everything,
        "sent": b"\1" + said(answer) + b"\1\0" + b"\1\2" + said(outcomes) + b"\4",
        "cancelled": b"\1" + said(answer) + b"\3" + said(outcomes),
        "sent-anything": b"\1" + everything,
    }


def _receive(choices: Choices) -> Hashable:
    receiver = Receiver(LIMITS)
    items = 0
    steps: list[Callable[[], object]] = [
        lambda: hear(choices, receiver.receive_message),
        lambda: receiver.block(choices.below(3), choices.large(), choices.large(), choices.large()),
        lambda: receiver.item_end(choices.below(3), ItemEnd(choices.large(), choices.large())),
        lambda: receiver.item_abort(choices.below(3), ItemAbort(choices.large(), 0x30, 5, "reading", "gone")),
        lambda: receiver.stream_ended(choices.below(3)),
        lambda: receiver.receive_end(),
        lambda: receiver.accept(range(choices.below(items + 1))) if receiver.state is State.OFFERED else None,
        lambda: receiver.item_stored(choices.below(items), (5, 9, 5_000)[choices.below(3)], DIGEST) if items else None,
        lambda: receiver.item_placed(choices.below(items), "name", True) if items else None,
        lambda: (
            receiver.item_failed(choices.below(items), StorageError("the disk is full", errno=28)) if items else None
        ),
        lambda: receiver.report(ReceiverState.MOVING),
        lambda: receiver.fail(TransferCancelled("enough")),
    ]

    def judge(event: object) -> None:
        nonlocal items
        if isinstance(event, Offered):
            items = len(event.requests.items)
            assert items <= LIMITS.items
        elif isinstance(event, Settled):
            assert len(event.outcomes) == items
            failed = {index for index, end in enumerate(event.outcomes) if end.kind is OutcomeKind.FAILED}
            assert failed == set(event.errors)

    happened = list[str]()
    for events in driven(receiver, steps, choices):
        for event in events:
            judge(event)
            happened.append(type(event).__name__)
        assert receiver.durable <= receiver.verified
        assert receiver.received <= LIMITS.total_size
    assert happened.count("Offered") <= 1
    assert happened.count("Settled") <= 1
    assert len({"Finished", "Failed"} & set(happened)) <= 1
    return "receiver", receiver.state, tuple(happened[:6])


def _send(choices: Choices) -> Hashable:
    sender = Sender(OFFER, None)
    sent: dict[int, int] = {}

    def send() -> None:
        item = choices.below(len(OFFER.items))
        if sender.state is SenderState.MOVING and item not in sent:
            sent[item] = 5
            sender.item_sent(item, 5, DIGEST)

    steps: list[Callable[[], object]] = [
        lambda: hear(choices, sender.receive_message),
        send,
        lambda: sender.item_aborted(choices.below(len(OFFER.items)), SourceError("the disk is gone", errno=5)),
        lambda: sender.fail(TransferCancelled("enough")),
        lambda: sender.receive_end(),
    ]
    assert all(message.encode() for message in sender.offer())
    happened = list[str]()
    for event in chain.from_iterable(driven(sender, steps, choices)):
        _bears_out(event, sent)
        happened.append(type(event).__name__)
    assert happened.count("Completed") <= 1
    return "sender", sender.state, tuple(happened[:6])


def _bears_out(event: object, sent: dict[int, int]) -> None:
    if not isinstance(event, Completed):
        return
    assert len(event.outcomes) == len(OFFER.items)
    for index, outcome in enumerate(event.outcomes):
        if outcome.kind is OutcomeKind.VERIFIED:
            assert (outcome.size, outcome.digest) == (sent[index], DIGEST)
        if outcome.kind is OutcomeKind.FAILED:
            assert index in event.errors
