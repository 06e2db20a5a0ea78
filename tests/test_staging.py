"""What transfers that broke off leave in a folder, how much of that is kept, and links planted in its way."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spaceblock.blocks import SpaceblockRequest
from spaceblock.errors import SpaceblockError, StorageError
from spaceblock.limits import PARTIALS_KEPT, PARTIALS_MAX, PARTIALS_PEER
from spaceblock.names import STAGING_PREFIX
from spaceblock.storage import staging
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.journal import JOURNAL, Journal, Keeper, Part, item_keys
from spaceblock.storage.sinks import Mark
from spaceblock.storage.staging import Staging, partial_name, sweep
from support import manifest_of, requests_of

KEY = bytes(range(32))
ITEM = bytes(16)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "target").mkdir()
    fd = os.open(tmp_path / "target", os.O_RDONLY)
    yield fd
    os.close(fd)


def leave(root: int, number: int, peer: str, age: float = 0.0, size: int = 0) -> str:
    """What a transfer of ``peer`` left ``age`` seconds ago; returns the folder's name."""
    keeper = Keeper(peer.ljust(52, "x"), KEY)
    left = Staging.make(root, number.to_bytes(16, "big"), keeper, False)
    assert left.journal is not None
    left.journal.durable_up_to([(ITEM, Part(1, 1, 1, bytes(32)))])
    if size:
        fd = os.open(partial_name(ITEM), os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=left.fd)
        os.write(fd, bytes(size))
        os.close(fd)
    journal = os.open(JOURNAL, os.O_RDWR, dir_fd=left.fd)
    os.utime(journal, (1_000_000 - age,) * 2)
    os.close(journal)
    left.close(keep=True)
    return left.name


def kept(root: int) -> set[str]:
    sweep(root, 1_000_000)
    return set(os.listdir(root))


def test_what_nobody_comes_back_for_goes_after_a_while(root: int) -> None:
    young, _ = leave(root, 1, "a", PARTIALS_KEPT - 1), leave(root, 2, "a", PARTIALS_KEPT + 1)
    assert kept(root) == {young}


def test_one_transfer_is_received_once_at_a_time(root: int) -> None:
    first = Staging.make(root, bytes(16), Keeper("peer", KEY), False)
    with pytest.raises(StorageError, match="received already: wait until that is over"):
        Staging.make(root, bytes(16), Keeper("peer", KEY), False)
    assert os.listdir(root) == [first.name]
    first.close(keep=True)
    Staging.make(root, bytes(16), Keeper("peer", KEY), False).close(keep=False)


def test_a_folder_that_is_given_up_while_another_program_opens_it_is_made_anew(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper("peer", KEY)
    first = Staging.make(root, bytes(16), keeper, False)
    lock = fcntl.flock

    def lock_late(fd: int, how: int) -> None:
        first.close(keep=False)
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    second = Staging.make(root, bytes(16), keeper, False)
    assert os.listdir(root) == [second.name]
    assert second.journal is not None
    second.close(keep=False)


def test_a_folder_that_somebody_else_locks_first_is_left_to_them(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper("peer", KEY)
    lock = fcntl.flock
    first: list[Staging] = []

    def lock_late(fd: int, how: int) -> None:
        monkeypatch.undo()
        first.append(Staging.make(root, bytes(16), keeper, False))
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(StorageError, match="received already"):
        Staging.make(root, bytes(16), keeper, False)
    assert os.listdir(first[0].fd) == [JOURNAL]
    first[0].close(keep=False)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(root: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(number))
    Staging.make(root, bytes(16), Keeper("peer", KEY), False).close(keep=False)
    assert os.listdir(root) == []


def test_a_lock_that_fails_leaves_nothing_behind(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        Staging.make(root, bytes(16), Keeper("peer", KEY), False)
    assert os.listdir(root) == []


def refusing(number: int) -> Callable[[int, int], None]:
    """A system call that fails in this way."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_nobody_relies_on_names_that_another_thread_is_still_flushing(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Staging.make(root, bytes(16), Keeper("peer", KEY), True)
    begun, goes_on = threading.Event(), threading.Event()
    order: list[str] = []

    def fsync(fd: int) -> None:
        begun.set()
        assert goes_on.wait(60)
        order.append("flushed")

    def rely() -> None:
        left.flush_names()
        order.append("relied on")

    monkeypatch.setattr(os, "fsync", fsync)
    first, second = threading.Thread(target=left.flush_names), threading.Thread(target=rely)
    first.start()
    assert begun.wait(60)
    second.start()
    second.join(0.1)
    goes_on.set()
    for thread in (first, second):
        thread.join()
    left.close(keep=False)
    assert order == ["flushed", "flushed", "relied on"]


def test_only_so_many_are_kept_of_all_peers(root: int) -> None:
    left = [leave(root, number, f"peer {number}", age=number) for number in range(PARTIALS_MAX + 5)]
    assert kept(root) == set(left[:PARTIALS_MAX])


def test_only_so_many_are_kept_of_one_peer_and_others_lose_nothing(root: int) -> None:
    old = leave(root, 0, "patient", age=1_000)
    left = [leave(root, number, "greedy", age=number) for number in range(1, PARTIALS_PEER + 6)]
    assert kept(root) == {old, *left[:PARTIALS_PEER]}


def test_only_so_many_bytes_are_kept_of_one_peer_but_always_the_newest(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PARTIALS_BYTES", 100_000)
    other = leave(root, 0, "other", age=9, size=90_000)
    old, _, new = [leave(root, number, "a", age=4 - number, size=60_000) for number in (1, 2, 3)]
    assert kept(root) == {other, new}
    huge = leave(root, 4, "a", size=300_000)
    assert kept(root) == {other, huge}
    assert old not in os.listdir(root)


# Links in the way. Whoever owns the target folder may put them there at any time, also between a check and its use.


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file that nobody may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_text("mine")
    yield folder
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"victim": "mine"}


def swap(folder: int, name: str, target: Path) -> None:
    """Put a link where something was."""
    os.rename(name, name + " before", src_dir_fd=folder, dst_dir_fd=folder)
    os.symlink(target, name, dir_fd=folder)


KEEPER = Keeper("p" * 52, KEY)
UUID = requests_of().uuid


def planted_folder(root: int, outside: Path) -> None:
    name = STAGING_PREFIX + staging._folder_name(UUID, KEEPER)
    os.symlink(outside, name, dir_fd=root)


def planted_folder_of_others(root: int, outside: Path) -> None:
    """It is a folder, but everybody may write into it."""
    name = STAGING_PREFIX + staging._folder_name(UUID, KEEPER)
    os.mkdir(name, dir_fd=root)
    os.chmod(name, 0o777, dir_fd=root)


@pytest.mark.parametrize("plant", [planted_folder, planted_folder_of_others])
def test_a_folder_for_unfinished_files_that_somebody_planted_is_not_used(
    plant: Callable[[int, Path], None], root: int, outside: Path, tmp_path: Path
) -> None:
    plant(root, outside)
    with pytest.raises(OSError, match="Errno"):
        Staging.make(root, UUID, KEEPER, True)
    sink = FolderSink(tmp_path / "target", keeper=KEEPER)
    with pytest.raises(SpaceblockError):
        sink.prepare(requests_of(5), manifest_of("name"))
    sink.close()
    kept(root)


def test_a_journal_that_is_a_link_is_neither_read_nor_written(root: int, outside: Path) -> None:
    made = Staging.make(root, UUID, KEEPER, True)
    assert made.journal is not None
    made.journal.durable_up_to([(ITEM, Part(1, 1, 1, bytes(32)))])
    swap(made.fd, JOURNAL, outside / "victim")
    made.journal.durable_up_to([(ITEM, Part(1, 2, 1, bytes(32)))])  # into the file that is open
    made.close(keep=True)
    again = Staging.make(root, UUID, KEEPER, True)
    assert again.journal is None or not again.journal.contents
    again.close(keep=False)


def test_a_new_journal_is_not_made_through_a_link(root: int, outside: Path) -> None:
    folder = os.open(".", os.O_RDONLY, dir_fd=root)
    try:
        os.symlink(outside / "new", JOURNAL, dir_fd=folder)
        with pytest.raises(FileExistsError):
            Journal.create(folder, UUID, KEEPER, True)
    finally:
        os.close(folder)


@pytest.mark.parametrize("use", ["open_part", "read_part", "flush", "status", "part"])
def test_a_partial_file_that_is_a_link_is_not_used(use: str, root: int, outside: Path) -> None:
    made = Staging.make(root, UUID, KEEPER, True)
    os.symlink(outside / "victim", partial_name(ITEM), dir_fd=made.fd)
    try:
        if use == "open_part":
            with pytest.raises(OSError, match="Errno"):
                made.open_part(ITEM, 0)
        elif use == "read_part":
            with pytest.raises(OSError, match="Errno"):
                made.read_part(ITEM)
        elif use == "flush":
            with pytest.raises(OSError, match="Errno"):
                made.flush(ITEM, durable=True)
        elif use == "status":
            assert made.status(ITEM) is None
        else:
            assert made.part(ITEM, SpaceblockRequest(4, rereadable=True)) is None
    finally:
        made.close(keep=False)


def sink_of(tmp_path: Path, name: str) -> tuple[FolderSink, str]:
    """A sink that was asked for one file, and the name of its partial file."""
    sink = FolderSink(tmp_path / "target", keeper=KEEPER)
    requests = requests_of(5)
    sink.prepare(requests, manifest_of(name))
    return sink, partial_name(item_keys([(0, name, requests.items[0])])[0])


def test_a_new_partial_file_is_not_made_through_a_link(tmp_path: Path, root: int, outside: Path) -> None:
    sink, partial = sink_of(tmp_path, "name")
    os.symlink(outside / "victim", partial, dir_fd=sink._staging.fd)
    with pytest.raises(SpaceblockError):
        sink.begin(0)
    sink.close()


def test_a_partial_file_that_becomes_a_link_is_written_on_where_it_was(
    tmp_path: Path, root: int, outside: Path
) -> None:
    """The bytes go into the file that is open, and what the link leads to gets none of them."""
    sink, partial = sink_of(tmp_path, "name")
    sink.begin(0)
    swap(sink._staging.fd, partial, outside / "victim")
    sink.write(0, 0, memoryview(b"12345"))
    assert sink.checkpoint([Mark(0, 5, 5, bytes(32))]), "what cannot be flushed is not noted as durable"
    sink.finish(0)
    sink.place([0], {0: bytes(32)})
    sink.close()


def test_a_partial_file_that_is_removed_meanwhile_is_not_taken_for_durable(tmp_path: Path, root: int) -> None:
    sink, partial = sink_of(tmp_path, "name")
    sink.begin(0)
    sink.write(0, 0, memoryview(b"12345"))
    os.unlink(partial, dir_fd=sink._staging.fd)
    error = sink.checkpoint([Mark(0, 5, 5, bytes(32))])[0]
    assert "what had arrived of 'name' was removed" in str(error)
    sink.close()


@pytest.mark.parametrize("name", ["name", "a/b/name"])
@pytest.mark.parametrize("on_conflict", ["rename", "overwrite", "error", "skip"])
def test_a_final_name_that_becomes_a_link_is_not_written_through(
    name: str, on_conflict: str, tmp_path: Path, root: int, outside: Path
) -> None:
    sink = FolderSink(tmp_path / "target", on_conflict, keeper=KEEPER)  # type: ignore[arg-type]
    sink.prepare(requests_of(5), manifest_of(name))
    sink.begin(0)
    sink.write(0, 0, memoryview(b"12345"))
    sink.finish(0)
    place = tmp_path / "target" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(outside / "victim")
    (placed,) = sink.place([0], {0: bytes(32)})
    sink.close()
    if isinstance(placed, str):
        place = tmp_path / "target" / placed
        assert not place.is_symlink()
        assert place.read_bytes() == b"12345"


def test_a_folder_on_the_way_that_becomes_a_link_is_not_entered(tmp_path: Path, root: int, outside: Path) -> None:
    sink = FolderSink(tmp_path / "target", keeper=KEEPER)
    sink.prepare(requests_of(5), manifest_of("a/b/name"))
    sink.begin(0)
    sink.write(0, 0, memoryview(b"12345"))
    sink.finish(0)
    (tmp_path / "target" / "a").mkdir()
    swap(root, "a", outside)
    (placed,) = sink.place([0], {0: bytes(32)})
    sink.close()
    assert isinstance(placed, SpaceblockError)
