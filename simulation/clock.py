"""An event loop whose time passes only when nothing is left to do: an hour of waiting takes no time at all.

What it watches is not the system's sockets but simulated ones, which say themselves that they can be read. Each round
of the loop takes a microsecond of virtual time, so that what asks for its turn again and again does not stop the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

START = 1_000.0
"""What the clock shows at first, in seconds."""

ROUND = 1e-6
"""Seconds that a round of the loop takes at least."""

ROUNDS_MAX = 3_000_000
"""Rounds after which a simulation is taken to be busy without an end."""


class Watched(Protocol):
    """A simulated socket."""

    def watch_reading(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when something can be read."""

    def watch_writing(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when something can be written."""


class Stuck(AssertionError):
    """Somebody waits for what will never happen."""


class Busy(AssertionError):
    """The loop goes round and round."""


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop; failures that reached its exception handler are in ``failures``."""

    def __init__(self, rounds_max: int = ROUNDS_MAX) -> None:
        super().__init__()
        self.failures: list[BaseException] = []
        self.rounds = 0
        self._rounds_max = rounds_max
        self._now = START
        self._selector = self
        self._clock_resolution = 1e-9
        self.set_exception_handler(self._keep_failure)

    def time(self) -> float:
        return self._now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` to its end; what it leaves behind is cancelled if it fails.

        Raises the first failure of a callback, what ``main`` raised, :class:`Stuck` or :class:`Busy`.
        """
        task = self.create_task(main)
        try:
            result = self.run_until_complete(task)
        except BaseException as error:
            self._cancel_tasks()
            if self.failures:
                raise self.failures[0] from error
            raise
        if self.failures:
            raise self.failures[0]
        return result

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and all happen that is due in it."""
        self.run(asyncio.sleep(seconds))

    @property
    def waiting(self) -> list[asyncio.TimerHandle]:
        """Timers that are set."""
        return [handle for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]

    # What asyncio asks of a loop.

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer; here other loops would wait for sockets."""
        self.rounds += 1
        if self.rounds > self._rounds_max:
            self._rounds_max += 10_000  # to end what runs
            raise Busy(f"busy without an end at {self._now - START:.6f} s")
        if timeout is None:
            raise Stuck(f"nothing is left that could happen at {self._now - START:.6f} s, and somebody waits")
        self._now += max(timeout, ROUND)
        return []

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: Unpack[Ts]) -> None:
        sock: Watched = fd
        sock.watch_reading(lambda: callback(*args))

    def remove_reader(self, fd: Any) -> bool:
        sock: Watched = fd
        sock.watch_reading(None)
        return True

    def add_writer(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: Unpack[Ts]) -> None:
        sock: Watched = fd
        sock.watch_writing(lambda: callback(*args))

    def remove_writer(self, fd: Any) -> bool:
        sock: Watched = fd
        sock.watch_writing(None)
        return True

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _keep_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(context.get("exception") or AssertionError(context["message"]))

    def _cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
