"""Show a transfer's progress where a program wants it: a function, a bar of tqdm, or the bars of rich.

Neither library is imported here: which of them a thing belongs to shows in the methods it has. Everything is called on
the event loop, never in another thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..display import kind_of, printable
from ..errors import LocalProtocolError
from ..events import Phase, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

INTERVAL = 0.1
"""Seconds between two looks, but for the last, which always comes: more often is more than anybody sees."""


class TqdmBar(Protocol):
    """What is used of a ``tqdm.tqdm``."""

    total: Any

    def update(self, n: Any = 1) -> Any:
        """Add ``n`` to what the bar shows."""

    def refresh(self) -> Any:
        """Draw it now."""

    def close(self) -> Any:
        """Leave it as it is."""


ShowProgress: TypeAlias = "Callable[[Progress], object] | TqdmBar | RichProgress | type[TqdmBar | RichProgress]"
"""A function or coroutine function of a :class:`Progress`; ``tqdm`` or a bar made with it; rich's ``Progress``, or one
that is running."""


class Follower:
    """Where the figures of one transfer go."""

    def show(self, progress: Progress) -> Awaitable[object] | object:
        """Show the latest figures; what can be awaited is awaited before the next."""

    def close(self) -> None:
        """No more figures will come."""


def follower(wanted: ShowProgress) -> Follower:
    """What shows figures on ``wanted``; raises :class:`LocalProtocolError` for what is none of the kinds."""
    if hasattr(wanted, "add_task"):
        return _OnRich(wanted)
    if hasattr(wanted, "update") and hasattr(wanted, "refresh"):
        return _OnTqdm(wanted)
    if callable(wanted):
        return _OnFunction(wanted)
    raise LocalProtocolError(
        f"progress is {kind_of(wanted)}: give a function, tqdm or one of its bars, or rich's Progress"
    )


async def follow(news: AsyncIterable[Progress], shown: Follower) -> None:
    """Show ``news`` until they end; raises what the program's own function raises."""
    last = 0.0
    try:
        async for progress in news:
            now = monotonic()
            if progress.phase is Phase.DONE or now - last >= INTERVAL:
                last = now
                result = shown.show(progress)
                if isinstance(result, Awaitable):
                    await result
    finally:
        shown.close()


class _OnFunction(Follower):
    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, progress: Progress) -> Awaitable[object] | object:
        return self._function(progress)


class _OnTqdm(Follower):
    """A bar given by the program is the program's to close, and may count several transfers together."""

    def __init__(self, wanted: Any) -> None:
        self._kind = wanted if isinstance(wanted, type) else None
        self._bar: Any = None if isinstance(wanted, type) else wanted
        self._done = 0
        self._keeps_total = self._bar is not None and self._bar.total is not None

    def show(self, progress: Progress) -> None:
        if self._bar is None:
            assert self._kind is not None
            self._bar = self._kind(total=progress.bytes_total, unit="B", unit_scale=True)
        if not self._keeps_total and progress.bytes_total is not None:
            self._bar.total = progress.bytes_total
        if self._kind is not None:
            self._bar.set_description_str(_title(progress), refresh=False)
        self._bar.update(progress.bytes_done - self._done)
        self._done = progress.bytes_done
        if progress.phase is not Phase.MOVING:
            self._bar.refresh()

    def close(self) -> None:
        if self._kind is not None and self._bar is not None:
            self._bar.close()


class _OnRich(Follower):
    """One task a transfer, which stays, as rich's own do. Bars that the program gives are its own to start and stop."""

    def __init__(self, wanted: Any) -> None:
        self._is_own = isinstance(wanted, type)
        self._wanted = wanted
        self._bars: Any = None
        self._task: TaskID | None = None

    def show(self, progress: Progress) -> None:
        from rich.markup import escape

        title = escape(_title(progress))
        if self._bars is None:
            self._bars = self._wanted() if self._is_own else self._wanted
            self._task = self._bars.add_task(title, total=progress.bytes_total)
            if self._is_own:
                self._bars.start()
        self._bars.update(self._task, description=title, total=progress.bytes_total, completed=progress.bytes_done)

    def close(self) -> None:
        if self._is_own and self._bars is not None:
            self._bars.stop()


def _title(progress: Progress) -> str:
    """The item that moves, or what is waited for."""
    if progress.phase is Phase.MOVING and progress.current is not None:
        return printable(progress.current)
    return str(progress.phase)
