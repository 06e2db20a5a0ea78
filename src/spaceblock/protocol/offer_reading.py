"""Reads an offer, page by page, and checks its numbers against limits before anybody keeps more of it."""

from __future__ import annotations

from ..blocks import SpaceblockRequest, SpaceblockRequests
from ..errors import LimitExceeded, RemoteProtocolError
from ..limits import Limits
from ..wire.manifest import Entry, Manifest
from ..wire.messages import ManifestPage, Message, RequestsPage


class OfferReading:
    """An offer of which only some pages came."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._uuid = b""
        self._block_size = 0
        self._items: list[SpaceblockRequest] = []
        self._entries: list[Entry] = []
        self._requests: SpaceblockRequests | None = None
        self._size = 0
        self._payload = 0

    def receive(self, message: Message, payload_size: int) -> tuple[SpaceblockRequests, Manifest | None] | None:
        """Take a message of ``payload_size`` bytes; returns the offer with the last one.

        Raises :class:`RemoteProtocolError` for what no offer is made of, :class:`LimitExceeded` for one too large.
        """
        self._payload += payload_size
        if self._payload > self._limits.manifest_bytes:
            raise LimitExceeded("the offer's list of items is longer than the receiver takes: send fewer at a time")
        if isinstance(message, RequestsPage) and self._requests is None:
            return self._receive_requests(message)
        if isinstance(message, ManifestPage) and self._requests is not None:
            return self._receive_manifest(message, self._requests)
        raise RemoteProtocolError(f"the sender sent {type(message).__name__} where its offer was expected")

    def _receive_requests(self, page: RequestsPage) -> tuple[SpaceblockRequests, None] | None:
        if page.first != len(self._items):
            raise RemoteProtocolError("the sender's request pages do not follow each other")
        if page.first == 0:
            self._uuid, self._block_size = page.uuid, page.block_size
        elif (page.uuid, page.block_size) != (self._uuid, self._block_size):
            raise RemoteProtocolError("the sender's request pages belong to different transfers")
        self._items.extend(page.items)
        self._size += sum(item.length or 0 for item in page.items)
        if len(self._items) > self._limits.items:
            raise LimitExceeded(f"the offer has more than {self._limits.items} items: send fewer at a time")
        if self._size > self._limits.total_size:
            raise LimitExceeded(f"the offer has more than {self._limits.total_size} bytes: send less at a time")
        if not page.last:
            return None
        self._requests = SpaceblockRequests(self._uuid, self._block_size, tuple(self._items))
        return None if page.manifest_follows else (self._requests, None)

    def _receive_manifest(
        self, page: ManifestPage, requests: SpaceblockRequests
    ) -> tuple[SpaceblockRequests, Manifest] | None:
        if page.first != len(self._entries):
            raise RemoteProtocolError("the sender's manifest pages do not follow each other")
        self._entries.extend(page.entries)
        if len(self._entries) > 2 * self._limits.items:
            raise LimitExceeded(f"the offer has more than {2 * self._limits.items} names: send fewer at a time")
        return (requests, Manifest.checked(self._entries, len(self._items))) if page.last else None
