"""What the benchmarks with two processes share, beside what they have from ``spaceblock bench``."""

from __future__ import annotations

import argparse
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from blake3 import blake3

from spaceblock.cli.bench.pair import Pair, check, run_pair
from spaceblock.cli.quantities import parse_size

TIMEOUT = 3600.0
"""Seconds after which a transfer hangs."""


class MemoryWatch:
    """Looks at this process's anonymous memory from a thread of its own, many times a second."""

    def __init__(self, interval: float = 0.01) -> None:
        self.before = self.peak = anonymous_memory()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(interval,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_memory())

    def _run(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            self.peak = max(self.peak, anonymous_memory())


def anonymous_memory() -> int:
    """Bytes of RssAnon: what this process holds and no file backs."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "this kernel does not tell RssAnon, which Linux does since 4.5"
    return 1024 * int(found[1])


def run_script(script: Path, receiver: Sequence[str], sender: Sequence[str]) -> Pair:
    """Run ``script`` as receiver and as sender with these words; raises where the bytes did not arrive."""
    command = [sys.executable, str(script)]
    pair = run_pair([*command, *receiver], [*command, *sender], timeout=TIMEOUT)
    check(pair)
    return pair


def size_of(text: str) -> int:
    """``64MiB`` and the like as bytes, for argparse."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def digest_of(data: bytes) -> str:
    """BLAKE3 as 64 hex characters."""
    return blake3(data).hexdigest()


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and in brackets the least and the greatest value."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f})"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, so that it can be pasted into the documentation."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    print(line(header))
    print(line(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]))
    for row in rows:
        print(line(row))
