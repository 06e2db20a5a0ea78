"""The receiving path of the bytes: any split of a stream into pieces gives the same files, and nothing is held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from landings import (
    MemorySink,
    begun,
    block,
    contents_of,
    digest_of,
    end,
    feed,
    hosted,
    kinds,
    noting_marks,
    whole_item,
)
from spaceblock import DISCARD
from spaceblock.blocks import Had, SpaceblockRequests
from spaceblock.core import MESSAGE_DATA_MAX, encode_uint_var
from spaceblock.errors import (
    ErrorCode,
    InternalError,
    NoSpace,
    RemoteProtocolError,
    SourceChanged,
    SourceError,
    StorageError,
)
from spaceblock.limits import SLOT_SIZE
from spaceblock.protocol.receiver import State
from spaceblock.storage import belt
from spaceblock.storage.debts import Debts
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.journal import Keeper
from spaceblock.storage.ring import Ring
from spaceblock.storage.sinks import IntoSink, Sink
from spaceblock.wire.messages import Done, HaveReply, Hole, ItemAbort, ItemEnd, OutcomeKind
from support import BLOCK, Host, manifest_of, pattern, requests_of

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.fixture(autouse=True, params=["large items on a belt", "all items on a belt"])
def least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may come on a belt does so from a byte on, too."""
    if request.param.startswith("all"):
        monkeypatch.setattr(belt, "_LEAST", 1)


def folder_host(folder: Path, *sizes: int | None, ring: Ring | None = None) -> Host:
    names = [f"{item}.bin" for item in range(len(sizes))]
    return hosted(FolderSink(folder), requests_of(*sizes), manifest_of(*names), ring)


class GatedSink(FolderSink):
    """A folder whose disk stands still until the gate opens."""

    def store_whole(self, items: Sequence[tuple[int, memoryview]]) -> list[bytes]:
        return []  # so that each step is taken by itself

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.gate = threading.Event()

    def write(self, item: int, offset: int, data: memoryview) -> None:
        assert self.gate.wait(60)
        super().write(item, offset, data)


class FailingSink(FolderSink):
    """A folder that fails one item at one step."""

    def store_whole(self, items: Sequence[tuple[int, memoryview]]) -> list[bytes]:
        return []  # so that each step is taken by itself

    def __init__(self, folder: Path, step: str, error: Exception, item: int = 0) -> None:
        super().__init__(folder)
        self._fails_at, self._error, self._item = step, error, item

    def _fail(self, step: str, item: int) -> None:
        if (step, item) == (self._fails_at, self._item):
            raise self._error

    def begin(self, item: int) -> None:
        self._fail("begin", item)
        super().begin(item)

    def write(self, item: int, offset: int, data: memoryview) -> None:
        self._fail("write", item)
        super().write(item, offset, data)

    def finish(self, item: int) -> None:
        self._fail("finish", item)
        super().finish(item)


def test_what_nobody_keeps_needs_no_worker() -> None:
    class Unwritten(IntoSink):
        def write(self, item: int, offset: int, data: memoryview) -> None:
            raise AssertionError("there is nothing to store")

    data = pattern(3 * BLOCK)
    host = hosted(Unwritten([DISCARD]), requests_of(len(data)))
    landing = host.landing()
    landing.receive_data(whole_item(0, data), True)
    assert not landing.working
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()


# Any split of the stream.


@pytest.mark.parametrize("step", [1, 7, 1_452, 10**9])
@pytest.mark.parametrize("into", ["folder", "buffers"])
def test_any_pieces_of_a_stream_make_the_same_items(tmp_path: Path, step: int, into: str) -> None:
    contents = [pattern(3_000, 1), b"", pattern(1, 2), pattern(2_999, 3)]
    buffers = [bytearray(len(data)) for data in contents]
    sizes = [len(data) for data in contents]
    host = folder_host(tmp_path, *sizes) if into == "folder" else hosted(IntoSink(buffers), requests_of(*sizes))
    stream = b"".join(whole_item(item, data, piece=700) for item, data in enumerate(contents))
    landing = host.landing()
    for start in range(0, len(stream), step):
        landing.receive_data(stream[start : start + step], False)
    landing.receive_data(b"", True)
    for item, data in enumerate(contents):
        host.receive(digest_of(item, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED] * 4
    assert host.consumed == len(stream)
    assert landing.ended
    host.close()
    if into == "folder":
        assert [(tmp_path / f"{item}.bin").read_bytes() for item in range(4)] == contents
        assert len(list(tmp_path.iterdir())) == 4
    else:
        assert buffers == contents


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=6),
    st.integers(1, 3_000),
    st.lists(st.integers(1, 4_000), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_items_in_any_blocks_and_any_pieces(sizes: list[int], piece: int, steps: list[int], hurried: bool) -> None:
    contents = [pattern(size, seed) for seed, size in enumerate(sizes)]
    buffers = [bytearray(size) for size in sizes]
    host = hosted(IntoSink(buffers), requests_of(*sizes))
    stream = b"".join(whole_item(item, data, piece) for item, data in enumerate(contents))
    landing = host.landing()
    position = turn = 0
    while position < len(stream):
        step = steps[turn % len(steps)]
        landing.receive_data(stream[position : position + step], position + step >= len(stream))
        position, turn = position + step, turn + 1
        if not hurried:
            host.settle()
    for item, data in enumerate(contents):
        host.receive(digest_of(item, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED] * len(sizes)
    host.close()
    assert buffers == contents


def test_blocks_of_the_largest_size_fit_a_slot(tmp_path: Path) -> None:
    data = pattern(3 * MESSAGE_DATA_MAX)
    requests = SpaceblockRequests(bytes(16), MESSAGE_DATA_MAX, requests_of(len(data)).items)
    host = hosted(FolderSink(tmp_path), requests, manifest_of("a"))
    stream = whole_item(0, data, piece=MESSAGE_DATA_MAX)
    landing = host.landing()
    landing.receive_data(stream, True)
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert landing.blocks == 3
    host.close()
    assert (tmp_path / "a").read_bytes() == data


def test_two_streams_carry_two_items_at_once(tmp_path: Path) -> None:
    one, two = pattern(BLOCK, 1), pattern(BLOCK, 2)
    host = folder_host(tmp_path, BLOCK, BLOCK)
    streams = [whole_item(0, one, piece=5_000), whole_item(1, two, piece=7_000)]
    landings = [host.landing(), host.landing()]
    for start in range(0, max(map(len, streams)), 1_000):
        for landing, stream in zip(landings, streams, strict=True):
            piece = stream[start : start + 1_000]
            landing.receive_data(piece, False)
    host.receive(digest_of(0, one))
    host.receive(digest_of(1, two))
    host.settle()
    host.close()
    assert (tmp_path / "0.bin").read_bytes() == one
    assert (tmp_path / "1.bin").read_bytes() == two


@pytest.mark.parametrize("into", ["folder", "buffer"])
def test_a_hole_is_zeros_that_did_not_travel(tmp_path: Path, into: str) -> None:
    data = pattern(100) + bytes(BLOCK - 100) + bytes(BLOCK) + b"end"
    buffer = bytearray(b"\xff" * len(data))
    sink = FolderSink(tmp_path) if into == "folder" else IntoSink([buffer])
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    landing = host.landing()
    landing.receive_data(block(0, 0, data[:100]), False)
    landing.receive_data(Hole(0, 100, BLOCK - 100).encode() + Hole(0, BLOCK, BLOCK).encode(), False)
    landing.receive_data(block(0, 2 * BLOCK, b"end") + ItemEnd(0, len(data)).encode(), True)
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert host.receiver.received == len(data)
    host.close()
    assert ((tmp_path / "a").read_bytes() if into == "folder" else buffer) == data


def test_messages_that_are_ignorable_and_unknown_are_skipped(tmp_path: Path) -> None:
    host = folder_host(tmp_path, 3)
    landing = host.landing()
    landing.receive_data(b"\x3b\x02\xca\xfe" + whole_item(0, b"abc") + b"\x3b\x00", True)
    host.receive(digest_of(0, b"abc"))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()


# In memory.


def test_what_goes_to_memory_is_written_on_the_event_loop(tmp_path: Path) -> None:
    data = pattern(12 * BLOCK)
    sink = MemorySink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    landing = begun(host, data)
    for start in range(BLOCK, len(data), BLOCK):
        feed(landing, data, [start])
        assert not landing.working
    assert sink.writers == [False, *[True] * 11], "the file has to be opened first"
    end(host, landing, data)
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()
    assert (tmp_path / "a").read_bytes() == data


def test_what_goes_to_memory_waits_for_the_worker_that_opens_the_file(tmp_path: Path) -> None:
    data = pattern(6 * BLOCK)
    sink = MemorySink(tmp_path)
    sink.gate.clear()
    host = hosted(sink, requests_of(len(data), 9), manifest_of("a", "b"), Ring(3, 2 * BLOCK))
    landing = host.landing()
    landing.receive_data(whole_item(0, data) + whole_item(1, b"012345678"), True)
    assert not landing.ended
    sink.gate.set()
    for digest in (digest_of(0, data), digest_of(1, b"012345678")):
        host.receive(digest)
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED] * 2
    host.close()
    assert contents_of(tmp_path, ["a", "b"]) == [data, b"012345678"]


def test_memory_that_is_full_ends_the_whole_transfer(tmp_path: Path) -> None:
    class FullSink(MemorySink):
        def write(self, item: int, offset: int, data: memoryview) -> None:
            if threading.current_thread() is threading.main_thread():
                raise NoSpace("no space left")
            super().write(item, offset, data)

    data = pattern(4 * BLOCK)
    host = hosted(FullSink(tmp_path), requests_of(len(data)), manifest_of("a"))
    landing = begun(host, data)
    landing.receive_data(block(0, BLOCK, data[BLOCK : 2 * BLOCK]), False)
    assert isinstance(host.error, NoSpace)
    assert landing.ended
    host.close()
    assert list(tmp_path.iterdir()) == []


def test_marks_of_what_went_to_memory_are_made_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(40 * BLOCK)
    host, marks = noting_marks(MemorySink(tmp_path), len(data), monkeypatch)
    landing = begun(host, data)
    for start in (BLOCK, 2 * BLOCK):
        landing.receive_data(block(0, start, data[start : start + BLOCK]), False)
    landing.mark()
    assert not landing.working
    assert [(mark.item, mark.offset, mark.digest) for mark in marks] == [
        (0, 3 * BLOCK, blake3(data[: 3 * BLOCK]).digest())
    ]
    host.close()


# Held up by the disk.


def test_with_every_buffer_in_use_the_stream_is_read_no_further_until_one_is_free(tmp_path: Path) -> None:
    data = pattern(6 * BLOCK)
    sink = GatedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"), Ring(2, 2 * BLOCK))
    landing = host.landing()
    stream = whole_item(0, data)
    landing.receive_data(stream, True)
    assert landing.waits_for_disk
    assert not landing.ended
    assert host.consumed < 5 * (BLOCK + 10), "what lies in no buffer is not credited"
    sink.gate.set()
    host.receive(digest_of(0, data))
    host.settle()
    assert host.consumed == len(stream)
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()
    assert (tmp_path / "a").read_bytes() == data


def test_the_event_loop_is_told_of_several_free_buffers_together(tmp_path: Path) -> None:
    class PatientSink(GatedSink):
        """Each write begins when the event loop has nothing left to do."""

        def write(self, item: int, offset: int, data: memoryview) -> None:
            super().write(item, offset, data)
            while host.has_calls:
                time.sleep(0.001)

    data = pattern(12 * BLOCK)
    sink = PatientSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"), Ring(16, BLOCK))
    host.landing().receive_data(whole_item(0, data), True)
    sink.gate.set()
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert host.calls_soon <= 5, "of twelve buffers and the item's end"
    host.close()


@pytest.mark.parametrize(("slots", "left"), [(16, 13), (4, 2)])
def test_room_for_what_comes_next_is_ready_and_other_streams_keep_theirs(tmp_path: Path, slots: int, left: int) -> None:
    data = pattern(BLOCK)
    sink = GatedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"), Ring(slots))
    landing = host.landing()
    landing.receive_data(block(0, 0, data[:100]), False)
    assert host.ring.free == left
    assert landing.intake.free >= (slots - left) * MESSAGE_DATA_MAX
    landing.receive_data(block(0, 100, data[100:]) + ItemEnd(0, len(data)).encode(), True)
    sink.gate.set()
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert host.ring.free == slots
    host.close()


def test_what_room_is_ready_for_is_counted_against_what_may_be_owed(tmp_path: Path) -> None:
    limit = 4 * SLOT_SIZE
    data = pattern(2 * limit)
    sink = GatedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    host.debts = Debts(limit, host.room)
    landing = host.landing()
    stream = whole_item(0, data)
    half = limit // 2 - SLOT_SIZE // 2
    landing.receive_data(stream[:half], False)  # little enough for more room to be made
    landing.receive_data(stream[half:], True)
    assert limit // 2 - SLOT_SIZE < host.consumed <= limit, "as long as nothing is durable"
    sink.gate.set()
    host.close()


def test_what_a_stream_owes_that_rests_holds_up_no_other(tmp_path: Path) -> None:
    limit = 8 * SLOT_SIZE
    contents = [pattern(2 * limit, 1), pattern(2 * limit, 2)]
    sink = FolderSink(tmp_path, keeper=Keeper("peer", bytes(32)))
    host = hosted(sink, requests_of(*map(len, contents)), manifest_of("a", "b"))
    host.debts = Debts(limit, host.room)
    rests, goes_on = host.landing(), host.landing()
    rests.receive_data(
        b"".join(block(0, at, contents[0][at : at + BLOCK]) for at in range(0, limit // 2 - BLOCK, BLOCK)), False
    )
    host.settle()
    goes_on.receive_data(whole_item(1, contents[1]), True)
    host.settle()
    assert goes_on.ended
    host.close()


def test_what_waits_behind_an_item_that_is_given_up_and_let_go_on_by_that_is_taken_once(tmp_path: Path) -> None:
    """Of so many messages that the worker falls behind in the middle of them."""
    count = 2 * BLOCK // 100
    sink = FolderSink(tmp_path, keeper=Keeper("peer", bytes(32)))
    host = hosted(sink, requests_of(2 * BLOCK, 100 * count), manifest_of("a", "b"))
    host.debts = Debts(2 * BLOCK, host.room, lambda: 0.0)
    landing = host.landing()
    landing.receive_data(block(0, 0, pattern(BLOCK)), False)
    assert host.debts.too_high
    holes = b"".join(Hole(1, at, min(100, BLOCK - at % BLOCK, 100 * count - at)).encode() for at in starts(100 * count))
    aborted = ItemAbort(0, ErrorCode.SOURCE_CHANGED, 0, "reading", "it shrank").encode()
    landing.receive_data(aborted + holes + ItemEnd(1, 100 * count).encode(), True)
    host.receive(digest_of(1, bytes(100 * count)))
    host.settle()
    assert host.error is None
    assert kinds(host) == [OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    host.close()


def starts(size: int) -> Iterator[int]:
    for start in range(0, size, BLOCK):
        yield from range(start, min(start + BLOCK, size), 100)


def test_an_item_without_bytes_that_was_had_and_is_sent_all_the_same_begins_anew(tmp_path: Path) -> None:
    host = Host(requests_of(0), FolderSink(tmp_path), Ring(), manifest_of("a"))
    host.act(host.receiver.accept(had={0: Had(0, 0, blake3().digest(), "a")}))
    host.landing().receive_data(ItemEnd(0, 0).encode(), True)
    host.receive(HaveReply(0, False))
    host.receive(digest_of(0, b""))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()


def test_two_streams_share_a_ring_that_is_too_small_for_both(tmp_path: Path) -> None:
    contents = [pattern(10 * BLOCK, 1), pattern(10 * BLOCK, 2)]
    host = folder_host(tmp_path, *map(len, contents), ring=Ring(1, BLOCK))
    landings = [host.landing(), host.landing()]
    for item, data in enumerate(contents):
        landings[item].receive_data(whole_item(item, data), True)
        host.receive(digest_of(item, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED] * 2
    host.close()
    assert [(tmp_path / f"{item}.bin").read_bytes() for item in (0, 1)] == contents


def test_a_stream_that_is_reset_while_it_waits_does_not_hold_up_the_next(tmp_path: Path) -> None:
    data = pattern(2 * BLOCK)
    sink = GatedSink(tmp_path)
    host = hosted(sink, requests_of(len(data), len(data), len(data)), manifest_of("a", "b", "c"), Ring(1, BLOCK))
    landings = [host.landing() for _ in range(3)]
    for item, landing in enumerate(landings):
        landing.receive_data(whole_item(item, data), True)
    landings[1].receive_reset()
    sink.gate.set()
    host.receive(digest_of(0, data))
    host.receive(digest_of(2, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED, OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    host.close()


def test_a_buffer_of_the_caller_needs_no_ring() -> None:
    data = pattern(BLOCK)
    buffer = bytearray(BLOCK)
    host = hosted(IntoSink([buffer]), requests_of(BLOCK), ring=Ring(0))
    landing = host.landing()
    landing.receive_data(whole_item(0, data), True)
    host.receive(digest_of(0, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()
    buffer.append(1)
    assert buffer[:-1] == data


# Items that fail.


@pytest.mark.parametrize("step", ["begin", "write", "finish"])
def test_an_item_that_cannot_be_stored_fails_and_the_next_on_its_stream_goes_on(tmp_path: Path, step: str) -> None:
    error = StorageError("the disk is broken: replace it")
    host = hosted(FailingSink(tmp_path, step, error), requests_of(3_000, 5), manifest_of("a", "b"))
    landing = host.landing()
    stream = whole_item(0, pattern(3_000), piece=100)
    half = len(stream) // 2
    landing.receive_data(stream[:half], False)
    host.settle()
    landing.receive_data(stream[half:] + whole_item(1, b"after"), True)
    host.receive(digest_of(1, b"after"))
    host.settle()
    assert host.lost == {0: error}
    assert kinds(host) == [OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    assert host.consumed == len(stream) + len(whole_item(1, b"after")), "what is dropped is credited"
    host.close()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_is_under_way_of_the_only_item_after_it_failed_is_dropped(tmp_path: Path) -> None:
    host = hosted(FailingSink(tmp_path, "write", StorageError("broken: mend it")), requests_of(3_000), manifest_of("a"))
    landing = host.landing()
    stream = whole_item(0, pattern(3_000), piece=100)
    landing.receive_data(stream[:1_000], False)
    host.settle()
    assert host.receiver.state is State.VERIFIED
    for start in range(1_000, len(stream), 333):
        landing.receive_data(stream[start : start + 333], False)
    landing.receive_data(b"", True)
    assert host.consumed == len(stream)
    assert landing.ended
    assert host.error is None
    host.close()


def test_a_full_disk_ends_the_whole_transfer(tmp_path: Path) -> None:
    host = hosted(FailingSink(tmp_path, "write", NoSpace("full: free some")), requests_of(5, 5), manifest_of("a", "b"))
    landing = host.landing()
    landing.receive_data(whole_item(0, b"12345"), False)
    host.settle()
    assert isinstance(host.error, NoSpace)
    host.close()
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_our_own_ends_the_transfer_as_such(tmp_path: Path) -> None:
    host = hosted(FailingSink(tmp_path, "write", ZeroDivisionError("oops")), requests_of(5), manifest_of("a"))
    host.landing().receive_data(whole_item(0, b"12345"), False)
    host.settle()
    assert isinstance(host.error, InternalError)
    assert "oops" in str(host.error)
    host.close()
    assert list(tmp_path.iterdir()) == []


def test_an_item_that_the_sender_gives_up_leaves_nothing(tmp_path: Path) -> None:
    host = folder_host(tmp_path, 5, 5, 5)
    abort = ItemAbort(0, ErrorCode.SOURCE_CHANGED, 0, "reading", "it shrank")
    never_begun = ItemAbort(1, ErrorCode.SOURCE_MISSING, 2, "", "gone")
    landing = host.landing()
    landing.receive_data(block(0, 0, b"123"), False)
    host.settle()
    landing.receive_data(abort.encode() + never_begun.encode() + whole_item(2, b"12345"), True)
    host.receive(digest_of(2, b"12345"))
    host.settle()
    assert isinstance(host.lost[0], SourceChanged)
    assert kinds(host) == [OutcomeKind.FAILED, OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    host.close()
    assert [path.name for path in tmp_path.iterdir()] == ["2.bin"]


def test_an_item_whose_digests_differ_is_not_placed(tmp_path: Path) -> None:
    host = folder_host(tmp_path, 5)
    host.landing().receive_data(whole_item(0, b"12345"), True)
    host.receive(digest_of(0, b"12346"))
    host.settle()
    assert kinds(host) == [OutcomeKind.FAILED]
    host.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_stream_that_ends_within_an_item_fails_it(tmp_path: Path, how: str) -> None:
    host = folder_host(tmp_path, 5, 5)
    landing = host.landing()
    landing.receive_data(whole_item(0, b"12345") + block(1, 0, b"12"), how == "end")
    if how == "reset":
        landing.receive_reset()
        landing.receive_reset()
    host.receive(digest_of(0, b"12345"))
    host.settle()
    assert isinstance(host.lost[1], SourceError)
    assert kinds(host) == [OutcomeKind.VERIFIED, OutcomeKind.FAILED]
    host.close()
    assert [path.name for path in tmp_path.iterdir()] == ["0.bin"]


def test_a_reset_within_a_block_lets_go_of_the_callers_buffer() -> None:
    buffer = bytearray(5)
    host = hosted(IntoSink([buffer]), requests_of(5))
    landing = host.landing()
    landing.receive_data(block(0, 0, b"12345")[:-2], False)
    landing.receive_reset()
    host.close()
    buffer.append(1)


# Lies.


@pytest.mark.parametrize(
    "stream",
    [
        block(2, 0, b"x"),
        block(0, 1, b"x"),
        block(0, 0, b"123456"),
        block(0, 0, b"123") + block(1, 0, b"x"),
        block(0, 0, b"123") + block(0, 2, b"45"),
        block(0, 0, b"12345") + block(0, 5, b"6"),
        whole_item(0, b"12345") + block(0, 0, b"1"),
        block(0, 0, b"123") + ItemEnd(0, 3).encode(),
        ItemEnd(0, 5).encode(),
        block(0, 0, b"")[:4],
        Hole(0, 0, 6).encode(),
        Hole(0, 0, 2**61).encode(),
        Done().encode(),
        b"\x3c\x00",
        b"\x24\x01\x00",
        b"\x20\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x20" + encode_uint_var(MESSAGE_DATA_MAX + 100),
    ],
    ids=[
        "unknown item",
        "gap",
        "more than announced",
        "interleaved",
        "overlap",
        "beyond the end",
        "after the end",
        "short end",
        "end without bytes",
        "empty block",
        "long hole",
        "huge hole",
        "control message",
        "unknown type",
        "malformed",
        "huge length",
        "long block",
    ],
)
@pytest.mark.parametrize("step", [1, 10**6])
def test_a_lie_ends_the_transfer_and_leaves_nothing(tmp_path: Path, stream: bytes, step: int) -> None:
    host = folder_host(tmp_path, 5, 5)
    landing = host.landing()
    stream += bytes(50)
    for start in range(0, len(stream), step):
        landing.receive_data(stream[start : start + step], False)
    host.settle()
    assert isinstance(host.error, RemoteProtocolError)
    assert host.receiver.state is State.FAILED
    assert host.consumed == len(stream), "the connection's credit is not lost"
    host.close()
    assert list(tmp_path.iterdir()) == []


def test_an_end_in_the_middle_of_a_message_is_a_lie(tmp_path: Path) -> None:
    for cut in (block(0, 0, b"123")[:-1], block(0, 0, b"1")[:-1], ItemEnd(0, 5).encode()[:1], b"\x20"):
        host = folder_host(tmp_path, 5)
        host.landing().receive_data(cut, True)
        assert "in the middle of a message" in str(host.error)
        host.close()


def test_a_lie_after_verified_is_not_listened_to(tmp_path: Path) -> None:
    host = folder_host(tmp_path, 0)
    landing = host.landing()
    landing.receive_data(whole_item(0, b""), False)
    host.receive(digest_of(0, b""))
    host.settle()
    assert host.receiver.state is State.VERIFIED
    for _ in range(3):
        landing.receive_data(block(0, 0, b"more"), False)
    assert landing.ended
    assert host.error is None
    assert host.consumed == len(whole_item(0, b"")) + 3 * len(block(0, 0, b"more"))
    host.close()
    assert (tmp_path / "0.bin").read_bytes() == b""


# Closing.


@pytest.mark.parametrize("into", ["folder", "buffer"])
def test_closing_while_a_worker_writes_waits_for_nothing_and_loses_nothing(tmp_path: Path, into: str) -> None:
    data = pattern(6 * BLOCK)
    buffer = bytearray(len(data))
    gated = GatedSink(tmp_path)
    sink: Sink = gated if into == "folder" else IntoSink([buffer])
    host = hosted(sink, requests_of(len(data)), manifest_of("a"), Ring(2, 2 * BLOCK))
    landing = host.landing()
    stream = whole_item(0, data)
    landing.receive_data(stream[:-20_000], False)
    landing.close()
    landing.close()
    landing.receive_data(stream[-20_000:], True)
    assert host.consumed == len(stream), "what is not read any more is credited"
    gated.gate.set()
    host.settle()
    host.close()
    buffer.append(1)
    assert list(tmp_path.iterdir()) == []


def test_bytes_after_the_end_are_credited(tmp_path: Path) -> None:
    host = folder_host(tmp_path, 5)
    landing = host.landing()
    landing.receive_data(whole_item(0, b"12345"), True)
    consumed = host.consumed
    landing.receive_data(b"x" * 10, False)
    assert host.consumed == consumed + 10
    host.settle()
    host.close()


def test_a_thousand_small_items_on_one_stream(tmp_path: Path) -> None:
    contents = [pattern(item % 50, item) for item in range(1_000)]
    host = hosted(
        FolderSink(tmp_path, durability="none"),
        requests_of(*map(len, contents)),
        manifest_of(*[f"d{item % 7}/{item}" for item in range(1_000)]),
    )
    stream = b"".join(whole_item(item, data) for item, data in enumerate(contents))
    landing = host.landing()
    for start in range(0, len(stream), 1_400):
        landing.receive_data(stream[start : start + 1_400], start + 1_400 >= len(stream))
    for item, data in enumerate(contents):
        host.receive(digest_of(item, data))
    host.settle()
    assert set(kinds(host)) == {OutcomeKind.VERIFIED}
    host.close()
    assert contents_of(tmp_path, [f"d{item % 7}/{item}" for item in range(1_000)]) == contents
    assert len(stream) < SLOT_SIZE
