"""Waiting for a pipe in a worker thread, in a way that another thread can call off.

A thread that is blocked in read(2) or write(2) cannot be told that nobody wants the bytes any more, and a program whose
thread is blocked cannot end. So nothing here blocks on a descriptor: it waits for two, one of which is its own.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress

from ..errors import TransferCancelled

CAN_WAIT = hasattr(select, "poll")
"""Whether this system can wait for pipes; Windows cannot."""

_PIPE_SIZE = 1_048_576
"""Bytes that a pipe is asked to hold, the most that Linux gives everybody: fewer turns of its two ends."""


class Patience:
    """A descriptor and the waits for it; ``call_off`` may be called by any thread at any time, all else by one at a
    time."""

    def __init__(self, fd: int, events: int) -> None:
        """``fd`` is closed in the end, also where this raises OSError; ``events`` are those of poll(2) that are waited
        for."""
        self.fd: int = fd
        self._lock = threading.Lock()
        try:
            self._wake, self._alarm = os.pipe()
        except BaseException:
            os.close(fd)
            raise
        self._poll = select.poll()
        self._poll.register(fd, events)
        self._both = select.poll()
        self._both.register(fd, events)
        self._both.register(self._wake, select.POLLIN)

    def wait(self) -> None:
        """Until the descriptor is ready, at its end or broken; raises :class:`TransferCancelled` once called off."""
        if any(fd == self._wake for fd, _ in self._both.poll()):
            raise called_off()

    def is_ready(self) -> bool:
        """Whether :meth:`wait` would return at once."""
        return bool(self._poll.poll(0))

    def call_off(self) -> None:
        """End the wait of another thread, and every later one."""
        with self._lock:
            if self._alarm >= 0:
                os.write(self._alarm, b"!")

    def close(self) -> None:
        """Close the descriptor; nobody may wait any more. Harmless when done twice."""
        with self._lock:
            if self._alarm >= 0:
                for fd in (self._alarm, self._wake, self.fd):
                    os.close(fd)
                self._alarm = self.fd = -1


def called_off() -> TransferCancelled:
    """What a wait ends with that nobody needs any more."""
    return TransferCancelled("the transfer ended while it waited for a pipe or a program: send again")


def widen(fd: int) -> bool:
    """Let a pipe hold a mebibyte, where it is one and may; returns whether it does."""
    if sys.platform == "linux":
        from fcntl import F_SETPIPE_SZ, fcntl

        with suppress(OSError):
            return fcntl(fd, F_SETPIPE_SZ, _PIPE_SIZE) >= _PIPE_SIZE
    return False
