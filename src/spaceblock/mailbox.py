"""What came and waits to be taken by whoever iterates, in order; what is over before that is taken out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Mailbox(Generic[_T]):
    """A queue whose iterations end when it is closed, each thing going to one of them."""

    def __init__(self) -> None:
        self._waiting: dict[_T, None] = {}
        self._news = asyncio.Event()
        self._closed = False

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

    async def __aiter__(self) -> AsyncIterator[_T]:
        while True:
            while not self._waiting:
                if self._closed:
                    return
                self._news.clear()
                await self._news.wait()
            thing = next(iter(self._waiting))
            del self._waiting[thing]
            yield thing
