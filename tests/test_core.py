"""The core's contract, case by case through the pure twin and the extension, and both against each other."""

from __future__ import annotations

import array
import contextlib
import errno
import inspect
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spaceblock.core
from framing import CONTENT, TOP, Found, block, collect, pairs, quads, words
from spaceblock import _pyblock, _pydeframer
from spaceblock.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


KIB = 1024
BLOCK_SIZE = 128 * KIB


# ---- Both cores ----


def test_the_chosen_core_is_the_extension_unless_switched_off() -> None:
    ask = "from spaceblock.core import *; "
    ask += "print(IMPLEMENTATION, *{each.__module__ for each in (fill_blocks, Deframer, frame_digests, read_files)})"

    def answer(**env: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", ask], env={**os.environ, **env}, check=True, capture_output=True, text=True
        )
        return " ".join(sorted(ended.stdout.replace("spaceblock.", "").split()))

    assert answer(SPACEBLOCK_NO_EXTENSION="1") == "_pyblock _pydeframer _pyfiles _pylists python"
    if os.environ.get("SPACEBLOCK_NO_EXTENSION") != "1":
        files = "_pyfiles" if sys.platform == "win32" else "_fastfiles"
        assert answer() == " ".join(sorted(["_fastblock", "_fastdeframer", "_fastlists", files, "cython"]))


def test_each_core_offers_every_exported_name(core: ModuleType) -> None:
    for name in spaceblock.core.__all__:
        if name != "IMPLEMENTATION":
            assert hasattr(core, name)
    assert (core.UINT_VAR_MAX, core.BLOCK_TYPE, core.HEADER_ROOM, core.MESSAGE_DATA_MAX) == (TOP, 0x20, 32, 2**20)


def test_signatures_are_those_of_the_twin(core: ModuleType) -> None:
    def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
        return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]

    for name in spaceblock.core.__all__:
        if inspect.isfunction(twin := getattr(_pyblock, name, None)):
            assert parameters(getattr(core, name)) == parameters(twin)
    for name in ("feed", "provide", "release"):
        assert parameters(getattr(core.Deframer, name)) == parameters(getattr(_pydeframer.Deframer, name))


# ---- Varints: RFC 9000, section 16 and appendix A.1 ----

VARINTS = [
    ("c2197c5eff14e88c", 151_288_809_941_952_652),
    ("9d7f3e7d", 494_878_333),
    ("7bbd", 15_293),
    ("25", 37),
    ("00", 0),
    ("3f", 63),
    ("4040", 64),
    ("7fff", 16_383),
    ("80004000", 16_384),
    ("bfffffff", 2**30 - 1),
    ("c000000040000000", 2**30),
    ("ffffffffffffffff", TOP),
]


@pytest.mark.parametrize(("encoded", "value"), VARINTS)
def test_varint_in_its_shortest_form(core: ModuleType, encoded: str, value: int) -> None:
    data = bytes.fromhex(encoded)
    assert core.encode_uint_var(value) == data
    assert core.decode_uint_var(data) == (value, len(data))
    assert core.decode_uint_var(b"\xff" + data + b"\xff", 1) == (value, 1 + len(data))
    out = bytearray(len(data) + 2)
    assert core.write_uint_var(out, 1, value) == 1 + len(data)
    assert out == b"\0" + data + b"\0"


def test_varint_in_a_longer_form_is_read(core: ModuleType) -> None:
    assert core.decode_uint_var(bytes.fromhex("4025")) == (37, 2)


@pytest.mark.parametrize("value", [-1, TOP + 1, 2**64, -(2**64)])
def test_varint_out_of_range(core: ModuleType, value: int) -> None:
    with pytest.raises(ValueError, match="outside 0 to 4611686018427387903"):
        core.encode_uint_var(value)
    with pytest.raises(ValueError, match="outside 0 to"):
        core.write_uint_var(bytearray(8), 0, value)


@pytest.mark.parametrize("value", [1.0, "1", None, b"1"])
def test_varint_of_no_integer(core: ModuleType, value: object) -> None:
    with pytest.raises(TypeError):
        core.encode_uint_var(value)


@pytest.mark.parametrize(
    ("data", "pos"), [("", 0), ("40", 0), ("c2197c5eff14e8", 0), ("25", 1), ("25", 2), ("25", TOP)]
)
def test_varint_cut_off(core: ModuleType, data: str, pos: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        core.decode_uint_var(bytes.fromhex(data), pos)


@pytest.mark.parametrize("pos", [-1, 2**64])
def test_varint_at_an_impossible_position(core: ModuleType, pos: int) -> None:
    with pytest.raises(ValueError, match="pos is"):
        core.decode_uint_var(b"\0\0", pos)
    with pytest.raises(ValueError, match="pos is"):
        core.write_uint_var(bytearray(2), pos, 0)


@pytest.mark.parametrize("pos", [0, 1, 2, 3, TOP])
def test_varint_is_not_written_where_it_does_not_fit(core: ModuleType, pos: int) -> None:
    out = bytearray(3)
    with pytest.raises(ValueError, match="no room for 4 bytes"):
        core.write_uint_var(out, pos, 2**30 - 1)
    assert out == bytes(3)


# ---- Buffers ----


@pytest.mark.parametrize(
    "wrap",
    [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint16), lambda data: array.array("H", data)],
)
def test_any_contiguous_buffer_is_read(core: ModuleType, wrap: Callable[[bytes], Any]) -> None:
    data = wrap(bytes.fromhex("9d7f3e7d"))
    assert core.decode_uint_var(data) == (494_878_333, 4)
    deframer = core.Deframer(10, 0)
    assert deframer.feed(wrap(b"\x06\x02ab")) == 4
    assert deframer.payload == b"ab"


@pytest.mark.parametrize("data", [memoryview(bytes(8))[::2], np.zeros((4, 4), np.uint8)[:, 1]])
def test_scattered_buffer_is_refused(core: ModuleType, data: Any) -> None:
    with pytest.raises(BufferError):
        core.decode_uint_var(data)
    with pytest.raises(BufferError):
        core.Deframer(10, 10).feed(data)


def frozen(size: int) -> Any:
    values = np.zeros(size, np.uint8)
    values.flags.writeable = False
    return values


@pytest.mark.parametrize("out", [bytes(64), memoryview(bytes(64)), frozen(64)])
def test_read_only_output_is_refused(core: ModuleType, out: Any) -> None:
    room = bytearray(64)
    with pytest.raises(BufferError):
        core.write_uint_var(out, 0, 1)
    with pytest.raises(BufferError):
        core.slice_range(out, 0, 10, 10)
    for first, second in [(out, room), (room, out)]:
        with pytest.raises(BufferError):
            core.frame_blocks(first, second, 0, 0, 10, 10)
        with pytest.raises(BufferError):
            core.fill_blocks(0, first, second, 0, 0, 10, 10)
    deframer = core.Deframer(0, 10)
    deframer.feed(block(core, 0, 0, b"x"))
    with pytest.raises(BufferError):
        deframer.provide(out)


def test_no_buffer_is_refused(core: ModuleType) -> None:
    with pytest.raises(TypeError):
        core.decode_uint_var(5)
    with pytest.raises(TypeError):
        core.slice_range("table", 0, 1, 1)
    with pytest.raises(TypeError):
        core.Deframer(0, 0).feed(None)


@pytest.mark.parametrize("fd", [1.5, "1", None])
def test_no_descriptor_is_refused(core: ModuleType, fd: object) -> None:
    with pytest.raises(TypeError):
        core.write_all(fd, b"x", 0)
    with pytest.raises(TypeError):
        core.fill_blocks(fd, bytearray(99), bytearray(32), 0, 0, 1, 1)


def test_buffers_can_be_resized_after_each_call(core: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    one, two = bytearray(128), bytearray(128)
    with path.open("r+b") as file:
        calls: list[Callable[[], object]] = [
            lambda: core.write_uint_var(one, 0, 1),
            lambda: core.write_uint_var(one, 1000, 1),
            lambda: core.decode_uint_var(one),
            lambda: core.decode_uint_var(one, 1000),
            lambda: core.slice_range(one, 0, 10, 1),
            lambda: core.frame_blocks(one, two, 0, 0, 10, 1),
            lambda: core.frame_blocks(one, bytes(1), 0, 0, 10, 1),
            lambda: core.fill_blocks(file.fileno(), one, two, 0, 0, 100, 10),
            lambda: core.fill_blocks(file.fileno(), one, two, 0, 0, 100, 10, 1000),
            lambda: core.fill_blocks(-1, one, two, 0, 0, 100, 10),
            lambda: core.write_all(file.fileno(), one, 0),
            lambda: core.write_all(-1, one, 0),
            lambda: core.Deframer(0, 0).feed(one),
        ]
        for call in calls:
            with contextlib.suppress(ValueError, BufferError, OSError, RemoteProtocolError):
                call()
            one.append(0)
            two.append(0)


# ---- Slicing ----


def sliced(core: ModuleType, start: int, stop: int, block_size: int, *limit: int) -> list[tuple[int, int]]:
    table = words(2 * 64)
    return pairs(table, core.slice_range(table, start, stop, block_size, *limit))


def test_slice_an_item_into_blocks(core: ModuleType) -> None:
    assert sliced(core, 0, 300, 128) == [(0, 128), (128, 128), (256, 44)]


def test_slice_from_the_middle_of_a_block(core: ModuleType) -> None:
    assert sliced(core, 100, 300, 128) == [(100, 28), (128, 128), (256, 44)]


def test_slice_below_a_limit(core: ModuleType) -> None:
    assert sliced(core, 100, 300, 128, 50) == [(100, 28), (128, 50), (178, 50), (228, 28), (256, 44)]


def test_slice_takes_a_message_of_a_mebibyte_at_most(core: ModuleType) -> None:
    assert sliced(core, 0, 2**21 + 1, 2**24) == [(0, 2**20), (2**20, 2**20), (2**21, 1)]


def test_slice_nothing(core: ModuleType) -> None:
    assert sliced(core, 0, 0, 128) == sliced(core, 128, 128, 128) == []


def test_slice_at_the_end_of_the_range_of_offsets(core: ModuleType) -> None:
    assert sliced(core, TOP - 1, TOP, TOP, TOP) == [(TOP - 1, 1)]
    assert sliced(core, 0, TOP, TOP, TOP) == [(0, TOP)]


def test_slice_continues_where_a_full_table_ended(core: ModuleType) -> None:
    table = words(4)
    assert core.slice_range(table, 0, 300, 128) == 2
    assert core.slice_range(table, 256, 300, 128) == 1
    assert core.slice_range(bytearray(15), 0, 300, 128) == 0
    assert core.slice_range(bytearray(), 0, 300, 128) == 0


def test_slice_into_a_table_at_an_odd_address(core: ModuleType) -> None:
    room = bytearray(17)
    assert core.slice_range(memoryview(room)[1:], 5, 300, 128) == 1
    assert room[1:] == array.array("Q", [5, 123]).tobytes()


@pytest.mark.parametrize(
    ("start", "stop", "block_size", "limit"),
    [(-1, 1, 1, 1), (2, 1, 1, 1), (0, TOP + 1, 1, 1), (0, 1, 0, 1), (0, 1, -1, 1), (0, 1, 1, 0), (0, 1, TOP + 1, 1)],
)
def test_slice_of_an_impossible_range(core: ModuleType, start: int, stop: int, block_size: int, limit: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        core.slice_range(words(2), start, stop, block_size, limit)


@given(st.integers(0, TOP), st.integers(0, 5000), st.integers(1, 1000), st.integers(1, 1000))
def test_slices_cover_the_range_and_keep_to_the_grid(start: int, size: int, block_size: int, limit: int) -> None:
    stop = min(start + size, TOP)
    table = words(2 * 5001)
    found = pairs(table, spaceblock.core.slice_range(table, start, stop, block_size, limit))
    at = start
    for offset, length in found:
        assert offset == at
        assert 0 < length <= limit
        assert offset // block_size == (offset + length - 1) // block_size
        at += length
    assert at == stop
    assert found == sliced_by_twin(start, stop, block_size, limit)


def sliced_by_twin(start: int, stop: int, block_size: int, limit: int) -> list[tuple[int, int]]:
    table = words(2 * 5001)
    return pairs(table, _pyblock.slice_range(table, start, stop, block_size, limit))


# ---- Framing ----


def test_frame_headers_for_data_that_lies_elsewhere(core: ModuleType) -> None:
    out, table = bytearray(64), words(16)
    assert core.frame_blocks(out, table, 5, 100, 300, 128) == (3, 16, 300)
    assert quads(table, 3) == [(0, 5, 100, 28), (5, 11, 128, 128), (11, 16, 256, 44)]
    for start, stop, offset, length in quads(table, 3):
        header = bytes(out[start:stop])
        assert header + bytes(length) == block(core, 5, offset, bytes(length))


def test_frame_stops_when_the_table_or_the_room_is_full(core: ModuleType) -> None:
    header = len(block(core, 5, 0, bytes(128))) - 128
    assert core.frame_blocks(bytearray(64), words(4), 5, 0, 300, 128) == (1, header, 128)
    assert core.frame_blocks(bytearray(header), words(16), 5, 0, 300, 128) == (1, header, 128)
    assert core.frame_blocks(bytearray(header - 1), words(16), 5, 0, 300, 128) == (0, 0, 0)
    assert core.frame_blocks(bytearray(), words(16), 5, 0, 300, 128) == (0, 0, 0)
    assert core.frame_blocks(bytearray(64), bytearray(31), 5, 0, 300, 128) == (0, 0, 0)
    assert core.frame_blocks(bytearray(64), words(16), 5, 300, 300, 128) == (0, 0, 300)


def test_the_longest_header_fits_its_room(core: ModuleType) -> None:
    out, table = bytearray(core.HEADER_ROOM), words(4)
    pieces, used, offset = core.frame_blocks(out, table, TOP, TOP - 2**20, TOP, TOP)
    assert (pieces, offset) == (1, TOP)
    assert used == 1 + 4 + 8 + 8
    assert quads(table, 1) == [(0, used, TOP - 2**20, 2**20)]


@pytest.mark.parametrize(
    ("item", "start", "stop", "block_size"),
    [(-1, 0, 1, 1), (TOP + 1, 0, 1, 1), (0, 2, 1, 1), (0, 0, 1, 0), (0, 0, 2**64, 1)],
)
def test_frame_of_an_impossible_range(core: ModuleType, item: int, start: int, stop: int, block_size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        core.frame_blocks(bytearray(64), words(4), item, start, stop, block_size)


# ---- Reading a file into blocks ----


@pytest.fixture
def content(tmp_path: Path) -> Iterator[io.FileIO]:
    """A file of 300 KiB, open for reading."""
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    with path.open("rb", buffering=0) as file:
        yield file


def read_slot(core: ModuleType, slot: bytearray, used: int) -> list[Found]:
    return collect(core.Deframer(0, core.MESSAGE_DATA_MAX), [bytes(slot[:used])])


def test_fill_a_slot_from_a_file(core: ModuleType, content: io.FileIO) -> None:
    slot, table = bytearray(400 * KIB), words(64)
    pieces, used, offset, short = core.fill_blocks(content.fileno(), slot, table, 7, 0, len(CONTENT), BLOCK_SIZE)
    assert (pieces, offset, short) == (3, len(CONTENT), False)
    assert read_slot(core, slot, used) == [
        ("block", (7, 0, CONTENT[:BLOCK_SIZE])),
        ("block", (7, BLOCK_SIZE, CONTENT[BLOCK_SIZE : 2 * BLOCK_SIZE])),
        ("block", (7, 2 * BLOCK_SIZE, CONTENT[2 * BLOCK_SIZE :])),
    ]
    for start, stop, at, length in quads(table, pieces):
        assert stop - start == length
        assert slot[start:stop] == CONTENT[at : at + length]
    assert quads(table, pieces)[-1][1] == used
    assert content.tell() == 0 or sys.platform == "win32"


def test_fill_leaves_what_the_slot_holds_already(core: ModuleType, content: io.FileIO) -> None:
    slot, table = bytearray(b"before" + bytes(1000)), words(4)
    pieces, used, offset, short = core.fill_blocks(content.fileno(), slot, table, 0, 10, 20, BLOCK_SIZE, 6)
    assert (pieces, offset, short) == (1, 20, False)
    assert slot[:used] == b"before" + block(core, 0, 10, CONTENT[10:20])


def test_fill_shrinks_the_last_message_to_what_is_free(core: ModuleType, content: io.FileIO) -> None:
    slot, table = bytearray(1000), words(64)
    pieces, used, offset, short = core.fill_blocks(content.fileno(), slot, table, 0, 0, len(CONTENT), 600)
    assert quads(table, pieces)[0][2:] == (0, 600)
    assert quads(table, pieces)[1][2:] == (600, 1000 - quads(table, pieces)[0][1] - core.HEADER_ROOM)
    assert len(slot) - used <= core.HEADER_ROOM
    assert not short
    data = b"".join(part for _, (_, _, part) in read_slot(core, slot, used))
    assert data == CONTENT[:offset]


@pytest.mark.parametrize("free", [0, 1, 31, 32])
def test_fill_needs_room_for_a_header_and_a_byte(core: ModuleType, content: io.FileIO, free: int) -> None:
    slot = bytearray(100)
    found = core.fill_blocks(content.fileno(), slot, words(8), 0, 0, 50, BLOCK_SIZE, 100 - free)
    assert found == (0, 100 - free, 0, False)
    assert slot == bytes(100)


def test_fill_ends_with_the_table(core: ModuleType, content: io.FileIO) -> None:
    slot = bytearray(1000)
    assert core.fill_blocks(content.fileno(), slot, words(8), 0, 0, 500, 10)[::2] == (2, 20)
    assert core.fill_blocks(content.fileno(), slot, bytearray(31), 0, 0, 500, 10) == (0, 0, 0, False)


def test_fill_of_nothing(core: ModuleType, content: io.FileIO) -> None:
    assert core.fill_blocks(content.fileno(), bytearray(100), words(8), 0, 5, 5, 10) == (0, 0, 5, False)


@pytest.mark.parametrize("cut", [1, 40, 64, 100, 16_384, 100_000])
def test_fill_frames_what_a_file_that_shrank_still_has(core: ModuleType, content: io.FileIO, cut: int) -> None:
    # The length's varint, and so the header, may be shorter than was planned.
    slot, table = bytearray(400 * KIB), words(64)
    start = len(CONTENT) - cut
    pieces, used, offset, short = core.fill_blocks(content.fileno(), slot, table, 3, start, TOP, 2**24)
    assert (pieces, offset, short) == (1, len(CONTENT), True)
    assert slot[:used] == block(core, 3, start, CONTENT[start:])
    assert quads(table, 1) == [(used - cut, used, start, cut)]


def test_fill_beyond_the_end_of_the_file(core: ModuleType, content: io.FileIO) -> None:
    slot = bytearray(1000)
    end = len(CONTENT)
    assert core.fill_blocks(content.fileno(), slot, words(8), 0, end, end + 9, 10, 3) == (0, 3, end, True)


def test_fill_does_not_see_a_short_file_behind_a_full_slot(core: ModuleType, content: io.FileIO) -> None:
    slot, table = bytearray(1000), words(8)
    start = len(CONTENT) - (1000 - core.HEADER_ROOM)
    pieces, _, offset, short = core.fill_blocks(content.fileno(), slot, table, 0, start, TOP, 2**24)
    assert (pieces, offset, short) == (1, len(CONTENT), False)
    assert core.fill_blocks(content.fileno(), slot, table, 0, offset, TOP, 2**24) == (0, 0, offset, True)


def test_fill_raises_the_systems_error(core: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        core.fill_blocks(-1, bytearray(100), words(8), 0, 0, 1, 1)
    assert caught.value.errno == errno.EBADF
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            core.fill_blocks(folder, bytearray(100), words(8), 0, 0, 1, 1)
    finally:
        os.close(folder)


@pytest.mark.parametrize(
    ("item", "offset", "stop", "block_size", "used"),
    [(-1, 0, 1, 1, 0), (0, 2, 1, 1, 0), (0, 0, TOP + 1, 1, 0), (0, 0, 1, 0, 0), (0, 0, 1, 1, 101), (0, 0, 1, 1, -1)],
)
def test_fill_of_impossible_numbers(
    core: ModuleType, item: int, offset: int, stop: int, block_size: int, used: int
) -> None:
    with pytest.raises(ValueError, match=r"outside|beyond"):
        core.fill_blocks(0, bytearray(100), words(8), item, offset, stop, block_size, used)


@settings(max_examples=60)
@given(
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(1, 700),
    st.integers(0, 1200),
    st.integers(0, 60),
    st.integers(0, 9),
)
def test_fill_like_the_twin(offset: int, size: int, block_size: int, room: int, used: int, rows: int) -> None:
    used = min(used, room)
    results = []
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(CONTENT[:1500])
        for core in (_pyblock, spaceblock.core):
            slot, table = bytearray(room), words(4 * rows)
            done = core.fill_blocks(file.fileno(), slot, table, 2**20, offset, offset + size, block_size, used)
            results.append((done, bytes(slot[: done[1]]), quads(table, done[0])))
    assert results[0] == results[1]


# ---- Writing ----


def test_write_all_at_an_offset(core: ModuleType, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        core.write_all(file.fileno(), b"world", 6)
        core.write_all(file.fileno(), memoryview(b"hello "), 0)
        core.write_all(file.fileno(), b"", 0)
        assert file.read() == b"hello world"


def test_write_all_raises_the_systems_error(core: ModuleType, content: io.FileIO) -> None:
    with pytest.raises(OSError) as caught:
        core.write_all(content.fileno(), b"x", 0)
    assert caught.value.errno == errno.EBADF


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_write_all_to_a_full_device(core: ModuleType) -> None:
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(OSError) as caught:
        core.write_all(file.fileno(), b"x", 0)
    assert caught.value.errno == errno.ENOSPC


def test_write_all_to_what_takes_nothing_comes_to_an_end(monkeypatch: pytest.MonkeyPatch, content: io.FileIO) -> None:
    monkeypatch.setattr(_pyblock, "_write_at", lambda fd, data, offset: 0)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        _pyblock.write_all(content.fileno(), b"data", 0)


def test_write_all_of_impossible_numbers(core: ModuleType) -> None:
    with pytest.raises(ValueError, match="outside"):
        core.write_all(0, b"x", -1)
    with pytest.raises(ValueError, match="end beyond"):
        core.write_all(0, b"xx", TOP - 1)


# ---- Like the twin ----


@given(st.integers(0, TOP), st.binary(max_size=12), st.integers(0, 12))
def test_varints_like_the_twin(value: int, data: bytes, pos: int) -> None:
    assert spaceblock.core.encode_uint_var(value) == _pyblock.encode_uint_var(value)
    assert result(spaceblock.core.decode_uint_var, data, pos) == result(_pyblock.decode_uint_var, data, pos)


@given(st.integers(0, TOP), st.integers(0, TOP - 5000), st.integers(0, 5000), st.integers(1, 900), st.integers(0, 200))
def test_frames_like_the_twin(item: int, start: int, size: int, block_size: int, room: int) -> None:
    results = []
    for core in (_pyblock, spaceblock.core):
        out, table = bytearray(room), words(4 * 20)
        done = core.frame_blocks(out, table, item, start, start + size, block_size)
        results.append((done, bytes(out), quads(table, done[0])))
    assert results[0] == results[1]


def result(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except ValueError as error:
        return str(error)
