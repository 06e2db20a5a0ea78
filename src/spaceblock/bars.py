"""Progress for people, on standard error: bars on a terminal, elsewhere a plain line a second.

Names come from the other side, so titles pass :func:`spaceblock.names.printable`, and nothing is read as markup. rich
is imported only when there is a bar to draw.
"""

from __future__ import annotations

import abc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from .display import printable
from .events import Phase, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_INTERVAL = 1.0
"""Seconds between the plain lines of one transfer."""

TITLE_MAX = 32
"""Characters of a bar's title; longer ones lose their middle."""


class Row(abc.ABC):
    """One transfer on the display."""

    @abc.abstractmethod
    def update(self, progress: Progress) -> None:
        """Show the latest figures."""

    @abc.abstractmethod
    def close(self) -> None:
        """Take the row away; harmless when done twice."""


class Display(abc.ABC):
    """Where progress and text go; any number of rows at once."""

    @abc.abstractmethod
    def row(self, title: str) -> Row:
        """A new row."""

    @abc.abstractmethod
    def print(self, text: str) -> None:
        """Print a line of text, above the rows if there are any."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Draw nothing meanwhile, so that a question can be asked."""
        yield


def open_display(*, quiet: bool = False) -> Display:
    """The display that suits standard error; a quiet one has no rows."""
    if quiet:
        return _Quiet()
    if sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return Bars()
    return Lines()


class Lines(Display):
    """Plain lines, for logs and pipes."""

    def row(self, title: str) -> Row:
        return _LineRow(title)

    def print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars(Display):
    """Live bars at the bottom of the terminal, gone when their transfers are."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(file=sys.stderr)
        self._bars: RichProgress = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._rows = 0

    def row(self, title: str) -> Row:
        task = self._bars.add_task(_shortened(printable(title), TITLE_MAX), total=None, figures="")
        self._rows += 1
        self._bars.start()
        return _BarRow(self, self._bars, task)

    def print(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._bars.stop()
        try:
            yield
        finally:
            if self._rows:
                self._bars.start()

    def remove(self, task: TaskID) -> None:
        """Forget a row; without rows the terminal is left as it was."""
        self._rows -= 1
        self._bars.remove_task(task)
        if not self._rows:
            self._bars.stop()


class _BarRow(Row):
    def __init__(self, display: Bars, bars: RichProgress, task: TaskID) -> None:
        self._display = display
        self._bars = bars
        self._task = task
        self._open = True

    def update(self, progress: Progress) -> None:
        self._bars.update(
            self._task,
            completed=progress.bytes_done,
            total=progress.bytes_total,
            figures=figures(progress),
            refresh=True,
        )

    def close(self) -> None:
        if self._open:
            self._open = False
            self._display.remove(self._task)


class _LineRow(Row):
    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._printed = 0.0
        self._text = ""

    def update(self, progress: Progress) -> None:
        text = f"{self._title}: {figures(progress)}"
        now = monotonic()
        if progress.phase is Phase.DONE or text == self._text or now - self._printed < LINE_INTERVAL:
            return
        self._printed, self._text = now, text
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        return


class _Quiet(Lines):
    def row(self, title: str) -> Row:
        return _NoRow()


class _NoRow(Row):
    def update(self, progress: Progress) -> None:
        return

    def close(self) -> None:
        return


def figures(progress: Progress) -> str:
    """The figures of one moment in words, such as ``42%  113 MB of 268 MB  27.1 MB/s  0:05 left  3 of 7 items``."""
    parts = []
    total = progress.bytes_total
    if progress.phase not in (Phase.MOVING, Phase.DONE):
        parts.append(str(progress.phase))
    if total:
        parts.append(f"{progress.bytes_done * 100 // total}%")
    if total is not None:
        parts.append(f"{size_text(progress.bytes_done)} of {size_text(total)}")
    elif progress.bytes_done:
        parts.append(size_text(progress.bytes_done))
    if progress.phase is Phase.MOVING:
        parts.append(f"{size_text(progress.rate)}/s")
        if progress.eta is not None:
            parts.append(f"{duration_text(progress.eta)} left")
    if progress.items_total > 1:
        parts.append(f"{progress.items_done} of {progress.items_total} items")
    return "  ".join(parts)


def title_of(names: Sequence[str | None]) -> str:
    """A title for items with these names (None: unnamed), such as ``photos`` for all that is in this folder."""
    tops = list(dict.fromkeys("unnamed" if name is None else name.partition("/")[0] for name in names))
    return tops[0] if len(tops) == 1 else f"{tops[0]} and {len(tops) - 1} more"


def size_text(count: float) -> str:
    """Bytes in decimal units and three digits, such as ``1.05 MB``."""
    if count < 1000:
        return f"{count:.0f} B"
    units = iter(("kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    count /= 1000
    while count >= 999.5 and unit != "PB":
        unit = next(units)
        count /= 1000
    digits = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{digits}f} {unit}"


def duration_text(seconds: float) -> str:
    """Seconds as ``0:07``, ``12:34`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[: limit - 1 - half]}…{text[-half:]}"
