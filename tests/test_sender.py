"""The sender's state machine, driven by hand: an honest receiver first, then one that lies."""

from __future__ import annotations

import pytest

from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.display import printable
from spaceblock.errors import (
    ErrorCode,
    IntegrityError,
    NoSpace,
    RemoteProtocolError,
    SourceChanged,
    Stalled,
    StorageError,
    TransferCancelled,
    TransferRefused,
)
from spaceblock.limits import ITEM_TEXT_MAX, PHASE_MAX, TEXT_MAX
from spaceblock.protocol.sender import (
    Answered,
    BlocksWanted,
    Completed,
    Failed,
    ItemRefused,
    Reported,
    ResendWanted,
    Sender,
    SenderState,
    abort_message,
    cut,
    error_message,
    first_error,
    remote_error,
)
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import (
    AnswerPage,
    BlockDigests,
    Done,
    Error,
    Feature,
    ItemAbort,
    ItemDigest,
    ItemFailed,
    ManifestPage,
    Message,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    RequestsPage,
    Resend,
    Verdict,
    VerdictKind,
    VerifiedPage,
    pages_of_answer,
    pages_of_verified,
)

UUID = bytes(range(16))
DIGEST = bytes(32)
OTHER_DIGEST = bytes(31) + b"\1"
ALL, SKIP = Verdict(VerdictKind.ALL), Verdict(VerdictKind.SKIP)
SKIPPED = Outcome(OutcomeKind.SKIPPED)
SIZE = 5


def verified(digest: bytes = DIGEST, size: int = SIZE, name: str = "") -> Outcome:
    return Outcome(OutcomeKind.VERIFIED, digest, size, name)


def failed_with(code: ErrorCode) -> Outcome:
    return Outcome(OutcomeKind.FAILED, code=code)


def offering(count: int) -> Sender:
    """A sender of so many items, which has made its offer."""
    sender = Sender(SpaceblockRequests(UUID, 1 << 17, (SpaceblockRequest(SIZE),) * count), None)
    assert len(list(sender.offer())) == 1
    return sender


def moving(*verdicts: Verdict) -> Sender:
    """A sender that was given this answer."""
    sender = offering(len(verdicts))
    sender.receive_message(AnswerPage(True, 0, verdicts))
    return sender


def sent(*verdicts: Verdict) -> Sender:
    """A sender that has sent all that was wanted."""
    sender = moving(*verdicts)
    for item, verdict in enumerate(verdicts):
        if verdict is ALL:
            sender.item_sent(item, SIZE, DIGEST)
    sender.messages_to_send()
    return sender


# The way it should go.


def test_one_item_from_the_offer_to_done() -> None:
    sender = offering(1)
    assert sender.receive_message(AnswerPage(True, 0, (ALL,))) == [Answered((0,))]
    sender.item_sent(0, SIZE, DIGEST)
    assert sender.messages_to_send() == [ItemDigest(0, SIZE, DIGEST)]
    assert sender.receive_message(VerifiedPage(True, 0, (verified(name="a"),))) == [
        Completed((verified(name="a"),), {})
    ]
    assert sender.messages_to_send() == [Done()]
    assert sender.ends_stream
    assert sender.receive_end() == []


def test_the_offer_is_requests_and_then_names() -> None:
    requests = SpaceblockRequests(UUID, 1 << 17, (SpaceblockRequest(SIZE),))
    entry = Entry(EntryKind.FILE, "a", 0)
    page, names = Sender(requests, Manifest((entry,), 1)).offer()
    assert isinstance(page, RequestsPage)
    assert page.manifest_follows
    assert names == ManifestPage(True, 0, (entry,))


def test_only_what_the_receiver_wants_is_sent() -> None:
    sender = offering(4)
    (answered,) = sender.receive_message(AnswerPage(True, 0, (SKIP, ALL, SKIP, ALL)))
    assert answered == Answered((1, 3))


def test_an_answer_may_come_in_pages() -> None:
    sender = offering(3)
    assert sender.receive_message(AnswerPage(False, 0, (ALL,))) == []
    assert sender.receive_message(AnswerPage(False, 1, ())) == []
    assert sender.receive_message(AnswerPage(True, 1, (SKIP, ALL))) == [Answered((0, 2))]


def test_an_offer_of_nothing_is_answered_and_verified() -> None:
    sender = offering(0)
    assert sender.receive_message(AnswerPage(True, 0, ())) == [Answered(())]
    assert sender.receive_message(VerifiedPage(True, 0, ())) == [Completed((), {})]


def test_thousands_of_verdicts_and_outcomes_come_in_pages() -> None:
    count = 10_000
    sender = Sender(SpaceblockRequests(UUID, 1 << 17, (SpaceblockRequest(SIZE),) * count), None)
    for answer in pages_of_answer([ALL] * count):
        events = sender.receive_message(answer)
    assert events == [Answered(tuple(range(count)))]
    for item in range(count):
        sender.item_sent(item, SIZE, DIGEST)
    pages = list(pages_of_verified([verified(name="x" * 30)] * count))
    assert len(pages) > 1
    for page in pages[:-1]:
        assert sender.receive_message(page) == []
    (completed,) = sender.receive_message(pages[-1])
    assert isinstance(completed, Completed)
    assert len(completed.outcomes) == count


def test_the_receivers_figures_are_passed_on() -> None:
    progress = Progress(ReceiverState.USER, 0, 0, 0)
    assert offering(1).receive_message(progress) == [Reported(progress)]
    assert moving(ALL).receive_message(progress) == [Reported(progress)]


def test_an_item_that_the_receiver_cannot_take_is_given_up_and_the_rest_completes() -> None:
    sender = moving(ALL, ALL)
    (refused,) = sender.receive_message(ItemFailed(0, ErrorCode.NO_SPACE, 28, "write", "the disk is full\x07"))
    assert isinstance(refused, ItemRefused)
    assert isinstance(refused.error, NoSpace)
    assert (refused.item, refused.error.item, refused.error.errno) == (0, 0, 28)
    assert refused.error.remote
    assert str(refused.error) == "the disk is full\\x07"

    sender.item_aborted(0, refused.error)
    sender.item_sent(1, SIZE, DIGEST)
    outcomes = (failed_with(ErrorCode.NO_SPACE), verified())
    (completed,) = sender.receive_message(VerifiedPage(True, 0, outcomes))
    assert completed == Completed(outcomes, {0: refused.error})
    assert first_error({0: refused.error}, outcomes) is refused.error


def test_an_item_that_this_side_gave_up_keeps_its_own_reason() -> None:
    sender = moving(ALL)
    error = SourceChanged("the file shrank: send it again")
    sender.item_aborted(0, error)
    (completed,) = sender.receive_message(VerifiedPage(True, 0, (failed_with(ErrorCode.SOURCE_CHANGED),)))
    assert completed == Completed((failed_with(ErrorCode.SOURCE_CHANGED),), {0: error})


def test_a_failed_outcome_without_an_earlier_word_has_an_error_of_its_code() -> None:
    (completed,) = sent(ALL).receive_message(VerifiedPage(True, 0, (failed_with(ErrorCode.NO_SPACE),)))
    assert isinstance(completed, Completed)
    assert isinstance(completed.errors[0], NoSpace)


def test_when_all_went_well_there_is_no_first_error() -> None:
    assert first_error({}, (verified(), SKIPPED)) is None


# Lies in the answer.


@pytest.mark.parametrize(
    "page",
    [
        AnswerPage(True, 1, (ALL,)),
        AnswerPage(True, 0, (ALL, ALL, ALL)),
        AnswerPage(False, 0, (ALL, ALL, ALL)),
        AnswerPage(True, 2, ()),
        AnswerPage(True, 2**61, ()),
    ],
)
def test_an_answer_must_fit_the_offer(page: AnswerPage) -> None:
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        offering(2).receive_message(page)


def test_answer_pages_must_come_in_order() -> None:
    sender = offering(3)
    sender.receive_message(AnswerPage(False, 0, (ALL,)))
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        sender.receive_message(AnswerPage(True, 0, (ALL, ALL)))


def test_an_answer_must_be_whole() -> None:
    with pytest.raises(RemoteProtocolError, match="without a verdict"):
        offering(2).receive_message(AnswerPage(True, 0, (ALL,)))


def test_resuming_was_not_announced() -> None:
    have = Verdict(VerdictKind.HAVE, 1, DIGEST)
    with pytest.raises(RemoteProtocolError, match="not agreed on"):
        offering(1).receive_message(AnswerPage(True, 0, (have,)))


def test_a_second_answer_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="AnswerPage while the transfer was moving"):
        moving(ALL).receive_message(AnswerPage(True, 0, (ALL,)))


@pytest.mark.parametrize("text", ["\x1b" * 1_024, "é" * 512, "says a lot. " * 80 + "Do this"])
def test_what_is_kept_of_the_error_of_one_item_is_bounded(text: str) -> None:
    for message in (ItemFailed(0, ErrorCode.STORAGE, 0, "", text), ItemAbort(0, ErrorCode.SOURCE, 0, "", text)):
        kept = remote_error(message).message
        assert len(kept) <= ITEM_TEXT_MAX
        assert kept[-7:] == printable(text)[-7:]
    assert remote_error(Error(ErrorCode.STORAGE, None, "", 0, text)).message == printable(text)


@pytest.mark.parametrize("message", [VerifiedPage(True, 0, ()), ItemFailed(0, ErrorCode.STORAGE, 0, "", ""), Done()])
def test_nothing_else_may_come_before_the_answer(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="while the transfer was offered"):
        offering(1).receive_message(message)


# Lies about items.


def test_an_item_that_was_not_offered_cannot_fail() -> None:
    with pytest.raises(RemoteProtocolError, match="failed item 1"):
        moving(ALL).receive_message(ItemFailed(1, ErrorCode.STORAGE, 0, "", ""))


def test_an_item_that_was_skipped_cannot_fail() -> None:
    with pytest.raises(RemoteProtocolError, match="which it did not ask for"):
        moving(SKIP, ALL).receive_message(ItemFailed(0, ErrorCode.STORAGE, 0, "", ""))


def test_an_item_that_failed_twice_keeps_its_first_reason() -> None:
    sender = moving(ALL)
    sender.receive_message(ItemFailed(0, ErrorCode.NO_SPACE, 0, "", "full"))
    sender.receive_message(ItemFailed(0, ErrorCode.STORAGE, 0, "", "broken"))
    (completed,) = sender.receive_message(VerifiedPage(True, 0, (failed_with(ErrorCode.STORAGE),)))
    assert isinstance(completed, Completed)
    assert isinstance(completed.errors[0], NoSpace)


@pytest.mark.parametrize(
    "page",
    [
        VerifiedPage(True, 1, (verified(),)),
        VerifiedPage(True, 0, (verified(), verified(), verified())),
        VerifiedPage(True, 2**61, ()),
    ],
)
def test_verified_must_fit_the_offer(page: VerifiedPage) -> None:
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        sent(ALL, ALL).receive_message(page)


def test_verified_must_be_whole() -> None:
    with pytest.raises(RemoteProtocolError, match="without an outcome"):
        sent(ALL, ALL).receive_message(VerifiedPage(True, 0, (verified(),)))


@pytest.mark.parametrize("outcome", [verified(OTHER_DIGEST), verified(size=SIZE - 1), verified(size=2**62 - 1)])
def test_a_digest_or_size_that_is_not_this_sides_is_an_integrity_error(outcome: Outcome) -> None:
    sender = sent(ALL)
    with pytest.raises(IntegrityError) as caught:
        sender.receive_message(VerifiedPage(True, 0, (outcome,)))
    assert caught.value.item == 0
    assert sender.fail(caught.value) == [Failed(caught.value)]
    (message,) = sender.messages_to_send()
    assert isinstance(message, Error)
    assert (message.code, message.item) == (ErrorCode.INTEGRITY, 0)


def test_an_item_cannot_be_verified_before_it_was_sent() -> None:
    with pytest.raises(RemoteProtocolError, match="was not sent"):
        moving(ALL).receive_message(VerifiedPage(True, 0, (verified(),)))


def test_an_item_cannot_be_verified_after_it_failed() -> None:
    sender = sent(ALL)
    sender.receive_message(ItemFailed(0, ErrorCode.STORAGE, 0, "", "broken"))
    with pytest.raises(RemoteProtocolError, match="or had failed"):
        sender.receive_message(VerifiedPage(True, 0, (verified(),)))


@pytest.mark.parametrize("outcome", [verified(), failed_with(ErrorCode.STORAGE)])
def test_a_skipped_item_must_stay_skipped(outcome: Outcome) -> None:
    with pytest.raises(RemoteProtocolError, match="contradicts its own answer"):
        sent(SKIP, ALL).receive_message(VerifiedPage(True, 0, (outcome, verified())))


def test_an_item_that_was_asked_for_cannot_be_skipped_in_the_end() -> None:
    with pytest.raises(RemoteProtocolError, match="contradicts its own answer"):
        sent(ALL).receive_message(VerifiedPage(True, 0, (SKIPPED,)))


def test_verified_comes_once() -> None:
    sender = sent(ALL)
    sender.receive_message(VerifiedPage(True, 0, (verified(),)))
    with pytest.raises(RemoteProtocolError, match="while the transfer was verified"):
        sender.receive_message(VerifiedPage(True, 0, (verified(),)))


def test_the_end_of_the_stream_before_verified_is_a_failure() -> None:
    for sender in (offering(1), moving(ALL), sent(ALL)):
        (failed,) = sender.receive_end()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, RemoteProtocolError)


# Cancelling, and errors that cross.


def test_a_cancel_tells_the_receiver_and_ends_the_stream() -> None:
    sender = moving(ALL)
    error = TransferCancelled("cancelled by the user", phase="transferring")
    assert sender.fail(error) == [Failed(error)]
    assert sender.messages_to_send() == [Error(ErrorCode.CANCELLED, None, "transferring", 0, "cancelled by the user")]
    assert sender.ends_stream
    assert sender.fail(Stalled("slow")) == [], "only the first error counts"
    assert sender.receive_message(Error(ErrorCode.STORAGE, None, "", 0, "")) == []
    assert sender.receive_end() == []


def test_a_verified_that_crosses_a_cancel_beats_it() -> None:
    sender = sent(ALL, SKIP)
    sender.fail(TransferCancelled("stop"))
    sender.messages_to_send()
    assert sender.receive_message(Progress(ReceiverState.VERIFYING, 5, 5, 0)) == []
    assert sender.receive_message(VerifiedPage(False, 0, (verified(),))) == []
    (completed,) = sender.receive_message(VerifiedPage(True, 1, (SKIPPED,)))
    assert completed == Completed((verified(), SKIPPED), {})
    assert sender.state is SenderState.VERIFIED
    assert sender.messages_to_send() == [], "the stream has ended: there is no Done"


def test_a_wrong_verified_does_not_beat_a_cancel() -> None:
    sender = sent(ALL)
    sender.fail(TransferCancelled("stop"))
    with pytest.raises(IntegrityError):
        sender.receive_message(VerifiedPage(True, 0, (verified(OTHER_DIGEST),)))
    assert sender.state is SenderState.FAILED


def test_a_verified_after_another_failure_than_a_cancel_counts_for_nothing() -> None:
    sender = sent(ALL)
    sender.fail(Stalled("slow"))
    assert sender.receive_message(VerifiedPage(True, 0, (verified(),))) == []
    assert sender.state is SenderState.FAILED


@pytest.mark.parametrize("pages", [[], [AnswerPage(False, 0, (SKIP,))], [AnswerPage(True, 0, (SKIP, SKIP))]])
def test_a_verified_of_an_offer_that_was_cancelled_unanswered_counts_for_nothing(pages: list[AnswerPage]) -> None:
    sender = offering(2)
    sender.fail(TransferCancelled("stop"))
    for page in pages:
        assert sender.receive_message(page) == []
    for outcomes in ((), (SKIPPED, SKIPPED)):
        assert sender.receive_message(VerifiedPage(True, 0, outcomes)) == []
    assert sender.state is SenderState.FAILED


def test_this_sides_cancel_is_too_late_after_verified() -> None:
    sender = sent(ALL)
    sender.receive_message(VerifiedPage(True, 0, (verified(),)))
    sender.messages_to_send()
    assert sender.fail(TransferCancelled("stop")) == []
    assert sender.receive_message(Error(ErrorCode.CANCELLED, None, "", 0, "stop")) == []
    assert sender.messages_to_send() == []
    assert sender.state is SenderState.VERIFIED


@pytest.mark.parametrize("sender", [offering(1), moving(ALL), sent(ALL)])
def test_the_receivers_error_ends_the_transfer_and_is_not_answered(sender: Sender) -> None:
    (failed,) = sender.receive_message(Error(ErrorCode.REFUSED, None, "", 0, "no thanks \u202e"))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TransferRefused)
    assert failed.error.remote
    assert str(failed.error) == "no thanks \\u202e"
    assert sender.ends_stream
    assert sender.messages_to_send() == []
    assert sender.receive_message(Error(ErrorCode.STORAGE, None, "", 0, "too")) == []
    assert sender.receive_message(VerifiedPage(True, 0, (verified(),))) == []


def test_after_a_failure_no_digest_is_sent() -> None:
    sender = moving(ALL)
    sender.fail(TransferCancelled("stop"))
    sender.messages_to_send()
    sender.item_sent(0, SIZE, DIGEST)
    assert sender.messages_to_send() == []


# What travels of an error.


def test_an_error_travels_with_its_code_item_phase_and_errno() -> None:
    error = StorageError("the disk is broken: replace it", item=3, phase="writing", errno=5)
    assert error_message(error) == Error(ErrorCode.STORAGE, 3, "writing", 5, "the disk is broken: replace it")
    abort = abort_message(7, SourceChanged("shrank", phase="reading"))
    assert (abort.item, abort.code, abort.errno, abort.phase, abort.text) == (
        7,
        ErrorCode.SOURCE_CHANGED,
        0,
        "reading",
        "shrank",
    )


def test_texts_that_are_too_long_or_not_unicode_still_travel() -> None:
    error = StorageError("\udcff" + "é" * 2_000, phase="\ud800" * 100)
    message = error_message(error)
    message.encode()
    assert len(message.text.encode()) <= TEXT_MAX
    assert len(message.phase.encode()) <= PHASE_MAX
    abort_message(0, error).encode()


@pytest.mark.parametrize(("text", "limit", "kept"), [("abc", 2, "ab"), ("éé", 3, "é"), ("😀", 3, ""), (None, 9, "")])
def test_text_is_cut_between_characters(text: str | None, limit: int, kept: str) -> None:
    assert cut(text, limit) == kept


# Repair.


def repairable() -> Sender:
    """A sender whose one item of three blocks the receiver has found to differ."""
    requests = SpaceblockRequests(UUID, 1 << 17, (SpaceblockRequest(3 << 17, rereadable=True),))
    sender = Sender(requests, None, Feature.REPAIR)
    list(sender.offer())
    sender.receive_message(AnswerPage(True, 0, (ALL,)))
    sender.item_sent(0, 3 << 17, DIGEST)
    assert sender.receive_message(BlockDigests(0, 0, (DIGEST,))) == []
    assert sender.receive_message(BlockDigests(0, 1, (DIGEST,) * 2)) == [BlocksWanted(0)]
    return sender


@pytest.mark.parametrize("digests", [(), (DIGEST,)])
def test_block_digests_beyond_the_last_are_refused(digests: tuple[bytes, ...]) -> None:
    """Each whole list makes this side read all of the item once more."""
    sender = repairable()
    with pytest.raises(RemoteProtocolError, match="more block digests"):
        sender.receive_message(BlockDigests(0, 3, digests))


def test_nothing_is_sent_again_before_this_side_told_its_own_digests() -> None:
    sender, resend = repairable(), Resend(0, (Partial(0, 1),))
    with pytest.raises(RemoteProtocolError, match="before it is known"):
        sender.receive_message(resend)
    sender.blocks_hashed(0, [OTHER_DIGEST] * 3)
    assert sender.receive_message(resend) == [ResendWanted(0, resend.ranges)]
    with pytest.raises(RemoteProtocolError, match="before it is known"):
        sender.receive_message(resend)
