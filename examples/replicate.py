"""Keep a copy of a folder on another machine: ``replicate.py keep FOLDER`` there, ``push FOLDER TICKET`` here.

Two transfers a round. The first offers everything, and the keeper skips what it has: both sides compare digests, so
what is the same never travels. Its receipt tells what has the same name and other contents; the second transfer sends
that, and the keeper replaces each file in one step. With ``--every SECONDS`` the rounds go on over one connection. What
is deleted here is left alone there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from itertools import cycle
from pathlib import Path

import spaceblock


async def push(folder: Path, peer: spaceblock.Peer) -> tuple[int, int]:
    """One round; returns how many files were new, and how many were replaced."""
    receipt = await peer.send(*(folder / name for name in sorted(os.listdir(folder))))
    differing = [item.name for item in receipt.items if item.skipped and not item.digest and item.name is not None]
    new = sum(not item.skipped for item in receipt.items)
    if differing:
        await peer.send(*(spaceblock.Item(folder / name, name=name) for name in differing))
    else:
        await peer.send(spaceblock.Item(b"", name=MARK))
    return new, len(differing)


MARK = ".replicated"
"""Ends a round in which nothing has to be replaced; its time says when that was."""


async def keep(folder: Path, peer: spaceblock.Peer) -> None:
    """Take one peer's rounds until it leaves."""
    policies = cycle(("skip", "overwrite"))
    async for offer in peer.offers():
        if next(policies) == "skip":
            await offer.accept(folder, on_conflict="skip")
        else:
            await offer.accept(folder, on_conflict="overwrite")


async def run_keeper(folder: Path, options: spaceblock.Options) -> None:
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        print(listener.ticket, flush=True)
        async for peer in listener.peers():
            try:
                await keep(folder, peer)
            except spaceblock.SpaceblockError as error:
                print(error, file=sys.stderr)


async def run_pusher(folder: Path, ticket: str, every: float | None) -> None:
    async with spaceblock.connect(ticket) as peer:
        while True:
            new, replaced = await push(folder, peer)
            print(f"{new} new, {replaced} replaced", flush=True)
            if every is None:
                return
            await asyncio.sleep(every)


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a copy of a folder on another machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    keeper = commands.add_parser("keep")
    keeper.add_argument("folder", type=Path)
    pusher = commands.add_parser("push")
    pusher.add_argument("folder", type=Path)
    pusher.add_argument("ticket")
    pusher.add_argument("--every", type=float, metavar="SECONDS")
    chosen = parser.parse_args()
    if chosen.command == "keep":
        name = f"copy in {chosen.folder.resolve()}"  # whose unspent tickets are good after a restart
        asyncio.run(run_keeper(chosen.folder, spaceblock.Options(name=name)))
    else:
        asyncio.run(run_pusher(chosen.folder, chosen.ticket, chosen.every))


if __name__ == "__main__":
    main()
