"""Pipes, file objects and asynchronous iterators as sources, from when they are given to their end."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import mmap
import os
import pty
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from spaceblock.blocks import Full, Partial
from spaceblock.core import MESSAGE_DATA_MAX
from spaceblock.errors import (
    LocalProtocolError,
    NoSpace,
    SourceChanged,
    SourceError,
    SpaceblockError,
    StorageError,
    TransferCancelled,
)
from spaceblock.limits import SLOT_SIZE
from spaceblock.storage.feed import Feed, Filled
from spaceblock.storage.files import FileSource
from spaceblock.storage.sources import (
    BufferSource,
    Item,
    Prepared,
    StreamSource,
    hold_buffers,
    prepare,
    release_buffers,
    stop_reading,
)
from spaceblock.wire.messages import ItemEnd
from support import BLOCK, Piece, no_more_descriptors, open_descriptors, pattern, read_stream

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


def prepared(*things: object) -> Prepared:
    return prepare(hold_buffers(things))


def carried(offer: Prepared, slot_size: int = SLOT_SIZE) -> tuple[bytes, bytes]:
    """The bytes that travel for the only item of ``offer``, and their digest; the error if it is given up."""
    feed = Feed([0], offer.sources, offer.requests.block_size)
    slot = memoryview(bytearray(slot_size))
    stream = b""
    sent: list[tuple[int, int, bytes | None]] = []
    filled = Filled()
    try:
        while not filled.done:
            filled = feed.fill(slot)
            stream += b"".join(filled.pieces)
            sent += filled.sent
            filled.release()
            for _, error in filled.aborted:
                raise error
    finally:
        feed.close()
        offer.release()
    ((item, size, digest),) = sent
    assert digest is not None
    *pieces, end = read_stream(stream)
    assert end == ItemEnd(item, size)
    start = offer.requests.items[0].start
    data = b""
    for piece in pieces:
        assert isinstance(piece, Piece)
        assert piece.offset == start + len(data), "offsets ascend without gaps"
        grid = offer.requests.block_size
        assert piece.offset // grid == (piece.offset + len(piece.data) - 1) // grid, "no block crosses the grid"
        data += piece.data
    return data, digest


@contextmanager
def piped(data: bytes) -> Iterator[io.BufferedReader]:
    """The reading end of a pipe that somebody writes ``data`` to."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as file:
        yield file
    writer.join()


# Plain files that are open already.


def test_an_open_file_is_sent_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello you")
    with open(tmp_path / "a", "rb") as file:
        file.seek(6)
        offer = prepared(file)
        (source,) = offer.sources
        assert isinstance(source, FileSource)
        assert (source.name, source.request.range, source.request.rereadable) == (None, Partial(6, 9), True)
        assert carried(offer)[0] == b"you"
        assert file.read() == b"you", "the caller's own position did not move"


def test_an_open_file_can_be_closed_and_its_name_removed_before_it_was_offered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    with open(path, "rb") as file:
        path.unlink()
        held = hold_buffers([Item(file, name="x")])
    offer = prepare(held)
    assert offer.sources[0].name == "x"
    assert carried(offer)[0] == b"hello"


def test_what_was_written_to_an_open_file_is_part_of_it() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"hello you")
        file.seek(0)
        assert carried(prepared(Item(file, range=(1, 4))))[0] == b"ell"


def test_an_open_file_that_grows_has_changed(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w+b", buffering=0) as file:
        file.write(b"hello")
        file.seek(0)
        offer = prepared(file)
        file.seek(0, os.SEEK_END)
        file.write(b" you")
        with pytest.raises(SourceChanged, match="grew after it was offered"):
            carried(offer)


def test_an_open_file_behind_its_end_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    with open(tmp_path / "a", "rb") as file:
        file.seek(100)
        assert carried(prepared(file))[0] == b""


# Memory.


def test_mapped_memory_is_a_buffer(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    with open(tmp_path / "a", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        offer = prepared(mapped)
        assert isinstance(offer.sources[0], BufferSource)
        assert carried(offer)[0] == b"hello"


def test_an_array_is_its_bytes() -> None:
    values = np.arange(100_000, dtype="<i8").reshape(100, 1000)
    assert carried(prepared(values))[0] == values.tobytes()


def test_a_file_in_memory_is_a_buffer_from_where_it_stands() -> None:
    file = io.BytesIO(b"hello you")
    file.read(6)
    offer = prepared(file)
    assert isinstance(offer.sources[0], BufferSource)
    with pytest.raises(BufferError):
        file.write(b"x" * 100)
    assert carried(offer)[0] == b"you"
    file.write(b"x" * 100)


# Pipes.


@pytest.mark.parametrize("size", [0, 1, 100, 65_536, BLOCK + 1, 3 * MESSAGE_DATA_MAX + 5])
@pytest.mark.parametrize("slot_size", [8_192, SLOT_SIZE])
def test_a_pipe_is_sent_to_its_end_whose_place_nobody_knew(size: int, slot_size: int) -> None:
    data = pattern(size)
    with piped(data) as pipe:
        offer = prepared(pipe)
        (source,) = offer.sources
        assert isinstance(source, StreamSource)
        assert (source.request.size, source.request.range, source.request.rereadable) == (None, Full(), False)
        assert carried(offer, slot_size) == (data, blake3(data).digest())


def test_what_the_caller_has_read_of_a_pipe_is_not_sent_again_and_what_is_read_ahead_is_not_lost() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        os.write(writing, b"head\nbody")
        assert pipe.readline() == b"head\n"
        offer = prepared(pipe)
        os.write(writing, b" and tail")
        os.close(writing)
        assert carried(offer)[0] == b"body and tail"


def test_what_was_read_ahead_is_sent_before_more_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        os.write(writing, b"head\nbody")
        pipe.readline()
        offer = prepared(pipe)
        feed = Feed([0], offer.sources, BLOCK)
        filled = feed.fill(memoryview(bytearray(SLOT_SIZE)))
        (piece,) = read_stream(b"".join(filled.pieces))
        assert isinstance(piece, Piece)
        assert (piece.data, filled.done) == (b"body", False)
        feed.close()
        offer.release()
        os.close(writing)
    assert os.get_blocking(0)


def test_nothing_that_came_is_held_back_for_what_is_still_to_come() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        offer = prepared(pipe)
        feed = Feed([0], offer.sources, BLOCK)
        slot = memoryview(bytearray(SLOT_SIZE))
        feed.fill(slot[:0])
        for word in (b"one", b"two"):
            os.write(writing, word)
            (piece,) = read_stream(b"".join(feed.fill(slot).pieces))
            assert isinstance(piece, Piece)
            assert piece.data == word
        os.close(writing)
        assert feed.fill(slot).done
        feed.close()
        offer.release()


@pytest.mark.parametrize("how", ["stopped", "refused"])
def test_a_wait_for_a_pipe_can_be_called_off(how: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        held = hold_buffers([pipe])
        feed = Feed([0], prepare(held).sources, BLOCK)
        results: list[Filled] = []
        thread = threading.Thread(target=lambda: results.append(feed.fill(memoryview(bytearray(SLOT_SIZE)))))
        thread.start()
        if how == "stopped":
            stop_reading(held)
        else:
            feed.refuse(0, NoSpace("the receiver's disk is full: free some space", remote=True))
        thread.join(60)
        ((_, error),) = results[0].aborted
        assert isinstance(error, TransferCancelled if how == "stopped" else NoSpace)
        feed.close()
        release_buffers(held)
        stop_reading(held)
        os.close(writing)


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_without_descriptors_a_pipe_is_refused_as_such_and_none_is_lost(spare: int) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb"):
        before = open_descriptors()
        with no_more_descriptors(spare), pytest.raises(SourceError, match="cannot hold source 1") as raised:
            hold_buffers([b"before it", pipe])
        assert raised.value.errno == errno.EMFILE
        assert open_descriptors() == before


def test_without_descriptors_an_open_file_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    with (tmp_path / "file").open("rb") as file, no_more_descriptors(), pytest.raises(SourceError) as raised:
        hold_buffers([file])
    assert raised.value.errno == errno.EMFILE


def test_a_socket_is_a_stream_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as file:
        theirs.sendall(b"hello")
        theirs.shutdown(socket.SHUT_WR)
        assert carried(prepared(file))[0] == b"hello"


def test_an_error_of_the_device_is_told_with_its_number() -> None:
    """A terminal whose other end is gone fails with EIO."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        os.close(theirs)
        with pytest.raises(SourceError, match="input/output error") as caught:
            carried(prepared(Item(terminal, name="tty")))
    assert (caught.value.errno, caught.value.phase, caught.value.name) == (5, "transferring", "tty")


# Other file objects.


def test_a_compressed_file_is_sent_as_what_is_in_it(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        file.write(pattern(300_000))
    with gzip.open(tmp_path / "a.gz", "rb") as unpacked:
        unpacked.read(10)
        offer = prepared(unpacked)
        assert offer.requests.items[0].size == 300_000
        assert carried(offer)[0] == pattern(300_000)[10:]


class Words:
    """The least that is a file object."""

    def __init__(self, *words: Any) -> None:
        self._words = list(words)

    def read(self, size: int) -> Any:
        word = self._words.pop(0) if self._words else b""
        if isinstance(word, Exception):
            raise word
        return word


def test_whatever_has_read_is_a_file_object() -> None:
    offer = prepared(Words(b"hello", b" ", b"you"))
    assert not offer.requests.items[0].rereadable
    assert carried(offer)[0] == b"hello you"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("text", "gave text: let it give bytes"),
        (None, "does not wait for bytes"),
        (ValueError("no"), "raised ValueError"),
        (ConnectionResetError(104, "reset"), "connection reset"),
        (b"x" * 2_000_000, "says it read 2000000 bytes of"),
    ],
    ids=["text", "nothing", "any error", "a system's error", "too much"],
)
def test_a_file_object_that_misbehaves_is_an_error_of_the_source(word: object, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        carried(prepared(Words(b"hello", word)))


@pytest.mark.parametrize("method", ["readinto", "readinto1"])
@pytest.mark.parametrize("count", [-1, 2_000_000, 10**9, 2.0, "5"])
def test_a_file_object_that_says_it_read_what_cannot_be_sends_nothing_of_that(count: object, method: str) -> None:
    words = Words()
    setattr(words, method, lambda room: count)
    offer = prepared(words)
    feed = Feed([0], offer.sources, offer.requests.block_size)
    filled = feed.fill(memoryview(bytearray(b"x" * SLOT_SIZE)))
    ((item, error),) = filled.aborted
    assert item == 0
    assert isinstance(error, SourceError)
    assert f"says it read {count!r} bytes of" in str(error)
    assert b"xx" not in b"".join(filled.pieces), "what was in the buffer before"
    filled.release()
    feed.close()
    offer.release()


class Shrinking(io.BytesIO):
    """A file object whose end is not where it was when it was asked."""

    def __init__(self, data: bytes, change: int) -> None:
        super().__init__(data)
        self._size = len(data) - change

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(self._size if whence == os.SEEK_END else offset)


@pytest.mark.parametrize(("change", "reason"), [(1, "goes on behind"), (-1, "ended before")])
def test_a_file_object_that_has_more_or_less_than_it_said_has_changed(change: int, reason: str) -> None:
    with pytest.raises(SourceChanged, match=reason):
        carried(prepared(Shrinking(b"hello", change)))


def test_text_closed_and_writing_files_are_refused_at_once(tmp_path: Path) -> None:
    with ExitStack() as files, open(tmp_path / "a", "wb") as writing:
        closed = files.enter_context(open(tmp_path / "a", "rb"))
        closed.close()
        text = files.enter_context(open(tmp_path / "a"))
        detached = open(tmp_path / "a", "rb")  # noqa: SIM115
        files.enter_context(detached.detach())
        in_memory = io.BytesIO()
        in_memory.close()
        files_and_reasons = [
            (text, "binary mode"),
            (closed, "closed"),
            (detached, "closed"),
            (in_memory, "closed"),
            (writing, "not open for reading"),
        ]
        for file, reason in files_and_reasons:
            with pytest.raises(LocalProtocolError, match=reason):
                hold_buffers([file])
    with pytest.raises(LocalProtocolError, match="binary mode"):
        hold_buffers([io.StringIO("x")])


def test_a_range_of_a_stream_is_refused_at_once() -> None:
    with piped(b"hello") as pipe, pytest.raises(LocalProtocolError, match="a range can only be asked"):
        hold_buffers([Item(pipe, range=(0, 1))])


# Asynchronous iterators.


async def pieces(*items: Any, ended: list[str] | None = None) -> AsyncIterator[Any]:
    try:
        for item in items:
            if isinstance(item, BaseException):
                raise item
            yield item
            await asyncio.sleep(0)
    finally:
        if ended is not None:
            ended.append("ended")


async def carried_aside(offer: Prepared) -> tuple[bytes, bytes]:
    return await asyncio.to_thread(carried, offer)


async def test_an_iterator_is_sent_to_its_end() -> None:
    ended: list[str] = []
    offer = prepared(pieces(b"one", b"", bytearray(b"two"), np.frombuffer(b"three", "u1"), ended=ended))
    assert (offer.requests.items[0].size, offer.requests.items[0].rereadable) == (None, False)
    assert (await carried_aside(offer))[0] == b"onetwothree"
    assert ended == ["ended"]


async def test_an_iterator_of_large_pieces_is_sent_in_order() -> None:
    parts = [pattern(700_000, seed) for seed in range(6)]
    data, digest = await carried_aside(prepared(pieces(*parts)))
    assert data == b"".join(parts)
    assert digest == blake3(data).digest()


async def test_a_piece_may_be_used_again_by_its_maker() -> None:
    async def counted() -> AsyncIterator[bytearray]:
        buffer = bytearray(1)
        for buffer[0] in range(200):
            yield buffer

    assert (await carried_aside(prepared(counted())))[0] == bytes(range(200))


async def test_an_iterator_is_only_a_bounded_way_ahead() -> None:
    made = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(100_000)

    held = hold_buffers([endless()])
    feed = Feed([0], prepare(held).sources, BLOCK)
    await asyncio.to_thread(feed.fill, memoryview(bytearray(8_192)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert made <= 12
    stop_reading(held)
    await asyncio.to_thread(release_buffers, held)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("text", "gave text"),
        (5, "gave an int: let it give bytes"),
        (ValueError("no"), "raised ValueError"),
        (OSError(5, "no"), "input/output error"),
        (asyncio.CancelledError(), "raised CancelledError"),
    ],
    ids=["text", "a number", "an error", "a system's error", "a cancel"],
)
async def test_an_iterator_that_fails_is_an_error_of_the_source(item: object, reason: str) -> None:
    with pytest.raises(SpaceblockError, match=reason):
        await carried_aside(prepared(pieces(b"hello", item)))


async def test_an_iterator_that_nobody_wants_any_more_is_closed() -> None:
    ended: list[str] = []
    never = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        try:
            yield b"hello"
            await never.wait()
        finally:
            ended.append("ended")

    held = hold_buffers([waiting()])
    feed = Feed([0], prepare(held).sources, BLOCK)
    slot = memoryview(bytearray(SLOT_SIZE))
    await asyncio.to_thread(feed.fill, slot)
    waits = asyncio.create_task(asyncio.to_thread(feed.fill, slot))
    await asyncio.sleep(0)
    feed.refuse(0, StorageError("no: try again"))
    filled = await waits
    assert [str(error) for _, error in filled.aborted] == ["no: try again"]
    await asyncio.to_thread(release_buffers, held)
    assert ended == ["ended"]


async def test_an_iterator_that_was_not_begun_is_left_alone() -> None:
    iterator = pieces(b"hello")
    held = hold_buffers([iterator])
    stop_reading(held)
    release_buffers(held)
    assert [piece async for piece in iterator] == [b"hello"]


async def test_an_iterator_that_is_stopped_before_its_first_step_ends() -> None:
    held = hold_buffers([pieces(b"hello")])
    feed = Feed([0], prepare(held).sources, BLOCK)
    worker = threading.Thread(target=partial(feed.fill, memoryview(bytearray(SLOT_SIZE))))
    worker.start()
    worker.join(0.05)  # the loop does not run meanwhile, so that the first step is still to come
    stop_reading(held)
    await asyncio.to_thread(release_buffers, held)
    await asyncio.to_thread(worker.join)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system how much a pipe holds")
def test_a_pipe_is_made_wide() -> None:
    import fcntl

    with piped(b"") as pipe:
        offer = prepared(pipe)
        assert fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ) >= 1_048_576
        offer.release()
