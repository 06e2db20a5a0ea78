"""Pipes, programs and iterators at either end: nothing is spooled, nobody waits for ever, and what fails is told."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import pty
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pytest

import spaceblock
from spaceblock import DISCARD, Phase

from .support import (
    PATIENCE,
    Pair,
    assert_helpful,
    deliver,
    digest_of,
    failure,
    failures,
    file_of,
    pair,
    tree,
    until,
    within,
)


@contextmanager
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Both ends of a pipe, the reading one first."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as out, os.fdopen(writing, "wb", buffering=0) as into:
        yield out, into


@contextmanager
def written(data: bytes) -> Iterator[BinaryIO]:
    """The reading end of a pipe that a program writes ``data`` to."""
    with pipe() as (out, into):

        def write() -> None:
            with suppress(BrokenPipeError), into:
                left = memoryview(data)
                while left:  # a write into a pipe takes less when this program is stopped meanwhile
                    left = left[into.write(left[:50_000]) :]

        writer = threading.Thread(target=write)
        writer.start()
        try:
            yield out
        finally:
            out.close()
            writer.join()


async def pieces(*items: bytes) -> AsyncIterator[bytes]:
    for item in items:
        yield item
        await asyncio.sleep(0)


async def offered(peers: Pair, *sources: object) -> tuple[spaceblock.Transfer, spaceblock.Offer]:
    sending = peers.here.send(*sources)
    return sending, await peers.offer()


# It arrives.


async def test_a_pipe_arrives_in_a_folder_and_its_size_is_known_at_the_end(inbox: Path) -> None:
    data = os.urandom(3_000_000)
    with written(data) as source:
        async with pair() as peers:
            sending, offer = await offered(peers, spaceblock.Item(source, name="dump.sql"))
            assert (offer.items[0].name, offer.items[0].size, offer.total_size) == ("dump.sql", None, None)
            assert not offer.items[0].rereadable
            receiving = offer.accept(inbox)
            sent, received = await within(asyncio.gather(sending, receiving))
    assert tree(inbox) == {"dump.sql": data}
    assert sent.items == received.items
    assert (received.items[0].size, received.items[0].digest) == (3_000_000, digest_of(data))
    assert (sending.progress.bytes_done, sending.progress.bytes_total) == (3_000_000, None)


async def test_an_iterator_arrives_wherever_it_is_wanted(inbox: Path) -> None:
    file = io.BytesIO()
    async with pair() as peers:
        await deliver(peers, spaceblock.Item(pieces(b"one", b"two"), name="x"), folder=inbox)
        await deliver(peers, pieces(b"three", b"four"), into=[file])
        await deliver(peers, pieces(), spaceblock.Item(pieces(), name="empty"), folder=inbox)
    assert tree(inbox) == {"x": b"onetwo", "unnamed-0": b"", "empty": b""}
    assert file.getvalue() == b"threefour"


async def test_from_pipe_to_pipe_nothing_is_spooled(inbox: Path) -> None:
    """The writer cannot be further ahead of the reader than what buffers hold, however much there is to send."""
    data = os.urandom(60_000_000)
    with written(data) as source, pipe() as (out, into), ThreadPoolExecutor() as workers:
        async with pair() as peers:
            sending, offer = await offered(peers, source)
            receiving = offer.accept(into=[into])
            await until(lambda: receiving.progress.phase is Phase.SINK, "the receiver's program")
            into.close()
            await until(lambda: sending.progress.phase is Phase.SINK, "the sender to hear of it")
            assert sending.progress.bytes_done < 50_000_000
            read = workers.submit(out.read)
            _, received = await within(asyncio.gather(sending, receiving))
        assert read.result(PATIENCE) == data
    assert received.items[0].digest == digest_of(data)


async def test_several_streams_and_files_travel_together(tmp_path: Path, inbox: Path) -> None:
    streams = [spaceblock.Item(pieces(bytes([n]) * 10_000, b"end"), name=f"stream-{n}") for n in range(5)]
    files = [file_of(tmp_path, f"file-{n}", 5_000) for n in range(5)]
    with written(b"piped" * 1000) as source:
        async with pair() as peers:
            await deliver(peers, *streams, source, *files, b"buffer", folder=inbox)
    expected = {f"stream-{n}": bytes([n]) * 10_000 + b"end" for n in range(5)}
    expected.update({file.name: file.read_bytes() for file in files})
    assert tree(inbox) == {**expected, "unnamed-5": b"piped" * 1000, "unnamed-11": b"buffer"}


async def test_an_open_file_is_read_where_it_stands_and_filled_where_it_stands(tmp_path: Path) -> None:
    source = file_of(tmp_path, "source", 500_000)
    with source.open("rb") as file, (tmp_path / "target").open("w+b") as target:
        file.seek(1000)
        target.write(b"before")
        async with pair() as peers:
            await deliver(peers, file, into=[target])
        assert file.tell() == 1000
    assert (tmp_path / "target").read_bytes() == b"before" + source.read_bytes()[1000:]


async def test_what_is_discarded_is_verified_all_the_same() -> None:
    data = os.urandom(2_000_000)
    async with pair() as peers:
        sent, received = await deliver(peers, data, b"kept", into=[DISCARD, kept := bytearray(4)])
    assert kept == b"kept"
    assert sent.items == received.items
    assert received.items[0].digest == digest_of(data)


# It waits.

HASTY = spaceblock.Options(timeouts=spaceblock.Timeouts(idle=1.0, source=60.0, close=1.0))


async def test_a_source_that_gives_nothing_for_a_while_is_no_dead_peer(inbox: Path) -> None:
    with pipe() as (out, into):
        async with pair(HASTY) as peers:
            sending, offer = await offered(peers, spaceblock.Item(out, name="slow"))
            receiving = offer.accept(inbox)
            into.write(b"begin ")
            await until(lambda: receiving.progress.phase is Phase.SOURCE, "the receiver to hear of it")
            assert sending.progress.phase is Phase.SOURCE
            assert receiving.progress.bytes_done == 6, "what came was not held back"
            loop = asyncio.get_running_loop()
            long_enough = loop.time() + 2 * HASTY.timeouts.idle
            await until(lambda: loop.time() > long_enough)
            into.write(b"end")
            into.close()
            await within(asyncio.gather(sending, receiving))
    assert tree(inbox) == {"slow": b"begin end"}


async def test_a_source_that_gives_nothing_for_ever_ends_with_the_reason(inbox: Path) -> None:
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(source=0.5, close=1.0))
    with pipe() as (out, _):
        async with pair(options) as peers:
            sending, offer = await offered(peers, out)
            ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == "waiting for the sender's program"
    assert (ours.remote, theirs.remote) == (False, True)
    assert_helpful(ours, theirs)
    assert tree(inbox) == {}


async def test_a_program_that_takes_nothing_for_ever_ends_with_the_reason() -> None:
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(sink=0.5, close=1.0))
    with pipe() as (_, into):
        async with pair(options) as peers:
            sending, offer = await offered(peers, bytes(30_000_000))
            ours, theirs = await failures(sending, offer.accept(into=[into]))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.Stalled)
        assert error.phase == "waiting for the receiver's program"
    assert_helpful(ours, theirs)


@pytest.mark.usefixtures("connections_live_on")
@pytest.mark.parametrize("who", ["sender", "receiver", "both"])
@pytest.mark.parametrize("kind", ["pipe", "iterator"])
async def test_a_transfer_that_waits_for_its_source_can_be_cancelled(who: str, kind: str, inbox: Path) -> None:
    never = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"begin"
        await never.wait()

    with pipe() as (out, into):
        into.write(b"begin")
        async with pair() as peers:
            sending, offer = await offered(peers, out if kind == "pipe" else endless())
            receiving = offer.accept(inbox)
            await until(lambda: sending.progress.bytes_done == 5)
            for transfer, names in ((sending, ("sender", "both")), (receiving, ("receiver", "both"))):
                if who in names:
                    transfer.cancel()
            errors = await failures(sending, receiving)
        assert all(isinstance(error, spaceblock.TransferCancelled) for error in errors)
        into.write(b"nobody hangs")
    assert tree(inbox) == {}


@pytest.mark.usefixtures("connections_live_on")
async def test_nothing_stays_of_what_can_be_read_once_however_much_was_durable(inbox: Path) -> None:
    with pipe() as (out, into):
        into.write(b"begin")
        async with pair(spaceblock.Options(limits=spaceblock.Limits(not_durable=1024))) as peers:
            sending, offer = await offered(peers, spaceblock.Item(out, name="stream"))
            receiving = offer.accept(inbox)
            await until(lambda: receiving.progress.bytes_done == 5)
            into.write(bytes(60_000))
            await until(lambda: receiving.progress.durable > 0)
            sending.cancel()
            await failures(sending, receiving)
    assert tree(inbox) == {}


@pytest.mark.usefixtures("connections_live_on")
@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_a_transfer_that_waits_for_the_receivers_program_can_be_cancelled(who: str) -> None:
    with pipe() as (_, into):
        async with pair() as peers:
            sending, offer = await offered(peers, bytes(30_000_000))
            receiving = offer.accept(into=[into])
            await until(lambda: sending.progress.phase is Phase.SINK)
            (sending if who == "sender" else receiving).cancel()
            errors = await failures(sending, receiving)
    assert all(isinstance(error, spaceblock.TransferCancelled) for error in errors)


async def test_a_declined_stream_is_left_as_it_was() -> None:
    iterator = pieces(b"still", b"here")
    with pipe() as (out, into):
        into.write(b"still here")
        async with pair() as peers:
            sending, offer = await offered(peers, out, iterator)
            await offer.decline("no thanks")
            assert isinstance(await failure(sending), spaceblock.TransferRefused)
        assert out.read(10) == b"still here"
    assert [piece async for piece in iterator] == [b"still", b"here"]


# It fails.


async def test_an_iterator_that_fails_is_told_and_the_rest_goes_on(inbox: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begin"
        raise ValueError("/home/me/secret")

    async with pair() as peers:
        sending, offer = await offered(peers, spaceblock.Item(broken(), name="a"), spaceblock.Item(b"x", name="b"))
        ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceError)
        assert (error.code, error.item, error.phase) == ("source", 0, "transferring")
    assert isinstance(ours.__cause__, ValueError)
    assert "secret" not in str(theirs)
    assert_helpful(ours, theirs)
    assert tree(inbox) == {"b": b"x"}


class Failing:
    """A file object that fails with whatever it is given."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def read(self, size: int) -> bytes:
        raise self._error

    def write(self, data: memoryview) -> int:
        raise self._error


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_an_object_that_raises_what_would_end_a_program_is_told_as_one_that_fails(error: BaseException) -> None:
    """A worker thread is not what it would end, and nobody would hear of it."""
    async with pair() as peers:
        sending, offer = await offered(peers, Failing(error))
        for told in await failures(sending, offer.accept(into=[spaceblock.DISCARD])):
            assert isinstance(told, spaceblock.SourceError)
            assert f"raised {type(error).__name__}:" in str(told)
        sending, offer = await offered(peers, b"something")
        for told in await failures(sending, offer.accept(into=[Failing(error)])):
            assert isinstance(told, spaceblock.StorageError)


async def test_an_iterator_whose_own_work_is_cancelled_is_told_as_one_that_fails() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"begin"
        raise asyncio.CancelledError

    async with pair() as peers:
        sending, offer = await offered(peers, broken())
        for told in await failures(sending, offer.accept(into=[spaceblock.DISCARD])):
            assert isinstance(told, spaceblock.SourceError)
            assert "raised CancelledError:" in str(told)


async def test_a_device_that_fails_at_the_source_is_told_with_its_number(inbox: Path) -> None:
    ours_end, other_end = pty.openpty()
    with os.fdopen(ours_end, "rb", buffering=0) as terminal:
        os.close(other_end)
        async with pair() as peers:
            sending, offer = await offered(peers, terminal)
            ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceError)
        assert (error.errno, error.item, error.phase) == (errno.EIO, 0, "transferring")
    assert_helpful(ours, theirs)
    assert tree(inbox) == {}


async def sink_fails(into: object) -> tuple[spaceblock.SpaceblockError, spaceblock.SpaceblockError]:
    async with pair() as peers:
        sending, offer = await offered(peers, bytes(200_000))
        ours, theirs = await failures(sending, offer.accept(into=[into]))
    assert_helpful(ours, theirs)
    assert (ours.item, theirs.item, ours.phase, theirs.phase) == (0, 0, "transferring", "transferring")
    assert (ours.remote, theirs.remote) == (True, False)
    assert type(ours) is type(theirs)
    assert ours.errno == theirs.errno
    return ours, theirs


async def test_a_full_device_at_the_sink_is_told_as_a_lack_of_space() -> None:
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0) as full:
        error, _ = await sink_fails(full)
    assert isinstance(error, spaceblock.NoSpace)
    assert error.errno == errno.ENOSPC


async def test_a_program_that_stops_reading_is_told_as_a_broken_pipe() -> None:
    with pipe() as (out, into):
        out.close()
        error, _ = await sink_fails(into)
    assert isinstance(error, spaceblock.StorageError)
    assert error.errno == errno.EPIPE
    assert "keep the program that reads it running" in str(error)


async def test_a_device_that_fails_at_the_sink_is_told_with_its_number() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb", buffering=0) as terminal:
        os.close(ours)
        error, _ = await sink_fails(terminal)
    assert isinstance(error, spaceblock.StorageError)
    assert error.errno == errno.EIO


async def test_what_has_no_known_size_does_not_go_into_a_buffer() -> None:
    async with pair() as peers:
        sending, offer = await offered(peers, pieces(b"x"))
        ours, theirs = await failures(sending, offer.accept(into=[bytearray(1)]))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.BufferUnfit)
        assert error.item == 0
    assert_helpful(ours, theirs)
