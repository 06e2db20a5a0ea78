"""What the proofs share: how one fails, and what there is in a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from spaceblock import Offer, Peer, Transfer
from spaceblock.names import STAGING_PREFIX

_T = TypeVar("_T")

MIB = 1024 * 1024


class Disproved(AssertionError):
    """A promise was not kept; the text says which, and how to see it again."""


def check(holds: object, what: str) -> None:
    """Raise :class:`Disproved` with ``what`` is wrong unless something ``holds``."""
    if not holds:
        raise Disproved(what)


async def within(work: Awaitable[_T], seconds: int, what: str) -> _T:
    """The result of ``work``; raises :class:`Disproved` when ``what`` takes longer. Time in which this program was not
    running at all does not count. Work that is given up has ended when this does, so that its folders can go."""
    task = asyncio.ensure_future(work)
    try:
        for _ in range(seconds):
            done, _ = await asyncio.wait({task}, timeout=1.0)
            if done:
                return task.result()
        raise Disproved(f"{what} hangs: it takes more than {seconds} seconds")
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=seconds)


async def offer_of(sending: Transfer, there: Peer) -> Offer | None:
    """What ``there`` is offered; None where the transfer is over, or the connection lost, without that."""
    waiting = asyncio.ensure_future(anext(there.offers()))
    over = asyncio.ensure_future(_end_of(sending))
    await asyncio.wait({waiting, over}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    offer = None if waiting.cancel() or waiting.exception() else waiting.result()
    await asyncio.wait({waiting, over})
    return offer


async def _end_of(transfer: Transfer) -> None:
    async for _ in transfer:
        pass


def write_noise(path: Path, size: int, seed: int) -> Path:
    """A new file of ``size`` bytes that nothing compresses, which are the same for the same ``seed``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = blake3(seed.to_bytes(16, "big"))
    with path.open("wb") as file:
        for offset in range(0, size, MIB):
            file.write(noise.digest(length=min(MIB, size - offset), seek=offset))
    return path


def digest_of(path: Path) -> str:
    """The BLAKE3 digest of a file, in hex."""
    return blake3().update_mmap(path).hexdigest() if path.stat().st_size else blake3().hexdigest()


def files_below(folder: Path) -> Iterator[Path]:
    """The files below ``folder``, relative to it, without those of unfinished transfers."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(STAGING_PREFIX)]
        for name in files:
            yield (Path(place) / name).relative_to(folder)


def unfinished(folder: Path) -> list[Path]:
    """The hidden folders of unfinished transfers in ``folder``."""
    return [path for path in folder.iterdir() if path.name.startswith(STAGING_PREFIX)]
