"""Landings without an event loop: streams made by hand, a sink in memory, and what becomes of the items."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from blake3 import blake3

import framing
from spaceblock import core
from spaceblock.blocks import SpaceblockRequests
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.ring import Ring
from spaceblock.storage.sinks import Mark, Sink
from spaceblock.wire.manifest import Manifest
from spaceblock.wire.messages import ItemDigest, ItemEnd, OutcomeKind
from support import BLOCK, FedLanding, Host, manifest_of, requests_of


def block(item: int, offset: int, data: bytes) -> bytes:
    """A Block message."""
    return framing.block(core, item, offset, data)


def whole_item(item: int, data: bytes, piece: int = BLOCK) -> bytes:
    """An item's blocks and its end."""
    blocks = [block(item, start, data[start : start + piece]) for start in range(0, len(data), piece)]
    return b"".join(blocks) + ItemEnd(item, len(data)).encode()


def digest_of(item: int, data: bytes) -> ItemDigest:
    return ItemDigest(item, len(data), blake3(data).digest())


def hosted(
    sink: Sink, requests: SpaceblockRequests, manifest: Manifest | None = None, ring: Ring | None = None
) -> Host:
    host = Host(requests, sink, ring or Ring(), manifest)
    host.accept()
    return host


def kinds(host: Host) -> list[OutcomeKind]:
    assert host.outcomes is not None
    return [outcome.kind for outcome in host.outcomes]


def contents_of(folder: Path, names: Sequence[str]) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


class MemorySink(FolderSink):
    """A folder of which it is said that it never waits; notes which threads write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.writers: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()

    def never_waits(self, item: int) -> bool:
        return item in self._open

    def begin(self, item: int) -> None:
        assert self.gate.wait(60)
        super().begin(item)

    def write(self, item: int, offset: int, data: memoryview) -> None:
        self.writers.append(threading.current_thread() is threading.main_thread())
        super().write(item, offset, data)


def begun(host: Host, data: bytes) -> FedLanding:
    """A landing that has the first block of item 0, whose file a worker has opened."""
    landing = host.landing()
    landing.receive_data(block(0, 0, data[:BLOCK]), False)
    host.settle()
    return landing


def feed(landing: FedLanding, data: bytes, starts: Iterable[int]) -> None:
    """Give the blocks of item 0 at these offsets, each by itself."""
    for start in starts:
        landing.receive_data(block(0, start, data[start : start + BLOCK]), False)


def end(host: Host, landing: FedLanding, data: bytes) -> None:
    """Item 0 is ``data``, all of which came: end its stream, and see what both sides make of it."""
    landing.receive_data(ItemEnd(0, len(data)).encode(), True)
    host.receive(digest_of(0, data))
    host.settle()


def noting_marks(sink: Sink, size: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, list[Mark]]:
    """A host of one item of ``size`` bytes, and the marks that are made, which nothing else is done with."""
    sink.keeps = True
    host = hosted(sink, requests_of(size), manifest_of("a"))
    marks: list[Mark] = []
    monkeypatch.setattr(host, "marked", marks.extend)
    return host, marks
