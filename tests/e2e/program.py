"""A side of a transfer as a process of its own, which can hang in a given phase and then be killed.

Run as ``program.py send TICKET PATH [HANG]`` or ``program.py receive FOLDER [HANG]``. Lines on standard output say what
happens: ``ticket ...``, ``hangs``, and in the end ``done`` with the digest and the growth of anonymous memory in bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import spaceblock
from spaceblock import Timeouts, peer
from spaceblock.storage import feed, folder
from spaceblock.trust import admission

HANGS: dict[str, tuple[object, str, int]] = {
    "greeting": (peer.Peer, "greet", 1),
    "admitting": (admission.AdmissionBook, "admit", 1),
    "reading": (feed, "fill_blocks", 3),
    "writing": (folder, "write_all", 3),
    "placing": (folder.FolderSink, "place", 1),
}
"""Where to hang: the owner and name of a function, and which of its calls it is."""

OPTIONS = spaceblock.Options(timeouts=Timeouts(idle=float(os.environ.get("IDLE", "5")), retry=1.0))


def say(*words: object) -> None:
    print(*words, flush=True)


def hang_in(phase: str) -> None:
    """Let a function say that it was reached and never return."""
    owner, name, which = HANGS[phase]
    function: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def replacement(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= which:
            say("hangs")
            time.sleep(600)
        return function(*arguments)

    setattr(owner, name, replacement)


class Memory:
    """The highest anonymous memory of this process above what it was at first."""

    def __init__(self) -> None:
        self._before = self._most = self._now()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def growth(self) -> int:
        """In bytes; ends the watch."""
        self._stop.set()
        self._thread.join()
        return self._most - self._before

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._most = max(self._most, self._now())

    @staticmethod
    def _now() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


async def send(ticket: str, path: str) -> None:
    async with spaceblock.connect(ticket, options=OPTIONS) as there:
        memory = Memory()
        receipt = await there.send(path)
        say("done", receipt.items[0].digest, memory.growth())


async def receive(target: str, hang: str) -> None:
    async with spaceblock.listen("127.0.0.1", int(os.environ.get("PORT", "0")), options=OPTIONS) as listener:
        say("ticket", listener.ticket)
        offer = await anext(aiter(listener))
        if hang == "waiting":
            say("hangs")
            await asyncio.sleep(600)
        memory = Memory()
        receipt = await offer.accept(target)
        say("done", receipt.items[0].digest, memory.growth())


def main() -> None:
    role, *arguments = sys.argv[1:]
    hang = arguments[-1] if arguments[-1] in (*HANGS, "waiting") else ""
    if hang in HANGS:
        hang_in(hang)
    asyncio.run(send(*arguments[:2]) if role == "send" else receive(arguments[0], hang))


if __name__ == "__main__":
    main()
