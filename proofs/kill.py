"""Kill test: a sender or a receiver is killed at random moments, and the same commands are given until all is there.

Real processes of the command line on a real disk get SIGKILL, one of them or both: while they start, shake hands, move
bytes, verify, put files into place and tell each other. Then

- no file ever has its final name before it is whole, or while it is not what was sent;
- in the end everything is there and the same, once, and nothing unfinished is left behind;
- an interruption costs no more than what was not durable yet, and what was in flight.

Every case is drawn from the seed and its number, so one that failed is run again with --seed SEED --case NUMBER; only
the moments depend on the machine. What failed keeps its folder.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spaceblock.limits import FLIGHT_MAX, Limits

from .processes import Command, free_port
from .support import MIB, Disproved, check, digest_of, files_below, unfinished, write_noise

SMALL = 256 * 1024
"""Bytes of the smallest file of its own."""

AGAIN_MAX = Limits().not_durable + FLIGHT_MAX
"""Bytes that may have to come again after an interruption: what was not durable, and what was in flight."""

ENOUGH = 900.0
"""Seconds after which a case counts as never complete."""

_LOOK = 0.0005
"""Seconds between two looks at the folder that is received into."""

KINDS = ("file", "folder", "overwrite")
VICTIMS = ("sender", "sender", "receiver", "receiver", "both")
MOMENTS = {"start": 0.7, "offered": 0.05, "data": 0.0, "arrived": 0.04, "placing": 0.01, "told": 0.03}
"""When to kill: after the sender was started, with an offer there, so many bytes on the disk, all of them, a final name
given, the receiver's user told; and up to how many seconds later."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Who is killed, and when: ``fraction`` is that of the bytes that were missing, ``delay`` in seconds."""

    victim: str
    moment: str
    fraction: float
    delay: float


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, and how it is interrupted; ``files`` are the final names with their sizes, ``old`` what is there
    under the same names before, ``rate`` in bytes a second."""

    number: int
    kind: str
    files: dict[str, int]
    old: dict[str, int]
    rate: int | None
    kills: tuple[Kill, ...]

    @property
    def top(self) -> str:
        """What the sender is told to send."""
        return f"case-{self.number}"

    @property
    def total(self) -> int:
        """Bytes that have to arrive."""
        return sum(self.files.values())


@dataclass(slots=True)
class Tally:
    """What came of some cases."""

    cases: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    victims: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    again: list[int] = field(default_factory=list)
    """Bytes that had come when something was killed, and had to come again."""

    def __str__(self) -> str:
        again = sorted(self.again) or [0]
        return (
            f"{sum(self.kills.values())} kills in {self.cases} transfers of {self.bytes / MIB:.0f} MiB in all\n"
            f"killed: {_counts(self.victims)}; when: {_counts(self.kills)}; sent: {_counts(self.kinds)}\n"
            f"{len(self.again)} times something had come before: at most {again[-1] / MIB:.1f} MiB of that had to come "
            f"again, half of the time no more than {again[len(again) // 2] / MIB:.1f} MiB\n"
            "all files are the same, once, with nothing left behind"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m proofs kill``."""
    parser.add_argument("--times", type=int, default=200, metavar="N", help="kill so often (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="what all cases are drawn from (default: 1)")
    parser.add_argument("--case", type=int, metavar="NUMBER", help="run this case alone")
    parser.add_argument(
        "--largest", type=int, default=192, metavar="MIB", help="size of the largest file (default: 192)"
    )
    parser.add_argument("--folder", type=Path, help="where to work, on a real disk (default: for temporary files)")
    parser.add_argument("--verbose", action="store_true", help="tell of every case")


def prove(options: argparse.Namespace) -> str:
    """Kill as often as is wanted; raises :class:`Disproved`."""
    folder = Path(tempfile.mkdtemp(prefix="spaceblock-kill-", dir=options.folder))
    tally = Tally()
    number = options.case or 0
    while True:
        case = draw(options.seed, number, options.largest * MIB)
        if options.verbose:
            print(f"case {number}: {case.kind} of {case.total} bytes, {len(case.kills)} kills", flush=True)
        try:
            Trial(case, folder, tally).run()
        except Disproved as error:
            again = f"python -m proofs kill --seed {options.seed} --case {number} --largest {options.largest}"
            raise Disproved(f"{error}; see {folder}, and run it again with: {again}") from None
        number += 1
        if options.verbose:
            print(tally, flush=True)
        if options.case is not None or sum(tally.kills.values()) >= options.times:
            break
    shutil.rmtree(folder)
    return str(tally)


def draw(seed: int, number: int, largest: int) -> Case:
    """One case: the same for the same numbers."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(KINDS)
    top = f"case-{number}"
    files = {top: _size(chance, SMALL, largest)}
    if kind == "folder":
        files = {
            f"{top}/{chance.choice('abc')}/{at}": _size(chance, 1, 2 * MIB) for at in range(chance.randint(3, 150))
        }
        files[f"{top}/empty"] = 0
        files[f"{top}/large"] = _size(chance, SMALL, largest // 4)
    total = sum(files.values())
    old = {name: size // 2 + 1 for name, size in files.items()} if kind == "overwrite" else {}
    rate = chance.choice((None, max(int(total / chance.uniform(0.2, 1.5)), MIB)))
    kills = tuple(_kill(chance) for _ in range(chance.choice((1, 1, 2, 2, 3, 5))))
    return Case(number, kind, files, old, rate, kills)


class Trial:
    """One case, from the first command to the last look at what arrived."""

    def __init__(self, case: Case, folder: Path, tally: Tally) -> None:
        self._case = case
        self._folder = folder
        self._tally = tally
        self._port = free_port()
        self.source = folder / "source" / case.top
        self.inbox = folder / f"inbox-{case.number}"
        self._digests: dict[str, set[str]] = {}
        self._seen: dict[tuple[int, int], str] = {}
        self._ticket = ""
        self._came = 0  # bytes that were here when the last attempt ended that told where it began
        self._attempts = 0  # that have ended since then
        self._running: list[Command] = []

    def run(self) -> None:
        """Send, kill, check and send again until everything is there; raises :class:`Disproved`."""
        self.make_files()
        try:
            self._send_until_complete()
        finally:
            for command in self._running:
                if command.running():
                    command.kill()
        self.check_end()
        self._tally.cases += 1
        self._tally.kinds[self._case.kind] += 1
        self._tally.bytes += self._case.total
        shutil.rmtree(self.inbox)
        shutil.rmtree(self._folder / "source")

    def _send_until_complete(self) -> None:
        deadline = time.monotonic() + ENOUGH
        kills = list(self._case.kills)
        receiver, sender = self._receive(), self._send()
        while True:
            check(time.monotonic() < deadline, f"the transfer is not complete after {ENOUGH:g} s")
            if kills and self._wait_for(kills[0], sender, receiver):
                kill = kills.pop(0)
                self._strike(kill, sender, receiver)
                self._check_now()
                self._count_again()
                if not receiver.running():
                    receiver = self._receive()
                if sender.last("complete") is not None:
                    break
            else:
                code = sender.wait()
                self._count_again()
                if code == 0:
                    break
                self._check_excuse(sender, code)
            if not sender.running():
                self._check_now()
                sender = self._send()
        self._check_told(sender)
        check(not unfinished(self.inbox), f"the sender was told that all is complete, and {self.inbox} has leftovers")
        receiver.end()

    # The commands.

    def _receive(self) -> Command:
        words: list[str | Path] = [
            "receive",
            "--yes",
            "--dir",
            self.inbox,
            "--listen",
            "127.0.0.1",
            "--port",
            str(self._port),
        ]
        if self._case.kind == "overwrite":
            words.append("--overwrite")
        command = self._start(words, "receiver")
        ticket = command.wait_for("ticket")["ticket"]
        self._ticket = self._ticket or ticket
        return command

    def _send(self) -> Command:
        limit = [] if self._case.rate is None else ["--limit", str(self._case.rate)]
        return self._start(["send", *limit, "--to", self._ticket, self.source], "sender")

    def _start(self, words: list[str | Path], side: str) -> Command:
        command = Command(words, self._folder / f"home-{side}", self._folder / f"{side}.log")
        self._running.append(command)
        return command

    # The moments.

    def _wait_for(self, kill: Kill, sender: Command, receiver: Command) -> bool:
        """Wait for the moment; False if the sender ended before."""
        arrived, names = self._look()
        names = min(names, len(self._case.files) - 1)
        wanted = arrived + kill.fraction * (self._case.total - arrived)
        offers, told = _count(receiver, "offer"), _count(receiver, "complete")
        is_now: dict[str, Callable[[int, int], bool]] = {
            "start": lambda now, named: True,
            "offered": lambda now, named: _count(receiver, "offer") > offers,
            "data": lambda now, named: now >= wanted,
            "arrived": lambda now, named: now >= self._case.total,
            "placing": lambda now, named: named > names,
            "told": lambda now, named: _count(receiver, "complete") > told,
        }
        while sender.running():
            if is_now[kill.moment](*self._look()):
                time.sleep(kill.delay)
                return sender.running() or kill.victim == "receiver"
            time.sleep(_LOOK)
        return False

    def _look(self) -> tuple[int, int]:
        """How many bytes there are, finished or not, and how many final names; their sizes have to be right."""
        arrived = named = 0
        for name, size in self._named():
            check(size in (self._case.files.get(name), self._case.old.get(name)), f"{name!r} has {size} bytes")
            if size == self._case.files[name]:
                arrived += size
                named += 1
        for folder in unfinished(self.inbox):
            arrived += sum(_size_of(path) or 0 for path in _inside(folder) if path.name != "journal")
        return arrived, named

    def _named(self) -> list[tuple[str, int]]:
        found = ((name, _size_of(self.inbox / name)) for name in files_below(self.inbox))
        return [(str(name), size) for name, size in found if size is not None]

    def _strike(self, kill: Kill, sender: Command, receiver: Command) -> None:
        victims = [
            command
            for side, command in (("sender", sender), ("receiver", receiver))
            if kill.victim in (side, "both") and command.running()
        ]
        for command in victims:
            command.process.kill()
        for command in victims:
            command.wait()
        self._tally.kills[kill.moment] += 1
        self._tally.victims[kill.victim] += 1

    # What has to hold.

    def _check_now(self) -> None:
        """Whatever has a final name is whole and right, at any time."""
        for name, _ in self._named():
            digest = self._digest(name)
            check(digest in self._digests.get(name, ()), f"{name!r} is not what was sent")
        check(len(unfinished(self.inbox)) <= 1, f"one transfer has {len(unfinished(self.inbox))} unfinished folders")

    def check_end(self) -> None:
        """Everything is there, and nothing else."""
        self._check_now()
        found = dict(self._named())
        check(found == self._case.files, f"there is {found} and not {self._case.files}")
        check(not unfinished(self.inbox), f"{unfinished(self.inbox)} are left behind")

    def _check_told(self, sender: Command) -> None:
        told = sender.last("complete")
        check(told is not None, "the sender ended well and did not say that all is complete")
        assert told is not None
        digests = {item["name"]: item["digest"] for item in told["items"]}
        wanted = {name: digest_of(self.source.parent / name) for name in self._case.files}
        check(digests == wanted, f"the sender was told of {digests}")

    def _check_excuse(self, sender: Command, code: int) -> None:
        """A sender that was not killed may lose a receiver that was, and nothing else."""
        error = sender.last("error") or {}
        check(code == 4, f"the sender ended with {code}: {error.get('message')}")

    def _count_again(self) -> None:
        """How much that had come must come again: what was here at the end of one attempt, less where another began.

        What the process says that was started for this attempt cannot be about an earlier one.
        """
        records = self._running[-1].records
        figures = [record for record in records if record["type"] in ("progress", "complete")]
        resumed = figures[-1]["resumed"] if figures else 0
        came = max((record.get("bytes_done", 0) for record in figures), default=0)
        self._attempts += 1
        if came or resumed:
            again = max(self._came - resumed, 0)
            allowed = (self._attempts - 1) * AGAIN_MAX
            check(again <= allowed, f"{self._came} bytes had come, and it went on from {resumed}")
            self._tally.again += [again] if self._came else []
            self._came, self._attempts = 0, 1
        self._came = max(self._came, came, self._look()[0])

    # Helpers.

    def make_files(self) -> None:
        self.inbox.mkdir()
        for at, (name, size) in enumerate(self._case.files.items()):
            path = write_noise(self.source.parent / name, size, self._case.number * 1_000_000 + at)
            self._digests[name] = {digest_of(path)}
        for name, size in self._case.old.items():
            self._digests[name].add(digest_of(write_noise(self.inbox / name, size, self._case.number)))

    def _digest(self, name: str) -> str:
        """The digest of what has a final name; a file that was looked at before is still the same."""
        with (self.inbox / name).open("rb") as file:
            status = os.fstat(file.fileno())
            known = (status.st_ino, status.st_mtime_ns)
            if known not in self._seen:
                self._seen[known] = digest_of(Path(f"/proc/self/fd/{file.fileno()}"))
        return self._seen[known]


def _kill(chance: random.Random) -> Kill:
    moment = chance.choice(tuple(MOMENTS))
    return Kill(chance.choice(VICTIMS), moment, chance.uniform(0.02, 0.98), chance.uniform(0, MOMENTS[moment]))


def _size(chance: random.Random, smallest: int, largest: int) -> int:
    """Small ones as often as large ones."""
    return int(smallest * (largest / smallest) ** chance.random())


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _size_of(path: Path) -> int | None:
    """The size of a file that may be gone."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _count(command: Command, kind: str) -> int:
    return sum(record["type"] == kind for record in command.records)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counter.most_common())
