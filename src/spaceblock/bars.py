"""Progress for people, on standard error: bars on a terminal, elsewhere a plain line a second.

Names come from the other side, so titles pass :func:`spaceblock.display.printable`, and nothing is read as markup. rich
is imported only when there is a bar to draw.
"""

from __future__ import annotations

import abc
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from .display import printable, shortened
from .events import ItemProgress, Phase, Progress
from .process.lazily import dataclass
from .process.suspension import around_suspension, is_in_foreground

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

LINE_INTERVAL = 1.0
"""Seconds between the plain lines of one transfer."""

LINE_TITLE_MAX = 80
"""Characters of what a plain line begins with."""

TITLE_MAX = 32
"""Columns of a bar's title; longer ones lose their middle."""

BAR_MIN = 10
"""Columns of the shortest bar; where there is less room the figures do without one."""

_TITLE_MIN = 12

_ECHO = 2
"""Columns that stay free for the ``^C`` that a terminal shows: a line that it broke could not be taken away again."""

_COLUMNS = 80


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
    def print(self, text: str, *, wrap: bool = False) -> None:
        """Print a line of text, above the rows if there are any; where it is to ``wrap``, a terminal gets lines that
        break between words."""

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

    def print(self, text: str, *, wrap: bool = False) -> None:
        print(wrapped(text) if wrap else text, file=sys.stderr, flush=True)


class Bars(Display):
    """Live bars at the bottom of the terminal, gone when their transfers are: one for each transfer, and below it one
    for the item that moves."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stderr)
        self._rows: list[_BarRow] = []
        self._live: Live | None = None
        self._away = False  # since the user stopped this process, which may go on without the terminal
        self._suspension = ExitStack()

    def row(self, title: str) -> Row:
        if not self._rows:
            self._suspension.enter_context(around_suspension(self._leave, self._come_back))
        row = _BarRow(self, printable(title))
        self._rows.append(row)
        self._start()
        return row

    def print(self, text: str, *, wrap: bool = False) -> None:
        from rich.text import Text

        self._console.print(Text(wrapped(text) if wrap else text), soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._stop()
        try:
            yield
        finally:
            if self._rows:
                self._start()

    def refresh(self) -> None:
        """Draw the latest figures."""
        self._come_back()
        if self._live is not None:
            self._live.refresh()

    def remove(self, row: _BarRow) -> None:
        """Forget a row; without rows the terminal is left as it was."""
        self._rows.remove(row)
        if self._rows:
            self.refresh()
        else:
            self._stop()
            self._away = False
            self._suspension.close()

    def _start(self) -> None:
        from rich.live import Live

        if self._live is None and not self._away:
            # A new one each time: one that was stopped would first take away as many lines as it drew before.
            self._live = Live(
                self,
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _leave(self) -> None:
        """Give the terminal, with its cursor, to the shell."""
        self._away = self._away or self._live is not None
        self._stop()

    def _come_back(self) -> None:
        """Draw again, unless the shell let this process go on in the background."""
        if self._away and is_in_foreground(sys.stderr):
            self._away = False
            self._start()
            self.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.segment import Segment

        bars = [bar for row in self._rows for bar in row.bars()]
        for bar, (title, width, text) in zip(bars, fit(bars, options.max_width - _ECHO), strict=True):
            yield Segment(title)
            if width:
                yield Segment(" ")
                yield ProgressBar(total=bar.total, completed=bar.done, width=width, pulse=bar.total is None)
            yield Segment(f" {text}" if title and text else text)
            yield Segment.line()


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: ``parts`` are its figures, each with a rank; where there is no room the highest ranks go first."""

    title: str
    done: int
    total: int | None
    parts: Sequence[tuple[int, str]]


def fit(bars: Sequence[Bar], width: int) -> list[tuple[str, int, str]]:
    """For each line its title, the columns of its bar and its figures, which fill ``width`` columns at most.

    All bars begin and end in the same columns. Where the window is too narrow for a bar of :data:`BAR_MIN`, there is
    none.
    """
    from rich.cells import cell_len, set_cell_size

    if not bars:
        return []
    kept = [list(bar.parts) for bar in bars]
    titles = max((cell_len(bar.title) for bar in bars), default=0)
    while True:
        texts = ["  ".join(text for _, text in parts) for parts in kept]
        left = width - 2 - max(map(len, texts), default=0)
        if left >= min(titles, _TITLE_MIN) + BAR_MIN:
            break
        longest = max(kept, key=lambda parts: len("  ".join(text for _, text in parts)))
        if len(longest) <= 1:
            return [_without_bar(bar.title, text, width) for bar, text in zip(bars, texts, strict=True)]
        longest.remove(max(longest))
    room = min(titles, max(left * 3 // 5, _TITLE_MIN), left - BAR_MIN, TITLE_MAX)
    shown = [set_cell_size(_narrowed(bar.title, room), room) for bar in bars]
    return [(title, left - room, text) for title, text in zip(shown, texts, strict=True)]


def _without_bar(title: str, text: str, width: int) -> tuple[str, int, str]:
    text = text[:width]
    return _narrowed(title, max(width - len(text) - 1, 0)), 0, text


def _narrowed(title: str, columns: int) -> str:
    """``title`` in at most so many columns; letters of some scripts take two each."""
    from rich.cells import cell_len

    shown, count = title, columns
    while cell_len(shown) > columns:
        shown, count = shortened(title, count) if count > 1 else "", count - 1
    return shown


class _BarRow(Row):
    def __init__(self, display: Bars, title: str) -> None:
        self._display = display
        self._title = title
        self._progress: Progress | None = None
        self._item: ItemProgress | None = None
        self._open = True

    def update(self, progress: Progress) -> None:
        self._progress = progress
        self._item = progress.item or self._item
        self._display.refresh()

    def bars(self) -> Iterator[Bar]:
        """The whole, and below it what moves, if there is more than that."""
        progress, item = self._progress, self._item
        if progress is None:
            yield Bar(self._title, 0, None, ())
            return
        yield Bar(self._title, progress.bytes_done, progress.bytes_total, ranked_figures(progress))
        if item is not None and progress.items_total > 1 and progress.phase is Phase.MOVING:
            title = f"  {item_title(item)}"
            yield Bar(title, item.bytes_done, item.bytes_total, ranked_item_figures(item))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._display.remove(self)


class _LineRow(Row):
    def __init__(self, title: str) -> None:
        self._title = shortened(printable(title), LINE_TITLE_MAX)
        self._printed = 0.0
        self._text = ""

    def update(self, progress: Progress) -> None:
        text = f"{self._title}: {figures(progress)}{_item_words(progress)}"
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
    return "  ".join(text for _, text in ranked_figures(progress))


def ranked_figures(progress: Progress) -> list[tuple[int, str]]:
    """The same as parts with their ranks: the higher, the sooner a part is left out for want of room."""
    parts = []
    total = progress.bytes_total
    if progress.phase not in (Phase.MOVING, Phase.DONE):
        parts.append((-1, str(progress.phase)))
    if total:
        parts.append((0, f"{progress.bytes_done * 100 // total}%"))
    if total is not None:
        parts.append((4, f"{size_text(progress.bytes_done)} of {size_text(total)}"))
    elif progress.bytes_done:
        parts.append((0, size_text(progress.bytes_done)))
    if progress.phase is Phase.MOVING:
        parts.append((3, f"{size_text(progress.rate)}/s"))
        if progress.eta is not None:
            parts.append((2, f"{duration_text(progress.eta)} left"))
    if progress.items_total > 1:
        parts.append((5, f"{progress.items_done} of {progress.items_total} items"))
    return parts


def ranked_item_figures(item: ItemProgress) -> list[tuple[int, str]]:
    """The same of one item."""
    total = item.bytes_total
    parts = []
    if total:
        parts.append((0, f"{item.bytes_done * 100 // total}%"))
        parts.append((4, f"{size_text(item.bytes_done)} of {size_text(total)}"))
    else:
        parts.append((0, size_text(item.bytes_done)))
    if item.rate > 0:
        parts.append((3, f"{size_text(item.rate)}/s"))
    if item.eta is not None:
        parts.append((2, f"{duration_text(item.eta)} left"))
    return parts


def item_title(item: ItemProgress) -> str:
    """What an item is called: the last part of its name, as the whole's title has the first."""
    return f"unnamed item {item.index}" if item.name is None else printable(item.name.rpartition("/")[2])


def _item_words(progress: Progress) -> str:
    item = progress.item
    if item is None or progress.items_total <= 1 or progress.phase is not Phase.MOVING:
        return ""
    share = f" {item.bytes_done * 100 // item.bytes_total}%" if item.bytes_total else ""
    return f"  ({shortened(item_title(item), TITLE_MAX)}{share})"


def wrapped(text: str) -> str:
    """``text`` as it is for programs; for a terminal as lines that break between words, further ones indented."""
    if not sys.stderr.isatty():
        return text
    width = max(columns_of(sys.stderr) - 1, 1)
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def columns_of(stream: TextIO) -> int:
    """The width of the terminal that ``stream`` is, as the environment says or the terminal itself."""
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except (OSError, ValueError):  # no terminal after all, or one that does not know
        return _COLUMNS


def title_of(names: Sequence[str | None]) -> str:
    """A title for items with these names (None: unnamed), such as ``photos`` for all that is in this folder."""
    tops = list(dict.fromkeys("unnamed" if name is None else name.partition("/")[0] for name in names))
    if not tops:
        return "nothing"
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
