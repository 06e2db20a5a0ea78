"""The listener of the soak test: it does with each offer what its first name asks for, and tells its own figures.

Run as ``python -m proofs.soak_listener FOLDER SENDERS IDLE``, with the idle time-out in seconds. Standard output begins
with a line that has the port and a ticket for each sender; then each line of standard input is answered with
:class:`Figures`. All are JSON. It ends with standard input.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import spaceblock

HALF_OPEN = 4.0
"""Seconds in which a handshake has to be complete; the listener counts nothing before the last has failed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the process holds: ``connections`` of any kind, ``memory`` in KiB that is resident, ``heap`` in KiB that the
    C library gave out, ``blocks`` of Python's own allocator, ``names`` below its folder and files ``kept`` in its home.
    ``pool`` are the threads of the event loop itself, which come as they are first needed and stay."""

    connections: int
    ends: dict[str, int]
    memory: int
    heap: int
    blocks: int
    descriptors: int
    threads: int
    pool: int
    tasks: int
    names: int
    kept: int


class Soaked:
    """The listener, and what became of the offers that it got."""

    def __init__(self, listener: spaceblock.Listener, folder: Path, home: Path) -> None:
        self._listener = listener
        self._folder = folder
        self._home = home
        self._answers: set[asyncio.Task[None]] = set()
        self._ends: Counter[str] = Counter()

    async def take_all(self) -> None:
        """Answer every offer."""
        async for offer in self._listener:
            task = asyncio.create_task(self._answer(offer))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    def figures(self) -> Figures:
        """How much there is at this moment."""
        gc.collect()
        endpoint = self._listener._endpoint
        assert endpoint is not None
        threads = [thread.name for thread in threading.enumerate()]
        pool = sum(name.startswith("asyncio_") for name in threads)
        return Figures(
            connections=max(endpoint.connections, len(self._listener._peers)),
            ends=dict(self._ends),
            memory=_memory(),
            heap=_heap(),
            blocks=sys.getallocatedblocks(),
            descriptors=len(os.listdir("/proc/self/fd")) - 1,
            threads=len(threads) - pool,
            pool=pool,
            tasks=len(asyncio.all_tasks()),
            names=sum(1 for _ in self._folder.rglob("*")),
            kept=sum(path.is_file() for path in self._home.rglob("*")),
        )

    async def _answer(self, offer: spaceblock.Offer) -> None:
        wish = (offer.items[0].name or "").partition("-")[0]
        try:
            if wish == "decline":
                await offer.decline("as you wished")
            elif wish == "ignore":
                return
            else:
                transfer = self._accept(offer, wish)
                if wish == "leave":
                    await _cancel_soon(transfer)
                receipt = await transfer
                for item in receipt.items:
                    if item.path:
                        (self._folder / item.path).unlink()
        except spaceblock.SpaceblockError as error:
            self._ends[error.code] += 1
        else:
            self._ends[wish] += 1

    def _accept(self, offer: spaceblock.Offer, wish: str) -> spaceblock.Transfer:
        if wish == "buffer":
            return offer.accept(into=[bytearray(item.size or 0) for item in offer.items])
        if wish == "discard":
            return offer.accept(into=[spaceblock.DISCARD for _ in offer.items])
        return offer.accept(self._folder, durability="none" if wish == "quick" else "fsync")


async def _cancel_soon(transfer: spaceblock.Transfer) -> None:
    """When anything is known of it for the first time."""
    async for _ in transfer:
        break
    transfer.cancel()


def _memory() -> int:
    """Without what was freed and is only kept for the next use: of that there is more or less by chance."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def _heap() -> int:
    """What is in use, in all arenas and as mappings of its own; 0 where the C library does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)  # of glibc 2.33 and newer
    if ask is None:
        return 0
    ask.restype = _MallocFigures
    told = ask()
    return int(told.uordblks + told.hblkhd) // 1024


class _MallocFigures(ctypes.Structure):
    """``struct mallinfo2``."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


async def _main(folder: Path, senders: int, idle: float) -> None:
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(connect=HALF_OPEN, idle=idle))
    home = Path(os.environ["SPACEBLOCK_HOME"])
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        soaked = Soaked(listener, folder, home)
        taking = asyncio.create_task(soaked.take_all())
        print(json.dumps({"port": listener.addresses[0][1], "tickets": listener.invite(senders)}), flush=True)
        while await lines.readline():
            print(json.dumps(asdict(soaked.figures())), flush=True)
        taking.cancel()
        await listener.abort()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
