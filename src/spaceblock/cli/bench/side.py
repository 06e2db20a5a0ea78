"""One side of a measured transfer, in a process of its own: ``python -m spaceblock.cli.bench.side`` is run twice.

The receiver prints its ticket. Both end with one line of JSON on standard output: a
:class:`~spaceblock.cli.bench.measure.Report`, or ``{"error": {"code": ..., "message": ..., "remote": ...}}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import stat
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from blake3 import blake3

from ...api import connect, listen
from ...errors import ConnectionLost, SpaceblockError
from ...events import Receipt
from ...listener import Listener
from ...options import DISCARD, Options
from ...storage.sources import Item
from ...transfers.transfer import Transfer
from ...trust.identity import Identity
from ..scheduling import prefer_long_turns
from .measure import Meter, Report, content, touched


class Side:
    """Moves items and measures that; :meth:`begin`, :meth:`follow` and :meth:`end` can be extended to see more."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._meter = Meter()

    async def receive(self, target: Path | bytearray | None, host: str = "127.0.0.1") -> Report:
        """Print a ticket, and take the first offer into a folder or a buffer of its size; None: keep nothing of it."""
        async with listen(host, options=self._options) as listener:
            print(listener.ticket, flush=True)
            receipt, report = await self._take(listener, target)
        if target is not None:
            report["landed"] = _digest_of(target, receipt)
        return report

    async def send(self, ticket: str, *sources: Path | bytes | Item) -> Report:
        """Send to whoever issued ``ticket``."""
        async with connect(ticket, options=self._options) as peer:
            self.begin()
            return self.end(await self.follow(peer.send(*sources)))

    def begin(self) -> None:
        """The handshake is complete."""
        self._meter.start()

    async def follow(self, transfer: Transfer) -> Receipt:
        """Await the transfer."""
        return await transfer

    def end(self, receipt: Receipt) -> Report:
        """The transfer is over."""
        digests = {item.digest for item in receipt.items}
        report = self._meter.stop(" ".join(sorted(digests)))
        report["engine"] = self._options.chosen_engine()
        report["aead"] = _aead(report["engine"])
        return report

    async def _take(self, listener: Listener, target: Path | bytearray | None) -> tuple[Receipt, Report]:
        async for peer in listener.peers():
            self.begin()
            async for offer in peer.offers():
                if target is None:
                    transfer = offer.accept(into=[DISCARD] * len(offer.items))
                elif isinstance(target, bytearray):
                    transfer = offer.accept(into=[target])
                else:
                    transfer = offer.accept(target, on_conflict="overwrite")
                receipt = await self.follow(transfer)
                return receipt, self.end(receipt)
            break
        raise ConnectionLost("the sender went without an offer: see what it says")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The words that every side understands."""
    parser.add_argument("role", choices=["receive", "send"])
    parser.add_argument("--to", help="the ticket, for the role send")
    parser.add_argument("--size", type=int, default=0, help="bytes of the buffer on either side")
    parser.add_argument("--file", type=Path, help="what to send instead of a buffer")
    parser.add_argument("--folder", type=Path, help="where to receive into instead of a buffer")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--datagram", type=int, help="bytes of each datagram; by default what the path carries")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine")


def work(side: Side, arguments: argparse.Namespace) -> Coroutine[Any, Any, Report]:
    """What a side's words ask for."""
    if arguments.role == "receive":
        return side.receive(arguments.folder or touched(arguments.size), arguments.host)
    return side.send(arguments.to, arguments.file or content(arguments.size))


def run_side(job: Coroutine[Any, Any, Report]) -> int:
    """Do it, print how it went, and return the exit code. With a pipe as standard input, the process ends early when
    whoever holds its other end does."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        report = asyncio.run(job)
    except SpaceblockError as error:
        told = {"code": error.code, "message": error.message, "remote": error.remote}
        print(json.dumps({"error": told}), flush=True)
        return error.exit_code
    print(json.dumps(report), flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    arguments = parser.parse_args()
    options = Options(identity=Identity.ephemeral(), datagram_size=arguments.datagram, engine=arguments.engine)
    prefer_long_turns()  # as commands do
    return run_side(work(Side(options), arguments))


def _digest_of(target: Path | bytearray, receipt: Receipt) -> str:
    if isinstance(target, bytearray):
        return blake3(target).hexdigest()
    name = receipt.items[0].path
    assert name is not None
    return blake3().update_mmap(target / name).hexdigest()


def _aead(engine: str) -> str:
    if engine != "native":
        return "evp"  # aioquic calls nothing else
    from ...quic.native.protection import backend

    return backend()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
