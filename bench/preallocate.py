"""What it would be worth to allocate a received file's blocks before its bytes come: speed with and without, in turn.

Both sides are in this process. ``fallocate`` with ``FALLOC_FL_KEEP_SIZE`` is called for each partial file when it is
made, so its size still tells how much has come. Say with ``--folder`` on which disk. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import spaceblock
from processes import size_of
from spaceblock.cli.bench.measure import GIB, MIB
from spaceblock.cli.bench.pair import write_source
from spaceblock.storage.folder import FolderSink

KEEP_SIZE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


def main() -> None:
    """Send a file again and again, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=size_of, default=GIB, help="bytes of the file, such as 1GiB")
    parser.add_argument("--rounds", type=int, default=4, help="transfers of each kind (default: 4)")
    parser.add_argument("--folder", type=Path, help="where to receive (default: for temporary files)")
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, tempfile.TemporaryDirectory(dir=options.folder) as disk:
        source = write_source(Path(memory), options.size)
        speeds: dict[str, list[float]] = {"as it is": [], "allocated before": []}
        seconds: list[float] = []
        for _ in range(options.rounds):
            for how, found in speeds.items():
                begin = _as_it_is if how == "as it is" else _allocating(options.size, seconds)
                with patch.object(FolderSink, "begin", begin), tempfile.TemporaryDirectory(dir=disk) as inbox:
                    found.append(options.size / MIB / asyncio.run(transfer(source, Path(inbox))))
    figures = {how: round(statistics.median(found)) for how, found in speeds.items()}
    allocating = round(statistics.median(seconds) * 1000, 1)
    if options.json:
        print(json.dumps({"MiB/s": figures, "allocating in ms": allocating}))
    else:
        for how, found in speeds.items():
            print(f"{how}: {figures[how]} MiB/s, {min(found):.0f} to {max(found):.0f}")
        print(f"allocating took {allocating} ms")


async def transfer(source: Path, inbox: Path) -> float:
    """Seconds for one transfer."""
    here, there = (spaceblock.Options(identity=spaceblock.Identity.ephemeral()) for _ in range(2))
    async with (
        spaceblock.listen("127.0.0.1", options=there) as listener,
        spaceblock.connect(listener.ticket, options=here) as peer,
    ):
        began = time.perf_counter()
        sending = peer.send(source)
        receiving = (await anext(aiter(listener))).accept(inbox)
        await asyncio.gather(sending, receiving)
        took = time.perf_counter() - began
    return took


_as_it_is = FolderSink.begin


def _allocating(size: int, seconds: list[float]) -> Callable[[FolderSink, int], None]:
    def begin(self: FolderSink, item: int) -> None:
        _as_it_is(self, item)
        began = time.perf_counter()
        if _libc.fallocate(self._open[item], KEEP_SIZE, 0, size):
            raise OSError(ctypes.get_errno(), "fallocate")
        seconds.append(time.perf_counter() - began)

    return begin


if __name__ == "__main__":
    main()
