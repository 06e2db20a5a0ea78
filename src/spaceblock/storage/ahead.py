"""Reading ahead: a worker goes on to the next buffer while the event loop sends the last one.

Without it each would wait for the other: the loop for a buffer to be filled, and the worker for the loop to come round
and ask for the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .feed import Feed, Filled
from .turns import Turns

AHEAD = 3
"""Buffers of one feed that are being filled, or are filled and not sent yet: with fewer the worker is often idle."""


class Ahead:
    """The buffers of one feed, filled in the order in which they were given; for the event loop alone.

    ``work`` has a worker thread run a function; of each buffer only the first ``portion`` bytes are filled.
    """

    def __init__(
        self,
        feed: Feed,
        work: Callable[[Callable[[], None]], asyncio.Future[None] | None],
        portion: int | None = None,
    ) -> None:
        self._feed = feed
        self._portion = portion
        self._work = work
        self._turns: Turns[memoryview | None] = Turns(self._begin, self._fill)
        self._slots: deque[memoryview] = deque()
        self._filled: deque[Filled] = deque()
        self._error: Exception | None = None
        self._closed = False
        self._was_used = False
        self._news = asyncio.Event()
        self._lock = threading.Lock()
        self._is_awaited = False
        self._loop = asyncio.get_running_loop()

    @property
    def count(self) -> int:
        """Buffers that were given and not taken again."""
        return len(self._slots)

    def give(self, slot: memoryview) -> None:
        """Have ``slot`` filled after those before it."""
        self._was_used = True
        self._slots.append(slot)
        self._turns.add([slot[: self._portion]])

    async def take(self) -> tuple[Filled, memoryview]:
        """What the feed put into the buffer that was given first, and that buffer; raises what the feed raised."""
        while not self._filled:
            if self._error is not None:
                raise self._error
            self._news.clear()
            with self._lock:
                self._is_awaited = not self._filled and self._error is None
            if self._is_awaited:
                await self._news.wait()
        return self._filled.popleft(), self._slots.popleft()

    def close(self) -> None:
        """Fill no more; a worker closes the feed and lets go of what was filled in vain, as soon as none uses them.

        Where nothing was ever given, nobody does, and this takes no worker."""
        self._closed = True
        if not self._was_used:
            self._put_away()
            return
        self._turns.clear()
        self._turns.add([_CLOSE])
        self._turns.finish()

    def _begin(self, job: Callable[[], None]) -> None:
        future = self._work(job)
        if future is not None:
            future.add_done_callback(self._ended)

    def _ended(self, future: asyncio.Future[None]) -> None:
        """A worker has come to its end; with an error there was none, or it did nothing of use."""
        error = None if future.cancelled() else future.exception()
        if isinstance(error, Exception):
            self._turns.lose()
            self._error = self._error or error
            self._news.set()
            if self._closed:
                self._put_away()

    def _fill(self, rooms: list[memoryview | None]) -> None:
        for room in rooms:
            if room is _CLOSE:
                self._put_away()
            elif not self._closed and self._error is None:
                self._fill_one(room)

    def _fill_one(self, room: memoryview) -> None:
        """Tells the event loop only if that waits: a call to it from another thread is dear."""
        filled, error = None, None
        try:
            filled = self._feed.fill(room)
        except Exception as raised:
            error = raised
        with self._lock:
            if filled is not None:
                self._filled.append(filled)
            self._error = error
            is_awaited, self._is_awaited = self._is_awaited, False
        if is_awaited:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._news.set)

    def _put_away(self) -> None:
        self._feed.close()
        for filled in self._filled:
            filled.release()
        self._filled.clear()


_CLOSE = None
