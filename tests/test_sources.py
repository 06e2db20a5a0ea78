"""Sources: paths and buffers become items; what is wrong with them is found before anything is offered."""

from __future__ import annotations

import array
import ctypes
import errno
import logging
import mmap
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spaceblock.blocks import BlockSize, Full, Partial
from spaceblock.errors import (
    BufferUnfit,
    LocalProtocolError,
    NameRejected,
    SourceChanged,
    SourceError,
    SourceMissing,
    SourceUnreadable,
)
from spaceblock.names import DEPTH_MAX
from spaceblock.storage.files import TICK, FileSource
from spaceblock.storage.sources import (
    BufferSource,
    Item,
    Prepared,
    hold_buffers,
    prepare,
    release_buffers,
    source_length,
)
from spaceblock.wire.manifest import EntryKind
from support import no_more_descriptors, open_descriptors, pattern, unprivileged


def prepared(*things: object) -> Prepared:
    return prepare(hold_buffers(things))


def names(offer: Prepared) -> list[str | None]:
    return [source.name for source in offer.sources]


# Files and folders.


def test_a_file_keeps_its_own_name_and_knows_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    offer = prepared(tmp_path / "a.txt")
    (source,) = offer.sources
    assert isinstance(source, FileSource)
    assert (source.name, source.request.size, source.request.range) == ("a.txt", 5, Full())
    assert source_length(source) == 5
    assert offer.manifest is not None
    assert [(entry.item, entry.name) for entry in offer.manifest.entries] == [(0, "a.txt")]


def test_a_path_may_be_a_string_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert names(prepared("a", Item("./a", name="b"))) == ["a", "b"]


def test_a_folder_becomes_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "b" / "empty").mkdir(parents=True)
    for name in ("z", "b/y", "a"):
        (folder / name).write_bytes(name.encode())
    offer = prepared(folder)
    assert names(offer) == ["data/a", "data/b/y", "data/z"]
    assert offer.manifest is not None
    folders = [entry.name for entry in offer.manifest.entries if entry.kind is EntryKind.FOLDER]
    assert folders == ["data", "data/b", "data/b/empty"]


def test_an_empty_folder_is_an_offer_without_items(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    offer = prepared(tmp_path / "empty")
    assert offer.requests.items == ()
    assert offer.manifest is not None
    assert [entry.name for entry in offer.manifest.entries] == ["empty"]


def test_a_file_or_folder_can_be_offered_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"x")
    assert names(prepared(Item(tmp_path / "d" / "a", name="x/y.bin"))) == ["x/y.bin"]
    assert names(prepared(Item(tmp_path / "d", name="other"))) == ["other/a"]


def test_links_and_special_files_in_a_folder_are_left_out_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").write_bytes(b"x")
    (folder / "link").symlink_to("a")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pi\x1bpe")
    with caplog.at_level(logging.WARNING, "spaceblock"):
        assert names(prepared(folder)) == ["d/a"]
    assert [record.getMessage().split(": ")[0].rpartition("/")[2] for record in caplog.records] == [
        "link",
        "pi\\x1bpe",
        "up",
    ]


def test_a_link_given_by_name_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    (tmp_path / "link").symlink_to("a")
    (source,) = prepared(tmp_path / "link").sources
    assert (source.name, source.request.size) == ("link", 5)


def test_a_range_of_a_file_is_part_of_its_request(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    (source,) = prepared(Item(tmp_path / "a", range=(1, 4))).sources
    assert (source.request.size, source.request.range) == (5, Partial(1, 4))
    assert source_length(source) == 3


@pytest.mark.parametrize("part", [(0, 6), (-1, 2), (3, 2), (6, 6)])
def test_a_range_must_lie_within_the_source(tmp_path: Path, part: tuple[int, int]) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    for source in (tmp_path / "a", b"hello"):
        with pytest.raises(LocalProtocolError, match="range"):
            prepared(Item(source, range=part))


def test_a_range_of_a_folder_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="is a folder"):
        prepared(Item(tmp_path, range=(0, 1)))


def test_the_block_size_follows_the_largest_item(tmp_path: Path) -> None:
    assert prepared(b"x").requests.block_size == BlockSize.MIN
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(BlockSize.MIN * BlockSize.TARGET_COUNT)
    assert prepared(b"x", tmp_path / "sparse").requests.block_size == 2 * BlockSize.MIN


def test_every_offer_has_an_identity_of_its_own() -> None:
    assert prepared(b"x").requests.uuid != prepared(b"x").requests.uuid


# What cannot be sent.


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="nowhere") as caught:
        prepared(tmp_path / "nowhere")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.phase == "preparing"
    with pytest.raises(SourceMissing):
        prepared(b"x", tmp_path / "nowhere" / "a")


def test_a_path_with_a_nul_is_no_path() -> None:
    with pytest.raises(SourceError, match="is no path on this system") as caught:
        prepared("a\0b")
    assert "\0" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named_itself_wherever_it_lies() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        inner = Path(folder, "d", "e")
        inner.mkdir(parents=True)
        (inner / "secret").write_bytes(b"x")
        (inner / "secret").chmod(0)
        with unprivileged():
            for source in (inner / "secret", Path(folder, "d")):
                with pytest.raises(SourceUnreadable) as caught:
                    prepared(source)
                assert "d/e/secret" in str(caught.value)
                assert isinstance(caught.value, PermissionError)


def test_a_folder_that_may_not_be_read_is_named_itself() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, "d").mkdir()
        Path(folder, "d", "locked").mkdir()
        Path(folder, "d", "locked").chmod(0)
        with unprivileged(), pytest.raises(SourceUnreadable, match="d/locked"):
            prepared(Path(folder, "d"))


@pytest.mark.parametrize("special", ["/dev/null", "pipe"])
def test_only_files_and_folders_can_be_sent(tmp_path: Path, special: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        prepared(tmp_path / special)


@pytest.mark.parametrize("name", ["../a", "/a", "", "a//b", ".spaceblock-1"])
def test_a_name_that_no_receiver_would_take_is_refused_here(tmp_path: Path, name: str) -> None:
    for source in (b"x", tmp_path):
        with pytest.raises(NameRejected):
            prepared(Item(source, name=name))


def test_a_file_whose_name_is_not_unicode_is_refused_and_shown_escaped(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d/\xff")).write_bytes(b"x")
    with pytest.raises(NameRejected, match=r"udcff.* is not valid Unicode") as caught:
        prepared(tmp_path / "d")
    str(caught.value).encode()


def test_a_tree_that_is_too_deep_is_refused_on_the_way_down(tmp_path: Path) -> None:
    deepest = tmp_path / "d" / Path(*["d"] * 100)
    deepest.mkdir(parents=True)
    with pytest.raises(NameRejected, match=f"nested deeper than {DEPTH_MAX}"):
        prepared(tmp_path / "d")


def test_two_sources_of_one_name_are_a_mistake_of_this_side(tmp_path: Path) -> None:
    for folder in ("d", "e"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_bytes(b"x")
    with pytest.raises(LocalProtocolError, match="two entries have the name 'x'"):
        prepared(tmp_path / "d" / "x", tmp_path / "e" / "x")
    offer = prepared(tmp_path / "d" / "x", Item(tmp_path / "e" / "x", name="other"))
    assert names(offer) == ["x", "other"]


@pytest.mark.parametrize("thing", [5, None, ["a"], 1.5, object()])
def test_what_is_neither_a_path_nor_a_buffer_is_refused(thing: object) -> None:
    with pytest.raises(LocalProtocolError, match=f"cannot send an? {type(thing).__name__}"):
        hold_buffers([thing])


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(LocalProtocolError, match=r'the path to send is empty: .* "." for the current one'):
        hold_buffers([""])


@pytest.mark.parametrize("name", [3, b"name", Path("folder/name")])
def test_a_name_that_is_no_string_is_refused_at_once(name: Any) -> None:
    with pytest.raises(LocalProtocolError, match="is not a string: write it with '/' between folders"):
        hold_buffers([Item(b"data", name=name)])


@pytest.mark.parametrize("part", [3, (1,), (0.0, 2.0), ("0", "2"), (0, None), slice(0, 2)])
@pytest.mark.parametrize("source", [b"data", Path(__file__)])
def test_a_range_that_is_no_pair_of_numbers_is_refused_at_once(source: object, part: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"is not a pair of whole numbers: write \(start, stop\)"):
        hold_buffers([Item(source, range=part)])


def test_a_range_may_come_from_numpy_and_a_path_from_a_listing_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "f\xe4").write_bytes(b"hello")
    (entry,) = os.scandir(os.fsencode(tmp_path))
    offer = prepared(Item(entry, range=(np.int64(1), np.int64(3))))
    assert names(offer) == ["f\xe4"]
    assert offer.requests.items[0].length == 2


# Opening what was offered.


def offered_file(path: Path, data: bytes = b"hello") -> FileSource:
    path.write_bytes(data)
    (source,) = prepared(path).sources
    assert isinstance(source, FileSource)
    return source


def test_an_unchanged_file_opens(tmp_path: Path) -> None:
    fd = offered_file(tmp_path / "a").open()
    try:
        assert os.read(fd, 10) == b"hello"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_file_is_not_opened_while_a_change_could_still_have_the_same_time(tmp_path: Path) -> None:
    source = offered_file(tmp_path / "a")
    os.close(source.open())
    assert time.time_ns() - source.identity.changed_ns >= TICK


def test_a_file_that_vanished_has_changed(tmp_path: Path) -> None:
    source = offered_file(tmp_path / "a")
    (tmp_path / "a").unlink()
    with pytest.raises(SourceChanged, match="moved away or deleted") as caught:
        source.open()
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("change", ["grown", "shrunk", "replaced", "touched", "a folder", "a link", "a pipe"])
def test_a_file_that_changed_after_the_offer_is_not_sent(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    source = offered_file(path)
    before = open_descriptors()
    if change == "grown":
        path.write_bytes(b"hello you")
    elif change == "shrunk":
        path.write_bytes(b"hell")
    elif change == "replaced":
        times = path.stat()
        (tmp_path / "b").write_bytes(b"HELLO")
        os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "b").rename(path)
    elif change == "touched":
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
        if change == "a folder":
            path.mkdir()
        elif change == "a link":
            path.symlink_to("/etc/passwd")
        else:
            os.mkfifo(path)
    with pytest.raises(SourceChanged, match="after it was offered: send it again"):
        source.open()
    assert open_descriptors() == before


def test_without_descriptors_a_file_cannot_be_opened(tmp_path: Path) -> None:
    source = offered_file(tmp_path / "a")
    with no_more_descriptors(), pytest.raises(SourceError, match="too many open files"):
        source.open()


# Buffers.


@pytest.mark.parametrize(
    "buffer",
    [
        b"hello world!",
        bytearray(b"hello world!"),
        memoryview(b"hello world!"),
        array.array("i", [1, 2, 3]),
        np.arange(3, dtype="<i4"),
        np.zeros((3, 1), "float32"),
        np.zeros(3, ">i4"),
        np.zeros(1, [("a", "i4"), ("b", "f8")]),
        np.zeros(3, "U1"),
    ],
    ids=lambda buffer: type(buffer).__name__,
)
def test_any_contiguous_buffer_is_its_bytes(buffer: bytes) -> None:
    (source,) = prepared(buffer).sources
    assert isinstance(source, BufferSource)
    assert source.request.size == 12
    assert bytes(source.view) == bytes(memoryview(buffer).tobytes())
    source.view.release()


@pytest.mark.parametrize("buffer", [b"", bytearray(), np.zeros(0), np.zeros((2, 0)), np.zeros((0, 3))], ids=repr)
def test_a_buffer_may_be_empty(buffer: bytes) -> None:
    (source,) = prepared(buffer).sources
    assert source.request.size == 0


def test_a_single_number_of_numpy_is_a_buffer_too() -> None:
    (source,) = prepared(np.array(5, "int64")).sources
    assert source.request.size == 8


def test_an_unnamed_buffer_has_no_entry_and_a_named_one_does() -> None:
    assert prepared(b"x").manifest is None
    offer = prepared(b"x", Item(b"y", name="n"))
    assert offer.manifest is not None
    assert [entry.item for entry in offer.manifest.entries] == [1]
    assert names(offer) == [None, "n"]


@pytest.mark.parametrize(
    "buffer", [np.zeros(4)[::2], np.zeros((2, 3), order="F"), memoryview(b"abcd")[::2]], ids=["strided", "F", "slice"]
)
def test_a_buffer_in_pieces_is_refused(buffer: bytes) -> None:
    with pytest.raises(BufferUnfit, match="not C-contiguous: copy it"):
        hold_buffers([buffer])


def test_what_numpy_cannot_show_as_bytes_is_refused() -> None:
    with pytest.raises(BufferUnfit, match="cannot send this ndarray"):
        hold_buffers([np.zeros(3, "M8[s]")])


@pytest.mark.parametrize("kind", ["O", [("a", "i4"), ("b", [("c", "O")])], [("a", "O", (2, 2))]], ids=str)
def test_references_to_objects_are_never_sent(kind: Any) -> None:
    with pytest.raises(BufferUnfit, match="holds Python objects"):
        hold_buffers([np.zeros(3, kind)])


class WithPointer(ctypes.Structure):
    _fields_ = (("number", ctypes.c_int), ("text", ctypes.c_char_p))


@pytest.mark.parametrize(
    "kind",
    [
        ctypes.c_char_p,
        ctypes.c_wchar_p,
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_int),
        ctypes.CFUNCTYPE(None),
        WithPointer,
    ],
    ids=lambda kind: kind.__name__,
)
def test_pointers_are_never_sent(kind: Any) -> None:
    with pytest.raises(BufferUnfit, match="or pointers"):
        hold_buffers([(kind * 3)()])


def test_a_field_may_have_any_name_and_be_a_complex_number() -> None:
    release_buffers(hold_buffers([np.zeros(3, [("O", "i4"), ("TO", "S3"), ("P&z", "c16"), ("Z", "c8")])]))


def test_a_buffer_that_is_gone_is_refused() -> None:
    view = memoryview(b"x")
    view.release()
    closed = mmap.mmap(-1, 10)
    closed.close()
    for buffer in (view, closed):
        with pytest.raises(BufferUnfit):
            hold_buffers([buffer])


def test_a_buffer_cannot_be_resized_while_it_is_held_and_can_afterwards() -> None:
    buffer = bytearray(b"hello")
    held = hold_buffers([buffer, Item(buffer, range=(1, 2))])
    with pytest.raises(BufferError):
        buffer.append(1)
    release_buffers(held)
    buffer.append(1)


def test_what_was_held_is_released_when_a_later_thing_is_refused() -> None:
    buffer = bytearray(pattern(10))
    for refused in (5, np.zeros(4)[::2], Item(b"abc", range=(0, 9))):
        with pytest.raises((LocalProtocolError, BufferUnfit)):
            hold_buffers([buffer, array.array("d", [1.0]), refused])
        buffer.append(1)
