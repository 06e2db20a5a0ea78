"""A sender of the soak test: short transfers over short connections, some of them given up.

Run as ``python -m proofs.soak_sender TICKET FOLDER SEED IDLE``, with the idle time-out in seconds. For each line of
standard input, a number, it makes so many transfers, says on a line of its own how each ended, and then ``round``.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import spaceblock

from .support import write_noise

WISHES = {
    "file": 30,
    "quick": 10,
    "many": 5,
    "large": 2,
    "buffer": 15,
    "discard": 10,
    "decline": 8,
    "ignore": 5,
    "leave": 7,
    "giveup": 8,
}
"""What is done with an offer, and how often in a hundred: received to the end into files, with and without flushing,
into many, into a large one, into memory, into nothing; declined, never answered, cancelled there, cancelled here."""

LATE = 2.0
"""Seconds by which this process may come too late before it counts as one that did not run."""

STOPPED = {"stalled", "connection_lost", "offer_expired", "unreachable"}
"""How a transfer may end when the machine stood still meanwhile."""

EXPECTED = {
    "decline": {"refused"},
    "ignore": {"cancelled"},
    "leave": {"cancelled", "done"},
    "giveup": {"cancelled", "done"},
}
"""How each ends; all others are to be done."""


class Sender:
    """Makes transfers of all kinds, drawn from a seed."""

    def __init__(self, ticket: str, folder: Path, seed: int, idle: float) -> None:
        self._timeouts = spaceblock.Timeouts(idle=idle)
        self._options = spaceblock.Options(timeouts=self._timeouts)
        self._ticket = ticket
        self._folder = folder
        self._chance = random.Random(seed)
        self._number = 0
        self._seed = seed
        self._stood_still = -math.inf

    async def watch(self) -> None:
        """Notice when this machine stood still, as one that sleeps does: then time-outs are nobody's fault."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(LATE / 4)
            now = time.monotonic()
            if now - before > LATE:
                self._stood_still = now
            before = now

    async def make(self, count: int) -> None:
        """So many transfers, some at once, over connections that are closed after a few."""
        while count:
            batch = self._chance.randint(1, min(count, 8))
            count -= batch
            try:
                async with spaceblock.connect(self._ticket, options=self._options) as peer:
                    await asyncio.gather(*(self._one(peer) for _ in range(batch)))
                    if self._chance.random() < 0.1:
                        await peer.abort()
            except spaceblock.SpaceblockError as error:
                self._tell("connection", error.code, error.message)
        await self._be_refused()

    async def _one(self, peer: spaceblock.Peer) -> None:
        (wish,) = self._chance.choices(list(WISHES), list(WISHES.values()))
        self._number += 1
        why = ""
        sources = list(self._sources(wish, f"{wish}-{self._seed}-{self._number}"))
        try:
            transfer = peer.send(*sources)
            if wish in ("ignore", "giveup"):
                await asyncio.wait({asyncio.ensure_future(_first_news(transfer))}, timeout=self._chance.random() / 4)
                transfer.cancel()
            await transfer
            end = "done"
        except spaceblock.SpaceblockError as error:
            end, why = error.code, error.message
        finally:
            for source in sources:
                if isinstance(source, Path):
                    source.unlink()
        self._tell(wish, end, why)

    def _tell(self, wish: str, end: str, why: str) -> None:
        if end in EXPECTED.get(wish, {"done"}):
            print(wish if end == "done" else end, flush=True)
        elif end in STOPPED and time.monotonic() - self._stood_still < 3 * self._timeouts.idle:
            print("stood still", flush=True)
        else:
            print(f"unexpected: {wish} ended as {end}: {why}", flush=True)

    def _sources(self, wish: str, name: str) -> Iterator[Path | spaceblock.Item]:
        chance = self._chance
        if wish == "many":
            for at in range(chance.randint(2, 60)):
                yield spaceblock.Item(chance.randbytes(chance.randint(0, 3000)), name=f"{name}-{at}")
        elif wish in ("file", "large", "leave", "giveup"):
            most = 24_000_000 if wish != "file" else 200_000
            yield write_noise(self._folder / name, chance.randint(0, most), self._number)
        else:
            yield spaceblock.Item(chance.randbytes(chance.randint(0, 100_000)), name=name)

    async def _be_refused(self) -> None:
        """Come with no right to: as another peer, with the ticket of this one."""
        stranger = spaceblock.Options(identity=spaceblock.Identity.ephemeral(), timeouts=self._timeouts)
        try:
            async with spaceblock.connect(self._ticket, options=stranger):
                print("unexpected: a stranger was let in", flush=True)
        except spaceblock.AdmissionRefused:
            pass
        except spaceblock.SpaceblockError as error:
            self._tell("stranger", error.code, error.message)


async def _first_news(transfer: spaceblock.Transfer) -> None:
    async for _ in transfer:
        break


def _tell_tasks() -> None:
    """What is asked of a sender that seems to hang."""
    for task in asyncio.all_tasks():
        task.print_stack()


async def _main(ticket: str, folder: Path, seed: int, idle: float) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_tasks)
    sender = Sender(ticket, folder, seed, idle)
    watching = asyncio.create_task(sender.watch())
    while line := await asyncio.to_thread(sys.stdin.readline):
        await sender.make(int(line))
        print("round", flush=True)
    watching.cancel()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
