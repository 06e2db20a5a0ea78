"""What several test modules need: offers in short, bytes to send, and conditions that are hard to reach."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from blake3 import blake3

from spaceblock.blocks import BlockSize, SpaceblockRequest, SpaceblockRequests
from spaceblock.manifest import Entry, EntryKind, Manifest

UUID = bytes(range(16))
BLOCK = BlockSize.MIN
NOBODY = 65_534


def requests_of(*sizes: int | None) -> SpaceblockRequests:
    """Whole items of these sizes."""
    return SpaceblockRequests(UUID, BLOCK, tuple(SpaceblockRequest(size) for size in sizes))


def manifest_of(*names: str | None, folders: tuple[str, ...] = ()) -> Manifest:
    """One file for each item, None leaving it unnamed."""
    entries = [Entry(EntryKind.FOLDER, folder) for folder in folders]
    entries += [Entry(EntryKind.FILE, name, item) for item, name in enumerate(names) if name is not None]
    return Manifest(tuple(entries), len(names))


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place, and from seed to seed."""
    return blake3(seed.to_bytes(8, "little")).digest(length=size)


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be bound by permissions even when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def soft_limit(kind: int, value: int) -> Iterator[None]:
    """A resource limit (see :mod:`resource`) for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def no_more_descriptors(spare: int = 0) -> Iterator[None]:
    """Let the process open only ``spare`` descriptors more."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest + 2 - open_descriptors())]
    try:
        with soft_limit(resource.RLIMIT_NOFILE, max([highest, *held]) + 1 + spare):
            yield
    finally:
        for fd in held:
            os.close(fd)
