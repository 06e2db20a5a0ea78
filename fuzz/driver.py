"""Runs one target in this process: inputs are changed at random, and what reaches something new is kept and changed on.

Not called by hand: ``python -m fuzz run`` starts a process of this for each target, since a fault in compiled code
takes its process along. Whatever is tried is in a file before it is tried, so that it is not lost with the process.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import hashlib
import logging
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from . import Target, load
from .coverage import Coverage
from .mutate import mutate

HANG = 60
"""Seconds of processor time after which a single input counts as a hang."""

WARM_UP = 2_000
"""Runs after which the process should have reached its size."""

GROWTH_MAX = 64 << 20
"""Bytes by which it may grow later, beside the inputs that are kept."""

FOUND = 3
"""Exit status when an input broke the invariant; its file is named on standard output."""


class Current:
    """A file that always holds the input being tried, even when the process dies."""

    def __init__(self, path: Path, size_max: int) -> None:
        self._size = 4 + size_max
        with open(path, "w+b") as file:
            file.truncate(self._size)
            self._map = mmap.mmap(file.fileno(), self._size)

    def put(self, data: bytes) -> None:
        self._map[: 4 + len(data)] = len(data).to_bytes(4, "big") + data


def read_current(path: Path) -> bytes:
    """The input that a process was trying when it ended."""
    data = path.read_bytes()
    return data[4 : 4 + int.from_bytes(data[:4], "big")]


def save(folder: Path, name: str, data: bytes) -> Path:
    """Write an input into ``folder`` under a name made from its content."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


class Run:
    """One target, its growing collection of inputs, and the limits of the run; ``runs`` of 0 means no limit."""

    def __init__(self, target: Target, seed: int, out: Path, keep: bool) -> None:
        self.target = target
        self.runs = 0
        self._size = 0  # once warm
        self._random = Random(f"{target.name} {seed}")
        self._out = out
        self._kept = out / "corpus" / target.name if keep else None
        self._coverage = Coverage(_counters())
        self._inputs: list[bytes] = []
        self._current = Current(out / f"{target.name}.current", max(target.size_max, 1 << 20))

    def go(self, seconds: float, runs: int) -> bool:
        """Try inputs until time or count is used up; False when one of them broke the invariant."""
        threads = threading.active_count()
        with _watched() as watch:
            return self._go(time.monotonic() + seconds, runs, watch) and self._left_nothing(threads)

    def _go(self, stop: float, runs: int, watch: Callable[[], None]) -> bool:
        watched = 0.0
        for data in self._first():
            if not self._try(data):
                return False
            self._inputs.append(data)
        while self.runs < runs if runs else time.monotonic() < stop:
            now = time.monotonic()
            if now > watched + 1:
                watched = now
                watch()
            if self.runs == WARM_UP:
                self._size = _memory()
            parent = self._inputs[self._pick()]
            if not self._try(mutate(parent, self._inputs, self.target.size_max, self._random)):
                return False
        return True

    def summary(self) -> str:
        coverage = self._coverage
        native = f", {coverage.places} native edges" if coverage.places else ""
        return (
            f"{self.target.name}: {self.runs} runs, {len(self._inputs)} inputs kept, "
            f"{coverage.lines} lines{native}, {coverage.results} results"
        )

    def _first(self) -> list[bytes]:
        paths = self.target.corpus()
        if self._kept is not None:
            paths += sorted(self._kept.glob("*"))
        return [path.read_bytes() for path in paths] or [b""]

    def _pick(self) -> int:
        """Any input, but every other time one of those that came last."""
        count = len(self._inputs)
        return self._random.randrange(max(0, count - 20) if self._random.random() < 0.5 else 0, count)

    def _try(self, data: bytes) -> bool:
        self.runs += 1
        self._current.put(data)
        self._coverage.start(self.runs)
        try:
            result = self.target.fuzz(data)
        except Exception:
            self._coverage.leave()
            traceback.print_exc()
            print(save(self._out, f"{self.target.name}-", data))
            return False
        if self._coverage.stop(result) and self.runs > 1:
            self._inputs.append(data)
            if self._kept is not None:
                save(self._kept, "", data)
        return True

    def _left_nothing(self, threads: int) -> bool:
        """Check that no thread and no memory was left behind."""
        gc.collect()
        if threading.active_count() > threads:
            print(f"{self.target.name}: threads were left running: {threading.enumerate()}", file=sys.stderr)
            return False
        growth = _memory() - self._size - sum(map(len, self._inputs))
        if self._size and growth > GROWTH_MAX:
            print(f"{self.target.name}: {growth >> 20} MiB were left behind in {self.runs} runs", file=sys.stderr)
            return False
        return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.driver")
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    faulthandler.enable()
    logging.disable()
    run = Run(load(arguments.name), arguments.seed, arguments.out, arguments.keep)
    is_fine = run.go(arguments.seconds, arguments.runs)
    print(run.summary(), file=sys.stderr)
    return 0 if is_fine else FOUND


@contextmanager
def _watched() -> Iterator[Callable[[], None]]:
    """Something to call now and then, and the process ends when it is not, saying where it was.

    It is processor time that counts, since a busy machine may hold up everything for long.
    """
    if not hasattr(signal, "setitimer"):
        yield lambda: None
        return

    def watch() -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, HANG)

    faulthandler.register(signal.SIGVTALRM, chain=True)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.unregister(signal.SIGVTALRM)


def _counters() -> ctypes.CDLL | None:
    path = os.environ.get("FUZZ_COUNTERS")
    return ctypes.CDLL(path) if path else None


def _memory() -> int:
    """Bytes that this process holds; 0 where the system does not tell that way."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


if __name__ == "__main__":
    sys.exit(main())
