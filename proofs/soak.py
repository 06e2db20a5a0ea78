"""Soak test: one listener takes thousands of short transfers for a long time, and holds no more in the end.

Several senders, processes of their own, send files, buffers and folders, give up, are declined, ignored, cancelled
and killed, and come as strangers with a ticket that is not theirs; all the while somebody sends garbage, and beginnings
of handshakes that never go on. After each round, with nobody connected, the listener counts what it holds. Then

- its descriptors, threads and tasks are as many after the last round as after the warm-up;
- the memory that it has in use, as a straight line through all rounds, grows by no more than a little, and what is
  resident, which goes up and down by what allocators keep, comes down to nearly as little in the second half as in
  the first;
- its folder holds no names but the few of transfers that were interrupted, and its home no more than it may remember.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from spaceblock.limits import PARTIALS_MAX, REMEMBERED_MAX

from .soak_listener import Figures
from .support import Disproved, check

PATIENCE = 300.0
"""Seconds after which something that must happen counts as not happening."""

GARBAGE_INTERVAL = 0.02
"""Seconds between two bursts of garbage."""

STEADY = ("descriptors", "threads", "tasks")
"""Figures that are the same after each round."""

_BLOCK_MAX = 512
"""Bytes that a block of Python's own allocator has at most: of those in use each counts as so many."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m proofs soak``."""
    parser.add_argument("--transfers", type=int, default=10_000, metavar="N", help="so many (default: 10000)")
    parser.add_argument("--seconds", type=float, default=1800.0, help="and at least so long (default: 1800)")
    parser.add_argument("--rounds", type=int, default=40, metavar="N", help="counted so often (default: 40)")
    parser.add_argument(
        "--warm-up", type=int, default=10, metavar="N", help="rounds that are not compared (default: 10)"
    )
    parser.add_argument("--senders", type=int, default=4, metavar="N", help="processes that send (default: 4)")
    parser.add_argument("--seed", type=int, default=1, help="what is sent is drawn from it (default: 1)")
    parser.add_argument("--killed", type=float, default=0.5, metavar="P", help="of each sender a round (default: 0.5)")
    parser.add_argument("--idle", type=float, default=10.0, metavar="SECONDS", help="idle time-out (default: 10)")
    parser.add_argument("--growth", type=float, default=4.0, metavar="MIB", help="allowed in all (default: 4)")
    parser.add_argument("--folder", type=Path, help="where to work (default: for temporary files)")


def prove(options: argparse.Namespace) -> str:
    """Use one listener for so long; raises :class:`Disproved`."""
    folder = Path(tempfile.mkdtemp(prefix="spaceblock-soak-", dir=options.folder))
    try:
        report = asyncio.run(_soak(folder, options))
    except Disproved as error:
        raise Disproved(f"{error}; see {folder}") from None
    shutil.rmtree(folder)
    return report


async def _soak(folder: Path, options: argparse.Namespace) -> str:
    each = -(-options.transfers // options.rounds)
    figures = []
    async with soaking(folder, options) as soak:
        began = time.monotonic()
        for number in range(options.rounds):
            await soak.round(each)
            figures.append(await soak.rest())
            print(f"round {number + 1}: {figures[-1]}", flush=True)
            await soak.annoy(began + options.seconds * (number + 1) / options.rounds - time.monotonic())
        told = ", ".join(f"{count} {word}" for word, count in soak.ends.most_common())
        held = judge(figures[options.warm_up :], each, options.growth)
        count = sum(soak.ends.values()) - soak.ends["killed"]
        return f"{count} transfers: {told}\n{soak.garbage} datagrams of garbage\n{held}"


def judge(figures: Sequence[Figures], each: int, growth: float) -> str:
    """What to say of rounds of ``each`` so many transfers, in all of which memory may grow by ``growth`` MiB; raises
    :class:`Disproved`."""
    first, last, rounds = figures[0], figures[-1], len(figures) - 1
    for name in STEADY:
        before, now = getattr(first, name), getattr(last, name)
        check(before == now, f"{name} went from {before} to {now}")
    used = [figure.heap / 1024 + figure.blocks * _BLOCK_MAX / 2**20 for figure in figures]
    slope = slope_of(used)
    check(slope * rounds <= growth, f"the memory in use grew in {rounds} rounds: {used} MiB")
    resident = [figure.memory / 1024 for figure in figures]
    half = len(resident) // 2
    rise = min(resident[half:]) - min(resident[:half] or resident)
    check(rise <= growth, f"resident memory grew in {rounds} rounds: {resident} MiB")
    check(last.names <= 2 * PARTIALS_MAX, f"{last.names} names are left in the folder")
    check(last.kept <= REMEMBERED_MAX + 10, f"{last.kept} files are left in the home")
    told = [
        f"{name} {getattr(first, name)} and {getattr(last, name)}"
        for name in ("descriptors", "threads", "pool", "tasks", "names", "kept")
    ]
    in_use = f"memory in use {used[0]:.1f} and {used[-1]:.1f} MiB ({slope / each * 2**20:+.0f} bytes a transfer)"
    return (
        f"held after the warm-up, and {rounds * each} transfers later: {', '.join(told)}; "
        f"{in_use}; resident {min(resident):.1f} to {max(resident):.1f} MiB, {rise:+.1f} between the halves"
    )


def slope_of(values: Sequence[float]) -> float:
    """How much the values grow from one to the next, by least squares."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in range(len(values)))
    return sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread if spread else 0.0


class Soak:
    """A listener, its senders, and somebody who sends garbage; made by :func:`soaking`."""

    def __init__(self, folder: Path, listener: Process, started: dict[str, Any], options: argparse.Namespace) -> None:
        self.ends: Counter[str] = Counter()
        """How the transfers ended, as their senders saw it, and how many senders were killed."""
        self.garbage = 0
        """Datagrams that mean nothing."""
        self._folder = folder
        self._listener = listener
        self._chance = random.Random(options.seed)
        self._killed: float = options.killed
        self._idle: float = options.idle
        self._address: tuple[str, int] = ("127.0.0.1", started["port"])
        self._tickets: list[str] = started["tickets"]
        self.senders: list[Process] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    async def start(self) -> None:
        """Start the senders."""
        self.senders += [await self._start_sender(number) for number in range(len(self._tickets))]

    async def round(self, count: int) -> None:
        """So many transfers, shared by the senders, some of which are killed, and garbage all the while."""
        share = -(-count // len(self.senders))
        turns = [asyncio.create_task(self._turn(number, share)) for number in range(len(self.senders))]
        annoying = asyncio.create_task(self.annoy(math.inf))
        try:
            await asyncio.gather(*turns)
        finally:
            for task in (*turns, annoying):
                task.cancel()
            await asyncio.wait({*turns, annoying})

    async def rest(self) -> Figures:
        """What the listener holds when nobody is connected any more."""
        deadline = time.monotonic() + PATIENCE
        while True:
            figures = Figures(**json.loads(await _ask(self._listener, b"figures\n")))
            if not figures.connections:
                return figures
            check(time.monotonic() < deadline, f"{figures.connections} connections live on with nobody there")
            await asyncio.sleep(0.1)

    async def annoy(self, seconds: float) -> None:
        """Send garbage for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for data in self._burst():
                self._socket.sendto(data, self._address)
                self.garbage += 1
            await asyncio.sleep(GARBAGE_INTERVAL)

    def close(self) -> None:
        """End what is left over."""
        self._socket.close()
        for process in (*self.senders, self._listener):
            if process.returncode is None:
                process.kill()

    async def _turn(self, number: int, count: int) -> None:
        """One sender's part of a round."""
        fatal = self._chance.randint(1, count) if self._chance.random() < self._killed else 0
        while count > 0:
            sender = self.senders[number]
            assert sender.stdin is not None
            sender.stdin.write(b"%d\n" % count)
            while (line := await self._line_of(number)) != "round":
                check(line and not line.startswith("unexpected"), line or f"sender {number} died")
                self.ends[line] += 1
                count -= 1
                fatal -= 1
                if fatal == 0:
                    await asyncio.sleep(self._chance.random() / 5)
                    sender.kill()
                    await sender.communicate()
                    self.ends["killed"] += 1
                    self.senders[number] = await self._start_sender(number)
                    break
            else:
                return

    async def _line_of(self, number: int) -> str:
        sender = self.senders[number]
        assert sender.stdout is not None
        try:
            return (await asyncio.wait_for(sender.stdout.readline(), PATIENCE)).decode().strip()
        except asyncio.TimeoutError:
            sender.send_signal(signal.SIGUSR1)
            await asyncio.sleep(1)
            raise Disproved(f"sender {number} hangs, in what it has just told on standard error") from None

    def _burst(self) -> list[bytes]:
        chance = self._chance
        data = chance.randbytes(chance.randint(1, 1500))
        kind = chance.random()
        if kind < 0.02:  # the beginning of a handshake, or most of one
            client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["spaceblock/2"]))
            client.connect(self._address, now=time.monotonic())
            first = bytearray(client.datagrams_to_send(now=time.monotonic())[0][0])
            first[chance.randrange(len(first))] ^= chance.choice((0, 1))
            return [bytes(first)]
        if kind < 0.4:  # a long header of this version
            return [bytes([0xC0 | data[0] & 0x3F, 0, 0, 0, 1]) + data]
        if kind < 0.7:  # a short header
            return [bytes([0x40 | data[0] & 0x3F]) + data]
        return [data] * chance.randint(1, 8)

    async def _start_sender(self, number: int) -> Process:
        folder = self._folder / f"sender-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        seed = self._chance.getrandbits(40)
        home = self._folder / f"home-{number}"
        return await _start(home, "proofs.soak_sender", self._tickets[number], str(folder), str(seed), str(self._idle))


@asynccontextmanager
async def soaking(folder: Path, options: argparse.Namespace) -> AsyncIterator[Soak]:
    """A listener with senders."""
    (folder / "inbox").mkdir()
    listener = await _start(
        folder / "home", "proofs.soak_listener", str(folder / "inbox"), str(options.senders), str(options.idle)
    )
    try:
        soak = Soak(folder, listener, json.loads(await _ask(listener, b"")), options)
    except BaseException:
        listener.kill()
        raise
    try:
        await soak.start()
        yield soak
    finally:
        soak.close()
        for process in (*soak.senders, listener):
            await process.communicate()


async def _start(home: Path, *words: str) -> Process:
    environment = {**os.environ, "SPACEBLOCK_HOME": str(home)}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", *words, stdin=PIPE, stdout=PIPE, env=environment)


async def _ask(process: Process, question: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(question)
    answer = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    check(answer, "the listener died")
    return answer
