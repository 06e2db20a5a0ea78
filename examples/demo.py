"""A receiver and a sender as two processes on this computer: a large file, many small ones and an unnamed buffer.

The receiver is the command ``spaceblock receive``. The sender is :func:`send` below in a process of its own, since a
buffer has no path that a command could name. Afterwards everything is compared byte by byte, and nothing stays behind.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from blake3 import blake3

import spaceblock
from spaceblock.bars import Row, open_display, size_text

PROGRESS = [field.name for field in fields(spaceblock.Progress) if field.name != "item"]

MIB = 1024 * 1024
SMALL_FILES = 200
LINE_LIMIT = 16 * MIB
"""Bytes of a line of JSON; the last one lists every item."""


class DemoFailed(Exception):
    """Something other than a check went wrong."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="size of the large file; 256 if not given")
    parser.add_argument("--sender", nargs=2, metavar=("FOLDER", "BYTES"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up as Ctrl-C does
    try:
        if chosen.sender:
            asyncio.run(send(Path(chosen.sender[0]), int(chosen.sender[1])))
            return 0
        with tempfile.TemporaryDirectory(prefix="spaceblock-demo-") as folder:
            return demonstrate(Path(folder), chosen.size)
    except KeyboardInterrupt:
        return 130
    except (spaceblock.SpaceblockError, DemoFailed) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 1


async def send(folder: Path, buffer_size: int) -> None:
    """The sender, with the library: three sources of different kinds in one transfer."""
    async with spaceblock.connect(os.environ["SPACEBLOCK_TICKET"]) as peer:
        transfer = peer.send(folder / "large.bin", folder / "small", memoryview(buffer(buffer_size)))
        async for progress in transfer:
            print(json.dumps({"type": "progress", **asdict(progress)}), flush=True)
        print(json.dumps({"type": "complete", **asdict(await transfer)}), flush=True)


def demonstrate(folder: Path, size: int) -> int:
    """Make what is sent, send it, and compare; returns the exit code."""
    outbox, inbox = folder / "outbox", folder / "inbox"
    outbox.mkdir()
    inbox.mkdir()
    buffer_size = max(size // 16, 1) * MIB
    print(
        f"A file of {size_text(size * MIB)}, a folder with {SMALL_FILES} small files and an unnamed buffer of "
        f"{size_text(buffer_size)}, from one process to another:",
        flush=True,
    )
    make_file(outbox / "large.bin", size)
    make_small_files(outbox / "small")
    sent, received = asyncio.run(transfer(folder, buffer_size))
    for name, complete in (("sent", sent), ("received", received)):
        rate = complete["bytes"] / complete["seconds"]
        count, moved = len(complete["items"]), size_text(complete["bytes"])
        print(f"{name} {count} items, {moved} in {complete['seconds']:.1f} s: {size_text(rate)}/s")
    return compare(outbox, inbox, buffer_size, sent["items"], received["items"])


async def transfer(folder: Path, buffer_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run both processes to their ends; returns what each says of the whole."""
    display = open_display()
    receive = ["-m", "spaceblock", "receive", "--listen", "127.0.0.1:0", "--yes", "--once", "--json"]
    send = [__file__, "--sender", str(folder / "outbox"), str(buffer_size)]
    async with started(*receive, "--dir", str(folder / "inbox"), home=folder / "receiver") as receiver:
        ticket = json.loads(await line_of(receiver))["ticket"]
        async with started(*send, home=folder / "sender", ticket=ticket) as sender:
            with closing(display.row("sender")) as above, closing(display.row("receiver")) as below:
                sent, received = await asyncio.gather(follow(sender, above), follow(receiver, below))
            await sender.wait()
            await receiver.wait()
    return sent, received


@asynccontextmanager
async def started(*words: str, home: Path, ticket: str = "") -> AsyncGenerator[asyncio.subprocess.Process, None]:
    """A Python process with an identity of its own, which does not outlive the block."""
    environment = {**os.environ, "SPACEBLOCK_HOME": str(home), "SPACEBLOCK_TICKET": ticket}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environment, limit=LINE_LIMIT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()


async def follow(process: asyncio.subprocess.Process, row: Row) -> dict[str, Any]:
    """Show the progress that a process tells, and return its last words."""
    while True:
        told: dict[str, Any] = json.loads(await line_of(process))
        kind = told.pop("type")
        if kind == "progress":
            known = {name: told[name] for name in PROGRESS}  # a later version may tell more
            known["phase"] = spaceblock.Phase(told["phase"])
            row.update(spaceblock.Progress(**known))
        elif kind == "complete":
            return told


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise DemoFailed("one of its processes ended early, see above")
    return line


def compare(
    outbox: Path, inbox: Path, buffer_size: int, sent: list[dict[str, Any]], received: list[dict[str, Any]]
) -> int:
    """Hash what was sent once more, look at every byte that arrived, print a line a check; returns the exit code."""
    checks: list[tuple[str, bool]] = []
    for kind, title in (("large.bin", "the large file"), ("small", "the small files"), (None, "the unnamed buffer")):
        of_sender = [item for item in sent if top(item["name"]) == kind]
        of_receiver = [item for item in received if top(item["name"]) == kind]
        digests: list[str] = []
        same = len(of_receiver) == (SMALL_FILES if kind == "small" else 1)
        for item in of_receiver:
            arrived = inbox / item["path"]
            if kind is None:
                original = buffer(buffer_size)
                same = same and arrived.read_bytes() == original
                digests.append(blake3(original).hexdigest())
            else:
                source = outbox / item["name"]
                same = same and filecmp.cmp(source, arrived, shallow=False)
                digests.append(blake3(max_threads=blake3.AUTO).update_mmap(source).hexdigest())
        if len(digests) == 1:
            print(f"{title}: BLAKE3 {of_sender[0]['digest']} says the sender")
            print(f"{'':{len(title)}}  BLAKE3 {of_receiver[0]['digest']} says the receiver")
        checks.append((f"{title}: every byte is the same", same))
        agreed = [item["digest"] for item in of_sender] == [item["digest"] for item in of_receiver] == digests
        checks.append((f"{title}: both sides' digests are those of an independent BLAKE3", agreed))
    for what, good in checks:
        print(f"{'ok    ' if good else 'FAILED'} {what}")
    return 0 if all(good for _, good in checks) else 1


def top(name: str | None) -> str | None:
    return None if name is None else name.partition("/")[0]


def make_file(path: Path, size: int) -> None:
    """Write ``size`` MiB that do not repeat and are the same every time."""
    noise = random.Random(1)
    with open(path, "wb") as file:
        for _ in range(size):
            file.write(noise.randbytes(MIB))


def make_small_files(folder: Path) -> None:
    """Write files of 0 to some thousand bytes into folders within folders."""
    noise = random.Random(2)
    for number in range(SMALL_FILES):
        path = folder / f"shelf {number % 5}" / f"box {number % 20}" / f"note {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(number * 17))


def buffer(size: int) -> bytes:
    """The unnamed buffer, the same in every process."""
    return random.Random(3).randbytes(size)


if __name__ == "__main__":
    sys.exit(main())
