"""The thread of a pump: it begins with :meth:`PumpThread.start` and ends with :meth:`PumpThread.end`."""

from __future__ import annotations

import os
import threading

from .pump import Pump

THREADS_MAX = 4
"""Threads of pumps in one process at once. Each wakes for what arrives at its socket, which costs much more than it
helps where there are many sockets: a loop with a hundred of them is late for each all the time."""

_NAME = "spaceblock-packets"


def may_begin() -> bool:
    """Whether another pump may have a thread."""
    return sum(thread.name == _NAME for thread in threading.enumerate()) < THREADS_MAX


class PumpThread:
    """``bell`` becomes readable when the event loop is to call the pump's ``collect()``."""

    def __init__(self, pump: Pump) -> None:
        self.bell: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self.bell)
            raise
        self._pump = pump
        # Daemonic: a program that forgot to close an endpoint can end all the same.
        self._thread = threading.Thread(target=pump.serve, name=_NAME, daemon=True)

    def start(self) -> None:
        """Have the thread move the packets from now on; raises :class:`RuntimeError` where there can be no more."""
        self._pump.begin(self.bell, self._alarm)
        self._thread.start()

    def end(self) -> None:
        """Return when the thread has ended, which takes no longer than a few batches of packets."""
        self._pump.stop()
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self.bell)
        os.close(self._alarm)
