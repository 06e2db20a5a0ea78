"""Things that one worker thread at a time deals with in their order, without a pause for the event loop in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """What is handed over to a worker; :meth:`add` and :meth:`clear` may be called by any thread.

    ``work`` has a worker thread run a function, and ``handle`` is called there with all that came since it was called
    last, until nothing comes any more. Were each handed over by itself, then the worker would be idle whenever the
    event loop is busy, and the loop would have more to do. When ``handle`` raises, that is the end: the rest is not
    dealt with.
    """

    def __init__(self, work: Callable[[Callable[[], None]], object], handle: Callable[[list[_T]], None]) -> None:
        self._work = work
        self._handle = handle
        self._lock = threading.Lock()
        self._things: list[_T] = []
        self._has_worker = False

    def add(self, things: Iterable[_T]) -> None:
        """Have these dealt with after those before them."""
        with self._lock:
            self._things.extend(things)
            begins = not self._has_worker
            self._has_worker = True
        if begins:
            self._work(self._run)

    def clear(self) -> None:
        """Forget what no worker has taken yet."""
        with self._lock:
            self._things.clear()

    def lose(self) -> None:
        """No worker came, or it ended early: forget what waits, and begin with another one when there is more."""
        with self._lock:
            self._things.clear()
            self._has_worker = False

    def _run(self) -> None:
        while True:
            with self._lock:
                things, self._things = self._things, []
                self._has_worker = bool(things)
            if not things:
                return
            self._handle(things)
