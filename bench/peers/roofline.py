"""A program that moves a file over encrypted UDP as fast as the machine can, without the rest of a transport."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from processes import TIMEOUT
from spaceblock.cli.bench.pair import warm_pages

from .contender import Contender, NotInstalled, Result, Task
from .tool import cpu_of_children, find

_RATE = re.compile(r"([\d.]+) MB/s")


class Roofline(Contender):
    """It is called with the file, where to write it, ``--datagram N`` and ``--runs 1``, and its last ``N MB/s`` counts.

    Whether the bytes arrived is its own affair: it is a yardstick and no peer.
    """

    name = "roofline"
    kinds = ("file",)

    def __init__(self, path: str | None) -> None:
        self._path = path

    def prepare(self, python: str) -> None:
        if self._path is None:
            raise NotInstalled("no program was given by --roofline")
        if find(self._path) is None:
            raise NotInstalled(f"{self._path} is no program")

    def run(self, task: Task) -> Result:
        assert self._path is not None
        warm_pages(task.folder, task.size)
        with tempfile.TemporaryDirectory(dir=task.folder) as name:
            words = [str(task.folder / "source"), str(Path(name) / "target")]
            before = cpu_of_children()
            ended = subprocess.run(
                [self._path, *words, "--datagram", str(task.datagram), "--runs", "1"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
        rates = _RATE.findall(ended.stdout)
        if ended.returncode or not rates:
            raise RuntimeError(f"{self._path} ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")
        return Result(task.size / (float(rates[-1]) * 1e6), cpu_of_children() - before)
