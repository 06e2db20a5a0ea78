"""Receiving into what callers give, one for each item: buffers, filled in place, file objects, pipes, or nothing."""

from __future__ import annotations

import array
import errno
import io
import os
import pty
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spaceblock import DISCARD
from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import BufferUnfit, NoSpace, StorageError, TransferCancelled
from spaceblock.storage.sinks import IntoSink
from support import (
    BLOCK,
    UUID,
    manifest_of,
    no_more_descriptors,
    open_descriptors,
    pattern,
    requests_of,
)


def fill(sink: IntoSink, item: int, offset: int, data: bytes) -> None:
    """Put bytes where a transfer would."""
    memory = sink.memory(item, offset, len(data))
    assert memory is not None
    with memory:
        memory[:] = data


def test_bytes_land_in_the_buffer_itself() -> None:
    first, second = bytearray(5), bytearray(3)
    sink = IntoSink([first, second])
    assert sink.prepare(requests_of(5, 3), None) == set()
    for item in (0, 1):
        sink.begin(item)
    fill(sink, 0, 0, b"he")
    fill(sink, 1, 0, b"you")
    fill(sink, 0, 2, b"llo")
    for item in (0, 1):
        sink.finish(item)
    assert sink.place([0, 1]) == ["", ""]
    sink.close()
    assert first == b"hello"
    assert second == b"you"
    assert not sink.durable


def test_names_do_not_matter_to_a_buffer() -> None:
    sink = IntoSink([bytearray(1)])
    assert sink.prepare(requests_of(1), manifest_of("../whatever")) == set()
    sink.close()


def test_byte_zero_of_a_buffer_is_the_start_of_the_range() -> None:
    buffer = bytearray(4)
    sink = IntoSink([buffer])
    sink.prepare(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(100, Partial(96, 100)),)), None)
    fill(sink, 0, 98, b"cd")
    fill(sink, 0, 96, b"ab")
    sink.close()
    assert buffer == b"abcd"


@pytest.mark.parametrize(
    "buffer", [array.array("i", [0, 0]), np.zeros(2, "float32"), np.zeros((2, 2), ">i2"), memoryview(bytearray(8))]
)
def test_any_writable_contiguous_buffer_will_do(buffer: bytearray) -> None:
    sink = IntoSink([buffer])
    sink.prepare(requests_of(8), None)
    fill(sink, 0, 0, b"12345678")
    sink.close()
    assert memoryview(buffer).tobytes() == b"12345678"


def test_an_empty_buffer_takes_an_empty_item() -> None:
    sink = IntoSink([bytearray(), np.zeros((0, 3))])
    assert sink.prepare(requests_of(0, 0), None) == set()
    sink.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_one_buffer_for_each_item(count: int) -> None:
    sink = IntoSink([bytearray(5) for _ in range(count)])
    with pytest.raises(BufferUnfit, match=f"into has {count} targets for 2 items"):
        sink.prepare(requests_of(5, 5), None)
    sink.close()


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_buffer_is_exactly_as_long_as_its_item(size: int) -> None:
    sink = IntoSink([bytearray(5), bytearray(size)])
    with pytest.raises(BufferUnfit, match=f"the buffer for item 1 has {size} bytes and the item 5") as caught:
        sink.prepare(requests_of(5, 5), None)
    assert caught.value.item == 1
    assert isinstance(caught.value, ValueError)
    sink.close()


def test_an_item_of_unknown_size_does_not_fit_any_buffer() -> None:
    sink = IntoSink([bytearray(5)])
    with pytest.raises(BufferUnfit, match="not known yet: receive it into a folder or file"):
        sink.prepare(requests_of(None), None)
    sink.close()


def read_only_array() -> bytes:
    values = np.zeros(3)
    values.flags.writeable = False
    return values  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        (b"read-only", "is read-only"),
        (memoryview(b"read-only"), "is read-only"),
        (read_only_array(), "is read-only"),
        (np.zeros(4)[::2], "not C-contiguous"),
        (np.zeros(3, "M8[s]"), r"cannot fill into\[1\]"),
        (np.zeros(3, [("a", "O")]), "holds Python objects"),
        ("text", r"into\[1\] is a str"),
        (None, r"into\[1\] is a NoneType"),
    ],
    ids=["bytes", "view", "array", "strided", "times", "objects", "str", "None"],
)
def test_a_buffer_that_cannot_be_filled_is_refused_and_the_others_are_released(buffer: object, reason: str) -> None:
    good = bytearray(5)
    with pytest.raises(BufferUnfit, match=reason):
        IntoSink([good, buffer])
    good.append(1)


def test_buffers_are_held_until_the_sink_is_closed() -> None:
    buffer = bytearray(5)
    sink = IntoSink([buffer])
    with pytest.raises(BufferError):
        buffer.append(1)
    sink.close()
    buffer.append(1)
    sink.close()


def test_dropping_an_item_leaves_its_buffer_alone() -> None:
    buffer = bytearray(b"abc")
    sink = IntoSink([buffer])
    sink.prepare(requests_of(3), None)
    sink.discard(0)
    sink.close()
    assert buffer == b"abc"


# Files, pipes and nothing.


def take(sink: IntoSink, *pieces: bytes | int, item: int = 0) -> None:
    """Have the sink take a whole item: bytes, and holes by their length."""
    offset = 0
    sink.begin(item)
    for piece in pieces:
        if isinstance(piece, int):
            sink.hole(item, offset, piece)
            offset += piece
        else:
            assert sink.memory(item, offset, len(piece)) is None
            sink.write(item, offset, memoryview(piece))
            offset += len(piece)
    sink.finish(item)


def sink_of(*things: object, size: int | None = None) -> IntoSink:
    sink = IntoSink(things)
    sink.prepare(requests_of(*[size] * len(things)), None)
    return sink


def test_a_file_is_written_to_from_where_it_stands_and_stays_open(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.write(b"before ")
        sink = sink_of(file)
        take(sink, b"hello", b" you")
        sink.close()
        assert (tmp_path / "a").read_bytes() == b"before hello you", "it is flushed"
        file.write(b" after")
    assert (tmp_path / "a").read_bytes() == b"before hello you after"


def test_a_file_without_a_buffer_takes_what_it_takes_at_a_time(tmp_path: Path) -> None:
    class Slow(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    sink = sink_of(slow)
    take(sink, b"hello you")
    sink.close()
    assert slow.taken == b"hello you"


@pytest.mark.parametrize("count", [0, -1, 6, 10**9, 2.0, "5"])
def test_a_file_object_that_says_it_took_what_cannot_be_is_given_no_more(count: object) -> None:
    class Odd:
        writes = 0

        def write(self, data: Any) -> object:
            self.writes += 1
            assert self.writes == 1
            return count

    sink = sink_of(Odd())
    with pytest.raises(StorageError, match=rf"into\[0\] says it took {count!r} bytes of 5: let it return"):
        take(sink, b"hello")
    sink.close()


@pytest.mark.parametrize("make", [io.BytesIO, tempfile.SpooledTemporaryFile, tempfile.NamedTemporaryFile])
def test_any_binary_file_object_will_do(make: Any) -> None:
    with make() as file:
        sink = sink_of(file)
        take(sink, b"hello", 3, b"you")
        sink.close()
        file.seek(0)
        assert file.read() == b"hello\0\0\0you"


def test_a_hole_in_a_new_file_takes_no_space(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        sink = sink_of(file)
        take(sink, b"start", 50_000_000, b"middle", 50_000_000)
        sink.close()
    status = (tmp_path / "a").stat()
    assert status.st_size == 100_000_011
    assert status.st_blocks * 512 < 1_000_000
    with open(tmp_path / "a", "rb") as file:
        file.seek(49_999_999)
        assert file.read(20) == bytes(6) + b"middle" + bytes(8)


def test_a_hole_replaces_what_was_in_a_file_before(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 20)
    with open(tmp_path / "a", "r+b") as file:
        sink = sink_of(file)
        take(sink, b"ab", 5, b"cd", 3)
        sink.close()
    assert (tmp_path / "a").read_bytes() == b"ab" + bytes(5) + b"cd" + bytes(3) + b"x" * 8


def test_a_hole_in_a_file_that_is_appended_to_is_zeros(tmp_path: Path) -> None:
    """Whatever is written to such a file goes to its end, so that nothing can be left out."""
    (tmp_path / "a").write_bytes(b"before ")
    with open(tmp_path / "a", "ab") as file:
        sink = sink_of(file)
        take(sink, b"ab", 5, b"cd", 3)
        sink.close()
    assert (tmp_path / "a").read_bytes() == b"before ab" + bytes(5) + b"cd" + bytes(3)


def test_a_hole_in_a_buffer_is_zeros() -> None:
    buffer = bytearray(b"x" * 3_000_000)
    sink = IntoSink([buffer])
    sink.prepare(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(4_000_000, Partial(10, 3_000_010)),)), None)
    sink.hole(0, 11, 2_999_998)
    sink.close()
    assert buffer == b"x" + bytes(2_999_998) + b"x"


def test_a_pipe_takes_more_than_it_holds_while_somebody_reads() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out, os.fdopen(writing, "wb") as pipe:
        sink = sink_of(pipe)
        pipe.close()  # the sink has a descriptor of its own
        with ThreadPoolExecutor() as workers:
            read = workers.submit(out.read)
            take(sink, pattern(3_000_000), 100_000, b"end")
            sink.close()
            assert read.result(60) == pattern(3_000_000) + bytes(100_000) + b"end"
    assert sink.is_program


def test_a_pipe_still_waits_for_all_other_programs_that_have_it() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as pipe:
        sink = sink_of(pipe)
        assert os.get_blocking(writing)
        sink.close()


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_a_write_that_waits_for_its_reader_can_be_called_off(kind: str) -> None:
    with ExitStack() as files:
        if kind == "pipe":
            ours, theirs = os.pipe()
        elif kind == "socket":
            ours, theirs = (end.detach() for end in socket.socketpair())
        else:
            ours, theirs = pty.openpty()
        files.enter_context(os.fdopen(ours, "rb", buffering=0))
        sink = sink_of(files.enter_context(os.fdopen(theirs, "wb", buffering=0)))
        with ThreadPoolExecutor() as workers:
            waiting = workers.submit(take, sink, bytes(5_000_000))
            sink.stop()
            with pytest.raises(TransferCancelled):
                waiting.result(60)
        with pytest.raises(TransferCancelled):
            sink.write(0, 0, memoryview(b"more"))
        sink.close()
        sink.stop()


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_without_descriptors_a_pipe_is_refused_as_such_and_none_is_lost(spare: int) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as pipe:
        before = open_descriptors()
        with no_more_descriptors(spare), pytest.raises(StorageError, match="into") as raised:
            IntoSink([bytearray(1), pipe])
        assert raised.value.errno == errno.EMFILE
        assert open_descriptors() == before


def test_a_pipe_that_nobody_reads_any_more_is_a_storage_error() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        sink = sink_of(pipe)
        os.close(reading)
        with pytest.raises(StorageError, match="keep the program that reads it running") as caught:
            take(sink, b"x")
        assert (caught.value.errno, caught.value.item, caught.value.phase) == (errno.EPIPE, 0, "transferring")
        sink.close()


@pytest.mark.parametrize("buffering", [0, 1_000_000])
def test_a_full_device_is_a_lack_of_space(buffering: int) -> None:
    with open("/dev/full", "wb", buffering=buffering) as full:
        sink = sink_of(full)
        with pytest.raises(NoSpace, match="no space left") as caught:
            take(sink, b"x")
        assert (caught.value.errno, caught.value.item, caught.value.phase) == (errno.ENOSPC, 0, "transferring")
        sink.close()


def test_a_terminal_that_is_gone_fails_with_the_systems_reason() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb", buffering=0) as terminal:
        sink = sink_of(terminal)
        os.close(ours)
        with pytest.raises(StorageError) as caught:
            take(sink, b"x")
        assert caught.value.errno == errno.EIO
        sink.close()


def test_whatever_a_file_object_raises_is_a_storage_error() -> None:
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise ZeroDivisionError

    sink = sink_of(Broken())
    with pytest.raises(StorageError, match=r"into\[0\] raised ZeroDivisionError") as caught:
        take(sink, b"x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


class Unwilling(io.BytesIO):
    """Does not even say what it is."""

    def writable(self) -> bool:
        raise OSError(errno.EIO, "unused")


def test_an_error_of_a_file_that_is_asked_what_it_is_keeps_its_number() -> None:
    with pytest.raises(StorageError) as caught:
        IntoSink([Unwilling()])
    assert caught.value.errno == errno.EIO


def detached() -> object:
    file = io.BufferedWriter(io.BytesIO())
    file.detach()
    return file


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (io.StringIO(), "is a text file"),
        (detached(), "is closed"),
        (open(os.devnull, "rb"), "not open for writing"),  # noqa: SIM115
        (DISCARD.value, "neither a buffer nor a file"),
        (Path("a"), "neither a buffer nor a file"),
    ],
    ids=["text", "detached", "reading", "a word", "a path"],
)
def test_what_cannot_be_written_to_is_refused_before_data_moves(thing: object, reason: str) -> None:
    with pytest.raises(BufferUnfit, match=reason):
        IntoSink([thing])


def test_discard_takes_everything_and_keeps_nothing() -> None:
    sink = sink_of(DISCARD, DISCARD, size=None)
    take(sink, pattern(100), 2**60)
    assert sink.place([0]) == [""]
    assert sink.forgets(0)
    assert repr(DISCARD) == "spaceblock.DISCARD"
    assert not sink.is_program
    sink.close()
