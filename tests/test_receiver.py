"""The receiver's state machine, driven by hand: honest transfers, items that fail, and how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from receivers import DIGEST, OTHER_DIGEST, OTHER_STREAM, STREAM, bring, complete, moving, offered, only_message
from spaceblock.blocks import Had, Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import (
    ErrorCode,
    IntegrityError,
    NoSpace,
    RemoteProtocolError,
    SourceChanged,
    SourceError,
    Stalled,
    StorageError,
    TransferCancelled,
    TransferRefused,
)
from spaceblock.limits import TEXT_MAX, Limits
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import Failed, Finished, ItemAgreed, ItemLost, Offered, Settled
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import (
    AnswerPage,
    Done,
    Error,
    ItemAbort,
    ItemDigest,
    ItemDigests,
    ItemEnd,
    ItemFailed,
    ManifestPage,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    VerdictKind,
    VerifiedPage,
    pages_of_manifest,
    pages_of_requests,
)
from support import BLOCK, UUID, requests_of

# The way it should go.


def test_one_item_from_the_offer_to_the_end() -> None:
    receiver = Receiver(Limits())
    requests = requests_of(5)
    (page,) = pages_of_requests(requests, False)
    assert receiver.receive_message(page) == [Offered(requests, None)]

    assert receiver.accept() == []
    answer = only_message(receiver)
    assert isinstance(answer, AnswerPage)
    assert [verdict.kind for verdict in answer.verdicts] == [VerdictKind.ALL]

    assert receiver.block(STREAM, 0, 0, 3)
    assert receiver.block(STREAM, 0, 3, 2)
    assert receiver.item_end(STREAM, ItemEnd(0, 5))
    assert not receiver.expects_data()
    assert receiver.receive_message(ItemDigest(0, 5, DIGEST)) == []
    assert receiver.item_stored(0, 5, DIGEST) == [ItemAgreed(0)]

    outcome = Outcome(OutcomeKind.VERIFIED, DIGEST, 5, "a.txt")
    assert receiver.item_placed(0, "a.txt", durable=True) == [Settled((outcome,), {})]
    assert only_message(receiver) == VerifiedPage(True, 0, (outcome,))
    assert (receiver.received, receiver.verified, receiver.durable) == (5, 5, 5)

    assert receiver.receive_message(Done()) == [Finished()]
    assert receiver.ends_stream


def test_an_offer_with_names_is_whole_after_its_manifest() -> None:
    receiver = Receiver(Limits())
    requests = requests_of(1, 2)
    entries = (Entry(EntryKind.FOLDER, "d"), Entry(EntryKind.FILE, "d/x", 1))
    (page,) = pages_of_requests(requests, True)
    assert receiver.receive_message(page) == []
    (names,) = pages_of_manifest(entries)
    assert receiver.receive_message(names) == [Offered(requests, Manifest(entries, 2))]


def test_an_offer_of_many_pages_is_put_together() -> None:
    receiver = Receiver(Limits())
    requests = requests_of(*range(10_000))
    pages = list(pages_of_requests(requests, False))
    assert len(pages) > 1
    assert [receiver.receive_message(page) for page in pages[:-1]] == [[]] * (len(pages) - 1)
    assert receiver.receive_message(pages[-1]) == [Offered(requests, None)]


def test_without_items_everything_is_settled_at_once() -> None:
    receiver = offered(requests_of())
    assert receiver.accept() == [Settled((), {})]
    answer, verified = receiver.messages_to_send()
    assert answer == AnswerPage(True, 0, ())
    assert verified == VerifiedPage(True, 0, ())


def test_when_all_is_skipped_everything_is_settled_at_once() -> None:
    receiver = offered(requests_of(5, 6))
    skipped = Outcome(OutcomeKind.SKIPPED)
    assert receiver.accept(skip=[0, 1]) == [Settled((skipped, skipped), {})]


def test_an_item_of_length_zero_is_nothing_but_its_end() -> None:
    receiver = moving(0)
    assert receiver.expects_data()
    (settled,) = complete(receiver, 0, 0)
    assert isinstance(settled, Settled)


def test_an_item_of_unknown_size_ends_where_its_end_says() -> None:
    receiver = moving(None)
    assert receiver.block(STREAM, 0, 0, BLOCK)
    assert receiver.block(STREAM, 0, BLOCK, 7)
    assert receiver.item_end(STREAM, ItemEnd(0, BLOCK + 7))


def test_a_partial_range_begins_at_its_own_offset() -> None:
    start, stop = BLOCK - 3, BLOCK + 4
    receiver = offered(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(10 * BLOCK, Partial(start, stop)),)))
    receiver.accept()
    assert receiver.block(STREAM, 0, start, 3)
    assert receiver.block(STREAM, 0, BLOCK, 4)
    assert receiver.item_end(STREAM, ItemEnd(0, 7))
    receiver.receive_message(ItemDigest(0, 7, DIGEST))
    assert receiver.item_stored(0, 7, DIGEST) == [ItemAgreed(0)]


def test_an_empty_partial_range_is_complete_without_bytes() -> None:
    receiver = offered(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(100, Partial(50, 50)),)))
    receiver.accept()
    assert receiver.item_end(STREAM, ItemEnd(0, 0))


def test_a_partial_range_of_an_item_of_unknown_size_still_has_a_known_length() -> None:
    receiver = offered(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(None, Partial(2, 6)),)))
    receiver.accept()
    assert receiver.block(STREAM, 0, 2, 3)
    with pytest.raises(RemoteProtocolError, match="at a size that is not what it announced"):
        receiver.item_end(STREAM, ItemEnd(0, 3))


def test_items_come_in_any_order_on_several_streams() -> None:
    receiver = moving(1, 2, 3)
    bring(receiver, 2, 3, STREAM)
    assert receiver.block(OTHER_STREAM, 0, 0, 1)
    bring(receiver, 1, 2, STREAM)
    assert receiver.item_end(OTHER_STREAM, ItemEnd(0, 1))
    assert not receiver.expects_data()


def test_figures_are_reported_while_the_offer_is_open_and_while_bytes_move() -> None:
    receiver = offered(requests_of(5))
    receiver.report(ReceiverState.USER)
    assert only_message(receiver) == Progress(ReceiverState.USER, 0, 0, 0)
    receiver.accept()
    receiver.messages_to_send()
    receiver.block(STREAM, 0, 0, 4)
    receiver.report(ReceiverState.DISK)
    assert only_message(receiver) == Progress(ReceiverState.DISK, 4, 0, 0)
    receiver.fail(TransferCancelled("enough"))
    receiver.messages_to_send()
    receiver.report(ReceiverState.MOVING)
    assert receiver.messages_to_send() == []


def test_what_is_not_flushed_does_not_count_as_durable() -> None:
    receiver = moving(5)
    bring(receiver, 0, 5)
    receiver.receive_message(ItemDigest(0, 5, DIGEST))
    receiver.item_stored(0, 5, DIGEST)
    receiver.item_placed(0, "", durable=False)
    assert (receiver.verified, receiver.durable) == (5, 0)


# Items that fail.


def test_an_item_that_cannot_be_stored_fails_and_the_others_go_on() -> None:
    receiver = moving(5, 5)
    receiver.block(STREAM, 0, 0, 3)
    error = StorageError("the disk is broken: replace it", errno=5, phase="write")
    assert receiver.item_failed(0, error) == [ItemLost(0, error)]
    failed = only_message(receiver)
    assert failed == ItemFailed(0, ErrorCode.STORAGE, 5, "write", "the disk is broken: replace it")

    assert not receiver.block(STREAM, 0, 3, 2), "what still comes of it is dropped"
    assert receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.STORAGE, 5, "", "as you wish")) == []
    (settled,) = complete(receiver, 1, 5)
    assert isinstance(settled, Settled)
    assert [outcome.kind for outcome in settled.outcomes] == [OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    assert settled.errors == {0: error}


def test_what_the_sender_says_of_a_failed_item_is_dropped_however_wrong() -> None:
    receiver = moving(5, 5)
    receiver.item_failed(0, NoSpace("full: free some space"))
    assert not receiver.block(OTHER_STREAM, 0, 999, 999)
    assert not receiver.item_end(OTHER_STREAM, ItemEnd(0, 999))
    assert receiver.receive_message(ItemDigest(0, 999, OTHER_DIGEST)) == []
    assert receiver.received == 0


def test_what_was_under_way_of_the_last_item_when_it_failed_is_dropped_after_verified_too() -> None:
    receiver = moving(5)
    receiver.block(STREAM, 0, 0, 2)
    receiver.item_failed(0, NoSpace("full: free some space"))
    assert receiver.state is State.VERIFIED
    assert not receiver.block(STREAM, 0, 2, 3)
    assert not receiver.item_end(STREAM, ItemEnd(0, 5))
    assert receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.NO_SPACE, 28, "", "")) == []
    assert receiver.receive_message(ItemDigest(0, 5, DIGEST)) == []
    assert receiver.receive_message(Done()) == [Finished()]


def test_an_item_that_the_sender_gives_up_fails_with_its_reason() -> None:
    receiver = moving(5, 5)
    receiver.block(STREAM, 0, 0, 3)
    abort = ItemAbort(0, ErrorCode.SOURCE_CHANGED, 0, "reading", "the file \x1b[31mshrank")
    (lost,) = receiver.item_abort(STREAM, abort)
    assert isinstance(lost, ItemLost)
    assert isinstance(lost.error, SourceChanged)
    assert lost.error.remote
    assert lost.error.item == 0
    assert lost.error.phase == "reading"
    assert str(lost.error) == "the file \\x1b[31mshrank", "the peer's words are safe to print"
    assert receiver.messages_to_send() == [], "the sender knows"
    bring(receiver, 1, 5)


def test_an_item_can_be_given_up_before_its_first_block() -> None:
    receiver = moving(5)
    lost, settled = receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.SOURCE_MISSING, 2, "", "gone"))
    assert isinstance(lost, ItemLost)
    assert lost.error.errno == 2
    assert isinstance(settled, Settled)
    assert settled.outcomes == (Outcome(OutcomeKind.FAILED, code=ErrorCode.SOURCE_MISSING),)


def test_giving_up_an_item_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        moving(5).item_abort(STREAM, ItemAbort(1, ErrorCode.SOURCE, 0, "", ""))


def test_a_stream_that_ends_within_an_item_fails_that_item_only() -> None:
    receiver = moving(5, 5, 5)
    bring(receiver, 0, 5, STREAM)
    receiver.block(STREAM, 1, 0, 2)
    receiver.block(OTHER_STREAM, 2, 0, 2)
    (lost,) = receiver.stream_ended(STREAM)
    assert isinstance(lost, ItemLost)
    assert lost.item == 1
    assert isinstance(lost.error, SourceError)
    assert receiver.block(OTHER_STREAM, 2, 2, 3)
    assert receiver.stream_ended(99) == []


def test_a_stream_may_end_between_items() -> None:
    receiver = moving(5, 5)
    bring(receiver, 0, 5)
    assert receiver.stream_ended(STREAM) == []


def test_an_item_that_cannot_be_put_into_place_fails_after_its_digest_agreed() -> None:
    receiver = moving(5)
    bring(receiver, 0, 5)
    receiver.receive_message(ItemDigest(0, 5, DIGEST))
    receiver.item_stored(0, 5, DIGEST)
    error = StorageError("no such folder: make it")
    assert receiver.item_failed(0, error) == [
        ItemLost(0, error),
        Settled((Outcome(OutcomeKind.FAILED, code=ErrorCode.STORAGE),), {0: error}),
    ]


def test_an_item_fails_once() -> None:
    receiver = moving(5, 5)
    assert receiver.item_failed(0, NoSpace("full: free some space"))
    assert receiver.item_failed(0, StorageError("again: stop it")) == []
    assert len(receiver.messages_to_send()) == 1


def test_the_words_of_a_failure_are_cut_to_what_the_wire_takes() -> None:
    receiver = moving(5, 5)
    receiver.item_failed(0, StorageError("é" * TEXT_MAX, phase="x" * 100))
    failed = only_message(receiver)
    assert isinstance(failed, ItemFailed)
    assert failed.text == "é" * (TEXT_MAX // 2)
    failed.encode()


# The end, and errors that cross.


def test_done_before_verified_is_refused() -> None:
    for receiver in (offered(requests_of(5)), moving(5)):
        with pytest.raises(RemoteProtocolError, match="Done while the transfer was"):
            receiver.receive_message(Done())


def test_after_verified_only_done_or_an_error_may_come() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    for message in (ItemDigest(0, 0, DIGEST), Progress(ReceiverState.MOVING, 0, 0, 0), ManifestPage(True, 0, ())):
        with pytest.raises(RemoteProtocolError):
            receiver.receive_message(message)
    with pytest.raises(RemoteProtocolError):
        receiver.block(STREAM, 0, 0, 1)
    assert receiver.state is State.VERIFIED


def test_after_the_end_nothing_counts_any_more() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    receiver.receive_message(Done())
    for message in (Done(), ItemDigest(0, 0, DIGEST), Error(ErrorCode.INTEGRITY, None, "", 0, "no")):
        assert receiver.receive_message(message) == []
    assert receiver.receive_end() == []
    assert receiver.fail(TransferCancelled("late")) == []
    assert receiver.state is State.DONE


def test_the_end_of_the_stream_alone_means_done_after_verified() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    assert receiver.receive_end() == [Finished()]
    assert receiver.ends_stream


@pytest.mark.parametrize("receiver", [Receiver(Limits()), offered(requests_of(5)), moving(5)])
def test_the_end_of_the_stream_before_verified_fails_the_transfer(receiver: Receiver) -> None:
    (failed,) = receiver.receive_end()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RemoteProtocolError)
    message = receiver.messages_to_send()[-1]
    assert isinstance(message, Error)
    assert message.code == ErrorCode.PROTOCOL


def test_a_cancel_that_crosses_verified_comes_too_late() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    assert receiver.receive_message(Error(ErrorCode.CANCELLED, None, "", 0, "stop")) == [Finished()]
    assert receiver.state is State.DONE


def test_the_senders_doubt_of_a_digest_beats_verified() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    (failed,) = receiver.receive_message(Error(ErrorCode.INTEGRITY, 0, "", 0, "that is not what I sent"))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, IntegrityError)
    assert receiver.state is State.FAILED
    assert receiver.ends_stream
    assert not any(isinstance(message, Error) for message in receiver.messages_to_send())


def test_this_sides_own_cancel_is_too_late_after_verified() -> None:
    receiver = moving(0)
    complete(receiver, 0, 0)
    receiver.messages_to_send()
    assert receiver.fail(TransferCancelled("stop")) == []
    assert receiver.messages_to_send() == []


def test_declining_ends_the_stream_with_the_reason() -> None:
    receiver = offered(requests_of(5))
    error = TransferRefused("the receiver declined: no thanks")
    assert receiver.fail(error) == [Failed(error)]
    assert only_message(receiver) == Error(ErrorCode.REFUSED, None, "", 0, "the receiver declined: no thanks")
    assert receiver.ends_stream
    with pytest.raises(TransferCancelled):
        receiver.accept()


@pytest.mark.parametrize("receiver", [Receiver(Limits()), offered(requests_of(5)), moving(5)])
def test_the_senders_error_ends_the_transfer_and_is_not_answered(receiver: Receiver) -> None:
    (failed,) = receiver.receive_message(Error(ErrorCode.TIMEOUT, None, "waiting", 0, "too slow"))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, Stalled)
    assert failed.error.remote
    assert receiver.messages_to_send() == []
    assert receiver.ends_stream


def test_only_the_first_error_counts() -> None:
    receiver = moving(5)
    assert receiver.receive_message(Error(ErrorCode.CANCELLED, None, "", 0, "stop"))
    assert receiver.receive_message(Error(ErrorCode.INTERNAL, None, "", 0, "oh")) == []
    assert receiver.fail(Stalled("slow")) == []
    mine_first = moving(5)
    assert mine_first.fail(Stalled("slow"))
    assert mine_first.receive_message(Error(ErrorCode.CANCELLED, None, "", 0, "stop")) == []
    assert mine_first.fail(TransferCancelled("stop")) == []


def test_after_a_failure_nothing_is_done_with_what_still_comes() -> None:
    receiver = moving(5, 5)
    bring(receiver, 0, 5)
    receiver.receive_message(ItemDigest(0, 5, DIGEST))
    receiver.fail(TransferCancelled("stop"))
    receiver.messages_to_send()
    assert receiver.item_stored(0, 5, DIGEST) == []
    assert receiver.item_failed(1, NoSpace("full: free some space")) == []
    assert not receiver.block(STREAM, 1, 0, 5)
    assert not receiver.item_end(STREAM, ItemEnd(1, 5))
    assert receiver.item_abort(STREAM, ItemAbort(1, ErrorCode.SOURCE, 0, "", "")) == []
    assert receiver.stream_ended(STREAM) == []
    assert receiver.receive_message(ItemDigest(1, 5, DIGEST)) == []
    assert receiver.messages_to_send() == []


def test_an_error_of_an_unknown_code_is_an_error_nevertheless() -> None:
    (failed,) = moving(5).receive_message(Error(0x3FFF, None, "", 0, "from the future"))
    assert isinstance(failed, Failed)
    assert failed.error.code == "error"
    assert str(failed.error) == "from the future"


# Many at once.


def test_many_items_at_once_are_as_one_by_one() -> None:
    items = [(0, 5), (1, 7), (2, 4_096)]
    digests = ItemDigests(tuple((item, size, DIGEST) for item, size in items))
    names = [(item, str(item)) for item, _ in items]
    together, single = moving(5, 7, 4_096), moving(5, 7, 4_096)
    assert together.take_whole(STREAM, items) == 3
    assert together.items_stored([(item, size, DIGEST) for item, size in items]) == []
    assert together.receive_digests(digests) == [ItemAgreed(item, DIGEST) for item, _ in items]
    settled = together.items_placed(names, durable=True)
    for item, size in items:
        bring(single, item, size)
        assert single.item_stored(item, size, DIGEST) == []
        assert single.receive_message(ItemDigest(item, size, DIGEST)) == [ItemAgreed(item)]
        last = single.item_placed(item, str(item), durable=True)
    assert settled == last
    assert together.messages_to_send() == single.messages_to_send()
    assert (together.received, together.verified, together.durable) == (
        single.received,
        single.verified,
        single.durable,
    )


@pytest.mark.parametrize(
    ("items", "taken"),
    [
        ([(0, 5), (0, 5)], 1),  # twice
        ([(0, 5), (1, 8)], 1),  # of another size than was announced
        ([(0, 5), (9, 5)], 1),  # not offered
        ([(0, 5), (2, 200_000)], 1),  # more than a block
        ([(0, 5), (3, 1)], 1),  # of a size that only the end tells
        ([(4, 6)], 0),  # skipped
        ([(5, 3)], 0),  # a part of one
        ([(6, 4)], 0),  # of which something is had
    ],
)
def test_what_is_not_plain_is_left_to_be_looked_at_alone(items: list[tuple[int, int]], taken: int) -> None:
    requests = requests_of(5, 7, 200_000, None, 6)
    part = (SpaceblockRequest(9, Partial(3, 6)), SpaceblockRequest(4))
    receiver = offered(replace(requests, items=requests.items + part))
    receiver.accept(skip=[4], had={6: Had(2, 2, DIGEST)})
    before = receiver.received
    assert receiver.take_whole(STREAM, items) == taken
    assert receiver.received == before + 5 * taken


def test_nothing_is_taken_whole_in_the_middle_of_an_item_or_beyond_the_limit() -> None:
    receiver = moving(5, 7)
    assert receiver.block(STREAM, 1, 0, 3)
    assert receiver.take_whole(STREAM, [(0, 5)]) == 0
    assert receiver.take_whole(STREAM + 1, [(0, 5)]) == 1
    small = Receiver(Limits(total_size=12))
    for page in pages_of_requests(requests_of(5, 7), False):
        small.receive_message(page)
    small.accept()
    assert small.take_whole(STREAM, [(0, 5), (1, 7)]) == 2
    receiver.fail(TransferCancelled("no more"))
    assert receiver.take_whole(STREAM + 1, [(1, 7)]) == 0


def test_digests_that_nobody_asked_for_are_found_among_many() -> None:
    receiver = moving(5, 7)
    for digests in ([(0, 5, DIGEST), (0, 5, DIGEST)], [(9, 5, DIGEST)]):
        with pytest.raises(RemoteProtocolError, match="nobody asked for"):
            receiver.receive_digests(ItemDigests(tuple(digests)))
    early = offered(requests_of(5))
    with pytest.raises(RemoteProtocolError, match="ItemDigest while the transfer was offered"):
        early.receive_digests(ItemDigests(((0, 5, DIGEST),)))


def test_a_digest_among_many_that_differs_is_told_of() -> None:
    receiver = moving(5, 7)
    assert receiver.take_whole(STREAM, [(0, 5), (1, 7)]) == 2
    assert receiver.receive_digests(ItemDigests(((0, 5, DIGEST), (1, 7, bytes([1] * 32))))) == []
    agreed, lost = receiver.items_stored([(0, 5, DIGEST), (1, 7, DIGEST)])
    assert agreed == ItemAgreed(0, DIGEST)
    assert isinstance(lost, ItemLost)
    assert isinstance(lost.error, IntegrityError)
