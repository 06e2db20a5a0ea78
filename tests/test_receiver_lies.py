"""The receiver's state machine and every lie that a sender might tell: in the offer, on data streams, of digests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from receivers import DIGEST, OTHER_DIGEST, OTHER_STREAM, STREAM, bring, moving, offered
from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import ErrorCode, IntegrityError, LimitExceeded, RemoteProtocolError
from spaceblock.limits import Limits
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import ItemAgreed, ItemLost, Settled
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import (
    Done,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    ItemFailed,
    ManifestPage,
    Message,
    Outcome,
    OutcomeKind,
    Progress,
    ReceiverState,
    RequestsPage,
    VerifiedPage,
    pages_of_manifest,
    pages_of_requests,
)
from support import BLOCK, UUID, requests_of

# Lies in the offer.


def test_pages_must_follow_each_other() -> None:
    receiver = Receiver(Limits())
    with pytest.raises(RemoteProtocolError, match="do not follow each other"):
        receiver.receive_message(RequestsPage(UUID, True, False, BLOCK, 1, (SpaceblockRequest(1),)))


def test_pages_of_two_transfers_are_not_mixed() -> None:
    for uuid, block_size in ((bytes(16), BLOCK), (UUID, 2 * BLOCK)):
        receiver = Receiver(Limits())
        receiver.receive_message(RequestsPage(UUID, False, False, BLOCK, 0, (SpaceblockRequest(1),)))
        with pytest.raises(RemoteProtocolError, match="different transfers"):
            receiver.receive_message(RequestsPage(uuid, True, False, block_size, 1, (SpaceblockRequest(1),)))


def test_a_manifest_that_was_not_announced_is_refused() -> None:
    (names,) = pages_of_manifest(())
    with pytest.raises(RemoteProtocolError, match="ManifestPage while the transfer was offered"):
        offered(requests_of(1)).receive_message(names)
    with pytest.raises(RemoteProtocolError, match="ManifestPage where its offer was expected"):
        Receiver(Limits()).receive_message(names)


def test_requests_after_the_last_page_are_refused() -> None:
    receiver = Receiver(Limits())
    (page,) = pages_of_requests(requests_of(1), True)
    receiver.receive_message(page)
    with pytest.raises(RemoteProtocolError, match="where its offer was expected"):
        receiver.receive_message(page)


def test_manifest_pages_must_follow_each_other() -> None:
    receiver = Receiver(Limits())
    (page,) = pages_of_requests(requests_of(1), True)
    receiver.receive_message(page)
    with pytest.raises(RemoteProtocolError, match="do not follow each other"):
        receiver.receive_message(ManifestPage(True, 1, ()))


def test_a_manifest_that_names_an_item_that_does_not_exist_is_refused() -> None:
    receiver = Receiver(Limits())
    (page,) = pages_of_requests(requests_of(1), True)
    receiver.receive_message(page)
    with pytest.raises(RemoteProtocolError, match="contradicts itself"):
        receiver.receive_message(ManifestPage(True, 0, (Entry(EntryKind.FILE, "x", 1),)))


@pytest.mark.parametrize("message", [ItemDigest(0, 1, DIGEST), Done(), Progress(ReceiverState.MOVING, 0, 0, 0)])
def test_nothing_but_an_offer_may_come_first(message: Message) -> None:
    with pytest.raises(RemoteProtocolError, match="where its offer was expected"):
        Receiver(Limits()).receive_message(message)


def test_more_items_than_the_limit_are_refused_before_the_list_is_whole() -> None:
    receiver = Receiver(Limits(items=3))
    page = RequestsPage(UUID, False, False, BLOCK, 0, (SpaceblockRequest(1),) * 4)
    with pytest.raises(LimitExceeded, match="more than 3 items"):
        receiver.receive_message(page)


def test_more_names_than_the_limit_are_refused() -> None:
    receiver = Receiver(Limits(items=2))
    (page,) = pages_of_requests(requests_of(1, 1), True)
    receiver.receive_message(page)
    folders = tuple(Entry(EntryKind.FOLDER, f"d{number}") for number in range(5))
    with pytest.raises(LimitExceeded, match="more than 4 names"):
        receiver.receive_message(ManifestPage(False, 0, folders))


def test_a_list_longer_than_the_limit_is_refused_even_if_its_pages_are_empty() -> None:
    receiver = Receiver(Limits(manifest_bytes=100))
    empty = RequestsPage(UUID, False, False, BLOCK, 0, ())
    for _ in range(4):
        receiver.receive_message(empty, payload_size=25)
    with pytest.raises(LimitExceeded, match="list of items is longer"):
        receiver.receive_message(empty, payload_size=25)


def test_a_total_above_the_limit_is_refused_before_anything_moves() -> None:
    receiver = Receiver(Limits(total_size=10))
    with pytest.raises(LimitExceeded, match="more than 10 bytes"):
        receiver.receive_message(
            RequestsPage(UUID, True, False, BLOCK, 0, (SpaceblockRequest(6), SpaceblockRequest(5)))
        )


def test_sizes_whose_sum_would_overflow_are_refused() -> None:
    receiver = Receiver(Limits())
    huge = SpaceblockRequest(2**62 - 1)
    with pytest.raises(LimitExceeded, match="send less at a time"):
        receiver.receive_message(RequestsPage(UUID, True, False, BLOCK, 0, (huge, huge, huge, huge)))


def test_a_range_counts_with_its_own_length_only() -> None:
    request = SpaceblockRequest(2**40, Partial(2**39, 2**39 + 10))
    receiver = offered(SpaceblockRequests(UUID, BLOCK, (request,)), Limits(total_size=10))
    assert receiver.state is State.OFFERED


# Lies on the data streams.


def test_a_block_of_an_item_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        moving(5).block(STREAM, 1, 0, 1)


def test_data_before_the_answer_is_refused() -> None:
    calls: list[Callable[[Receiver], object]] = [
        lambda receiver: receiver.block(STREAM, 0, 0, 1),
        lambda receiver: receiver.item_end(STREAM, ItemEnd(0, 5)),
        lambda receiver: receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.SOURCE, 0, "", "")),
    ]
    for call in calls:
        with pytest.raises(RemoteProtocolError, match="nobody asked for"):
            call(offered(requests_of(5)))


def test_a_skipped_item_must_not_come() -> None:
    receiver = moving(5, 5, skip=[0])
    with pytest.raises(RemoteProtocolError, match="complete or was not asked for"):
        receiver.block(STREAM, 0, 0, 1)
    with pytest.raises(RemoteProtocolError, match="not moving on that stream"):
        receiver.item_end(STREAM, ItemEnd(0, 5))
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(ItemDigest(0, 5, DIGEST))
    with pytest.raises(RemoteProtocolError, match="gave up item 0 after its end"):
        receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.SOURCE, 0, "", ""))


def test_an_item_that_ended_must_not_go_on() -> None:
    receiver = moving(5, 5)
    bring(receiver, 0, 5)
    with pytest.raises(RemoteProtocolError, match="is complete"):
        receiver.block(STREAM, 0, 0, 5)
    with pytest.raises(RemoteProtocolError, match="not moving on that stream"):
        receiver.item_end(STREAM, ItemEnd(0, 5))
    with pytest.raises(RemoteProtocolError, match="after its end"):
        receiver.item_abort(STREAM, ItemAbort(0, ErrorCode.SOURCE, 0, "", ""))


@pytest.mark.parametrize("offset", [0, 1, 3, 4, BLOCK, 2**62 - 3])
def test_blocks_neither_overlap_nor_leave_a_gap(offset: int) -> None:
    receiver = moving(10)
    receiver.block(STREAM, 0, 0, 2)
    with pytest.raises(RemoteProtocolError, match=f"offset {offset} of item 0, expected 2"):
        receiver.block(STREAM, 0, offset, 1)


def test_the_first_block_begins_where_the_range_begins() -> None:
    with pytest.raises(RemoteProtocolError, match="offset 1 of item 0, expected 0"):
        moving(10).block(STREAM, 0, 1, 1)


def test_no_more_may_come_than_was_announced() -> None:
    receiver = moving(10)
    receiver.block(STREAM, 0, 0, 10)
    with pytest.raises(RemoteProtocolError, match="more of item 0 than it announced"):
        receiver.block(STREAM, 0, 10, 1)
    with pytest.raises(RemoteProtocolError, match="more of item 0 than it announced"):
        moving(10).block(STREAM, 0, 0, 11)
    with pytest.raises(RemoteProtocolError, match="more of item 0 than it announced"):
        moving(0).block(STREAM, 0, 0, 1)


@pytest.mark.parametrize("size", [None, 10 * BLOCK])
def test_a_block_must_not_cross_the_grid(size: int | None) -> None:
    receiver = moving(size)
    receiver.block(STREAM, 0, 0, BLOCK - 1)
    with pytest.raises(RemoteProtocolError, match="crosses the block grid"):
        receiver.block(STREAM, 0, BLOCK - 1, 2)
    with pytest.raises(RemoteProtocolError, match="crosses the block grid"):
        moving(size).block(STREAM, 0, 0, BLOCK + 1)


def test_an_item_of_unknown_size_cannot_grow_beyond_the_limit() -> None:
    receiver = offered(requests_of(None), Limits(total_size=10))
    receiver.accept()
    receiver.block(STREAM, 0, 0, 10)
    with pytest.raises(LimitExceeded, match=r"limits\.total_size"):
        receiver.block(STREAM, 0, 10, 1)


def test_an_item_rides_one_stream_only() -> None:
    receiver = moving(10)
    receiver.block(STREAM, 0, 0, 5)
    with pytest.raises(RemoteProtocolError, match="over two streams"):
        receiver.block(OTHER_STREAM, 0, 5, 5)
    with pytest.raises(RemoteProtocolError, match="not moving on that stream"):
        receiver.item_end(OTHER_STREAM, ItemEnd(0, 5))
    with pytest.raises(RemoteProtocolError, match="not moving on that stream"):
        receiver.item_abort(OTHER_STREAM, ItemAbort(0, ErrorCode.SOURCE, 0, "", ""))


def test_a_stream_carries_one_item_at_a_time() -> None:
    receiver = moving(10, 10, 0)
    receiver.block(STREAM, 0, 0, 5)
    with pytest.raises(RemoteProtocolError, match="began item 1 on a stream before the end of item 0"):
        receiver.block(STREAM, 1, 0, 5)
    with pytest.raises(RemoteProtocolError, match="began item 2 on a stream before the end of item 0"):
        receiver.item_end(STREAM, ItemEnd(2, 0))


@pytest.mark.parametrize("size", [0, 4, 6, 2**62 - 1])
def test_the_end_must_say_what_came(size: int) -> None:
    for announced in (5, None):
        receiver = moving(announced)
        receiver.block(STREAM, 0, 0, 5)
        with pytest.raises(RemoteProtocolError, match="not what it announced and sent"):
            receiver.item_end(STREAM, ItemEnd(0, size))


def test_an_item_must_not_end_early() -> None:
    receiver = moving(5)
    receiver.block(STREAM, 0, 0, 4)
    with pytest.raises(RemoteProtocolError, match="not what it announced and sent"):
        receiver.item_end(STREAM, ItemEnd(0, 4))
    with pytest.raises(RemoteProtocolError, match="not what it announced and sent"):
        moving(5).item_end(STREAM, ItemEnd(0, 0))


# Digests.


def test_the_digest_may_come_before_during_or_after_the_bytes() -> None:
    early, during, late = moving(5), moving(5), moving(5)
    early.receive_message(ItemDigest(0, 5, DIGEST))
    bring(early, 0, 5)
    assert early.item_stored(0, 5, DIGEST) == [ItemAgreed(0)]

    during.block(STREAM, 0, 0, 2)
    during.receive_message(ItemDigest(0, 5, DIGEST))
    during.block(STREAM, 0, 2, 3)
    during.item_end(STREAM, ItemEnd(0, 5))
    assert during.item_stored(0, 5, DIGEST) == [ItemAgreed(0)]

    bring(late, 0, 5)
    late.item_stored(0, 5, DIGEST)
    assert late.receive_message(ItemDigest(0, 5, DIGEST)) == [ItemAgreed(0)]


@pytest.mark.parametrize("theirs", [ItemDigest(0, 5, OTHER_DIGEST), ItemDigest(0, 4, DIGEST)])
@pytest.mark.parametrize("digest_first", [True, False])
def test_an_item_whose_digests_differ_fails_and_is_never_placed(theirs: ItemDigest, digest_first: bool) -> None:
    receiver = moving(5)
    bring(receiver, 0, 5)
    if digest_first:
        receiver.receive_message(theirs)
        lost, settled = receiver.item_stored(0, 5, DIGEST)
    else:
        receiver.item_stored(0, 5, DIGEST)
        lost, settled = receiver.receive_message(theirs)
    assert isinstance(lost, ItemLost)
    assert isinstance(lost.error, IntegrityError)
    assert isinstance(settled, Settled)
    assert settled.outcomes == (Outcome(OutcomeKind.FAILED, code=ErrorCode.INTEGRITY),)
    failed, verified = receiver.messages_to_send()
    assert isinstance(failed, ItemFailed)
    assert failed.code == ErrorCode.INTEGRITY
    assert isinstance(verified, VerifiedPage)
    assert receiver.verified == 0
    assert receiver.item_placed(0, "a", durable=True) == []


def test_a_second_digest_of_an_item_is_refused_at_any_time() -> None:
    receiver = moving(5, 5)
    digest = ItemDigest(0, 5, DIGEST)
    receiver.receive_message(digest)
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(digest)
    bring(receiver, 0, 5)
    receiver.item_stored(0, 5, DIGEST)
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(digest)
    receiver.item_placed(0, "", durable=True)
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(digest)


def test_a_digest_of_an_unknown_item_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        moving(5).receive_message(ItemDigest(1, 5, DIGEST))
