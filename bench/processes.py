"""What the benchmarks with two processes share: starting both sides, and what each side says of itself.

A side is a script that is run twice. The receiver prints one word, its address, which the sender is given by ``--to``;
both print a :class:`Report` as their last line. So nothing that one side does is charged to the other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from blake3 import blake3

MIB = 1_048_576


class Report(TypedDict, total=False):
    """One side of one transfer; times in seconds, sizes in bytes."""

    digest: str
    """BLAKE3 of what was moved, as 64 hex characters."""
    seconds: float
    """From the completed handshake, as this side saw it, to the end of the transfer."""
    cpu: float
    """User and system time of all threads of the process, from the completed handshake to the end of the transfer."""
    cpu_total: float
    """The same of the whole process: interpreter, imports and handshake too."""
    rss_before: int
    """RssAnon just before the transfer."""
    rss_peak: int
    """The greatest RssAnon during the transfer."""
    samples: list[tuple[int, int]]
    """Nanoseconds on the clock that all processes share, and the bytes that this side then called done."""


class Meter:
    """Measures this process from :meth:`start` on."""

    def start(self) -> None:
        """The handshake is complete."""
        self._cpu, self._clock = time.process_time(), time.monotonic()

    def stop(self, digest: str) -> Report:
        """The transfer is over."""
        cpu = time.process_time()
        return Report(digest=digest, seconds=time.monotonic() - self._clock, cpu=cpu - self._cpu, cpu_total=cpu)


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


def run_pair(
    script: Path, receiver: Sequence[str], sender: Sequence[str], timeout: float = 1800.0
) -> tuple[Report, Report]:
    """Run ``script`` as receiver and as sender with these arguments; returns the receiver's report and the sender's."""
    with _started([sys.executable, str(script), *receiver]) as receiving:
        assert receiving.stdout is not None
        word = receiving.stdout.readline().strip()
        if not word:
            raise SystemExit("the receiver did not start")
        with _started([sys.executable, str(script), *sender, "--to", word]) as sending:
            reports = _report(sending, timeout), _report(receiving, timeout)
    if reports[0]["digest"] != reports[1]["digest"]:
        raise SystemExit("what arrived is not what was sent")
    return reports[1], reports[0]


def cpu(pair: tuple[Report, Report]) -> float:
    """CPU seconds of both sides together."""
    return pair[0]["cpu"] + pair[1]["cpu"]


def content(size: int) -> bytes:
    """``size`` bytes that no layer could shrink, the same each time."""
    piece = random.Random(0).randbytes(MIB)
    return (piece * (size // MIB + 1))[:size]


@contextmanager
def scratch_folder(path: str | None, size: int) -> Iterator[Path]:
    """A folder of our own for ``size`` bytes of files: in ``path``, or else in memory if twice as much is free there,
    or else where temporary files go."""
    if path is None and os.access(_TMPFS, os.W_OK):
        status = Path("/proc/meminfo").read_text()
        available = 1024 * int(status.partition("MemAvailable:")[2].split()[0])
        path = _TMPFS if min(available, shutil.disk_usage(_TMPFS).free) > 2 * size else None
    with tempfile.TemporaryDirectory(prefix="spaceblock-bench-", dir=path) as folder:
        yield Path(folder)


def warm_pages(folder: Path, size: int) -> None:
    """Make the kernel hold ``size`` bytes of free memory.

    A virtual machine may give free pages back to its host, and the first to use them again is then charged for it.
    """
    path = folder / "warm"
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, MIB):
            file.write(_ZEROS)
    path.unlink()


def size_of(text: str) -> int:
    """``64MiB`` and the like as bytes, for argparse."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:iB|B)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 64MiB or a number of bytes")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def digest_of(data: bytes) -> str:
    """BLAKE3 as 64 hex characters."""
    return blake3(data).hexdigest()


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


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive its benchmark."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _report(process: subprocess.Popen[str], timeout: float) -> Report:
    output, _ = process.communicate(timeout=timeout)
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)} failed")  # type: ignore[arg-type]
    report: Report = json.loads(output.splitlines()[-1])
    return report


_TMPFS = "/dev/shm"
_ZEROS = bytes(MIB)
