"""Two real processes on this machine that move bytes to each other.

The receiver's first line is a word, its address, which the sender is given by ``--to``; each ends with a report as a
line of JSON (see :mod:`.side`). So nothing that one side does is charged to the other.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from ...errors import IntegrityError, InternalError, SpaceblockError, Stalled
from ...process.postponed import Postponed
from .measure import GIB, MIB, Report, content

Kind = Literal["memory", "file"]
KINDS: tuple[Kind, ...] = ("memory", "file")

SIDE = (sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "spaceblock.cli.bench.side")
"""The command of a side of a Spaceblock transfer, which a role and options follow; nothing that lies in the current
folder is mistaken for a module."""

_TMPFS = "/dev/shm"
_ZEROS = bytes(MIB)

_PATIENCE = 30.0
"""Seconds that a side is given to say why the other one failed."""


class Pair(NamedTuple):
    """What both sides said."""

    receiver: Report
    sender: Report

    @property
    def cpu(self) -> float:
        """CPU seconds of both sides together."""
        return self.receiver["cpu"] + self.sender["cpu"]

    @property
    def agreed(self) -> bool:
        """Whether both sides' digests are one, and that of what lies at the receiver."""
        digest = self.sender["digest"]
        return digest == self.receiver["digest"] == self.receiver.get("landed", digest)


def move(
    kind: Kind,
    size: int,
    folder: Path,
    words: Sequence[str] = (),
    *,
    command: Sequence[str] = SIDE,
    environment: Mapping[str, str] | None = None,
) -> Pair:
    """Move ``size`` bytes by Spaceblock; both sides are given ``words`` too.

    A transfer from file to file needs what :func:`write_source` leaves in ``folder``. Raises what a side raised.
    """
    receiver, sender = [*command, "receive", *words], [*command, "send", *words]
    if kind == "memory":
        sized = ["--size", str(size)]
        return run_pair([*receiver, *sized], [*sender, *sized], environment=environment)
    warm_pages(folder, size)
    target = folder / "target"
    target.mkdir()
    try:
        return run_pair(
            [*receiver, "--folder", str(target)], [*sender, "--file", str(folder / "source")], environment=environment
        )
    finally:
        shutil.rmtree(target)


def run_pair(
    receiver: Sequence[str],
    sender: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Pair:
    """Run both commands to their ends.

    Raises the error that a side reported, :class:`InternalError` where it reported nothing, and :class:`Stalled` after
    ``timeout`` seconds.
    """
    reading, writing = os.pipe()  # open as long as this process lives
    try:
        with _started(receiver, reading, environment) as receiving:
            assert receiving.stdout is not None
            word = receiving.stdout.readline().strip()
            if not word or word.startswith("{"):
                raise _error_in(word, "receiving", receiving.wait())
            with _started([*sender, "--to", word], reading, environment) as sending:
                try:
                    sent = _report(sending, "sending", timeout)
                except SpaceblockError as error:
                    if error.remote:  # then the receiver knows better
                        _report(receiving, "receiving", _PATIENCE)
                    raise
                return Pair(_report(receiving, "receiving", timeout), sent)
    finally:
        os.close(reading)
        os.close(writing)


def check(pair: Pair) -> None:
    """Raise :class:`IntegrityError` unless the bytes arrived."""
    if not pair.agreed:
        raise IntegrityError("what arrived is not what was sent: report this with the computer's make and system")


def cpu_per_gib(seconds: float, size: int) -> float:
    """CPU seconds for each GiB of ``size`` bytes."""
    return seconds * GIB / size


@contextmanager
def scratch_folder(path: str | None, size: int) -> Iterator[Path]:
    """A folder of our own for ``size`` bytes of files: in ``path``, or else in memory if twice as much is free there,
    or else where temporary files go."""
    if path is None and os.access(_TMPFS, os.W_OK):
        free = min(available_memory() or 0, shutil.disk_usage(_TMPFS).free)
        path = _TMPFS if free > 2 * size else None
    folder: tempfile.TemporaryDirectory[str] | None = None
    try:
        with Postponed():
            folder = tempfile.TemporaryDirectory(prefix="spaceblock-bench-", dir=path)
        yield Path(folder.name)
    finally:
        with Postponed():
            if folder is not None:
                folder.cleanup()


def write_source(folder: Path, size: int) -> Path:
    """The file that is sent."""
    path = folder / "source"
    with path.open("wb") as file:
        for start in range(0, size, 64 * MIB):
            file.write(content(min(size - start, 64 * MIB)))
    return path


def warm_pages(folder: Path, size: int) -> None:
    """Make the kernel hold ``size`` bytes of free memory.

    A virtual machine may give free pages back to its host, and the first to use them again is then charged for it.
    """
    path = folder / "warm"
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, MIB):
            file.write(_ZEROS)
    path.unlink()


def available_memory() -> int | None:
    """Bytes that processes may still take; None where the system does not tell."""
    try:
        status = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    return 1024 * int(status.partition("MemAvailable:")[2].split()[0])


@contextmanager
def _started(
    command: Sequence[str], stdin: int, environment: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive its benchmark; Ctrl-C reaches this process alone, which then ends it."""
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _report(process: subprocess.Popen[str], side: str, timeout: float | None) -> Report:
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Stalled(f"the {side} side took more than {timeout:g} seconds: give it less to move") from None
    last = output.strip().rpartition("\n")[2]
    if process.returncode or not last:
        raise _error_in(last, side, process.returncode)
    report: Report = json.loads(last)
    return report


def _error_in(line: str, side: str, status: int) -> SpaceblockError:
    """What a side's last line says of its failure."""
    if not line.startswith('{"error"'):
        return InternalError(f"the {side} side ended early with status {status}: see above what it wrote")
    error = json.loads(line)["error"]
    kinds = {kind.code: kind for kind in reversed([*_kinds(SpaceblockError)])}  # of those that share a code, the first
    return kinds.get(error["code"], InternalError)(error["message"], remote=error.get("remote", False))


def _kinds(kind: type[SpaceblockError]) -> Iterator[type[SpaceblockError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)
