"""A loss of power at any moment costs a receiver no more than what was not durable.

What a receiver does to its disk is recorded while a transfer runs (recorder.c). Then the disk is made anew as a loss of
power may have left it after each of these operations (crash_disk.py), several times, with other parts of what was not
flushed. Each time:

1. the journal claims nothing that is not there: the bytes before its offsets, and their digests;
2. no file under a final name is anything but the whole file, or what had that name before;
3. what the sender was told to be durable is found again, and what it was told to be verified is in its place;
4. sending the same again ends in the same files, nothing is left behind, and nothing had to be repaired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from blake3 import blake3

from spaceblock.names import STAGING_PREFIX
from spaceblock.trust.identity import Identity

from .claims import claims_of, move_journal, move_outcome
from .crash_disk import CrashDisk, Found, Kind, Operation, put, read_log
from .recorded import NAME, ROOTS, SCENARIOS, VERIFIED, Scenario, connected, make
from .support import Disproved, check, offer_of, within

HERE = Path(__file__).parent
AT_ONCE = 4
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, where flushing costs nothing: what it would do is what is simulated here."""

PATIENCE = 60
"""Seconds for one transfer of about a megabyte."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--samples", type=int, default=4, help="disks made for each moment and model (default: 4)")
    parser.add_argument("--states", type=int, default=0, help="disks tried of each scenario at most (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="another number gives other disks (default: 0)")
    parser.add_argument("--keep", type=Path, help="keep what a failure was found with in this folder")


def prove(options: argparse.Namespace) -> str:
    """Run the proof; returns the figures."""
    figures = []
    for name in options.scenarios or SCENARIOS:
        check(name in SCENARIOS, f"there is no scenario {name!r}: choose from {', '.join(SCENARIOS)}")
        with tempfile.TemporaryDirectory(prefix="power-", dir=QUICK) as folder:
            recording = record(name, Path(folder))
            try:
                figures.append(try_all(recording, options.samples, options.states, options.seed))
            except Disproved:
                if options.keep is not None:
                    shutil.copytree(folder, options.keep, symlinks=True)
                raise
        print(figures[-1], flush=True)
    return f"{len(figures)} scenarios"


@dataclass(frozen=True, slots=True)
class Recording:
    """A transfer that was recorded in ``folder``: how, and what is there in the end and was there before."""

    name: str
    folder: Path
    scenario: Scenario
    files: dict[str, bytes]
    before: dict[str, bytes]
    log: list[Operation]

    @property
    def is_durable(self) -> bool:
        """Whether anything is promised after a loss of power."""
        return self.scenario.durability == "fsync"


@dataclass(frozen=True, slots=True)
class Moment:
    """What is found after a loss of power behind the operation ``after``, and what the sender knew then."""

    title: str
    after: int
    receiver: Mapping[str, Found]
    sender: Mapping[str, Found]
    told: int
    is_verified: bool


def record(name: str, folder: Path) -> Recording:
    """Run a transfer, and record what its receiver does."""
    scenario = SCENARIOS[name]
    make(scenario, folder)
    files, before = _files(folder / "source"), _files(folder / "inbox")
    library = folder / "recorder.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "recorder.c", "-ldl"], check=True)
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path}
    words: list[str | Path] = [sys.executable, "-m", "proofs.recorded", name, folder]
    subprocess.run(words, env=environment, check=True)
    check(_files(folder / "inbox") == files, f"{name}: the transfer itself went wrong")
    return Recording(name, folder, scenario, files, before, read_log(folder / "log"))


def try_all(recording: Recording, samples: int, states: int, seed: int) -> str:
    """Try the disks of all moments, or ``states`` of them; returns the figures."""
    length = len(recording.log)
    every = [(after, sample) for after in range(length + 1) for sample in range(2 * samples)]
    chosen = set(every)
    if states:
        chosen = set(Random(f"{seed} {recording.name}").sample(every, min(states, len(every))))
    resumed = asyncio.run(_try(recording, moments(recording, chosen, seed)))
    return (
        f"{recording.name}: {length} operations, {len(chosen)} disks after a loss of power, "
        f"{resumed} went on from what was there"
    )


def moments(recording: Recording, chosen: set[tuple[int, int]], seed: int) -> Iterator[Moment]:
    """The chosen disks: after how many operations, and which sample of them. Even samples are of an ordered disk."""
    log = recording.log
    inodes = json.loads((recording.folder / "inodes").read_text())
    roots = {name: recording.folder / "before" / name for name in ROOTS}
    sender_root = {"sender": roots.pop("sender")}
    disks = [CrashDisk(roots, inodes, ordered=ordered) for ordered in (True, False)]
    sender = CrashDisk(sender_root, inodes, ordered=True)
    told, is_verified = 0, False
    for after in range(len(log) + 1):
        for sample in sorted(sample for at, sample in chosen if at == after):
            title = f"{recording.name}, after {after} of {len(log)} operations, disk {sample}, seed {seed}"
            found = disks[sample % 2].crash(Random(title))
            kept = sender.crash(Random(title))
            yield Moment(title, after, found, kept, told, is_verified)
        if after == len(log):
            break
        done = log[after]
        if done.kind is Kind.MARK:
            is_verified |= done.data == VERIFIED.encode()
            told = told if is_verified else max(told, int(done.data))
        elif sender.has(done):
            sender.apply(done)
            sender.flush()
            is_verified |= done.kind is Kind.UNLINK  # it has forgotten what it was sending
        elif disks[0].has(done):
            for disk in disks:
                disk.apply(done)


async def _try(recording: Recording, found: Iterator[Moment]) -> int:
    """Try disks, some at a time; returns how many transfers went on from something."""
    resumed = 0

    async def work() -> None:
        nonlocal resumed
        for moment in found:
            with tempfile.TemporaryDirectory(prefix="disk-", dir=recording.folder) as folder:
                try:
                    resumed += await _try_one(recording, moment, Path(folder)) > 0
                except Exception as error:
                    last = recording.log[max(moment.after - 3, 0) : moment.after]
                    words = ", ".join(f"{done.kind.name} {done.place} {done.name}".strip() for done in last)
                    raise Disproved(f"{moment.title} (behind {words}): {error or error!r}") from error

    workers = [asyncio.ensure_future(work()) for _ in range(AT_ONCE)]
    _, others = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    for worker in others:
        worker.cancel()
    await asyncio.wait(workers)
    failed = [error for worker in workers if not worker.cancelled() and (error := worker.exception())]
    if failed:
        raise failed[0]
    return resumed


async def _try_one(recording: Recording, moment: Moment, folder: Path) -> int:
    """Look at one disk, and send the same again; returns how many bytes that found."""
    keys = [Identity.load(recording.folder / "receiver").derived_key(purpose) for purpose in ("journal", "memory")]
    if recording.is_durable:
        _check_names(recording, moment)
        _check_claims(recording, moment, keys[0])
    inodes = put(moment.receiver, folder)
    put(moment.sender, folder)
    for journal in (folder / "inbox").glob(f"{STAGING_PREFIX}*/journal"):
        move_journal(journal, keys[0], inodes)
    for outcome in (folder / "receiver").glob("received/*"):
        move_outcome(outcome, keys[1], folder / "inbox")
    if moment.is_verified:
        return 0
    resumed = await within(_send_again(recording, moment, folder), PATIENCE, "sending it again")
    now = _files(folder / "inbox", hidden=True)
    if recording.is_durable:
        check(now == recording.files, f"what is there in the end is {_told(now, recording)}")
    else:
        check(not resumed and not any(map(_is_hidden, now)), "what may be lost was believed, or left behind")
    return resumed


async def _send_again(recording: Recording, moment: Moment, folder: Path) -> int:
    """Let both sides do the same again."""
    scenario = recording.scenario
    async with connected(folder) as (here, there):
        sending = here.send(recording.folder / "source" / NAME)
        offer = await offer_of(sending, there)
        if offer is None:
            await sending  # the receiver remembered that it has everything
            return 0
        receiving = offer.accept(folder / "inbox", on_conflict=scenario.on_conflict, durability=scenario.durability)
        ours, theirs = await asyncio.gather(sending, receiving)
    check(ours.items == theirs.items, f"the sender was told {ours.items} and the receiver has {theirs.items}")
    check(ours.repaired == 0, f"{ours.repaired} bytes had to be repaired: the journal claimed what was not there")
    check(ours.resumed >= moment.told, f"{moment.told} bytes were told to be durable, and {ours.resumed} are there")
    return ours.resumed


def _check_names(recording: Recording, moment: Moment) -> None:
    """What has a final name is whole."""
    seen = {}
    for path, found in moment.receiver.items():
        root, _, name = path.partition("/")
        if root == "inbox" and stat.S_ISREG(found.mode) and not _is_hidden(name):
            seen[name] = found.data
            right = [files[name] for files in (recording.files, recording.before) if name in files]
            check(found.data in right, f"{name} is there, and is not what was sent")
    if moment.is_verified:
        check(seen == recording.files, f"the sender knows that all is there, and there is {_told(seen, recording)}")


def _check_claims(recording: Recording, moment: Moment, key: bytes) -> None:
    """What a journal claims is there."""
    by_inode = {found.inode: found for path, found in moment.receiver.items() if path.startswith("inbox/")}
    for path, journal in moment.receiver.items():
        if not path.endswith("/journal"):
            continue
        for claim in claims_of(journal.data, key):
            found = by_inode.get(claim.inode)
            if found is None and claim.is_placing:
                continue  # it was about to get a name, and has none
            check(found is not None, f"the journal claims {claim.offset} bytes of a file that is not there")
            assert found is not None
            check(len(found.data) >= claim.offset, f"of {claim.offset} claimed bytes {len(found.data)} are there")
            digest = blake3(found.data[: claim.checked]).digest()
            check(digest == claim.digest, f"the first {claim.checked} bytes are not what the journal claims")
            sent = any(data.startswith(found.data[: claim.offset]) for data in recording.files.values())
            check(sent, f"the first {claim.offset} bytes are not what was sent")


def _files(folder: Path, *, hidden: bool = False) -> dict[str, bytes]:
    """The files below ``folder``, and if it is to be told what is ``hidden``, all else but folders."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if hidden and _is_hidden(name):
            found[name] = b""
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(STAGING_PREFIX)


def _told(files: Mapping[str, bytes], recording: Recording) -> str:
    """Some words for what is there."""
    return ", ".join(
        f"{name} ({len(data)} bytes, {'right' if recording.files.get(name) == data else 'wrong'})"
        for name, data in sorted(files.items())
    )
