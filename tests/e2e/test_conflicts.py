"""Names that are taken: another one, nothing, a replacement in one step, or an error; what is skipped is compared."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock import Item
from spaceblock.storage import comparing
from spaceblock.storage.feed import Feed, Filled
from spaceblock.storage.folder import FolderSink
from spaceblock.transfers import incoming, outgoing

from .support import deliver, digest_of, failure, failures, file_of, pair, tree, within


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to send."""
    top = tmp_path / "data"
    for name, size in {"a": 300_000, "b/c": 5, "b/empty": 0, "d": 2_000_000}.items():
        file_of(top, name, size)
    return top


def times_of(folder: Path) -> dict[Path, int]:
    """When everything below ``folder`` was last changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


async def test_a_repeated_send_costs_nothing_and_both_sides_know_that_all_is_there(folder: Path, inbox: Path) -> None:
    async with pair() as peers:
        first, _ = await deliver(peers, folder, folder=inbox)
        before = times_of(inbox)
        again, received = await deliver(peers, folder, folder=inbox, on_conflict="skip")
    assert again.items == received.items
    assert again.bytes == received.bytes == 0
    assert [item.digest for item in again.items] == [item.digest for item in first.items]
    assert [item.path for item in again.items] == [item.path for item in first.items]
    assert all(item.skipped for item in again.items)
    assert times_of(inbox) == before


async def test_what_is_missing_arrives_and_what_differs_is_left_alone_and_told_apart(folder: Path, inbox: Path) -> None:
    async with pair() as peers:
        await deliver(peers, folder, folder=inbox)
        (inbox / "data" / "a").write_bytes(os.urandom(300_000))  # as long, and something else
        (inbox / "data" / "b" / "c").write_text("longer than five")
        (inbox / "data" / "d").unlink()
        mine = tree(inbox)
        sent, received = await deliver(peers, folder, folder=inbox, on_conflict="skip")
    assert sent.items == received.items
    found = {item.name: (item.skipped, bool(item.digest)) for item in sent.items}
    assert found == {
        "data/a": (True, False),
        "data/b/c": (True, False),
        "data/b/empty": (True, True),
        "data/d": (False, True),
    }
    assert sent.bytes == 2_000_000
    assert tree(inbox) == {**mine, "data/d": (folder / "d").read_bytes()}


async def test_a_part_of_a_file_is_compared_with_a_file_of_that_part(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "whole", 500_000)
    part = Item(source, name="part", range=(100_000, 300_000))
    async with pair() as peers:
        await deliver(peers, part, Item(b"buffer", name="buffer"), folder=inbox)
        sent, _ = await deliver(peers, part, Item(b"buffer", name="buffer"), folder=inbox, on_conflict="skip")
    assert [item.skipped for item in sent.items] == [True, True]
    assert sent.items[0].digest == digest_of(source.read_bytes()[100_000:300_000])


async def test_unnamed_items_that_were_sent_before_are_compared_too(inbox: Path) -> None:
    async with pair() as peers:
        await deliver(peers, b"one", b"two", folder=inbox)
        sent, _ = await deliver(peers, b"one", b"TWO", folder=inbox, on_conflict="skip")
    assert [(item.skipped, bool(item.digest)) for item in sent.items] == [(True, True), (True, False)]
    assert tree(inbox) == {"unnamed-0": b"one", "unnamed-1": b"two"}


async def test_a_source_that_vanishes_before_it_is_compared_fails_alone(tmp_path: Path, inbox: Path) -> None:
    sources = [file_of(tmp_path, name, 1_000) for name in ("gone", "stays")]
    async with pair() as peers:
        await deliver(peers, *sources, folder=inbox)
        sending = peers.here.send(*sources)
        offer = await peers.offer()
        sources[0].unlink()
        receiving = offer.accept(inbox, on_conflict="skip")
        ours, theirs = await within(asyncio.gather(failure(sending), failure(receiving)))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceError)
        assert error.item == 0
        assert error.receipt is not None
        assert [item.name for item in error.receipt.items] == ["stays"]
    assert sorted(tree(inbox)) == ["gone", "stays"]


async def test_a_file_that_vanishes_here_before_it_is_compared_fails_alone(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [file_of(tmp_path, name, 1_000) for name in ("gone", "stays")]
    hash_it = FolderSink.digest

    def digest(self: FolderSink, item: int) -> Iterator[int | bytes]:
        if item == 0:
            (inbox / "gone").unlink()
        return hash_it(self, item)

    async with pair() as peers:
        await deliver(peers, *sources, folder=inbox)
        monkeypatch.setattr(FolderSink, "digest", digest)
        sending = peers.here.send(*sources)
        receiving = (await peers.offer()).accept(inbox, on_conflict="skip")
        ours, theirs = await within(asyncio.gather(failure(sending), failure(receiving)))
    assert isinstance(ours, spaceblock.TargetMissing)
    assert isinstance(theirs, spaceblock.TargetMissing)
    assert sorted(tree(inbox)) == ["stays"]


@pytest.mark.parametrize("canceller", ["sender", "receiver"])
async def test_a_cancel_while_much_is_compared_ends_both_sides(
    canceller: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 1_000)
    began, go_on = threading.Event(), threading.Event()

    def digest(self: FolderSink, item: int) -> Iterator[int | bytes]:
        began.set()
        go_on.wait(20)
        while True:
            yield 0

    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
        monkeypatch.setattr(FolderSink, "digest", digest)
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(inbox, on_conflict="skip")
        await within(asyncio.to_thread(began.wait))
        (sending if canceller == "sender" else receiving).cancel()
        go_on.set()
        errors = await asyncio.gather(failure(sending), failure(receiving))
    assert all(isinstance(error, spaceblock.TransferCancelled) for error in errors)


MOMENT = 0.1
"""Seconds that a slow disk takes for a portion, of which there are thirty."""


def slow_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = FolderSink.digest

    def slowly(self: FolderSink, item: int) -> Iterator[int | bytes]:
        *_, last = digest(self, item)
        for _ in range(30):
            time.sleep(MOMENT)
            yield 1
        yield last

    monkeypatch.setattr(FolderSink, "digest", slowly)
    monkeypatch.setattr(comparing, "_PORTIONS", 1)


def slow_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = Feed.fill

    def slowly(self: Feed, slot: memoryview) -> Filled:
        time.sleep(MOMENT)
        return fill(self, slot[:20_000])

    monkeypatch.setattr(Feed, "fill", slowly)


@pytest.mark.parametrize("slow", [slow_receiver, slow_sender])
async def test_a_comparison_may_take_longer_than_every_time_out(
    slow: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes three seconds; either side gives up after two at most without a sign of life."""
    for module in (incoming, outgoing):
        monkeypatch.setattr(module, "HASHED_INTERVAL", 0.1)
    slow(monkeypatch)
    options = spaceblock.Options(timeouts=spaceblock.Timeouts(idle=1.0, verify=1.0))
    source = file_of(tmp_path, "x", 500_000)
    (inbox / "x").write_bytes(source.read_bytes())
    async with pair(options) as peers:
        sent, received = await deliver(peers, source, folder=inbox, on_conflict="skip")
    assert sent.items == received.items
    assert [item.skipped for item in sent.items] == [True]
    assert sent.items[0].digest == digest_of(source.read_bytes())


async def test_a_replacement_happens_in_one_step(tmp_path: Path, inbox: Path) -> None:
    (inbox / "x").write_text("old")
    source = file_of(tmp_path, "x", 1_000_000)
    async with pair() as peers:
        reader = os.open(inbox / "x", os.O_RDONLY)
        await deliver(peers, source, folder=inbox, on_conflict="overwrite")
        assert os.read(reader, 100) == b"old", "who had it open keeps what it was"
        os.close(reader)
    assert tree(inbox) == {"x": source.read_bytes()}


async def test_a_folder_is_not_replaced_by_a_file(inbox: Path) -> None:
    (inbox / "x").mkdir()
    async with pair() as peers:
        sending = peers.here.send(Item(b"new", name="x"))
        receiving = (await peers.offer()).accept(inbox, on_conflict="overwrite")
        for error in await failures(sending, receiving):
            assert isinstance(error, spaceblock.StorageError)
            assert str(error).endswith("'x': is a directory; move that folder away or choose another name")
    assert (inbox / "x").is_dir()


async def test_what_was_to_be_replaced_stays_if_the_transfer_fails(inbox: Path) -> None:
    (inbox / "x").write_text("old")

    async def pieces() -> Any:
        yield b"new"
        raise OSError(5, "the disk is broken")

    async with pair() as peers:
        sending = peers.here.send(Item(pieces(), name="x"))
        receiving = (await peers.offer()).accept(inbox, on_conflict="overwrite")
        await within(asyncio.gather(failure(sending), failure(receiving)))
    assert tree(inbox) == {"x": b"old"}


async def test_a_link_is_replaced_and_not_written_through(tmp_path: Path, inbox: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (inbox / "x").symlink_to(outside)
    async with pair() as peers:
        await deliver(peers, Item(b"new", name="x"), folder=inbox, on_conflict="overwrite")
    assert not (inbox / "x").is_symlink()
    assert (inbox / "x").read_bytes() == b"new"
    assert outside.read_text() == "mine"


async def test_a_link_is_not_compared_through(tmp_path: Path, inbox: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("same")
    (inbox / "x").symlink_to(outside)
    async with pair() as peers:
        sent, _ = await deliver(peers, Item(b"same", name="x"), folder=inbox, on_conflict="skip")
    assert [(item.skipped, item.digest) for item in sent.items] == [(True, "")]
