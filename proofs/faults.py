"""Every system call that can fail does, at its first and at later uses, and both sides are told the same.

A library that is loaded before all others (faults.c) counts the calls of a program that concern its files and
sockets, or the program itself, and lets one of them fail, or do half of what it was asked for. Both sides of a transfer
are in that program. Each time:

1. it ends in time, and either both sides succeed, or both have a typed error: the same code, errno, item, phase and
   exit code, one of them as the other side's; what a disk says is what the error says;
2. no file under a final name is anything but what was sent;
3. no descriptor, thread or task is left;
4. the next transfer in the same program works, and after it there are the files and nothing else.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from spaceblock.options import Engine

from .faulty import NETWORK, PLACES
from .power import QUICK
from .support import Disproved

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
HALF = 0
"""In place of an errno: the call does half of what it was asked for."""

ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EIO, errno.EMFILE, errno.EACCES, errno.EINTR),
    "stat": (errno.EIO, errno.EACCES),
    "list": (errno.EIO, errno.EMFILE),
    "read": (errno.EIO, HALF, errno.EINTR),
    "write": (errno.ENOSPC, HALF, errno.EIO, errno.EINTR, errno.EDQUOT),
    "truncate": (errno.EIO, errno.EINTR),
    "sync": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "datasync": (errno.EIO, errno.ENOSPC, errno.EINTR),
    "syncfs": (errno.EIO, errno.ENOSPC),
    "mkdir": (errno.ENOSPC, errno.EACCES, errno.EIO),
    "rename": (errno.EIO, errno.ENOSPC, errno.EPERM),
    "link": (errno.EIO, errno.EPERM, errno.EMLINK),
    "symlink": (errno.EIO, errno.ENOSPC),
    "unlink": (errno.EIO, errno.EROFS),
    "rmdir": (errno.EIO, errno.EBUSY),
    "chmod": (errno.EPERM, errno.EIO),
    "utime": (errno.EPERM, errno.EIO),
    "lock": (errno.ENOLCK, errno.EIO, errno.EINTR),
    "space": (errno.EIO, errno.ENOSYS),
    "close": (errno.EIO, errno.EINTR),
    "socket": (errno.EMFILE, errno.EAFNOSUPPORT),
    "bind": (errno.EADDRNOTAVAIL, errno.EACCES),
    "setsockopt": (errno.ENOPROTOOPT, errno.ENOBUFS),
    "getsockname": (errno.ENOBUFS,),
    "send": (errno.ENOBUFS, errno.EAGAIN, errno.EINTR, errno.EPERM, errno.ENETUNREACH, errno.EMSGSIZE, errno.EIO),
    "receive": (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.ENOMEM, errno.EIO),
    "epoll_ctl": (errno.ENOMEM,),
    "epoll_wait": (errno.EINTR,),
    "eventfd": (errno.EMFILE,),
    "thread": (errno.EAGAIN,),
    "memory": (errno.ENOMEM,),
}
"""How calls of each kind fail; the first of each in the short proof."""

_KEPT_BACK = (None, errno.EIO)
"""What is known of the errno where SQLite had it."""

HARMLESS = frozenset({HALF, errno.EINTR, errno.EAGAIN, errno.ENOBUFS})
"""What a call that reads, writes, sends or receives fails with when it need only be made again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="of calls (default: all)")
    parser.add_argument("--engine", choices=["native", "aioquic"], help="the QUIC engine (default: each of them)")
    parser.add_argument("--calls", type=int, default=6, help="calls that fail of each kind and place (default: 6)")
    parser.add_argument("--one-error", action="store_true", help="only the first errno of each kind")


def prove(options: argparse.Namespace) -> str:
    """Run the proof; returns the figures."""
    engines: list[Engine] = [options.engine] if options.engine else ["native", "aioquic"]
    figures = []
    for engine in engines:
        figures.append(try_all(engine, options.calls, options.kinds, one_error=options.one_error))
        print(figures[-1], flush=True)
    return f"{len(figures)} engines"


@dataclass(frozen=True, slots=True)
class Case:
    """The calls of a kind and place that fail: ``times`` of them from the ``first`` on."""

    engine: Engine
    kind: str
    place: int = 0
    first: int = 1
    times: int = 1
    errno: int = 0

    def __str__(self) -> str:
        where = PLACES[self.place] if self.place < len(PLACES) else "network" if self.place == NETWORK else "program"
        how = errno.errorcode.get(self.errno, "half")
        return f"{self.engine}: {self.kind} ({where}) number {self.first}: {how}"


class Program:
    """A program both of whose sides transfer, and whose calls fail."""

    def __init__(self, folder: Path) -> None:
        library = folder / "faults.so"
        if not library.exists():
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True)
        self._place = tempfile.TemporaryDirectory(dir=folder)
        self._errors = (Path(self._place.name) / "stderr").open("w+")
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proofs.faulty", self._place.name],
            env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._place.cleanup()

    def run(self, case: Case) -> dict[str, Any]:
        """Try a case; what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            return {"hangs": f"the program ended: {self._errors.read()[-2000:]}"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def try_all(engine: Engine, calls: int, kinds: list[str], *, one_error: bool) -> str:
    """Try the cases of all calls, or those of ``kinds``; returns the figures, or raises :class:`Disproved`."""
    ends: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="faults-", dir=QUICK) as folder, _programs(Path(folder)) as programs:
        program = next(programs)
        program.run(Case(engine, "count"))  # what happens only once in a program
        counts = program.run(Case(engine, "count"))["counts"]
        for case in cases(engine, counts, calls, kinds, one_error=one_error):
            answer = program.run(case)
            found = judge(case, answer)
            faults += [f"{case}: {fault}" for fault in found]
            ends[_end(answer)] += 1
            if found:
                print(*faults[-len(found) :], sep="\n", flush=True)
                program = next(programs)
    if faults:
        raise Disproved(f"{len(faults)} faults, the first of them: {faults[0]}")
    told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return f"{engine}: {sum(ends.values())} calls failed, of {len(counts)} kinds and places: {told}"


def cases(engine: Engine, counts: list[list[Any]], calls: int, kinds: list[str], *, one_error: bool) -> Iterator[Case]:
    """The cases for what a transfer without faults called how often."""
    for kind, place, count in counts:
        if kinds and kind not in kinds:
            continue
        numbers = sorted({1 + index * (count - 1) // max(calls - 1, 1) for index in range(calls)})
        for number in numbers:
            for error in ERRORS[kind][: 1 if one_error else None]:
                yield Case(engine, kind, place, number, 1, error)


def judge(case: Case, answer: dict[str, Any]) -> list[str]:
    """What is wrong with how a case ended."""
    if "hangs" in answer:
        return [answer["hangs"]]
    faults = [f"{what}: {answer[what]}" for what in ("leaks", "wrong", "missing") if answer[what]]
    is_fine = all(end["fine"] for end in answer["ended"])
    if answer["left"] and case.kind not in ("unlink", "rmdir", "list"):
        faults.append(f"left: {answer['left']}")
    if not all(end["fine"] for end in answer["next"]):
        faults.append(f"the next transfer fails: {answer['next']}")
    if answer["extra"] and not is_fine and all(end.get("item") is None for end in answer["ended"]):
        # Where an item failed alone, the others were complete, and the next transfer is another one.
        faults.append(f"extra: {answer['extra'][:3]}")
    if case.kind == "memory":  # whatever lacks memory says so, and it may be anything
        return faults + [_untyped(end) for end in answer["ended"] if not end["fine"] and "code" not in end]
    faults += [f"nobody saw {complaint}" for complaint in answer["complaints"]]
    faults += _typed(case, answer["ended"])
    if not is_fine and case.errno in HARMLESS and case.kind in ("read", "write", "send", "receive", "epoll_wait"):
        faults.append(f"it need only be made again, and the transfer failed: {answer['ended']}")
    return faults


def _typed(case: Case, ended: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the errors."""
    failed = [end for end in ended if not end["fine"]]
    for end in failed:
        if "code" not in end:
            yield _untyped(end)
        elif end["type"] == "InternalError" and not end["remote"]:
            yield f"taken for a fault of our own: {end}"
        elif case.place < len(PLACES) and end["exit_code"] == 6 and end["errno"] not in (case.errno, *_KEPT_BACK):
            yield f"another errno: {end}"
    sides = {end["side"]: end for end in ended}
    if "sender" in sides and "receiver" in sides and failed:
        same = ("fine", "code", "errno", "item", "phase", "exit_code")
        ours, theirs = sides["sender"], sides["receiver"]
        if [ours.get(field) for field in same] != [theirs.get(field) for field in same]:
            yield f"the sides were told different things: {ours} and {theirs}"
        elif ours.get("remote") == theirs.get("remote") and ours.get("code") != "connection_lost":
            yield f"both sides blame the same: {ours} and {theirs}"


def _untyped(end: dict[str, Any]) -> str:
    return f"an error without a type: {end}"


def _end(answer: dict[str, Any]) -> str:
    if "hangs" in answer:
        return "hung"
    codes = {end.get("code", "untyped") for end in answer["ended"] if not end["fine"]}
    return "+".join(sorted(codes)) or "harmless"


@contextmanager
def _programs(folder: Path) -> Iterator[Iterator[Program]]:
    """Programs, each of which ends when the next begins."""

    def programs() -> Iterator[Program]:
        while True:
            with Program(folder) as program:
                yield program

    one_by_one = programs()
    try:
        yield one_by_one
    finally:
        one_by_one.close()  # type: ignore[attr-defined]
