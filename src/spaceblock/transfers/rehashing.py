"""Hashing once more what is there already, in threads beside a transfer's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

from ..blocks import Had, SpaceblockRequests
from ..errors import SpaceblockError, StorageError
from ..protocol.receiver import Receiver
from ..protocol.receiver_events import ReceiverEvent
from ..storage.rereading import BlockHashing, Pursuit, Reread
from .transfer import Job


class Rehashing:
    """What a receiver hashes once more of one transfer: what earlier attempts left, what was repaired, what differs.

    ``opening`` opens what there is of an item, in a worker thread; ``act`` carries out what the receiver's rules make
    of the digests. An item that cannot be read again has failed, and nothing else.
    """

    def __init__(
        self,
        job: Job,
        receiver: Receiver,
        opening: Callable[[int], Reread],
        act: Callable[[list[ReceiverEvent]], None],
    ) -> None:
        self.pursuits: dict[int, Pursuit] = {}
        """The hashers of items that are resumed."""
        self._job = job
        self._receiver = receiver
        self._opening = opening
        self._act = act
        self._requests = SpaceblockRequests(b"", 0, ())
        self._chases: dict[int, asyncio.Task[None]] = {}

    def begin(self, requests: SpaceblockRequests, had: Mapping[int, Had]) -> None:
        """Hash what earlier attempts left while the rest arrives."""
        self._requests = requests
        for item, found in had.items():
            if found.place is None and self._receiver.wants(item):
                request = requests.items[item]
                pursuit = Pursuit(request.start, found.offset, (found.checked, found.digest))
                self.pursuits[item] = pursuit
                if found.offset == request.stop:
                    pursuit.end()
                self._chases[item] = self._job.start_beside(self._find_digest(item, pursuit))

    def forget(self, item: int) -> None:
        """What earlier attempts left of ``item`` counts no more."""
        if item in self._chases:
            self._chases[item].cancel()

    def repaired(self, item: int) -> None:
        """``item`` was repaired: find what it is now."""
        self._job.start_beside(self._find_digest(item, self._hashing(item)))

    def differs(self, item: int) -> None:
        """Find the digests of the blocks of ``item``, as it is here."""
        self._job.start_beside(self._find_blocks(item, self._hashing(item)))

    async def _find_digest(self, item: int, hashing: Pursuit | BlockHashing) -> None:
        digest = await self._read(item, hashing)
        if digest is not None:
            self._act(self._receiver.item_stored(item, self._requests.items[item].length or 0, digest))

    async def _find_blocks(self, item: int, hashing: BlockHashing) -> None:
        if await self._read(item, hashing) is not None:
            self._act(self._receiver.blocks_hashed(item, hashing.blocks))

    async def _read(self, item: int, hashing: Pursuit | BlockHashing) -> bytes | None:
        """Read what there is of ``item``; returns its digest, or None where that is not known yet."""
        try:
            return await rehash(self._job, partial(self._opening, item), hashing)
        except (SpaceblockError, OSError, EOFError) as error:
            text = f"what arrived of item {item} cannot be read again: send it once more"
            found = error if isinstance(error, SpaceblockError) else StorageError(text, item=item)
            self._act(self._receiver.item_failed(item, found))
            return None

    def _hashing(self, item: int) -> BlockHashing:
        request = self._requests.items[item]
        assert request.stop is not None
        return BlockHashing(request.start, request.stop, self._requests.block_size)


async def rehash(job: Job, opening: Callable[[], Reread], hashing: Pursuit | BlockHashing) -> bytes | None:
    """Have ``hashing`` read what ``opening`` opens, to its end, when it is its turn, and count that in the job's
    ``reread``.

    Returns the digest, or None where more is still to move. Raises what ``opening`` raises, and what reading does.
    """
    async with job.rereads:
        return await _rehash(job, opening, hashing)


async def _rehash(job: Job, opening: Callable[[], Reread], hashing: Pursuit | BlockHashing) -> bytes | None:
    opened = job.beside(opening)
    turn: asyncio.Future[tuple[bool, bytes | None]] | None = None
    try:
        source = await asyncio.shield(opened)
        while True:
            before = hashing.hashed
            turn = job.beside(partial(hashing.chase, source))
            is_last, digest = await asyncio.shield(turn)
            job.reread += hashing.hashed - before
            job.changed()
            if is_last:
                return digest
    finally:
        last = opened if turn is None else turn
        if last.done():
            _close(opened)
        else:
            last.add_done_callback(lambda _: _close(opened))  # a thread is still at it


def _close(opened: asyncio.Future[Reread]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        opened.result().close()
