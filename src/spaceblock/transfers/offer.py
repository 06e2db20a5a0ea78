"""What a peer wants to send, as the program sees it that answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core import make_records
from ..display import kind_of
from ..errors import LocalProtocolError, TransferRefused
from ..events import OfferItem
from ..options import Conflict, Durability
from ..storage.sinks import IntoSink, Sink
from ..storage.targets import is_memory
from ..wire.manifest import EntryKind, Manifest
from .asking import Rename, check_rename
from .following import ShowProgress, follower
from .transfer import AT_ONCE_MAX

if TYPE_CHECKING:
    from ..blocks import SpaceblockRequests
    from .incoming import Incoming
    from .transfer import Transfer


_ONE_TARGET = (str, bytes, bytearray, memoryview)
"""Sequences that are one target at most, and no list of them."""


class Offer:
    """What a peer wants to send. Answer it once, by :meth:`accept` or :meth:`decline`; unanswered it expires."""

    def __init__(self, incoming: Incoming, requests: SpaceblockRequests, manifest: Manifest | None) -> None:
        self._incoming = incoming
        entries = () if manifest is None else manifest.entries
        names = {entry.item: entry.name for entry in entries}
        self.peer: str = incoming.peer_id
        """The sender's peer ID."""
        self.uuid: str = requests.uuid.hex()
        self.items: tuple[OfferItem, ...] = tuple(
            make_records(
                OfferItem,
                (
                    (index, names.get(index), request.size, request.range, request.rereadable)
                    for index, request in enumerate(requests.items)
                ),
            )
        )
        """What would travel, in the order of the indexes."""
        self.links: dict[str, str] = {
            entry.name: entry.target for entry in entries if entry.target is not None and entry.kind is EntryKind.LINK
        }
        """The symbolic links that would be made beside the items, by name, with what each points to."""
        self.folders: tuple[str, ...] = tuple(entry.name for entry in entries if entry.kind is EntryKind.FOLDER)
        """The folders that the sender names, whether or not anything lies in them."""
        sizes = [request.length for request in requests.items]
        self.total_size: int | None = None if None in sizes else sum(size or 0 for size in sizes)
        """Bytes that would travel; None while a size is unknown."""

    def accept(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        into: Sequence[Any] | None = None,
        on_conflict: Conflict = "rename",
        durability: Durability = "fsync",
        rename: Rename | None = None,
        progress: ShowProgress | None = None,
    ) -> Transfer:
        """Receive everything, into ``folder`` or into what ``into`` gives; returns the started :class:`Transfer`.

        ``into`` has one target for each item. A writable C-contiguous buffer, of anything but Python objects and
        pointers, is as long as the item's range, and filled in place. A binary file object, a pipe or standard
        output's ``buffer`` among them, is written to from where it stands, with nothing spooled; it is flushed at the
        end and not closed. ``spaceblock.DISCARD`` takes everything and keeps nothing. Byte 0 of a target is the range's
        start, and what a failed transfer leaves in one is undefined.

        ``on_conflict`` says what to do where a name is taken: ``"rename"`` to a free one, ``"skip"`` the item,
        ``"overwrite"`` it atomically, or raise an ``"error"``. What is skipped is compared with what is there, without
        sending it; the receipt tells which is the same, by its digest.

        A name that cannot be used in this folder is the sender's to change, and the new one overwrites nothing. Where
        that does not help, ``rename(item, problem)`` returns another (``problem.proposal`` would do) or None; it may be
        a coroutine function, and otherwise runs in a thread. Without it the whole offer is refused with
        :class:`NameRejected`.

        With ``durability="fsync"`` a verified file survives a loss of power. ``progress`` is that of :meth:`Peer.send`.

        Raises :class:`LocalProtocolError` if the offer was answered before. Awaiting the transfer raises
        :class:`StorageError`, :class:`NameRejected`, :class:`BufferUnfit` and what can happen on the way, and has
        happened where the offer is gone already; the sender is told the same.
        """
        if (folder is None) == (into is None):
            raise LocalProtocolError("give accept() either a folder or into=[...]")
        if on_conflict not in ("rename", "skip", "overwrite", "error"):
            raise LocalProtocolError(f"on_conflict={on_conflict!r} is not 'rename', 'skip', 'overwrite' or 'error'")
        if durability not in ("fsync", "none"):
            raise LocalProtocolError(f"durability={durability!r} is not 'fsync' or 'none'")
        if folder is not None and (not isinstance(folder, str | bytes | os.PathLike) or not os.fspath(folder)):
            raise LocalProtocolError(f'the folder is {folder!r}: name one, "." for the current one')
        if into is not None and (not isinstance(into, Sequence) or isinstance(into, _ONE_TARGET)):
            raise LocalProtocolError(f"into is {kind_of(into)}: give a list with a target for each item")
        check_rename(rename)
        shown = None if progress is None else follower(progress)

        def make_sink() -> Sink:
            if into is not None:
                return IntoSink(into)
            from ..storage.folder import FolderSink

            assert folder is not None
            return FolderSink(folder, on_conflict, durability, self._incoming.keeper)

        in_memory = into is not None and len(into) <= AT_ONCE_MAX and all(map(is_memory, into))
        transfer = self._incoming.accept(make_sink, rename, in_memory=in_memory)
        if shown is not None:
            self._incoming.show_on(shown)
        return transfer

    async def withdrawn(self) -> None:
        """Return when this offer is gone: the sender cancelled it or was lost, or it has expired.

        For who asks somebody meanwhile. To answer is harmless then, and tells what happened.
        """
        await self._incoming.finished.wait()

    async def decline(self, reason: str = "") -> None:
        """Refuse the whole; the sender's await raises :class:`TransferRefused` with ``reason``.

        Raises :class:`LocalProtocolError` if the offer was answered before; harmless if it is gone.
        """
        text = "the receiver declined" + (f": {reason}" if reason else "")
        await self._incoming.decline(TransferRefused(text))
