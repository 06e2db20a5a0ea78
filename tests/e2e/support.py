"""What the end-to-end tests share: a connected pair, both sides' outcomes, and a count of what a test may not leak."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from blake3 import blake3

import spaceblock
from spaceblock.names import STAGING_PREFIX

T = TypeVar("T")

BLOCK = 128 * 1024
"""The smallest block, which all these tests' items have."""

PATIENCE = 60.0
"""Seconds after which something that must happen counts as not happening; nothing waits this long when all is well."""

QUICK = spaceblock.Timeouts(connect=5.0, offer=5.0, idle=1.5, sink=5.0, verify=5.0, retry=1.0, close=1.0)
"""Time-outs for tests that wait for one."""


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@dataclass
class Pair:
    """Two connected peers: ``here`` connected with a ticket, ``there`` is its other end on the listening side."""

    listener: spaceblock.Listener
    here: spaceblock.Peer
    there: spaceblock.Peer

    async def offer(self) -> spaceblock.Offer:
        """The next offer that arrives there."""
        return await within(anext(self.there.offers()))


@asynccontextmanager
async def pair(
    options: spaceblock.Options | None = None, *, here: spaceblock.Options | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Pair]:
    """A listener with one peer; ``options`` are those of both sides, unless ``here`` says otherwise."""
    async with (
        spaceblock.listen(host, options=options) as listener,
        spaceblock.connect(listener.ticket, options=here or options) as peer,
    ):
        yield Pair(listener, peer, await anext(listener.peers()))


async def deliver(
    peers: Pair, *sources: Any, sending: dict[str, Any] | None = None, **choices: Any
) -> tuple[spaceblock.Receipt, spaceblock.Receipt]:
    """Send ``sources`` from here, with the choices of ``sending``, to there, where they are accepted with ``choices``;
    both sides' receipts."""
    transfer = peers.here.send(*sources, **(sending or {}))
    offer = await peers.offer()
    return await within(asyncio.gather(transfer, offer.accept(**choices)))


async def within(work: Awaitable[T], seconds: float = PATIENCE) -> T:
    """``work``'s result; a failure of the test if it takes longer."""
    return await asyncio.wait_for(work, seconds)


async def until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """Wait for a condition that nothing announces."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still waiting: {what or condition}"
        await asyncio.sleep(0.005)


async def failure(work: Awaitable[Any]) -> spaceblock.SpaceblockError:
    """The typed error that ``work`` ends with."""
    try:
        result = await asyncio.wait_for(work, PATIENCE)
    except spaceblock.SpaceblockError as error:
        return error
    raise AssertionError(f"this should have failed, but gave {result!r}")


async def failures(*works: Awaitable[Any]) -> list[spaceblock.SpaceblockError]:
    """The typed errors that all of ``works`` end with."""
    return list(await asyncio.gather(*map(failure, works)))


def assert_helpful(*errors: spaceblock.SpaceblockError) -> None:
    """Each message is one sentence that says what happened and, behind a colon or semicolon, what to do."""
    for error in errors:
        text = str(error)
        assert len(text) > 20, text
        assert "\n" not in text, text
        assert any(f"{mark} " in text for mark in ":;"), text


def file_of(folder: Path, name: str, size: int) -> Path:
    """A new file of ``size`` random bytes."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """BLAKE3 by the reference implementation, in hex."""
    return blake3(data).hexdigest()


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below ``folder``, hidden things too: files with their bytes, folders with None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def visible(folder: Path) -> dict[str, bytes | None]:
    """As :func:`tree`, without what is kept of unfinished transfers."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(STAGING_PREFIX)}


def remove_unfinished(folder: Path) -> None:
    """Remove what is kept of unfinished transfers; there has to be something."""
    found = [path for path in folder.iterdir() if path.name.startswith(STAGING_PREFIX)]
    assert found
    for path in found:
        shutil.rmtree(path)


def names_below(folder: Path) -> list[str]:
    """The names of everything below ``folder``."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


def unreadable_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk fail where what has moved of this file already is read once more."""
    bad, honest = path.stat().st_ino, os.preadv

    def preadv(fd: int, rooms: Sequence[memoryview], offset: int) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return honest(fd, rooms, offset)

    monkeypatch.setattr(os, "preadv", preadv)


def resizable(buffer: bytearray) -> bool:
    """Whether nobody holds ``buffer`` any more."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


@dataclass(frozen=True)
class Census:
    """What lives in this process because of Spaceblock."""

    descriptors: frozenset[str]
    threads: frozenset[threading.Thread]
    tasks: frozenset[asyncio.Task[Any]]

    @classmethod
    def take(cls) -> Census:
        current = asyncio.current_task()
        threads = (thread for thread in threading.enumerate() if thread.name.startswith("spaceblock"))
        tasks = (task for task in asyncio.all_tasks() if task is not current)
        return cls(frozenset(_descriptors()), frozenset(threads), frozenset(tasks))

    def beyond(self, before: Census) -> list[str]:
        """What lives now and did not ``before``. What is gone meanwhile does not count: another test may have left it
        to end by itself."""
        found = [*(self.threads - before.threads), *(self.tasks - before.tasks)]
        return sorted([*(self.descriptors - before.descriptors), *map(str, found)])


async def back_to(before: Census) -> None:
    """Wait until nothing lives that did not live ``before``."""
    gc.collect()
    await asyncio.sleep(0)
    try:
        await until(lambda: not Census.take().beyond(before))
    except AssertionError:
        raise AssertionError(f"left behind: {Census.take().beyond(before)}") from None


def _descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue  # the descriptor by which the folder itself was read
    return found
