"""The journal of one transfer: it says what is durable, and nothing that somebody else could have written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spaceblock.blocks import Partial, SpaceblockRequest
from spaceblock.storage.journal import JOURNAL, Journal, Keeper, Part, Placing, item_keys
from spaceblock.storage.metadata import is_usual_time
from support import UUID

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

KEEPER = Keeper("peer", bytes(range(32)))
A, B = b"a" * 16, b"b" * 16
PART = Part(7, 1000, 900, bytes(32))
PLACING = Placing(8, 5, -1, bytes(range(32)), "data/é")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def opened(folder: int, keeper: Keeper = KEEPER, uuid: bytes = UUID, durable: bool = True) -> Journal | None:
    journal = Journal.open(folder, uuid, keeper, durable)
    if journal is not None:
        journal.close()
    return journal


def write_one(folder: int, durable: bool = True) -> None:
    journal = Journal.create(folder, UUID, KEEPER, durable)
    journal.durable_up_to([(A, PART)])
    journal.placing([(B, PLACING)])
    journal.close()


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_noted_is_found_by_the_next_attempt(folder: int, durable: bool) -> None:
    write_one(folder, durable)
    found = opened(folder)
    assert found is not None
    assert (found.contents.parts, found.contents.placings) == ({A: PART}, {B: PLACING})


def test_a_folder_whose_inode_has_more_bits_than_the_journal_holds_is_known_again(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that make their inodes' numbers by hashing."""
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        status = real(fd)
        return os.stat_result((status.st_mode, 2**64 - 3, *status[2:]))

    monkeypatch.setattr(os, "fstat", fstat)
    write_one(folder)
    found = opened(folder)
    assert found is not None
    assert found.contents.parts == {A: PART}


def test_folders_that_were_made_are_noted_once(folder: int) -> None:
    names = [f"data/{number}/é" for number in range(100)]
    for made in (names[:40], names):
        journal = Journal.open(folder, UUID, KEEPER, True) or Journal.create(folder, UUID, KEEPER, True)
        journal.made(made)
        journal.made(made)
        assert os.stat(JOURNAL, dir_fd=folder).st_size < 150 + 25 * len(made)
        journal.close()
    found = opened(folder)
    assert found is not None
    assert found.contents.folders == set(names)


@pytest.mark.parametrize("year", [1685, 1900, 2043, 2044, 2100, 2255])
def test_files_of_all_usual_times_are_noted(folder: int, year: int) -> None:
    time = (year - 1970) * 31_556_952 * 10**9 + 123_456_789
    assert is_usual_time(time)
    placing = Placing(8, 5, time, bytes(range(32)), "data")
    journal = Journal.create(folder, UUID, KEEPER, True)
    journal.placing([(B, placing)])
    journal.close()
    found = opened(folder)
    assert found is not None
    assert found.contents.placings == {B: placing}


def test_a_later_entry_replaces_an_earlier_one_and_what_is_dropped_is_gone(folder: int) -> None:
    write_one(folder)
    journal = Journal.open(folder, UUID, KEEPER, True)
    assert journal is not None
    journal.durable_up_to([(A, Part(7, 2000, 2000, bytes(32)))])
    journal.dropped(B)
    journal.dropped(B)
    journal.close()
    found = opened(folder)
    assert found is not None
    assert (found.contents.parts, found.contents.placings) == ({A: Part(7, 2000, 2000, bytes(32))}, {})


@pytest.mark.parametrize(
    ("keeper", "uuid"),
    [(Keeper("peer", bytes(32)), UUID), (Keeper("other", KEEPER.key), UUID), (KEEPER, bytes(16))],
    ids=["another key", "another peer", "another transfer"],
)
def test_what_belongs_to_something_else_is_not_believed(folder: int, keeper: Keeper, uuid: bytes) -> None:
    write_one(folder)
    assert opened(folder, keeper, uuid) is None


def test_what_was_copied_to_another_folder_is_not_believed(folder: int, tmp_path: Path) -> None:
    write_one(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / JOURNAL).write_bytes((tmp_path / JOURNAL).read_bytes())
    other = os.open(tmp_path / "other", os.O_RDONLY)
    try:
        assert opened(other) is None
    finally:
        os.close(other)


def test_what_was_not_flushed_is_not_believed_after_the_machine_started_anew(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one(folder, durable=False)
    monkeypatch.setattr("spaceblock.storage.journal.boot_id", lambda: "another start")
    assert opened(folder) is None


def test_what_was_flushed_is_not_believed_either_once_an_attempt_went_on_that_flushes_nothing(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one(folder)
    for _ in range(2):
        found = opened(folder, durable=False)
        assert found is not None
        assert found.contents.parts == {A: PART}
    assert opened(folder) is not None, "as long as the machine runs"
    monkeypatch.setattr("spaceblock.storage.journal.boot_id", lambda: "another start")
    assert opened(folder) is None


def test_what_was_flushed_outlives_the_start_of_the_machine(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_one(folder)
    monkeypatch.setattr("spaceblock.storage.journal.boot_id", lambda: "another start")
    assert opened(folder) is not None


def test_a_torn_end_is_cut_off_and_written_over(folder: int, tmp_path: Path) -> None:
    write_one(folder)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[:-5])
    journal = Journal.open(folder, UUID, KEEPER, True)
    assert journal is not None
    assert journal.contents.placings == {}
    journal.placing([(B, PLACING)])
    journal.close()
    assert (tmp_path / JOURNAL).read_bytes() == whole


def test_a_disk_that_is_full_leaves_the_journal_as_it_was(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_one(folder)
    before = (tmp_path / JOURNAL).read_bytes()
    journal = Journal.open(folder, UUID, KEEPER, True)
    assert journal is not None
    pwrite = os.pwrite

    def fill_up(fd: int, data: bytes, offset: int) -> int:
        if offset > len(before):
            raise OSError(28, "No space left on device")
        return pwrite(fd, bytes(data)[:10], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fill_up)
        with pytest.raises(OSError, match="No space"):
            journal.durable_up_to([(A, Part(7, 3000, 3000, bytes(32)))])
    assert (tmp_path / JOURNAL).read_bytes() == before
    journal.durable_up_to([(A, Part(7, 4000, 4000, bytes(32)))])
    journal.close()
    found = opened(folder)
    assert found is not None
    assert found.contents.parts[A].offset == 4000


def test_a_journal_is_not_closed_while_another_thread_writes_to_it(
    folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gets its descriptor's number next would be written to instead."""
    journal = Journal.create(folder, UUID, KEEPER, True)
    closing = threading.Thread(target=journal.close)
    write = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        closing.start()
        closing.join(0.05)  # for as long as it would take if it did not wait
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    journal.durable_up_to([(A, PART)])
    closing.join()
    monkeypatch.undo()
    found = opened(folder)
    assert found is not None
    assert found.contents.parts == {A: PART}


def test_there_is_no_second_journal_in_one_folder(folder: int) -> None:
    write_one(folder)
    with pytest.raises(FileExistsError):
        Journal.create(folder, UUID, KEEPER, True)


def test_an_item_is_known_by_its_name_and_what_is_asked_of_it() -> None:
    whole = SpaceblockRequest(10)
    keys = item_keys(
        [
            (0, "a", whole),
            (0, "b", whole),
            (0, None, whole),
            (1, None, whole),
            (0, "#0", whole),
            (0, "a", SpaceblockRequest(11)),
            (0, "a", SpaceblockRequest(10, Partial(0, 10))),
            (0, "a", SpaceblockRequest(10, Partial(0, 9))),
            (0, "a", SpaceblockRequest(None)),
        ]
    )
    assert len(set(keys)) == len(keys) - 1, "the whole by another word is the same"
    assert item_keys([(5, "a", whole)]) == keys[:1], "the number does not count where there is a name"
