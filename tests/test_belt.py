"""Belts: what blocks of a large item in memory go on, and what is never stored from there."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

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
from spaceblock.errors import ErrorCode, LimitExceeded, NoSpace, RemoteProtocolError, StorageError
from spaceblock.limits import RING_SLOTS, SLOT_SIZE
from spaceblock.storage import belt
from spaceblock.storage.debts import Debts
from spaceblock.wire.messages import ItemAbort, ItemEnd, OutcomeKind
from support import BLOCK, manifest_of, pattern, requests_of

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


@pytest.fixture(autouse=True)
def small_belts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may come on a belt does so from a byte on."""
    monkeypatch.setattr(belt, "_LEAST", 1)


class CountedSink(MemorySink):
    """Notes the blocks that are written, and fails at one of item 0."""

    def __init__(self, folder: Path, fails_at: int = -1, error: type[Exception] = StorageError) -> None:
        super().__init__(folder)
        self.offsets: list[int] = []
        self._fails_at = fails_at
        self._error = error

    def write(self, item: int, offset: int, data: memoryview) -> None:
        self.offsets.append(offset)
        if (item, offset) == (0, self._fails_at):
            raise self._error("the disk is broken")
        super().write(item, offset, data)


def test_a_landing_hears_once_of_many_blocks_on_a_belt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(40 * BLOCK)
    sink = CountedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    heard: list[tuple[int, int]] = []
    check = host.receiver.block

    def block_of(key: int, item: int, offset: int, length: int, *, is_run: bool = False) -> bool:
        heard.append((offset, length))
        return check(key, item, offset, length, is_run=is_run)

    monkeypatch.setattr(host.receiver, "block", block_of)
    landing = begun(host, data)
    landing.receive_data(block(0, BLOCK, data[BLOCK : 2 * BLOCK]), False)
    for start in range(2 * BLOCK, 40 * BLOCK, 2 * BLOCK):
        landing.blocks = 0
        two = block(0, start, data[start : start + BLOCK]) + block(0, start + BLOCK, data[start + BLOCK :][:BLOCK])
        landing.receive_data(two, False)
        assert landing.blocks == 2
    assert heard[:3] == [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, 2 * BLOCK)]
    assert len(heard) == 21
    assert sink.offsets == list(range(0, len(data), BLOCK))
    end(host, landing, data)
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert host.ring.free == RING_SLOTS
    host.close()
    assert (tmp_path / "a").read_bytes() == data


def test_an_item_that_cannot_be_stored_from_a_belt_fails_alone(tmp_path: Path) -> None:
    data, other = pattern(9 * BLOCK), pattern(5 * BLOCK, 1)
    sink = CountedSink(tmp_path, fails_at=4 * BLOCK)
    host = hosted(sink, requests_of(len(data), len(other)), manifest_of("a", "b"))
    landing = begun(host, data)
    feed(landing, data, range(BLOCK, len(data), BLOCK))
    landing.receive_data(ItemEnd(0, len(data)).encode() + whole_item(1, other), True)
    for digest in (digest_of(0, data), digest_of(1, other)):
        host.receive(digest)
    host.settle()
    assert kinds(host) == [OutcomeKind.FAILED, OutcomeKind.VERIFIED]
    assert str(host.lost[0]) == "the disk is broken"
    assert sink.offsets.count(5 * BLOCK) == 0
    assert host.ring.free == RING_SLOTS
    host.close()
    assert contents_of(tmp_path, ["b"]) == [other]


def test_a_disk_that_is_full_while_a_belt_runs_ends_the_transfer(tmp_path: Path) -> None:
    data = pattern(9 * BLOCK)
    host = hosted(CountedSink(tmp_path, 4 * BLOCK, NoSpace), requests_of(len(data)), manifest_of("a"))
    landing = begun(host, data)
    landing.receive_data(b"".join(block(0, at, data[at : at + BLOCK]) for at in range(BLOCK, len(data), BLOCK)), False)
    assert isinstance(host.error, NoSpace)
    assert landing.ended
    host.close()


@pytest.mark.parametrize(
    ("offset", "length", "words"),
    [
        (3 * BLOCK, BLOCK + 1, "crosses the block grid"),
        (4 * BLOCK, BLOCK, "expected"),
        (2 * BLOCK, BLOCK, "expected"),
    ],
)
def test_a_belt_takes_no_lies(tmp_path: Path, offset: int, length: int, words: str) -> None:
    data = pattern(9 * BLOCK)
    sink = CountedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    landing = begun(host, data)
    for start in (BLOCK, 2 * BLOCK):
        landing.receive_data(block(0, start, data[start : start + BLOCK]), False)
    landing.receive_data(block(0, offset, data[offset : offset + length]), False)
    assert isinstance(host.error, RemoteProtocolError)
    assert words in str(host.error)
    assert sink.offsets == [0, BLOCK, 2 * BLOCK]
    host.close()


def test_rooms_behind_a_belt_stay_until_their_blocks_were_seen_to(tmp_path: Path) -> None:
    items = [pattern(3 * BLOCK), pattern(9 * BLOCK, 1)]
    host = hosted(MemorySink(tmp_path), requests_of(*map(len, items)), manifest_of("a", "b"))
    landing = host.landing()
    stream = whole_item(0, items[0]) + whole_item(1, items[1])
    # The second block is under way in a room when the belt is put up; all the rest comes at once.
    under_way = BLOCK + 1_000
    landing.receive_data(stream[:under_way], False)
    host.settle()
    landing.receive_data(stream[under_way:], True)
    for item, data in enumerate(items):
        host.receive(digest_of(item, data))
    host.settle()
    assert kinds(host) == [OutcomeKind.VERIFIED] * 2
    assert host.ring.free == RING_SLOTS
    host.close()
    assert contents_of(tmp_path, ["a", "b"]) == items


@pytest.mark.parametrize("how", ["ends", "is given up"])
def test_nothing_is_stored_of_an_item_behind_its_end(tmp_path: Path, how: str) -> None:
    data = pattern(9 * BLOCK)
    sink = CountedSink(tmp_path)
    host = hosted(sink, requests_of(None, 9), manifest_of("a", "b"))
    landing = begun(host, data)
    landing.receive_data(block(0, BLOCK, data[BLOCK : 2 * BLOCK]), False)
    over = ItemEnd(0, 2 * BLOCK) if how == "ends" else ItemAbort(0, ErrorCode.SOURCE_CHANGED, 0, "reading", "it shrank")
    landing.receive_data(over.encode() + block(0, 2 * BLOCK, data[2 * BLOCK : 3 * BLOCK]), False)
    assert sink.offsets == [0, BLOCK]
    host.close()


def test_belts_bring_no_more_than_the_transfer_may_have(tmp_path: Path) -> None:
    data = pattern(BLOCK)
    host = hosted(MemorySink(tmp_path), requests_of(*[None] * 3), manifest_of("a", "b", "c"))
    host.receiver._limits = replace(host.receiver._limits, total_size=100 * BLOCK)
    landings = [host.landing() for _ in range(3)]
    for item, landing in enumerate(landings):
        landing.receive_data(block(item, 0, data), False)
    host.settle()
    for item, landing in enumerate(landings):
        many = b"".join(block(item, at * BLOCK, data) for at in range(1, 100))
        landing.intake.feed(many) if item else landing.receive_data(many, False)
    for landing in landings:
        landing.receive_data(b"", False)
    written = sum(entry.stat().st_size for entry in tmp_path.rglob("*") if entry.is_file())
    host.close()
    assert written <= 100 * BLOCK
    assert isinstance(host.error, LimitExceeded)


def test_no_belt_is_put_up_while_a_worker_writes_the_item(tmp_path: Path) -> None:
    began, may_end = threading.Event(), threading.Event()

    class SlowSink(MemorySink):
        def write(self, item: int, offset: int, data: memoryview) -> None:
            if threading.current_thread() is not threading.main_thread():
                began.set()
                assert may_end.wait(60)
            super().write(item, offset, data)

    data = pattern(9 * BLOCK)
    sink = SlowSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    landing = host.landing()
    landing.receive_data(block(0, 0, data[:BLOCK]), False)
    assert began.wait(60)
    feed(landing, data, range(BLOCK, 5 * BLOCK, BLOCK))
    assert sink.writers == []
    may_end.set()
    host.settle()
    feed(landing, data, range(5 * BLOCK, 9 * BLOCK, BLOCK))
    end(host, landing, data)
    assert kinds(host) == [OutcomeKind.VERIFIED]
    host.close()
    assert (tmp_path / "a").read_bytes() == data


def test_a_mark_waits_for_what_a_belt_has_settled_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(9 * BLOCK)
    host, marks = noting_marks(CountedSink(tmp_path), len(data), monkeypatch)
    landing = begun(host, data)
    landing.receive_data(block(0, BLOCK, data[BLOCK : 2 * BLOCK]), False)
    landing.intake.feed(block(0, 2 * BLOCK, data[2 * BLOCK : 3 * BLOCK]))
    landing.intake.settle()
    landing.mark()
    assert marks == []
    landing.receive(False)
    assert [(mark.offset, mark.digest) for mark in marks] == [(3 * BLOCK, blake3(data[: 3 * BLOCK]).digest())]
    host.close()


def test_a_belt_brings_no_more_than_may_be_owed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(60 * BLOCK)
    sink = CountedSink(tmp_path)
    host = hosted(sink, requests_of(len(data)), manifest_of("a"))
    host.debts = Debts(20 * BLOCK, host.room)
    landing = begun(host, data)
    monkeypatch.setattr(host, "marked", lambda marks: None)  # a disk that makes nothing durable
    feed(landing, data, range(BLOCK, len(data), BLOCK))
    owed = 20 * BLOCK + SLOT_SIZE
    assert len(sink.offsets) * BLOCK <= owed
    host.close()


def test_a_belt_gives_its_buffers_back_where_others_need_them(tmp_path: Path) -> None:
    data = pattern(9 * BLOCK)
    host = hosted(CountedSink(tmp_path), requests_of(len(data)), manifest_of("a"))
    landing = begun(host, data)
    landing.receive_data(block(0, BLOCK, data[BLOCK : 2 * BLOCK]), False)
    left = host.ring.free
    assert left == RING_SLOTS - 3
    taken = [host.ring.take(lambda: None) for _ in range(left - 1)]
    landing.receive_data(block(0, 2 * BLOCK, data[2 * BLOCK : 3 * BLOCK]), False)
    assert host.ring.free == 1 + 3
    feed(landing, data, range(3 * BLOCK, len(data), BLOCK))
    end(host, landing, data)
    assert kinds(host) == [OutcomeKind.VERIFIED]
    assert host.ring.free == RING_SLOTS - len(taken)
    host.close()
