"""One side of a Spaceblock transfer in a process of its own, measured; the other benchmarks run it twice."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from processes import MemoryWatch, Meter, content, size_of
from spaceblock import Identity, Options, Receipt, Reports, Transfer, connect, listen

SCRIPT = Path(__file__)


async def receive(arguments: argparse.Namespace) -> None:
    reports = Reports(arguments.interval, arguments.blocks)
    target = None if arguments.folder else [bytearray(arguments.size)]
    async with listen("127.0.0.1", options=Options(identity=Identity.ephemeral(), reports=reports)) as listener:
        print(listener.ticket, flush=True)
        side = _Side(arguments)
        async for peer in listener.peers():
            side.start()
            async for offer in peer.offers():
                side.finish(await side.watch(offer.accept(arguments.folder, into=target, on_conflict="overwrite")))
                return


async def send(arguments: argparse.Namespace) -> None:
    source = arguments.file or content(arguments.size)
    async with connect(arguments.to, options=Options(identity=Identity.ephemeral())) as peer:
        side = _Side(arguments)
        side.start()
        side.finish(await side.watch(peer.send(source)))


class _Side:
    """What is measured beside the transfer."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._meter = Meter()
        self._interval: float | None = arguments.sample
        self._memory: MemoryWatch | None = None
        self._with_memory: bool = arguments.memory
        self._samples: list[tuple[int, int]] = []

    def start(self) -> None:
        """The handshake is complete."""
        if self._with_memory:
            self._memory = MemoryWatch()
        self._meter.start()

    async def watch(self, transfer: Transfer) -> Receipt:
        """Await the transfer, looking at its figures all the while if that was asked for."""
        if self._interval is not None:
            while not transfer.done:
                self._samples.append((time.monotonic_ns(), transfer.progress.bytes_done))
                await asyncio.sleep(self._interval)
            self._samples.append((time.monotonic_ns(), transfer.progress.bytes_done))
        return await transfer

    def finish(self, receipt: Receipt) -> None:
        """Print the report."""
        report = self._meter.stop(receipt.items[0].digest)
        if self._memory is not None:
            self._memory.stop()
            report["rss_before"], report["rss_peak"] = self._memory.before, self._memory.peak
        if self._samples:
            report["samples"] = self._samples
        print(json.dumps(report), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["receive", "send"])
    parser.add_argument("--size", type=size_of, default=0, help="bytes of the buffer on either side")
    parser.add_argument("--to", help="the ticket, for the role send")
    parser.add_argument("--file", help="what to send instead of a buffer")
    parser.add_argument("--folder", help="where to receive into instead of a buffer")
    parser.add_argument("--interval", type=float, help="seconds between the receiver's reports; none without it")
    parser.add_argument("--blocks", type=int, help="blocks between the receiver's reports; none without it")
    parser.add_argument("--sample", type=float, help="seconds between looks at this side's progress")
    parser.add_argument("--memory", action="store_true", help="watch this process's anonymous memory")
    arguments = parser.parse_args()
    asyncio.run(receive(arguments) if arguments.role == "receive" else send(arguments))


if __name__ == "__main__":
    main()
