"""Things that one worker thread at a time deals with in their order, without a pause for the event loop in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")

LINGER = 0.002
"""Seconds that a worker without work waits for more: at full speed the next buffer comes sooner, and to wake a thread
that waits costs far less than to find one, and to tell the event loop that it has ended."""


class Turns(Generic[_T]):
    """What is handed over to a worker; all methods may be called by any thread.

    ``work`` has a worker thread run a function, and ``handle`` is called there with all that came since it was called
    last, until nothing has come for ``linger`` seconds. Were each handed over by itself, then the worker would be idle
    whenever the event loop is busy, and the loop would have more to do. When ``handle`` raises, that is the end: the
    rest is not dealt with.
    """

    def __init__(
        self,
        work: Callable[[Callable[[], None]], object],
        handle: Callable[[list[_T]], None],
        linger: float = LINGER,
    ) -> None:
        self._work = work
        self._handle = handle
        self._linger = linger
        self._news = threading.Condition(threading.Lock())
        self._things: list[_T] = []
        self._has_worker = False

    def add(self, things: Iterable[_T]) -> None:
        """Have these dealt with after those before them."""
        with self._news:
            self._things.extend(things)
            begins = not self._has_worker
            self._has_worker = True
            self._news.notify()
        if begins:
            self._work(self._run)

    def clear(self) -> None:
        """Forget what no worker has taken yet."""
        with self._news:
            self._things.clear()

    def finish(self) -> None:
        """Let the worker go as soon as it has nothing to do: little will come now."""
        with self._news:
            self._linger = 0.0
            self._news.notify()

    def lose(self) -> None:
        """No worker came, or it ended early: forget what waits, and begin with another one when there is more."""
        with self._news:
            self._things.clear()
            self._has_worker = False

    def _run(self) -> None:
        while things := self._next():
            self._handle(things)

    def _next(self) -> list[_T]:
        with self._news:
            if not self._things and self._linger:
                self._news.wait(self._linger)
            things, self._things = self._things, []
            self._has_worker = bool(things)
            return things
