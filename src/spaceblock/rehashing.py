"""Hashing once more what is there already, in threads beside a transfer's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from .storage.rereading import BlockHashing, Pursuit, Reread
from .transfer import Job


async def rehash(job: Job, opening: Callable[[], Reread], hashing: Pursuit | BlockHashing) -> bytes | None:
    """Have ``hashing`` read what ``opening`` opens, to its end, and count that in the job's ``reread``.

    Returns the digest, or None where more is still to move. Raises what ``opening`` raises, and what reading does.
    """
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
