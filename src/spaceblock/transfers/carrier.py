"""What carries the items of a transfer that is sent: data streams, and the buffers that feeds fill for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial

from ..errors import SpaceblockError
from ..limits import DATA_BACKLOG, FLIGHT_MAX
from ..quic.interface import Connection, Stream
from ..storage.ahead import AHEAD, Ahead
from ..storage.feed import Feed, Filled
from ..storage.ring import SPARE, Ring
from ..wire.messages import Message, StreamType, encode_stream_header
from .throttle import Throttle
from .transfer import Job


class Carrier:
    """The data streams of one transfer, the feeds that are read for it, and the ring that they share.

    A stream belongs to the transfer until that ends, since what is queued on it is not with the peer yet. ``sent`` is
    called with each buffer that was queued, for what ended with it; a source that fails is told of there, too.
    """

    def __init__(
        self, job: Job, connection: Connection, throttle: Throttle | None, sent: Callable[[Filled], None]
    ) -> None:
        self.hashed: int = 0
        """Bytes that the latest :meth:`read` has hashed so far."""
        self._job = job
        self._connection = connection
        self._throttle = throttle
        self._sent = sent
        self._ring = Ring()
        self._slot_given = asyncio.Event()
        self._feeds: set[Feed] = set()
        self._streams: set[Stream] = set()
        self._carrying: dict[Feed, Stream] = {}
        self._waiting: set[tuple[Feed, int]] = set()

    @property
    def backlog(self) -> int:
        """Bytes on the data streams that the peer has not acknowledged."""
        return sum(stream.backlog for stream in self._streams)

    @property
    def current(self) -> tuple[int, int] | None:
        """The item that moves on the data stream that began first, and how many of its bytes were acknowledged."""
        for feed, stream in self._carrying.items():
            if (current := feed.current) is not None:
                item, taken = current
                return item, max(taken - stream.backlog, 0)
        return None

    def waits_for_source(self) -> bool:
        """Whether all that was read is with the peer, and a source has not answered since this was asked last."""
        before, self._waiting = self._waiting, {(feed, feed.question) for feed in self._feeds if feed.question}
        return not self.backlog and not before.isdisjoint(self._waiting)

    async def carry(self, feed: Feed, uuid: bytes) -> None:
        """Send what ``feed`` gives on a data stream of its own, for the transfer ``uuid``; returns when all is queued.

        Raises :class:`~spaceblock.quic.interface.StreamStopped` when the receiver stops the stream.
        """
        stream = self._open(uuid)
        self._feeds.add(feed)
        self._carrying[feed] = stream
        ahead = Ahead(feed, self._job.in_worker, self._portion)
        try:
            done = False
            while not done:
                done = await self._carry_on(feed, ahead, stream)
            while ahead.count:  # what was given ahead in vain
                _, slot = await ahead.take()
                self._ring.give(slot)
        finally:
            # A task that is cancelled does not wait for the disk, but nothing is taken from under a worker.
            ahead.close()
            self._feeds.discard(feed)
            del self._carrying[feed]

    async def read(self, feed: Feed) -> AsyncGenerator[Filled, None]:
        """Hash what ``feed`` gives and send none of it: what ended, a buffer at a time."""
        self._feeds.add(feed)
        ahead = Ahead(feed, self._job.in_worker)
        whole = 0
        done = False
        try:
            while not done:
                ahead.give(await self._free_slot())
                filled, slot = await ahead.take()
                done = filled.done
                filled.release()
                self._ring.give(slot)
                whole += sum(size for _, size, _ in filled.sent)
                self.hashed = whole + feed.position
                self._job.changed()
                yield filled
        finally:
            self._feeds.discard(feed)
            ahead.close()

    def say(self, uuid: bytes, messages: Sequence[Message]) -> None:
        """Send ``messages`` on a data stream of their own."""
        self._open(uuid).write(b"".join(message.encode() for message in messages), fin=True)

    def refuse(self, item: int, error: SpaceblockError) -> None:
        """End ``item`` with ``error`` at the next opportunity, if it is on its way."""
        for feed in self._feeds:
            feed.refuse(item, error)

    def reset(self, code: int) -> None:
        """Take back what the peer has not acknowledged of all data streams."""
        for stream in self._streams:
            stream.reset(code)

    def drop_buffers(self) -> None:
        """Give the memory back; nothing is read any more."""
        self._ring = Ring()

    @property
    def _portion(self) -> int | None:
        return None if self._throttle is None else self._throttle.portion

    def _open(self, uuid: bytes) -> Stream:
        stream = self._connection.open_stream(unidirectional=True)
        self._streams.add(stream)
        stream.write(encode_stream_header(StreamType.DATA, uuid))
        return stream

    async def _carry_on(self, feed: Feed, ahead: Ahead, stream: Stream) -> bool:
        """Send one buffer's worth; whether it was the last."""
        if self._throttle is not None:
            await self._throttle.turn()
        if feed.never_waits and not ahead.count:
            slot = await self._free_slot()
            filled = feed.fill(slot[: self._portion])
        else:
            filled, slot = await self._fill_ahead(feed, ahead)
        if self._throttle is not None:
            self._throttle.sent(sum(map(len, filled.pieces)))
        self._write(stream, filled, slot)
        if filled.done:
            stream.write(b"", fin=True)
        self._sent(filled)
        await asyncio.sleep(0)
        await self._drain(stream)
        return filled.done

    async def _drain(self, stream: Stream) -> None:
        """Wait while too much is unacknowledged, and then until several buffers fit, so as not to wake up for each."""
        limit = DATA_BACKLOG + min(self._connection.congestion_window, FLIGHT_MAX)
        await stream.drain(limit if stream.backlog <= limit else limit - DATA_BACKLOG // 2)

    async def _fill_ahead(self, feed: Feed, ahead: Ahead) -> tuple[Filled, memoryview]:
        if not ahead.count:
            ahead.give(await self._free_slot())
        goes_on = self._throttle is None and not feed.never_waits
        while goes_on and ahead.count < AHEAD and self._ring.free > SPARE:
            ahead.give(await self._free_slot())
        return await ahead.take()

    async def _free_slot(self) -> memoryview:
        while (slot := self._ring.take(self._slot_given.set)) is None:
            self._slot_given.clear()
            await self._slot_given.wait()
        return slot

    def _write(self, stream: Stream, filled: Filled, slot: memoryview) -> None:
        """Queue the pieces of what was filled; the slot goes round again when the engine needs none of it any more."""
        give_back = self._ring.give
        pieces, filled.pieces = filled.pieces, []
        waiting = len(pieces)

        def release(piece: memoryview) -> None:
            nonlocal waiting
            piece.release()
            waiting -= 1
            if not waiting:
                give_back(slot)

        if not pieces:
            give_back(slot)
        for index, piece in enumerate(pieces):
            try:
                stream.write(piece, release=partial(release, piece))
            except BaseException:
                for unsent in pieces[index:]:
                    release(unsent)
                raise
