"""What a program that draws on its terminal does around a stop by its user (``^Z``, SIGTSTP)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_STOP: signal.Signals | None = getattr(signal, "SIGTSTP", None)  # which Windows has not


@contextmanager
def around_suspension(leave: Callable[[], None], come_back: Callable[[], None]) -> Iterator[None]:
    """Within the block call ``leave`` before the user's stop, and ``come_back`` when the process goes on.

    A signal that the program ignores or handles stays with that, and without an event loop in the main thread, where
    it is waited for, nothing is done.
    """
    loop = _loop_for_signals()
    if _STOP is None or loop is None or signal.getsignal(_STOP) is not signal.SIG_DFL:
        yield
        return
    number = _STOP

    def stop() -> None:
        leave()
        loop.remove_signal_handler(number)
        try:
            signal.raise_signal(number)  # returns when the process goes on
        finally:
            loop.add_signal_handler(number, stop)
            come_back()

    loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)


def is_in_foreground(terminal: TextIO) -> bool:
    """Whether a shell lets this process have ``terminal``, as far as one can know."""
    try:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):  # no shell's, or a system without them
        return True


def _loop_for_signals() -> asyncio.AbstractEventLoop | None:
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
