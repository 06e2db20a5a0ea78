"""What arrived and is not what was sent is found out block by block, and only the blocks that differ move again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

import spaceblock
from spaceblock.names import STAGING_PREFIX
from spaceblock.protocol.receiver import Receiver
from spaceblock.protocol.receiver_events import ReceiverEvent
from spaceblock.protocol.sender import Sender

from .support import (
    BLOCK,
    assert_helpful,
    deliver,
    digest_of,
    failures,
    file_of,
    pair,
    remove_unfinished,
    tree,
    unreadable_again,
    until,
    visible,
    within,
)

SIZE = 20 * BLOCK + 77


def flip(monkeypatch: pytest.MonkeyPatch, *offsets: int, always: bool = False) -> None:
    """Let what the sender reads be wrong at these offsets when it is sent; ``always``: when it is sent again too."""
    from spaceblock.storage import feed

    honest: Any = feed.__dict__["fill_blocks"]
    left = list(offsets)

    def faulty(fd: int, slot: memoryview, table: Any, item: int, start: int, *rest: int) -> tuple[int, int, int, bool]:
        found: tuple[int, int, int, bool] = honest(fd, slot, table, item, start, *rest)
        for row in range(0 if item else found[0]):
            first, _, offset, length = table[4 * row : 4 * row + 4]
            for place in [place for place in left if offset <= place < offset + length]:
                spoilt[get_ident()].append(first + place - offset)
                if not always:
                    left.remove(place)
        return found

    spoilt: defaultdict[int, list[int]] = defaultdict(list)  # of each thread: several feeds are read at once
    digest = feed.Feed.fill

    def fill(self: feed.Feed, slot: memoryview) -> feed.Filled:
        filled = digest(self, slot)
        for place in spoilt.pop(get_ident(), ()):
            slot[place] ^= 1  # after it was hashed, before it is sent
        return filled

    monkeypatch.setattr(feed, "fill_blocks", faulty)
    monkeypatch.setattr(feed.Feed, "fill", fill)


@pytest.mark.parametrize(
    ("offsets", "bad"),
    [((5,), 1), ((SIZE - 1,), 0), ((BLOCK - 1, BLOCK), 2), ((3, 4, 7 * BLOCK, 9 * BLOCK), 3)],
    ids=["first block", "last block", "neighbours", "apart"],
)
async def test_only_blocks_that_differ_move_again(
    tmp_path: Path,
    inbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    offsets: tuple[int, ...],
    bad: int,
) -> None:
    source = file_of(tmp_path, "file", SIZE)
    flip(monkeypatch, *offsets)
    async with pair() as peers:
        receipts = await deliver(peers, source, folder=inbox)
    told = f"'file' was not the same on both sides: {bad * BLOCK or 77} bytes of it were sent once more"
    assert caplog.messages.count(told) == 2, "each side tells its user"
    for receipt in receipts:
        assert receipt.repaired == (bad * BLOCK or 77)
        assert receipt.items[0].digest == digest_of(source.read_bytes())
    assert tree(inbox) == {"file": source.read_bytes()}


async def test_what_is_repaired_counts_once(tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(monkeypatch, 5)
    async with pair() as peers:
        sending = peers.here.send(file_of(tmp_path, "file", SIZE))
        await within(asyncio.gather(sending, (await peers.offer()).accept(inbox)))
        assert sending.progress.items_done == 1


async def test_a_buffer_is_repaired_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = bytes(range(256)) * 2048, bytearray(256 * 2048)
    honest = Receiver.item_stored
    told: list[bytes] = []

    def damage_once(receiver: Receiver, item: int, size: int, digest: bytes) -> list[ReceiverEvent]:
        told.append(digest)
        if len(told) == 1:
            target[BLOCK + 3] ^= 1
            digest = digest_of_bytes(target)
        return honest(receiver, item, size, digest)

    monkeypatch.setattr(Receiver, "item_stored", damage_once)
    async with pair() as peers:
        receipt, _ = await deliver(peers, data, into=[target])
    assert target == data
    assert receipt.repaired == BLOCK


def digest_of_bytes(data: bytes | bytearray) -> bytes:
    return bytes.fromhex(digest_of(data))


async def test_a_second_difference_is_an_integrity_error_on_both_sides(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, other = file_of(tmp_path, "file", SIZE), file_of(tmp_path, "other", 1000)
    flip(monkeypatch, 5, always=True)
    async with pair() as peers:
        sending = peers.here.send(source, other)
        ours, theirs = await failures(sending, (await peers.offer()).accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.IntegrityError)
        assert error.item == 0
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["other"]
    assert visible(inbox) == {"other": other.read_bytes()}
    (partial,) = [
        name
        for name, data in tree(inbox).items()
        if name.startswith(STAGING_PREFIX) and data is not None and len(data) == SIZE
    ]
    await until(lambda: partial in caplog.text)  # the user is told where it stays
    remove_unfinished(inbox)


async def test_what_the_disk_lost_before_the_end_is_not_repaired_by_chance(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests that differ although all blocks agree are nothing that sending again could mend."""
    honest = Sender.item_sent

    def lie(sender: Sender, item: int, size: int, digest: bytes) -> None:
        honest(sender, item, size, bytes(32))

    monkeypatch.setattr(Sender, "item_sent", lie)
    async with pair() as peers:
        sending = peers.here.send(file_of(tmp_path, "file", SIZE))
        for error in await failures(sending, (await peers.offer()).accept(inbox)):
            assert isinstance(error, spaceblock.IntegrityError)
    remove_unfinished(inbox)


async def test_a_source_that_cannot_be_read_again_for_a_repair_fails_alone(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, other = file_of(tmp_path, "file", SIZE), file_of(tmp_path, "other", 1000)
    flip(monkeypatch, 5)
    unreadable_again(source, monkeypatch)
    async with pair() as peers:
        sending = peers.here.send(source, other)
        for error in await failures(sending, (await peers.offer()).accept(inbox)):
            assert isinstance(error, spaceblock.SourceError)
            assert error.item == 0
            assert_helpful(error)
    assert visible(inbox) == {"other": other.read_bytes()}


async def test_what_can_be_read_once_is_not_repaired(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pieces() -> Any:
        yield b"x" * SIZE

    told = Sender.item_sent

    def lie(sender: Sender, item: int, size: int, digest: bytes) -> None:
        told(sender, item, size, bytes(32))

    monkeypatch.setattr(Sender, "item_sent", lie)
    async with pair() as peers:
        sending = peers.here.send(spaceblock.Item(pieces(), name="stream"))
        for error in await failures(sending, (await peers.offer()).accept(inbox)):
            assert isinstance(error, spaceblock.IntegrityError)
    assert tree(inbox) == {}
