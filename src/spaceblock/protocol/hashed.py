"""How far each side has come with reading what is on its own disk, so that neither takes a long comparison for a
standstill."""

from __future__ import annotations

from collections.abc import Iterable

from ..blocks import SpaceblockRequest
from ..errors import RemoteProtocolError
from ..wire.messages import Hashed


class HashedFigures:
    """Both sides' figures of one transfer. Each only grows, up to the bytes of all items of a known size, so that a
    peer cannot say without end that it is at work."""

    def __init__(self, items: Iterable[SpaceblockRequest] = ()) -> None:
        self._bound = sum(item.length or 0 for item in items)
        self._ours = self._theirs = 0

    def tell(self, size: int) -> list[Hashed]:
        """The message that says that this side has read ``size`` bytes; none if that is no news."""
        size = min(size, self._bound)
        if size <= self._ours:
            return []
        self._ours = size
        return [Hashed(size)]

    def receive(self, message: Hashed) -> None:
        """The peer's figure; raises :class:`RemoteProtocolError` unless it is news and can be."""
        if not self._theirs < message.size <= self._bound:
            raise RemoteProtocolError(f"the peer says that it read {message.size} bytes after {self._theirs}")
        self._theirs = message.size
