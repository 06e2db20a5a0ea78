"""Many small files in one go: what goes smoothly is done, and what does not is left for whoever does it alone."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

import spaceblock
from spaceblock import core
from spaceblock.core import IMPLEMENTATION, Deframer, find_files, is_in_memory, place_files, read_files, store_files
from spaceblock.storage.feed import Feed
from spaceblock.storage.files import TICK, FileSource, expand
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.metadata import NO_TIME
from support import is_on_tmpfs, manifest_of, requests_of

pytestmark = [
    pytest.mark.usefixtures("nothing_stays_open"),
    pytest.mark.skipif(
        IMPLEMENTATION != "cython" or sys.platform == "win32", reason="this build does files one by one"
    ),
]
BLOCK, END = 0x20, 0x24
YEAR_2001 = 10**18


def old(path: Path, data: bytes) -> tuple[bytes, int, int, int, int, int]:
    """A file and what identifies it."""
    path.write_bytes(data)
    status = path.stat()
    return (
        os.fsencode(path),
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def messages(stream: bytes) -> list[tuple[int, int, bytes]]:
    """The items of a data stream: each one's number, announced size and bytes."""
    room = bytearray(len(stream))
    deframer = Deframer(1_000, 1 << 20, END)
    deframer.provide(room)
    assert deframer.feed(stream) == len(stream)
    assert deframer.at_boundary
    found, data = [], b""
    for item, offset, length, _, start in deframer.landed():
        if length:
            data += room[start : start + length]
        else:
            found.append((item, offset, data))
            data = b""
    return found


def test_files_are_read_as_the_messages_that_they_travel_as(tmp_path: Path) -> None:
    contents = [bytes([number]) * (1 + 700 * number) for number in range(12)]
    files = [(5 + 40 * number, *old(tmp_path / str(number), data)) for number, data in enumerate(contents)]
    slot = bytearray(100_000)
    slot[:3] = b"abc"
    used, done = read_files(slot, 3, len(slot), BLOCK, END, files)
    assert slot[:3] == b"abc"
    assert messages(bytes(slot[3:used])) == [(5 + 40 * number, len(data), data) for number, data in enumerate(contents)]
    assert [slot[start : start + len(data)] for (start, _), data in zip(done, contents, strict=True)] == contents
    assert [digest for _, digest in done] == [blake3(data).digest() for data in contents]


def test_what_does_not_fit_is_left_for_the_next_buffer(tmp_path: Path) -> None:
    files = [(number, *old(tmp_path / str(number), bytes(1_000))) for number in range(4)]
    slot = bytearray(10_000)
    used, done = read_files(slot, 0, 2_500, BLOCK, END, files)
    assert len(done) == 2
    assert used <= 2_500
    more, rest = read_files(slot, used, used + 2 * 1_009, BLOCK, END, files[2:])
    assert (len(rest), more) == (1, used + (used // 2))
    for start, stop in ((10_001, 10_001), (5, 4), (0, 10_001), (-1, 4), (0, -1), (0, 2**64)):
        with pytest.raises(ValueError, match=r"(used|limit) is .*, outside 0 to"):
            read_files(slot, start, stop, BLOCK, END, files)


@pytest.mark.parametrize("how", ["grew", "shrank", "rewritten", "replaced", "deleted", "folder", "pipe"])
def test_a_file_that_is_another_now_is_not_read(tmp_path: Path, how: str) -> None:
    files = [(number, *old(tmp_path / str(number), bytes(1_000))) for number in range(3)]
    path = tmp_path / "1"
    if how == "grew":
        path.write_bytes(bytes(1_001))
    elif how == "shrank":
        path.write_bytes(bytes(999))
    elif how == "rewritten":
        os.utime(path)
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(bytes(1_000))
        elif how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
    slot = bytearray(10_000)
    used, done = read_files(slot, 0, len(slot), BLOCK, END, files)
    assert messages(bytes(slot[:used])) == [(0, 1_000, bytes(1_000))]
    assert len(done) == 1


def test_names_and_numbers_that_cannot_be(tmp_path: Path) -> None:
    good = old(tmp_path / "a", b"x")
    with pytest.raises(ValueError, match="zero byte"):
        read_files(bytearray(99), 0, 99, BLOCK, END, [(0, b"a\0b", *good[1:])])
    with pytest.raises(ValueError, match="only files with bytes"):
        read_files(bytearray(99), 0, 99, BLOCK, END, [(0, *good[:3], 0, *good[4:])])
    for item, kind, end in ((2**62, 0, 0), (2**64, 0, 0), (-1, 0, 0), (0, 2**62, 0), (0, 0, -1)):
        with pytest.raises(ValueError, match="outside 0 to"):
            read_files(bytearray(99), 0, 99, kind, end, [(item, *good)])
    with pytest.raises(ValueError, match="zero byte"):
        store_files(0, False, [(b"a\0b", 0o600, NO_TIME, b"")])
    with pytest.raises(ValueError, match="zero byte"):
        place_files(0, 0, [(b"a", b"a\0b")])
    with pytest.raises(BufferError):
        store_files(0, False, [(b"a", 0o600, NO_TIME, memoryview(bytes(8))[::2])])


def test_names_are_taken_from_tuples_alone_as_these_keep_them_alive(tmp_path: Path) -> None:
    def few(*values: object) -> Any:
        return (value for value in values)

    with pytest.raises(TypeError, match="tuple"):
        read_files(bytearray(99), 0, 99, BLOCK, END, [few(0, *old(tmp_path / "a", b"x"))])
    with pytest.raises(TypeError, match="tuple"):
        store_files(0, False, [few(b"a", 0o600, NO_TIME, b"")])
    with pytest.raises(TypeError, match="tuple"):
        place_files(0, 0, [few(b"a", b"b")])


def folder(path: Path) -> int:
    path.mkdir(exist_ok=True)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize("flush", [False, True])
def test_files_are_stored_with_modes_and_times_until_one_cannot_be(tmp_path: Path, flush: bool) -> None:
    place = tmp_path / "place"
    fd = folder(place)
    (place / "2").write_text("mine")
    files = [(str(number).encode(), 0o640 + number, YEAR_2001 + number, b"x" * number) for number in range(4)]
    try:
        assert len(store_files(fd, flush, files)) == 2
        assert len(store_files(fd, flush, files[3:])) == 1
        assert len(store_files(fd, flush, [(b"old", 0o600, -1, b"")])) in (0, 1)  # before 1970: not every disk takes it
    finally:
        os.close(fd)
    assert (place / "2").read_text() == "mine"
    for number in (0, 1, 3):
        status = (place / str(number)).stat()
        assert (place / str(number)).read_bytes() == b"x" * number
        assert stat.S_IMODE(status.st_mode) == (0o640 + number) & ~umask()
        assert status.st_mtime_ns == YEAR_2001 + number


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1_023, 1_024, 1_025, 4_095, 4_096, 4_097, 9_000, 16_384, 16_385])
def test_short_files_are_hashed_while_they_are_stored(tmp_path: Path, size: int) -> None:
    data = bytes(number * 7 % 251 for number in range(size))
    fd = folder(tmp_path / "place")
    try:
        ((digest, inode, modified),) = store_files(fd, False, [(b"a", 0o600, NO_TIME, data)])
    finally:
        os.close(fd)
    status = (tmp_path / "place" / "a").stat()
    assert (inode, modified) == (status.st_ino, status.st_mtime_ns)
    assert digest == (blake3(data).digest() if size <= 16_384 else None)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(1, 20_000))
def test_any_short_file_has_the_digest_that_blake3_has(seed: bytes, size: int) -> None:
    data = (blake3(seed).digest(length=min(size, 997)) * (size // 997 + 1))[:size]
    with TemporaryDirectory() as name:
        place = Path(name)
        slot = bytearray(size + 100)
        _, ((start, digest),) = read_files(slot, 0, len(slot), BLOCK, END, [(0, *old(place / "file", data))])
        assert slot[start : start + size] == data
        assert digest == (blake3(data).digest() if size <= 16_384 else None)


def umask() -> int:
    before = os.umask(0o022)
    os.umask(before)
    return before


def test_a_link_planted_under_a_name_is_not_followed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    fd = folder(place)
    (place / "0").symlink_to(tmp_path / "outside")
    try:
        assert store_files(fd, False, [(b"0", 0o600, NO_TIME, b"gotcha")]) == []
    finally:
        os.close(fd)
    assert not (tmp_path / "outside").exists()


def test_files_get_names_that_are_free_and_no_others(tmp_path: Path) -> None:
    one, other = tmp_path / "staging", tmp_path / "folder"
    staging, target = folder(one), folder(other)
    for number in range(3):
        (one / str(number)).write_text(str(number))
    (other / "b").write_text("mine")
    try:
        placed = place_files(staging, target, [(b"0", b"a"), (b"1", b"b"), (b"2", b"c")])
    finally:
        os.close(staging)
        os.close(target)
    assert placed == 1
    assert {path.name: path.read_text() for path in other.iterdir()} == {"a": "0", "b": "mine"}
    assert {path.name for path in one.iterdir()} == {"1", "2"}


# The two halves of the path of the bytes.


def prepared(tmp_path: Path, *sizes: int) -> list[FileSource]:
    top = tmp_path / "source"
    top.mkdir()
    for number, size in enumerate(sizes):
        (top / f"{number:03}").write_bytes(bytes([number % 256]) * size)
    found = list(expand(os.fspath(top), None, None, "skip"))
    return [source for source in found if isinstance(source, FileSource)]


def aged(sources: list[FileSource], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been written a while ago: otherwise each is waited for."""
    latest = max(source.identity.changed_ns for source in sources)
    monkeypatch.setattr("spaceblock.storage.files.time.time_ns", lambda: latest + 2 * TICK)


def test_a_feed_sends_small_files_and_others_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [5, 0, 4_096, 131_072, 131_073, 1, 0, 70_000]
    sources = prepared(tmp_path, *sizes)
    aged(sources, monkeypatch)
    feed = Feed(range(len(sources)), sources, 131_072)
    slot = memoryview(bytearray(600_000))
    stream, sent = b"", []
    while True:
        filled = feed.fill(slot)
        stream += b"".join(filled.pieces)
        sent += filled.sent
        filled.release()
        if filled.done:
            break
    feed.close()
    contents = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert messages(stream) == [(number, len(data), data) for number, data in enumerate(contents)]
    assert sent == [(number, len(data), blake3(data).digest()) for number, data in enumerate(contents)]


def test_a_small_file_that_changed_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = prepared(tmp_path, *[100] * 9)
    aged(sources, monkeypatch)
    Path(sources[4].path).write_bytes(bytes(101))
    feed = Feed(range(9), sources, 131_072)
    filled = feed.fill(memoryview(bytearray(100_000)))
    feed.close()
    assert [item for item, _, _ in filled.sent] == [0, 1, 2, 3, 5, 6, 7, 8]
    ((item, error),) = filled.aborted
    assert (item, error.code) == (4, "source_changed")
    filled.release()


def test_a_folder_stores_and_places_many_as_it_does_one(tmp_path: Path) -> None:
    target = tmp_path / "inbox"
    (target / "a").mkdir(parents=True)
    (target / "a" / "2").write_text("mine")
    names = [f"{letter}/{number}" for letter in "ab" for number in range(4)]
    requests, manifest = requests_of(*[3] * 8), manifest_of(*names)
    sink = FolderSink(target)
    try:
        assert sink.prepare(requests, manifest) == set()
        views = [(item, memoryview(f"{item:03}".encode())) for item in range(8)]
        assert sink.store_whole(views) == [blake3(data).digest() for _, data in views]
        assert sink.place(range(8)) == [*names[:2], "a/2 (1)", *names[3:]]
    finally:
        sink.close()
    assert (target / "a" / "2").read_text() == "mine"
    assert (target / "a" / "2 (1)").read_text() == "002"
    assert {name: (target / name).read_text() for name in names if name != "a/2"} == {
        name: f"{item:03}" for item, name in enumerate(names) if name != "a/2"
    }
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]


async def test_a_tree_of_small_files_arrives_as_it_was(tmp_path: Path) -> None:
    top, inbox = tmp_path / "top", tmp_path / "inbox"
    inbox.mkdir()
    for number in range(300):
        path = top / f"{number % 7}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(2, "big") * (number * 3))
        path.chmod(0o600 | number & 0o77)
        os.utime(path, ns=(YEAR_2001 + number, YEAR_2001 + number))
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(top)
        offer = await anext(aiter(listener))
        receipt = await offer.accept(inbox)
        await sending
    assert len(receipt.items) == 300
    for number in range(300):
        here, there = top / f"{number % 7}" / f"{number}", inbox / "top" / f"{number % 7}" / f"{number}"
        assert here.read_bytes() == there.read_bytes()
        assert there.stat().st_mode == here.stat().st_mode & ~umask()
        assert there.stat().st_mtime_ns == YEAR_2001 + number


def test_where_it_is_missing_nothing_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from spaceblock import _pyfiles

    assert _pyfiles.read_files(bytearray(9), 4, 9, BLOCK, END, [(0, b"a", 0, 0, 1, 0, 0)]) == (4, [])
    assert _pyfiles.store_files(0, True, [(b"a", 0o600, NO_TIME, b"")]) == []
    assert _pyfiles.find_files([b"a"]) == []
    assert _pyfiles.place_files(0, 0, [(b"a", b"b")]) == 0
    assert not _pyfiles.is_in_memory(0)
    assert core.IMPLEMENTATION == "cython"


def test_only_what_has_no_disk_counts_as_memory(tmp_path: Path, memory_folder: Path) -> None:
    for folder in (tmp_path, memory_folder):
        with (folder / "a").open("wb") as file:
            assert is_in_memory(file.fileno()) == is_on_tmpfs(folder)
    assert is_on_tmpfs(memory_folder)
    with Path("/proc/self/status").open("rb") as file:
        assert not is_in_memory(file.fileno())
    assert not is_in_memory(-1)
    with pytest.raises((TypeError, OverflowError)):
        is_in_memory(2**40)
    with pytest.raises(TypeError):
        is_in_memory("3")  # type: ignore[arg-type]


def test_plain_files_are_found_as_they_are_and_others_are_left(tmp_path: Path) -> None:
    expected = []
    for number in range(5):
        expected.append(old(tmp_path / str(number), bytes(number)))
        (tmp_path / str(number)).chmod(0o640 + number)
    paths = [path for path, *_ in expected]
    found = find_files(paths)
    for (mode, identity), path in zip(found, paths, strict=True):
        status = os.stat(path)
        assert mode == stat.S_IMODE(status.st_mode)
        assert identity == (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
    (tmp_path / "link").symlink_to("0")
    for other in ("link", ".", "missing"):
        assert len(find_files([paths[0], os.fsencode(tmp_path / other), paths[1]])) == 1
    assert find_files([os.fsdecode(path) for path in paths]) == found, "a string does too"
    for zero in (b"a\0b", "a\0b"):
        with pytest.raises(ValueError, match="zero byte"):
            find_files([zero])
    with pytest.raises(TypeError):
        find_files(["é"])


def test_a_file_of_another_century_is_looked_at_alone(tmp_path: Path) -> None:
    for name, seconds in (("far", 13_569_465_600), ("now", 1_000_000_000)):
        (tmp_path / name).write_bytes(b"bytes")
        with suppress(OverflowError):
            os.utime(tmp_path / name, (0, seconds))
    if (tmp_path / "far").stat().st_mtime_ns < 2**63:
        pytest.skip("this file system knows no such times")
    assert len(find_files([os.fsencode(tmp_path / name) for name in ("now", "far", "now")])) == 1
    sources = {each.name: each for each in expand(str(tmp_path), "top", None, "skip") if isinstance(each, FileSource)}
    now = 2**62
    assert {name: source.is_small(now) for name, source in sources.items()} == {"top/far": False, "top/now": True}
    with open(sources["top/far"].open(), "rb") as file:
        assert file.read() == b"bytes"


def test_a_file_with_holes_is_looked_at_alone(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    if os.stat(tmp_path / "sparse").st_blocks * 512 >= 1 << 20:
        pytest.skip("this file system has no holes")
    (tmp_path / "plain").write_bytes(b"bytes")
    assert len(find_files([os.fsencode(tmp_path / name) for name in ("plain", "sparse")])) == 1
    sources = {each.name: each for each in expand(str(tmp_path), "top", None, "skip") if isinstance(each, FileSource)}
    assert sources["top/sparse"].is_sparse
    assert not sources["top/plain"].is_sparse
