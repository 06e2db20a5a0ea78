"""What an earlier attempt left in a folder, and what the next one makes of it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from spaceblock.blocks import SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import NoSpace
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.journal import JOURNAL, Keeper, Part, Placing, item_keys
from spaceblock.storage.sinks import Mark
from spaceblock.storage.staging import Staging, partial_name
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from support import BLOCK, UUID, manifest_of, open_descriptors, requests_of, unprivileged

KEEPER = Keeper("peer", bytes(range(32)))
NAME = "file"
DATA = b"what was received" * 100


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def leave(target: Path, data: bytes, claimed: int, *, placing: bool) -> None:
    """Break off when the journal has just spoken of ``claimed`` bytes of a file that has ``data``."""
    root = os.open(target, os.O_RDONLY)
    try:
        staging = Staging.make(root, UUID, KEEPER, True)
        assert staging.journal is not None
        key = item_keys([(0, NAME, SpaceblockRequest(claimed if placing else len(DATA)))])[0]
        fd = os.open(partial_name(key), os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=staging.fd)
        os.write(fd, data)
        status = os.fstat(fd)
        os.close(fd)
        digest = blake3(DATA[:claimed]).digest()
        if placing:
            staging.journal.placing([(key, Placing(status.st_ino, claimed, status.st_mtime_ns, digest, NAME))])
        else:
            staging.journal.durable_up_to([(key, Part(status.st_ino, claimed, claimed, digest))])
        staging.close(keep=True)
    finally:
        os.close(root)


def receive(target: Path, data: bytes) -> int | None:
    """Receive the file from its beginning, or from where it was left; returns where that was."""
    sink = FolderSink(target, keeper=KEEPER)
    try:
        sink.prepare(requests_of(len(data)), manifest_of(NAME))
        had = sink.had[0].offset if sink.had else None
        if had is None:
            sink.begin(0)
        else:
            sink.resume(0)
        if data[had or 0 :]:
            sink.write(0, had or 0, memoryview(data)[had or 0 :])
        sink.finish(0)
        assert sink.place([0], {0: blake3(data).digest()}) == [NAME]
    finally:
        sink.close()
    return had


def test_what_was_left_is_gone_on_with(target: Path) -> None:
    leave(target, DATA[:1000], 700, placing=False)
    assert receive(target, DATA) == 700
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: DATA}


def test_a_file_that_is_shorter_than_claimed_begins_anew(target: Path) -> None:
    leave(target, DATA[:500], 700, placing=False)
    assert receive(target, DATA) is None
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: DATA}


def test_what_is_had_of_a_sparse_file_makes_no_room_for_others(target: Path) -> None:
    free = shutil.disk_usage(target).free
    size = 3 * free
    root = os.open(target, os.O_RDONLY)
    staging = Staging.make(root, UUID, KEEPER, True)
    sparse = SpaceblockRequest(size, data=1)
    key = item_keys([(0, "sparse", sparse)])[0]
    fd = os.open(partial_name(key), os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=staging.fd)
    os.ftruncate(fd, size - 1)
    assert staging.journal is not None
    staging.journal.durable_up_to([(key, Part(os.fstat(fd).st_ino, size - 1, size - 1, bytes(32)))])
    os.close(fd)
    staging.close(keep=True)
    os.close(root)
    requests = SpaceblockRequests(UUID, BLOCK, (sparse, SpaceblockRequest(2 * free)))
    sink = FolderSink(target, keeper=KEEPER)
    with pytest.raises(NoSpace, match="has room for"):
        sink.prepare(requests, manifest_of("sparse", "large"))
    assert sink.had
    sink.close()


def test_a_file_that_is_longer_than_what_is_sent_begins_anew(target: Path) -> None:
    leave(target, DATA + b"?", len(DATA), placing=False)
    assert receive(target, DATA) is None
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: DATA}


def test_what_has_its_name_and_was_changed_there_is_not_written_to(target: Path) -> None:
    """As after a loss of power between the two steps by which a hard link gives a file its name."""
    leave(target, DATA, len(DATA), placing=True)
    (partial,) = [path for path in next(target.iterdir()).iterdir() if path.name != JOURNAL]
    os.link(partial, target / NAME)
    mine = b"what its user wrote" + DATA[19:]
    (target / NAME).write_bytes(mine)
    sink = FolderSink(target, keeper=KEEPER)
    sink.prepare(requests_of(len(DATA)), manifest_of(NAME))
    assert not sink.had
    sink.begin(0)
    sink.write(0, 0, memoryview(DATA))
    sink.finish(0)
    (placed,) = sink.place([0], {0: blake3(DATA).digest()})
    sink.close()
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: mine, placed: DATA}


def test_a_file_without_bytes_that_had_not_got_its_name_begins_anew(target: Path) -> None:
    leave(target, b"", 0, placing=True)
    assert receive(target, b"") is None
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: b""}


def test_what_is_not_believed_is_not_kept_either(target: Path) -> None:
    leave(target, DATA[:500], 700, placing=False)
    sink = FolderSink(target, keeper=KEEPER)
    sink.prepare(requests_of(len(DATA)), manifest_of(NAME))
    assert not sink.had
    sink.close(lost=True)
    assert list(target.iterdir()) == []


def test_what_has_its_place_is_known_to_the_next_attempt_if_the_transfer_came_to_no_end(target: Path) -> None:
    """As when the disk fails in something else, or somebody cancels, behind the last file's placing."""

    def prepared() -> FolderSink:
        sink = FolderSink(target, keeper=KEEPER)
        sink.prepare(requests_of(len(DATA)), manifest_of(NAME))
        return sink

    sink = prepared()
    sink.begin(0)
    sink.write(0, 0, memoryview(DATA))
    sink.finish(0)
    assert sink.place([0], {0: blake3(DATA).digest()}) == [NAME]
    assert sink.close(over=False)

    again = prepared()
    assert again.had[0].place == NAME
    again.confirmed(0)
    again.close()
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {NAME: DATA}


@pytest.mark.parametrize("mode", [0o444, 0o200, 0o000])
def test_a_mode_that_forbids_its_owner_much_stands_in_the_way_of_nothing(mode: int) -> None:
    """A finished file has its mode, and is flushed, read again, repaired and put into place all the same."""
    manifest = Manifest((Entry(EntryKind.FILE, NAME, 0, mode=mode),), 1)
    digest = blake3(DATA).digest()
    with unprivileged(), tempfile.TemporaryDirectory() as folder:
        sink = FolderSink(folder, keeper=KEEPER)
        sink.prepare(requests_of(len(DATA)), manifest)
        sink.begin(0)
        sink.write(0, 0, memoryview(b"?" + DATA[1:]))
        sink.finish(0)
        assert sink.checkpoint([Mark(0, len(DATA), len(DATA), digest)]) == {}
        sink.close(lost=True)

        sink = FolderSink(folder, keeper=KEEPER)
        sink.prepare(requests_of(len(DATA)), manifest)
        assert sink.had[0].offset == len(DATA)
        sink.reopen(0)
        sink.write(0, 0, memoryview(DATA[:1]))
        sink.finish(0)
        reread = sink.reread(0)
        read = bytearray(len(DATA))
        assert reread.read(0, memoryview(read)) == len(DATA)
        reread.close()
        assert bytes(read) == DATA
        assert sink.place([0], {0: digest}) == [NAME]
        sink.close()
        assert os.listdir(folder) == [NAME]
        assert stat.S_IMODE(os.stat(os.path.join(folder, NAME)).st_mode) == mode
