"""Where what a program made can be used: in the process and under the event loop that made it.

A child may connect and listen for itself. Connections, listeners, offers and transfers stay with the process that made
them: both would send from one socket with one set of keys, so the child is told, and does not close what is its
parent's.
"""

from __future__ import annotations

import asyncio
import os
import threading

from ..errors import LocalProtocolError


class Maker:
    """The process that made something, and the event loop that ran there."""

    __slots__ = ("_loop", "_pid", "_thread")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()

    @property
    def forked(self) -> bool:
        """Whether this is another process, forked from that one since."""
        return os.getpid() != self._pid

    def check(self, what: str) -> None:
        """Raise :class:`LocalProtocolError` in a forked child, in another thread and under another event loop, where
        nobody would wake whoever waits; ``what`` begins the sentence."""
        self.check_process(what)
        if threading.get_ident() != self._thread or _running_loop() not in (None, self._loop):
            raise LocalProtocolError(
                f"{what} belongs to another event loop: use it there, as by asyncio.run_coroutine_threadsafe()"
            )

    def check_process(self, what: str) -> None:
        """The same in a forked child alone, of what any thread may do."""
        if self.forked:
            raise LocalProtocolError(
                f"{what} stayed with the process that this one was forked from: connect or listen anew after the fork"
            )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
