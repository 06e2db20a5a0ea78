"""Run a coroutine from a program without an event loop, so that a signal cancels it and lets it clean up.

The first signal cancels the coroutine, which tells the other side and removes what is unfinished. After it signals have
their usual effect again, so that a second one is not kept waiting by the first.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from .descriptors import silence

_T = TypeVar("_T")


_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # which Windows has not

COMMAND_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if _HANGUP is None else [_HANGUP]))
"""What ends a command: Ctrl-C, the polite request of a supervisor, and the end of its terminal."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; ``signal`` says which."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal: signal.Signals = signal.Signals(number)


def run(work: Coroutine[Any, Any, _T], signals: Sequence[signal.Signals], *, kill_next: bool = False) -> _T:
    """The result of ``work``; raises :class:`Interrupted` if one of ``signals`` ended it.

    A signal that the program ignores stays ignored, and outside of the main thread, where no signals come, none is
    watched for. With ``kill_next`` a second signal ends the process at once, whatever the program does with it, but for
    the end of the terminal, of which both the kernel and a shell may tell.
    """
    if threading.current_thread() is not threading.main_thread():
        signals = ()
    before = {number: signal.getsignal(number) for number in signals}
    watched = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    received: list[int] = []

    async def watch() -> _T:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)

        def stop(number: int) -> None:
            received.append(number)
            if number == _HANGUP:
                _leave_terminal()
            for each in watched:
                _unwatch(loop, each)
                if kill_next:
                    signal.signal(each, signal.SIG_IGN if each == _HANGUP else signal.SIG_DFL)
            task.cancel()

        for number in watched:
            _watch(loop, number, stop)
        try:
            return await task
        finally:
            for number in watched:
                _unwatch(loop, number)

    try:
        return asyncio.run(watch())
    except (asyncio.CancelledError, Exception) as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for number in watched:
            signal.signal(number, before[number])


def _watch(loop: asyncio.AbstractEventLoop, number: signal.Signals, stop: Any) -> None:
    try:
        loop.add_signal_handler(number, stop, number)
    except NotImplementedError:  # Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop, number))


def _leave_terminal() -> None:
    """Let nobody be told what is still said, where a terminal that is gone would answer each word with an error."""
    for number in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                silence(number)


def _unwatch(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    with suppress(NotImplementedError):
        loop.remove_signal_handler(number)
