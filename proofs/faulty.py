"""Transfers whose system calls fail, one after the other: ``python -m proofs.faulty FOLDER``, with faults.c loaded.

Reads a case in JSON from each line of standard input and answers each with a line: how the transfer ended on both
sides, how the next one did, and what was left behind. Both sides are in this process.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import shutil
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import spaceblock
from spaceblock.limits import Limits, Timeouts
from spaceblock.names import STAGING_PREFIX
from spaceblock.options import Engine
from spaceblock.quic import endpoint

from .support import Disproved, files_below, offer_of, within, write_noise

KIB = 1024
PLACES = ("source", "inbox", "sender", "receiver")
NETWORK, PROGRAM = 6, 7
NAME = "x"
FILES = {"large": 700 * KIB, **{f"small/{number:02}": 500 + number for number in range(18)}, "empty": 0}
PATIENCE = 90
"""Seconds in which a transfer of less than a megabyte has ended, whatever fails."""

OPTIONS = spaceblock.Options(
    limits=Limits(not_durable=64 * KIB),
    timeouts=Timeouts(connect=30.0, idle=30.0, sink=30.0, source=30.0, verify=30.0, close=1.0),
    name="proof",
)


class Faults:
    """What faults.c does."""

    def __init__(self, folder: Path) -> None:
        self._library = library = ctypes.CDLL(None)
        library.faults_kind.restype = ctypes.c_char_p
        library.faults_given.restype = library.faults_counted.restype = ctypes.c_long
        library.faults_arm.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long, ctypes.c_int]
        roots = [os.fsencode(folder / place) for place in PLACES]
        library.faults_start((ctypes.c_char_p * len(roots))(*roots), len(roots))
        self._kinds: list[str] = []
        while name := library.faults_kind(len(self._kinds)):
            self._kinds.append(name.decode())

    def arm(self, case: dict[str, Any]) -> None:
        """Let the calls of a case fail."""
        if case["kind"] == "count":
            self._library.faults_reset()
        else:
            kind = self._kinds.index(case["kind"])
            self._library.faults_arm(kind, case["place"], case["first"], case["times"], case["errno"])

    def disarm(self) -> tuple[int, list[tuple[str, int, int]]]:
        """Let nothing fail any more; how many calls did, and how many there were of each kind and place."""
        given = self._library.faults_given()
        counts = [
            (name, place, count)
            for kind, name in enumerate(self._kinds)
            for place in range(8)
            if (count := self._library.faults_counted(kind, place))
        ]
        self._library.faults_reset()
        return given, counts


class Bench:
    """The folder of all cases, and both sides' identities."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._source = folder / "source" / NAME
        for seed, (name, size) in enumerate(FILES.items()):
            write_noise(self._source / name, size, seed)
        (self._source / "hollow").mkdir()
        self._files = {f"{NAME}/{name}": (self._source / name).read_bytes() for name in FILES}
        self._faults = Faults(folder)

    async def try_case(self, case: dict[str, Any]) -> dict[str, Any]:
        """Run one case; what came of it."""
        inbox = self._folder / "inbox"
        inbox.mkdir()
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        before = _census()
        self._faults.arm(case)
        try:
            ended = await within(self._transfer(case["engine"]), PATIENCE, "the transfer")
        finally:
            given, counts = self._faults.disarm()
        answer: dict[str, Any] = {"ended": ended, "given": given}
        if case["kind"] == "count":
            answer["counts"] = counts
        answer["leaks"] = await _leaks(before)
        answer["wrong"] = self._wrong(inbox)
        answer["next"] = await within(self._transfer(case["engine"]), PATIENCE, "the next transfer")
        answer["leaks"] += await _leaks(before)
        answer["missing"] = [name for name in self._files if not (inbox / name).is_file()]
        answer["wrong"] += self._wrong(inbox)
        answer["extra"] = [str(path) for path in files_below(inbox) if str(path) not in self._files]
        answer["left"] = [path.name for path in inbox.iterdir() if path.name.startswith(STAGING_PREFIX)]
        answer["complaints"] = complaints
        shutil.rmtree(inbox)
        return answer

    def _wrong(self, inbox: Path) -> list[str]:
        """Files under final names that are not what was sent, whatever number they got."""
        return [
            str(path)
            for path in files_below(inbox)
            if (inbox / path).read_bytes() != self._files.get(str(path).removesuffix(" (1)"))
        ]

    async def _transfer(self, engine: Engine) -> list[dict[str, Any]]:
        """Send the source: how it ended for the sender and the receiver, or for whoever could not even begin."""
        both = replace(OPTIONS, engine=engine)
        ended: list[dict[str, Any]] = []
        try:
            async with spaceblock.listen(
                "127.0.0.1", options=replace(both, identity=self._folder / "receiver")
            ) as listener:
                here = replace(both, identity=self._folder / "sender")
                async with spaceblock.connect(listener.ticket, options=here) as peer:
                    there = await anext(listener.peers())
                    ended += await self._send(peer, there)
        except Exception as error:
            if not any(end.get("raised") == repr(error) for end in ended):
                ended.append({"side": "around", **_said(error)})
        return ended

    async def _send(self, peer: spaceblock.Peer, there: spaceblock.Peer) -> list[dict[str, Any]]:
        sending = peer.send(self._source)
        offer = await offer_of(sending, there)
        ends: list[dict[str, Any]] = []
        if offer is not None:
            receiving = offer.accept(self._folder / "inbox")
            theirs = await _end_of(receiving)
            ends.append({"side": "receiver", **theirs})
        return [{"side": "sender", **await _end_of(sending)}, *ends]


async def _end_of(transfer: spaceblock.Transfer) -> dict[str, Any]:
    try:
        await transfer
    except Exception as error:
        return _said(error)
    return {"fine": True}


def _said(error: Exception) -> dict[str, Any]:
    """An error as the other process gets it."""
    said: dict[str, Any] = {"fine": False, "raised": repr(error), "type": type(error).__name__}
    if isinstance(error, spaceblock.SpaceblockError):
        fields = ("code", "errno", "item", "phase", "exit_code", "remote")
        said |= {field: getattr(error, field) for field in fields}
    return said


def _census() -> tuple[set[str], int, int]:
    """What lives in this process: descriptors, threads of ours, tasks."""
    descriptors = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            descriptors.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    threads = sum(thread.name.startswith("spaceblock") for thread in threading.enumerate())
    current = asyncio.current_task()
    return descriptors, threads, len([task for task in asyncio.all_tasks() if task is not current])


async def _leaks(before: tuple[set[str], int, int]) -> list[str]:
    """What lives that did not live before, when everybody had time to end."""
    for _ in range(200):
        gc.collect()
        descriptors, threads, tasks = _census()
        if descriptors <= before[0] and threads <= before[1] and tasks <= before[2]:
            return []
        await asyncio.sleep(0.02)
    found = sorted(descriptors - before[0])
    found += [f"{threads - before[1]} threads"] * (threads > before[1])
    return found + [str(task) for task in asyncio.all_tasks()][: 4 * (tasks > before[2])]


async def main() -> None:
    endpoint.LINGER = 0.01  # closed connections need not answer late packets
    bench = Bench(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            answer = await bench.try_case(json.loads(line))
        except Disproved as error:
            print(json.dumps({"hangs": str(error)}), flush=True)
            os._exit(1)  # whatever hangs would keep this process from ending
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
