"""Reading ahead: the same stream as without it, and nothing is left open, whenever it ends."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spaceblock.errors import TransferCancelled
from spaceblock.limits import SLOT_SIZE
from spaceblock.storage.ahead import AHEAD, Ahead
from spaceblock.storage.feed import Feed, Filled
from spaceblock.storage.sources import hold_buffers, prepare, release_buffers, stop_reading
from spaceblock.transfers.transfer import NoThread
from support import BLOCK, Piece, open_descriptors, pattern, read_stream

SMALL_SLOT = 8_192


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def feed_of(*things: object) -> Feed:
    sources = prepare(hold_buffers(things)).sources
    return Feed(range(len(sources)), sources, BLOCK)


def in_thread(job: Callable[[], None]) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(None, job)


def at_once(job: Callable[[], None]) -> None:
    job()


async def carried(ahead: Ahead, slot_size: int = SMALL_SLOT) -> bytes:
    """The whole stream, with as many buffers under way as a transfer has."""
    stream = bytearray()
    done = False
    while not done:
        while ahead.count < AHEAD:
            ahead.give(memoryview(bytearray(slot_size)))
        filled, _ = await ahead.take()
        done = filled.done
        stream += b"".join(filled.pieces)
        filled.release()
    return bytes(stream)


def content(stream: bytes, item: int) -> bytes:
    pieces = [piece for piece in read_stream(stream) if isinstance(piece, Piece) and piece.item == item]
    return b"".join(piece.data for piece in sorted(pieces, key=lambda piece: piece.offset))


def test_buffers_come_back_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    one, two = pattern(100_000, 1), pattern(30_000, 2)
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "two").write_bytes(two)

    async def scenario() -> bytes:
        ahead = Ahead(feed_of(tmp_path / "one", tmp_path / "two"), in_thread)
        try:
            return await carried(ahead)
        finally:
            ahead.close()

    stream = asyncio.run(scenario())
    assert (content(stream, 0), content(stream, 1)) == (one, two)


def test_where_nothing_was_given_nothing_takes_a_worker(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    asked: list[Callable[[], None]] = []

    async def scenario() -> None:
        Ahead(feed_of(tmp_path / "file"), asked.append).close()

    asyncio.run(scenario())
    assert asked == []


def test_a_worker_fills_what_was_given_before_anybody_takes_it(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(pattern(100_000))

    async def scenario() -> None:
        feed = feed_of(tmp_path / "one")
        ahead = Ahead(feed, at_once)
        slots = [memoryview(bytearray(SMALL_SLOT)) for _ in range(2)]
        for slot in slots:
            ahead.give(slot)
        assert feed.position > SMALL_SLOT
        assert ahead.count == 2
        for slot in slots:
            filled, given_back = await ahead.take()
            assert given_back is slot
            filled.release()
        assert ahead.count == 0
        ahead.close()

    asyncio.run(scenario())


def test_of_a_buffer_no_more_than_the_portion_is_filled(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(pattern(100_000))

    async def scenario() -> None:
        ahead = Ahead(feed_of(tmp_path / "one"), at_once, 7_000)
        ahead.give(memoryview(bytearray(SLOT_SIZE)))
        filled, _ = await ahead.take()
        assert 4_000 < sum(map(len, filled.pieces)) <= 7_000
        filled.release()
        ahead.close()

    asyncio.run(scenario())


def test_closing_lets_go_of_what_was_filled_in_vain() -> None:
    data = bytearray(3 * SMALL_SLOT)

    async def scenario() -> None:
        held = hold_buffers([data])
        sources = prepare(held).sources
        ahead = Ahead(Feed([0], sources, BLOCK), at_once)
        ahead.give(memoryview(bytearray(SMALL_SLOT)))
        ahead.close()
        release_buffers(held)

    asyncio.run(scenario())
    data.append(1)  # which is possible when nobody holds a view of it


def test_closing_ends_with_the_pipe_that_a_worker_waits_for() -> None:
    reading, writing = os.pipe()
    began = threading.Event()

    class Watched(Feed):
        def fill(self, slot: memoryview) -> Filled:
            began.set()
            return super().fill(slot)

    async def scenario(file: io.BufferedReader) -> Filled:
        held = hold_buffers([file])
        ahead = Ahead(Watched([0], prepare(held).sources, BLOCK), in_thread)
        for _ in range(2):
            ahead.give(memoryview(bytearray(SMALL_SLOT)))
        assert began.wait(60)
        stop_reading(held)
        filled, _ = await ahead.take()
        ahead.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        release_buffers(held)
        return filled

    with open(reading, "rb") as file:
        filled = asyncio.run(scenario(file))
    os.close(writing)
    ((item, error),) = filled.aborted
    assert item == 0
    assert isinstance(error, TransferCancelled)
    filled.release()


def test_what_a_feed_raises_is_raised_to_whoever_takes(tmp_path: Path) -> None:
    class Broken(Feed):
        def fill(self, slot: memoryview) -> Filled:
            if not self.position:
                return super().fill(slot)
            raise ZeroDivisionError

    (tmp_path / "one").write_bytes(pattern(100_000))

    async def scenario() -> None:
        ahead = Ahead(Broken([0], prepare(hold_buffers([tmp_path / "one"])).sources, BLOCK), in_thread)
        for _ in range(3):
            ahead.give(memoryview(bytearray(SMALL_SLOT)))
        filled, _ = await ahead.take()
        filled.release()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await ahead.take()
        ahead.close()

    asyncio.run(scenario())


def test_a_file_object_is_read_ahead_too() -> None:
    data = pattern(50_000)

    async def scenario() -> bytes:
        held = hold_buffers([io.BufferedReader(io.BytesIO(data))])
        ahead = Ahead(Feed([0], prepare(held).sources, BLOCK), in_thread)
        try:
            return await carried(ahead)
        finally:
            ahead.close()
            await asyncio.get_running_loop().shutdown_default_executor()
            release_buffers(held)

    assert content(asyncio.run(scenario()), 0) == data


async def test_where_no_worker_can_be_had_whoever_takes_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    def no_worker(job: Callable[[], None]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_exception(NoThread("no thread can be had"))
        return future

    (tmp_path / "a").write_bytes(pattern(3 * BLOCK))
    feed = feed_of(tmp_path / "a")
    feed.fill(memoryview(bytearray(SMALL_SLOT))).release()
    ahead = Ahead(feed, no_worker)
    ahead.give(memoryview(bytearray(SMALL_SLOT)))
    with pytest.raises(NoThread):
        await asyncio.wait_for(ahead.take(), 60)
    ahead.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
