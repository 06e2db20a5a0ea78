"""What a fork of the process leaves usable.

A child may connect and listen for itself. Connections, listeners, offers and transfers stay with the process that made
them: both would send from one socket with one set of keys, so the child is told, and does not close what is its
parent's.
"""

from __future__ import annotations

import os

from ..errors import LocalProtocolError


class Maker:
    """The process that made something."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is another process, forked from that one since."""
        return os.getpid() != self._pid

    def check(self, what: str) -> None:
        """Raise :class:`LocalProtocolError` in a forked child; ``what`` begins the sentence."""
        if self.forked:
            raise LocalProtocolError(
                f"{what} stayed with the process that this one was forked from: connect or listen anew after the fork"
            )
