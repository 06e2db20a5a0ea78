"""What came and waits to be taken by whoever iterates, in order; what is over before that is taken out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

_T = TypeVar("_T")


class Mailbox(AsyncIterator[_T]):
    """A queue whose iterations end when it is closed, each thing going to one of them.

    All that an iteration has to know is in here, so one that gave up waiting, as by a time-out, can go on.
    """

    def __init__(self, on_taken: Callable[[_T], object] = lambda thing: None) -> None:
        self._waiting: dict[_T, None] = {}
        self._news = asyncio.Event()
        self._closed = False
        self._on_taken = on_taken

    def put(self, thing: _T) -> None:
        """Let somebody take ``thing``."""
        self._waiting[thing] = None
        self._news.set()

    def discard(self, thing: _T) -> None:
        """Nobody needs to take ``thing`` any more."""
        self._waiting.pop(thing, None)

    def take_out(self, which: Callable[[_T], bool]) -> list[_T]:
        """Remove and return everything that is ``which``, in order."""
        taken = [thing for thing in self._waiting if which(thing)]
        for thing in taken:
            del self._waiting[thing]
        return taken

    def close(self) -> None:
        """Nothing comes any more: every iteration ends when nothing waits."""
        self._closed = True
        self._news.set()

    async def __anext__(self) -> _T:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        thing = next(iter(self._waiting))
        del self._waiting[thing]
        self._on_taken(thing)
        return thing
