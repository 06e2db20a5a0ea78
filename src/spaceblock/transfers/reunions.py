"""Transfers that outlive their connections: which are being received at an endpoint, from whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .incoming import Incoming


class Reunions:
    """What an endpoint receives, over all of its connections; on the event loop only."""

    def __init__(self) -> None:
        self._receiving: dict[tuple[str, bytes], Incoming] = {}

    def receive(self, incoming: Incoming) -> Incoming | None:
        """``incoming`` is what is received of its UUID from its peer now; returns what was until now."""
        key = (incoming.peer_id, incoming.uuid)
        before = self._receiving.get(key)
        self._receiving[key] = incoming
        return before

    def forget(self, incoming: Incoming) -> None:
        """The transfer is over."""
        key = (incoming.peer_id, incoming.uuid)
        if self._receiving.get(key) is incoming:
            del self._receiving[key]

    def find(self, peer_id: str, uuid: bytes) -> Incoming | None:
        """What is being received of ``uuid`` from this peer."""
        return self._receiving.get((peer_id, uuid))

    def expects(self, peer_id: str) -> bool:
        """Whether something is being received from this peer."""
        return any(peer == peer_id for peer, _ in self._receiving)
