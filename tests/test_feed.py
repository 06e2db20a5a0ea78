"""The sending path of the bytes: what a lane of files and buffers becomes on its stream, and what can go wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.blocks import Partial
from spaceblock.core import IMPLEMENTATION
from spaceblock.errors import (
    NoSpace,
    SourceChanged,
    SourceError,
    SpaceblockError,
    StorageError,
)
from spaceblock.limits import SLOT_SIZE, TEXT_MAX
from spaceblock.storage.feed import Feed
from spaceblock.storage.rereading import Pursuit
from spaceblock.storage.sources import Item, Source, hold_buffers, prepare
from spaceblock.wire.messages import ItemAbort, ItemEnd, Message
from support import BLOCK, Piece, is_on_tmpfs, no_more_descriptors, pattern, read_stream

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

SMALL_SLOT = 8_192

needs_extension = pytest.mark.skipif(IMPLEMENTATION != "cython", reason="where a file lies is known to the core alone")


def sources_of(*things: object) -> tuple[Source, ...]:
    return prepare(hold_buffers(things)).sources


@dataclass
class Outcome:
    """Everything that a feed put out."""

    stream: bytes = b""
    sent: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    aborted: dict[int, SpaceblockError] = field(default_factory=dict)
    fills: int = 0

    @property
    def messages(self) -> list[Piece | Message]:
        return read_stream(self.stream)

    def content(self, item: int) -> bytes:
        """The item's bytes, which must come in order and without gaps."""
        pieces = [piece for piece in self.messages if isinstance(piece, Piece) and piece.item == item]
        for before, after in pairwise(pieces):
            assert before.offset + len(before.data) == after.offset
        return b"".join(piece.data for piece in pieces)


def carry(
    sources: Sequence[Source],
    slot_size: int = SLOT_SIZE,
    between: Callable[[Feed, int], None] = lambda feed, fills: None,
    pursuits: Mapping[int, tuple[int, Pursuit]] | None = None,
    again: Mapping[int, Sequence[Partial]] | None = None,
) -> Outcome:
    """Send all of ``sources`` as one lane; ``between`` is called before each buffer is filled."""
    feed = Feed(range(len(sources)), sources, BLOCK, pursuits, again)
    slot = memoryview(bytearray(slot_size))
    outcome = Outcome()
    try:
        while True:
            between(feed, outcome.fills)
            filled = feed.fill(slot)
            outcome.fills += 1
            assert sum(map(len, filled.pieces)) <= slot_size
            for piece in filled.pieces:
                outcome.stream += piece
                piece.release()
            outcome.sent += filled.sent
            outcome.aborted.update(filled.aborted)
            if filled.done:
                return outcome
            assert filled.pieces, "every buffer brings the lane forward"
    finally:
        feed.close()


def digest_of(data: bytes) -> bytes:
    return blake3(data).digest()


# The way it should go.


@pytest.mark.parametrize("size", [0, 1, 4_000, SMALL_SLOT, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, SLOT_SIZE + 1])
@pytest.mark.parametrize("slot_size", [SMALL_SLOT, SLOT_SIZE])
@pytest.mark.parametrize("kind", ["file", "buffer"])
def test_all_bytes_travel_in_order_whatever_the_size(tmp_path: Path, size: int, slot_size: int, kind: str) -> None:
    data = pattern(size)
    (tmp_path / "a").write_bytes(data)
    outcome = carry(sources_of(tmp_path / "a" if kind == "file" else data), slot_size)
    assert outcome.content(0) == data
    assert outcome.messages[-1] == ItemEnd(0, size)
    assert outcome.sent == [(0, size, digest_of(data))]
    assert outcome.aborted == {}


@pytest.mark.parametrize("kind", ["file", "buffer"])
def test_no_block_crosses_the_grid(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(pattern(5 * BLOCK))
    part = (BLOCK - 10, 4 * BLOCK + 10)
    source = Item(tmp_path / "a" if kind == "file" else pattern(5 * BLOCK), range=part)
    outcome = carry(sources_of(source))
    assert outcome.content(0) == pattern(5 * BLOCK)[slice(*part)]
    pieces = [piece for piece in outcome.messages if isinstance(piece, Piece)]
    assert pieces[0].offset == BLOCK - 10, "offsets count from the item's byte 0"
    for piece in pieces:
        assert piece.offset // BLOCK == (piece.offset + len(piece.data) - 1) // BLOCK
    (_, size, digest) = outcome.sent[0]
    assert (size, digest) == (3 * BLOCK + 20, digest_of(pattern(5 * BLOCK)[slice(*part)]))


def test_files_and_buffers_share_a_lane(tmp_path: Path) -> None:
    things: list[object] = []
    contents: list[bytes] = []
    for number in range(40):
        contents.append(pattern(number * 97, seed=number))
        if number % 2:
            (tmp_path / str(number)).write_bytes(contents[-1])
            things.append(tmp_path / str(number))
        else:
            things.append(contents[-1])
    for slot_size in (SMALL_SLOT, SLOT_SIZE):
        outcome = carry(sources_of(*things), slot_size)
        assert [outcome.content(item) for item in range(40)] == contents
        assert outcome.sent == [(item, len(data), digest_of(data)) for item, data in enumerate(contents)]
        ends = [message for message in outcome.messages if isinstance(message, ItemEnd)]
        assert ends == [ItemEnd(item, len(data)) for item, data in enumerate(contents)]


@pytest.mark.parametrize("size", [100, BLOCK, SLOT_SIZE])
def test_what_is_resumed_goes_on_where_it_was_whatever_the_size(tmp_path: Path, size: int) -> None:
    """Small files are read many at a time, those before and behind one of which a part is there, too."""
    data = pattern(size)
    for name in "abc":
        (tmp_path / name).write_bytes(data)
    at = size // 3
    outcome = carry(sources_of(*(tmp_path / name for name in "abc")), pursuits={1: (at, Pursuit(0, at))})
    assert [outcome.content(item) for item in range(3)] == [data, data[at:], data]
    first = next(piece for piece in outcome.messages if isinstance(piece, Piece) and piece.item == 1)
    assert first.offset == at
    assert [(item, length) for item, length, _ in outcome.sent] == [(0, size), (1, size), (2, size)]


def test_of_a_small_file_that_is_repaired_only_what_differs_is_sent(tmp_path: Path) -> None:
    data = pattern(100)
    (tmp_path / "a").write_bytes(data)
    outcome = carry(sources_of(tmp_path / "a"), again={0: [Partial(10, 30), Partial(60, 61)]})
    pieces = [(piece.offset, piece.data) for piece in outcome.messages if isinstance(piece, Piece)]
    assert pieces == [(10, data[10:30]), (60, data[60:61])]


@needs_extension
def test_what_is_left_in_memory_is_read_without_a_worker(memory_folder: Path, tmp_path: Path) -> None:
    first, last, on_disk = memory_folder / "first", memory_folder / "last", tmp_path / "on disk"
    for path in (first, last, on_disk):
        path.write_bytes(pattern(3 * BLOCK))
    found: list[bool] = []
    outcome = carry(sources_of(first, last), BLOCK, lambda feed, _: found.append(feed.never_waits))
    assert outcome.content(1) == pattern(3 * BLOCK)
    assert not any(found[:4]), "as another file is to be opened"
    assert all(found[5:])
    for source in sources_of(on_disk):
        carry([source], BLOCK, lambda feed, _: found.append(feed.never_waits))
    assert is_on_tmpfs(tmp_path) or not any(found[-3:])


@needs_extension
def test_a_file_in_memory_with_holes_is_left_to_a_worker(memory_folder: Path) -> None:
    path = memory_folder / "sparse"
    with path.open("wb") as file:
        file.write(pattern(BLOCK))
        file.truncate(64 * BLOCK)
    found: list[bool] = []
    outcome = carry(sources_of(path), BLOCK, lambda feed, _: found.append(feed.never_waits))
    assert outcome.sent[0][1] == 64 * BLOCK
    assert not any(found)


def test_many_small_items_fit_one_buffer() -> None:
    assert carry(sources_of(*[b"x" * 10] * 1_000)).fills == 1


def test_an_empty_lane_is_done_at_once() -> None:
    outcome = carry(())
    assert (outcome.stream, outcome.fills) == (b"", 1)


def test_a_buffer_is_sent_where_it_lies() -> None:
    buffer = bytearray(pattern(50_000))
    feed = Feed([0], sources_of(buffer), BLOCK)
    filled = feed.fill(memoryview(bytearray(SLOT_SIZE)))
    header, data, end = filled.pieces
    assert data.obj is buffer
    assert (len(data), end.obj is header.obj) == (50_000, True)
    for piece in filled.pieces:
        piece.release()
    feed.close()


def test_a_buffer_can_be_resized_once_its_pieces_are_released() -> None:
    buffer = bytearray(pattern(3 * SLOT_SIZE))
    held = hold_buffers([buffer])
    prepared = prepare(held)
    carry(prepared.sources)
    with pytest.raises(BufferError):
        buffer.append(1)
    prepared.release()
    buffer.append(1)


def test_a_lane_can_be_closed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pattern(100_000))
    feed = Feed([0, 1], sources_of(tmp_path / "a", b"x"), BLOCK)
    feed.fill(memoryview(bytearray(SMALL_SLOT)))
    feed.close()
    feed.close()


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3 * SMALL_SLOT)), max_size=8),
    st.integers(SMALL_SLOT, 4 * SMALL_SLOT),
)
def test_any_items_travel_through_buffers_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[bool, int]], slot_size: int
) -> None:
    folder = tmp_path_factory.mktemp("items")
    contents = [pattern(size, seed) for seed, (_, size) in enumerate(items)]
    things: list[object] = []
    for number, (is_file, _) in enumerate(items):
        if is_file:
            (folder / str(number)).write_bytes(contents[number])
        things.append(folder / str(number) if is_file else contents[number])
    outcome = carry(sources_of(*things), slot_size)
    assert [outcome.content(item) for item in range(len(items))] == contents
    assert [digest for _, _, digest in outcome.sent] == [digest_of(data) for data in contents]


# Sources that change.


def abort_of(outcome: Outcome, item: int) -> ItemAbort:
    (abort,) = [message for message in outcome.messages if isinstance(message, ItemAbort) and message.item == item]
    return abort


def test_a_file_that_vanished_fails_and_the_rest_of_the_lane_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    sources = sources_of(b"before", tmp_path / "a", b"after")
    (tmp_path / "a").unlink()
    outcome = carry(sources)
    assert isinstance(outcome.aborted[1], SourceChanged)
    assert (outcome.aborted[1].item, outcome.aborted[1].errno) == (1, errno.ENOENT)
    assert abort_of(outcome, 1).code == SourceChanged.wire_code
    assert abort_of(outcome, 1).phase == "transferring"
    assert [item for item, _, _ in outcome.sent] == [0, 2]
    assert outcome.content(1) == b""


@pytest.mark.parametrize("change", ["grown", "shrunk", "replaced", "a pipe"])
def test_a_file_that_changed_before_its_turn_is_not_begun(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(pattern(1_000))
    sources = sources_of(path, b"after")
    path.unlink()
    if change == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(pattern({"grown": 1_001, "shrunk": 999, "replaced": 1_000}[change], seed=1))
        os.utime(path, ns=(0, 0))
    outcome = carry(sources)
    assert isinstance(outcome.aborted[0], SourceChanged)
    assert outcome.content(0) == b""
    assert [item for item, _, _ in outcome.sent] == [1]


@pytest.mark.parametrize("change", ["grown", "shrunk", "shrunk to nothing", "rewritten"])
def test_a_file_that_changes_while_it_is_read_is_given_up_without_a_panic(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    data = pattern(40_000)
    path.write_bytes(data)

    def meddle(feed: Feed, fills: int) -> None:
        if fills != 1:
            return
        if change == "grown":
            with open(path, "ab") as file:
                file.write(b"more")
        elif change == "rewritten":
            with open(path, "r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(0, 0))
        else:
            os.truncate(path, 20_001 if change == "shrunk" else 0)

    outcome = carry(sources_of(path, b"after"), SMALL_SLOT, meddle)
    assert isinstance(outcome.aborted[0], SourceChanged)
    assert abort_of(outcome, 0).code == SourceChanged.wire_code
    content = outcome.content(0)
    assert content == data[: len(content)], "a promise on the stream was never broken"
    assert len(content) < 40_000, "it was noticed at once and not at the end"
    assert outcome.sent == [(1, 5, digest_of(b"after"))]


@pytest.mark.parametrize("change", ["deleted", "replaced", "moved away", "rewritten and dated back"])
def test_no_trick_hides_that_an_open_file_changed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(pattern(40_000))
    before = path.stat()

    def meddle(feed: Feed, fills: int) -> None:
        if fills != 1:
            return
        if change == "deleted":
            path.unlink()
        elif change == "replaced":
            (tmp_path / "b").write_bytes(pattern(40_000, seed=1))
            (tmp_path / "b").rename(path)
        elif change == "moved away":
            path.rename(tmp_path / "b")
        else:
            path.write_bytes(pattern(40_000, seed=1))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    outcome = carry(sources_of(path, b"after"), SMALL_SLOT, meddle)
    assert isinstance(outcome.aborted[0], SourceChanged)
    assert [item for item, _, _ in outcome.sent] == [1]


def test_a_file_with_bytes_that_its_size_does_not_tell_is_not_sent_as_empty() -> None:
    outcome = carry(sources_of("/proc/self/status"))
    assert "more bytes than its size says" in str(outcome.aborted[0])
    assert str(outcome.aborted[0]).endswith("when nobody writes to it, or through a pipe"), "which has no size"


def test_a_file_that_cannot_be_read_fails_with_the_systems_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pattern(40_000))
    (source,) = sources_of(tmp_path / "a")

    def break_it(feed: Feed, fills: int) -> None:
        if fills == 1:
            unreadable = os.open(tmp_path / "a", os.O_WRONLY)
            os.dup2(unreadable, feed._fd)
            os.close(unreadable)

    outcome = carry([source], SMALL_SLOT, break_it)
    error = outcome.aborted[0]
    assert isinstance(error, SourceError)
    assert "cannot read" in str(error)
    assert error.errno == errno.EBADF
    assert abort_of(outcome, 0).errno == error.errno


def test_without_descriptors_files_fail_and_buffers_go_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    sources = sources_of(tmp_path / "a", b"buffer")
    with no_more_descriptors():
        outcome = carry(sources)
    assert "too many open files" in str(outcome.aborted[0])
    assert outcome.content(1) == b"buffer"


def test_a_long_reason_still_fits_behind_a_full_buffer(tmp_path: Path) -> None:
    name = "/".join(["\x01" * 200] * 8)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(pattern(3 * SMALL_SLOT))
    sources = sources_of(Item(tmp_path / name, name="a"))

    def shrink(feed: Feed, fills: int) -> None:
        if fills == 1:
            os.truncate(tmp_path / name, SMALL_SLOT)

    outcome = carry(sources, SMALL_SLOT, shrink)
    assert len(abort_of(outcome, 0).text.encode()) == TEXT_MAX


# Items that the receiver refuses.


@pytest.mark.parametrize("kind", ["file", "buffer"])
def test_an_item_refused_in_the_middle_is_ended_and_the_next_begins(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(pattern(40_000))
    error = NoSpace("the receiver's disk is full: free some space", remote=True)

    def refuse(feed: Feed, fills: int) -> None:
        if fills == 2:
            feed.refuse(0, error)

    sources = sources_of(tmp_path / "a" if kind == "file" else pattern(40_000), b"next")
    outcome = carry(sources, SMALL_SLOT, refuse)
    assert outcome.aborted == {0: error}
    assert abort_of(outcome, 0).code == NoSpace.wire_code
    assert 0 < len(outcome.content(0)) < 40_000
    assert outcome.sent == [(1, 4, digest_of(b"next"))]


def test_an_item_refused_before_its_turn_is_not_begun(tmp_path: Path) -> None:
    error = StorageError("no: try again")
    (tmp_path / "gone").write_bytes(b"x")
    sources = sources_of(b"first", tmp_path / "gone", b"third")
    (tmp_path / "gone").unlink()

    def refuse(feed: Feed, fills: int) -> None:
        feed.refuse(1, error)

    outcome = carry(sources, between=refuse)
    assert outcome.aborted == {1: error}, "its source was not even looked for"
    assert outcome.content(1) == b""
    assert [item for item, _, _ in outcome.sent] == [0, 2]


def test_an_item_refused_after_its_end_changes_nothing() -> None:
    def refuse(feed: Feed, fills: int) -> None:
        if fills == 1:
            feed.refuse(0, StorageError("too late: never mind"))

    outcome = carry(sources_of(b"first", pattern(3 * SMALL_SLOT)), SMALL_SLOT, refuse)
    assert outcome.aborted == {}
    assert len(outcome.sent) == 2


def test_an_item_can_be_refused_from_another_thread() -> None:
    sources = sources_of(pattern(50 * SMALL_SLOT))
    feed = Feed([0], sources, BLOCK)
    slot = memoryview(bytearray(SMALL_SLOT))
    feed.fill(slot)
    thread = threading.Thread(target=feed.refuse, args=(0, StorageError("no: try again")))
    thread.start()
    thread.join()
    filled = feed.fill(slot)
    assert filled.done
    assert [item for item, _ in filled.aborted] == [0]
    feed.close()
