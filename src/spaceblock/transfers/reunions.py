"""Transfers that outlive their connections: which are being received at an endpoint, from whom."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import ConnectionLost
from .transfer import either

if TYPE_CHECKING:
    from .incoming import Incoming

CAME_BACK = "the sender came back on another connection"


class Reunions:
    """What an endpoint receives, over all of its connections; on the event loop only."""

    def __init__(self) -> None:
        self._receiving: dict[tuple[str, bytes], Incoming] = {}

    def receive(self, incoming: Incoming) -> Incoming | None:
        """``incoming`` is what is received of its UUID from its peer now; returns what was until now and was accepted,
        or waits to be."""
        key = (incoming.peer_id, incoming.uuid)
        before = self._receiving.get(key)
        self._receiving[key] = incoming
        return _accepted(before) or before

    def forget(self, incoming: Incoming) -> None:
        """The transfer is over, or what was to go on with an earlier attempt that still lets go."""
        key = (incoming.peer_id, incoming.uuid)
        if self._receiving.get(key) is incoming:
            del self._receiving[key]
            before = _accepted(incoming)
            if before is not None:
                self._receiving[key] = before

    def find(self, peer_id: str, uuid: bytes) -> Incoming | None:
        """What is being received of ``uuid`` from this peer."""
        return self._receiving.get((peer_id, uuid))

    def expects(self, peer_id: str) -> bool:
        """Whether something is being received from this peer."""
        return any(peer == peer_id for peer, _ in self._receiving)


class Successors:
    """What comes to go on with one transfer: the latest is meant, and what is lost again before it is taken is not."""

    def __init__(self) -> None:
        self._latest: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()

    def put(self, incoming: Incoming) -> None:
        """The sender offers the same again."""
        if self._latest.done():
            self._latest.result().lose_connection(ConnectionLost(CAME_BACK))
            self._latest = asyncio.get_running_loop().create_future()
        self._latest.set_result(incoming)

    async def next(self, patience: float) -> Incoming | None:
        """What to go on with, if it comes within so many seconds."""
        end = monotonic() + patience
        while True:
            await either(self._latest, timeout=max(end - monotonic(), 0))
            if not self._latest.done():
                return None
            incoming = self._latest.result()
            if not incoming.finished.is_set():
                return incoming
            self._latest = asyncio.get_running_loop().create_future()


def _accepted(incoming: Incoming | None) -> Incoming | None:
    """The attempt that ``incoming`` is to go on with and has not yet; it was accepted by this side's user."""
    if incoming is None or incoming.answered or incoming.came_after is None or incoming.came_after.finished.is_set():
        return None
    return incoming.came_after
