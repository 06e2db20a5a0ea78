"""What contenders that are programs share. They move files, in as many processes as they like.

The clock runs from the start of the command that receives (or does both) to its end, so start and handshake are in it.
CPU seconds are those of all processes that were started and have ended, as the system counts them for a parent.
"""

from __future__ import annotations

import abc
import filecmp
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import TIMEOUT
from spaceblock.cli.bench.pair import warm_pages

from .contender import Contender, NotInstalled, Result, Task

PATIENCE = 30.0
"""Seconds that a program is given to say that it is ready, and to end when it has done its work."""


class Tool(Contender):
    """A program; :meth:`serve` starts what must be there before, :meth:`receive` is on the clock."""

    kinds = ("file",)
    programs: Sequence[str] = ()

    def prepare(self, python: str) -> None:
        missing = [name for name in self.programs if find(name) is None]
        if missing:
            raise NotInstalled(f"there is no program {' and no '.join(missing)}")

    def run(self, task: Task) -> Result:
        warm_pages(task.folder, task.size)
        with TemporaryDirectory(dir=task.folder) as name:
            place = Path(name)
            with self.helped(task, place):
                before = cpu_of_children()
                with self.serve(task, place) as command:
                    began = time.monotonic()
                    execute(command, place)
                    seconds = time.monotonic() - began
                cpu = cpu_of_children() - before
            if not filecmp.cmp(task.folder / "source", self.found(place), shallow=False):
                raise RuntimeError("what arrived is not what was sent")
        return Result(seconds, cpu)

    def helped(self, task: Task, place: Path) -> AbstractContextManager[None]:
        """Servers that only bring the two sides together, so that their CPU seconds do not count."""
        return nullcontext()

    @abc.abstractmethod
    def serve(self, task: Task, place: Path) -> AbstractContextManager[Sequence[str]]:
        """The other side, ready; gives the command to be measured, which is run in the folder ``place``."""

    def found(self, place: Path) -> Path:
        """The file that arrived."""
        return place / "source"


def find(name: str) -> str | None:
    """The path of a program, also of a system's servers."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def needed(name: str) -> str:
    """The path of a program that :meth:`Tool.prepare` found."""
    path = find(name)
    assert path is not None
    return path


def execute(command: Sequence[str], place: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; raises what it wrote if it failed."""
    ended = subprocess.run(
        command,
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        env={**os.environ, **(environment or {})},
    )
    if ended.returncode:
        raise RuntimeError(f"{command[0]} ended with {ended.returncode}: {ended.stderr.strip()[-300:]}")


@contextmanager
def running(
    command: Sequence[str], log: Path, ready: str, *, end: signal.Signals | None, environment: Mapping[str, str] = {}
) -> Iterator[None]:
    """A process that has written ``ready``, to a file; at the end it is sent ``end``, or else it ends by itself."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        wait_for(process, log, ready)
        yield
        if end is not None:
            process.send_signal(end)
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Until ``text`` is in the log."""
    limit = time.monotonic() + PATIENCE
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"{log.stem} is not ready: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.01)


def cpu_of_children() -> float:
    """User and system seconds of all processes that were started here and waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def free_ports(count: int) -> int:
    """The first of ``count`` TCP ports in a row that nobody had a moment ago."""
    for first in range(20_000, 60_000, 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no TCP ports are free")
