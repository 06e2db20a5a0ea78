"""How soon a sender hears that the receiver's disk is full.

``python bench/full_disk.py`` lets two processes move bytes without end to a small disk in memory, which it has to mount
as root. It notes when the disk has no room left, by looking every millisecond, when the sender's line of JSON says so,
and when both processes have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from processes import size_of
from spaceblock.cli.bench.measure import MIB

SPACEBLOCK = (sys.executable, "-m", "spaceblock")


def run(folder: Path, disk: Path) -> tuple[float, float]:
    """Seconds from the moment the disk was full to the sender's word of it, and to the end of both processes."""
    environments = [{**os.environ, "SPACEBLOCK_HOME": str(folder / side)} for side in ("sender", "receiver")]
    words = ["send", "-", "--listen", "127.0.0.1:0", "--json"]
    with (
        open("/dev/zero", "rb") as endless,
        subprocess.Popen(
            [*SPACEBLOCK, *words],
            env=environments[0],
            stdin=endless,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as sender,
    ):
        assert sender.stdout is not None
        ticket = json.loads(sender.stdout.readline())["ticket"]
        full: list[float] = []
        is_over = threading.Event()
        watch = threading.Thread(target=watch_until_full, args=(disk, full, is_over))
        watch.start()
        words = ["receive", ticket, "--yes", "--dir", str(disk)]
        with subprocess.Popen([*SPACEBLOCK, *words], env=environments[1], stderr=subprocess.DEVNULL) as receiver:
            told = next(time.monotonic() for line in sender.stdout if json.loads(line).get("code") == "no_space")
            codes = (sender.wait(), receiver.wait())
        ended = time.monotonic()
        is_over.set()
        watch.join()
        if codes != (6, 6):
            raise SystemExit(f"the exit codes are {codes} and should be 6")
        if not full:
            raise SystemExit("the disk was full for too short a time to be seen; give it more bytes with --size")
        return told - full[0], ended - full[0]


def watch_until_full(disk: Path, full: list[float], is_over: threading.Event) -> None:
    """Note when the disk has no room left, if that is seen before the transfer is over."""
    while os.statvfs(disk).f_bavail:
        if is_over.wait(0.001):
            return
    full.append(time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default=64 * MIB, help="bytes of the disk")
    parser.add_argument("--rounds", type=int, default=5, help="transfers, one after the other")
    parser.add_argument("--json", action="store_true", help="print what was measured, as one object")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name, "disk")
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={arguments.size}", "tmpfs", disk], check=True)
        try:
            found = [run(Path(name), disk) for _ in range(arguments.rounds)]
        finally:
            subprocess.run(["umount", disk], check=True)
    if arguments.json:
        print(json.dumps([{"told": told, "ended": ended} for told, ended in found]))
        return
    for what, seconds in zip(("the sender is told", "both have ended"), zip(*found, strict=True), strict=True):
        print(f"{what}: {1000 * median(seconds):.0f} ms (at most {1000 * max(seconds):.0f}) after the disk is full")


if __name__ == "__main__":
    main()
