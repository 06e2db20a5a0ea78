"""One side of a Spaceblock transfer that is looked at more closely than ``spaceblock bench`` does."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from processes import MemoryWatch
from spaceblock import Identity, Item, Options, Receipt, Reports, Transfer
from spaceblock.cli.bench.measure import Report
from spaceblock.cli.bench.side import Side, add_options, run_side, work
from spaceblock.limits import HEARTBEAT

SCRIPT = Path(__file__)


class WatchedSide(Side):
    """What is measured beside the transfer, and what disturbs it."""

    def __init__(self, options: Options, arguments: argparse.Namespace) -> None:
        super().__init__(options)
        self._interval: float | None = arguments.sample
        self._with_memory: bool = arguments.memory
        self._busy: float | None = arguments.busy
        self._memory: MemoryWatch | None = None
        self._samples: list[tuple[int, int]] = []

    def begin(self) -> None:
        if self._with_memory:
            self._memory = MemoryWatch()
        super().begin()

    async def follow(self, transfer: Transfer) -> Receipt:
        disturbance = None if self._busy is None else asyncio.create_task(keep_busy(self._busy))
        if self._interval is not None:
            while not transfer.done:
                self._samples.append((time.monotonic_ns(), transfer.progress.bytes_done))
                await asyncio.sleep(self._interval)
            self._samples.append((time.monotonic_ns(), transfer.progress.bytes_done))
        try:
            return await super().follow(transfer)
        finally:
            if disturbance is not None:
                disturbance.cancel()

    def end(self, receipt: Receipt) -> Report:
        report = super().end(receipt)
        if self._memory is not None:
            self._memory.stop()
            report["rss_before"], report["rss_peak"] = self._memory.before, self._memory.peak
        if self._samples:
            report["samples"] = self._samples
        return report


async def keep_busy(milliseconds: float) -> None:
    """Compute in Python for so long, leave the loop to others for as long, and again."""
    seconds = milliseconds / 1e3
    while True:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            sum(range(100))
        await asyncio.sleep(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--interval", type=float, default=HEARTBEAT, help="seconds between the receiver's reports")
    parser.add_argument("--blocks", type=int, help="blocks between the receiver's reports; none without it")
    parser.add_argument("--silent", action="store_true", help="no reports by time")
    parser.add_argument("--sample", type=float, help="seconds between looks at this side's progress")
    parser.add_argument("--memory", action="store_true", help="watch this process's anonymous memory")
    parser.add_argument("--discard", action="store_true", help="receive and keep nothing")
    parser.add_argument("--repeat", type=int, help="send the file so many times, in one transfer")
    parser.add_argument("--busy", type=float, metavar="MS", help="compute so long on the event loop, rest as long")
    arguments = parser.parse_args()
    options = Options(
        identity=Identity.ephemeral(),
        datagram_size=arguments.datagram,
        engine=arguments.engine,
        reports=Reports(None if arguments.silent else arguments.interval, arguments.blocks),
    )
    side = WatchedSide(options, arguments)
    if arguments.discard:
        return run_side(side.receive(None))
    if arguments.repeat is not None:
        return run_side(side.send(arguments.to, *[Item(arguments.file, name=str(i)) for i in range(arguments.repeat)]))
    return run_side(work(side, arguments))


if __name__ == "__main__":
    sys.exit(main())
