"""Questions that a command asks before it does anything else, when nothing has to go on meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def ask(question: str) -> str:
    """The line that is typed on the terminal; raises :class:`KeyboardInterrupt` where none comes any more."""
    with _ending():
        print(question, end=" ", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\r\n")


def ask_hidden(question: str) -> str:
    """The same of a line that nobody is to see."""
    from getpass import getpass

    with _ending():
        return getpass(f"{question} ")


def confirmed(question: str) -> bool:
    """Whether the user wants it, which Enter alone says, too."""
    while True:
        answer = ask(f"{question} [Y/n]").strip().lower()
        if answer in ("", "y", "yes", "n", "no"):
            return answer not in ("n", "no")


@contextmanager
def _ending() -> Iterator[None]:
    """A question that has no answer stays above what is said next, and the end of its terminal is told as such.

    When a window is closed, reading ends at about the time of the signal that tells of it, and nothing can be written
    or set any more; whichever is noticed first, the command ends by the signal.
    """
    try:
        yield
    except BaseException as error:
        if not os.isatty(0):
            import signal

            from ..process.interrupts import Interrupted

            if not isinstance(error, Interrupted) and hasattr(signal, "SIGHUP"):
                raise Interrupted(signal.SIGHUP) from error
        with suppress(OSError):
            print(file=sys.stderr, flush=True)
        if isinstance(error, EOFError):
            raise KeyboardInterrupt from error
        raise
