"""One transfer whose receiver is recorded: ``python -m proofs.recorded SCENARIO FOLDER``, with the recorder loaded.

Both sides are in this process, so that the log also holds what the sender was told, as marks, in the same order.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import spaceblock
from spaceblock.limits import Limits, Timeouts
from spaceblock.options import Conflict, Durability, Reports

from .support import write_noise

KIB = 1024
LIMITS = Limits(not_durable=64 * KIB)
PATIENT = Timeouts(connect=300.0, idle=300.0)
"""A machine that has no time for a while is no loss of power."""

SPEED = 4_000_000.0
"""Bytes a second: slow enough that there are checkpoints between the blocks."""

ROOTS = ("inbox", "receiver", "sender")
VERIFIED = "verified"
NAME = "x"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent, as names with sizes below one folder or as the only file, and how it is received."""

    files: dict[str, int]
    there: dict[str, int]
    on_conflict: Conflict = "rename"
    durability: Durability = "fsync"
    breaks_off: bool = False
    """Whether it is cancelled in its middle, and then sent again."""


SCENARIOS = {
    "large": Scenario({"": 1200 * KIB}, {}),
    "small": Scenario({f"{'deep/er/' if n % 3 else ''}{n:02}": n * 999 for n in range(20)}, {}),
    "overwrite": Scenario({"": 600 * KIB}, {"": 300 * KIB}, "overwrite"),
    "mixed": Scenario({"a": 10 * KIB, "b": 1200 * KIB, "c/d": 1}, {}),
    "again": Scenario({"a": 10 * KIB, "b": 1200 * KIB, "c/d": 500 * KIB}, {}, breaks_off=True),
    "unsafe": Scenario({"": 1200 * KIB}, {}, durability="none"),
}


def make(scenario: Scenario, folder: Path) -> Path:
    """The source, made anew if it is not there, and what is in the target folder before; returns the source."""
    for place, files in (("source", scenario.files), ("inbox", scenario.there)):
        (folder / place).mkdir()
        for seed, (name, size) in enumerate(files.items()):
            path = folder / place / NAME / name if name else folder / place / NAME
            write_noise(path, size, seed + 100 * (place == "inbox"))
    return folder / "source" / NAME


@asynccontextmanager
async def connected(
    folder: Path, *, bandwidth: float | None = None
) -> AsyncIterator[tuple[spaceblock.Peer, spaceblock.Peer]]:
    """Who sends and who receives; what they remember is in ``folder``."""
    both = spaceblock.Options(
        limits=LIMITS, timeouts=PATIENT, reports=Reports(blocks=1), name="proof", bandwidth=bandwidth
    )
    async with (
        spaceblock.listen("127.0.0.1", options=replace(both, identity=folder / "receiver")) as listener,
        spaceblock.connect(listener.ticket, options=replace(both, identity=folder / "sender")) as here,
    ):
        yield here, await anext(listener.peers())


async def transfer(folder: Path, scenario: Scenario, *, stop_at: int | None = None) -> None:
    """Send what the scenario has, and cancel it when ``stop_at`` bytes are told to be durable."""
    async with connected(folder, bandwidth=SPEED) as (here, there):
        start_recording(folder)
        sending = here.send(folder / "source" / NAME)
        offer = await anext(there.offers())
        receiving = offer.accept(folder / "inbox", on_conflict=scenario.on_conflict, durability=scenario.durability)
        told = 0
        async for progress in sending:
            if progress.durable > told:
                told = progress.durable
                mark(str(told))
            if stop_at is not None and told >= stop_at:
                sending.cancel()
        if stop_at is not None:
            for ended in (sending, receiving):
                try:
                    await ended
                except spaceblock.TransferCancelled:
                    continue
                raise AssertionError("it was over before it was cancelled")
        else:
            await sending
            mark(VERIFIED)
            await receiving


def start_recording(folder: Path) -> None:
    """Copy what there is, and note all that changes from now on."""
    if (folder / "before").exists():
        return
    inodes: dict[str, int] = {}
    for root in ROOTS:
        shutil.copytree(folder / root, folder / "before" / root, symlinks=True)
        for path in (folder / root, *(folder / root).rglob("*")):
            inodes[str(path.relative_to(folder))] = path.lstat().st_ino
    (folder / "inodes").write_text(json.dumps(inodes))
    known = [os.fsencode(folder / path) for path in inodes]
    _recorder.recorder_start(os.fsencode(folder / "log"), (ctypes.c_char_p * len(known))(*known), len(known))


def mark(word: str) -> None:
    """Note something in the log."""
    _recorder.recorder_mark(word.encode())


async def run(scenario: Scenario, folder: Path) -> None:
    if scenario.breaks_off:
        await transfer(folder, scenario, stop_at=300 * KIB)
    await transfer(folder, scenario)
    _recorder.recorder_stop()


if __name__ == "__main__":
    _recorder = ctypes.CDLL(None)
    asyncio.run(run(SCENARIOS[sys.argv[1]], Path(sys.argv[2])))
