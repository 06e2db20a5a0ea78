"""Disks that fail, for real: the same typed error, with the system's number, the item and the phase, on both sides."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import spaceblock
from commands import Commands

from .disks import MIB, dying_disk, lying_disk, same_disk, small_disk
from .support import Pair, assert_helpful, deliver, failures, file_of, names_below, pair, tree


async def fail(
    peers: Pair, *sources: object, folder: Path
) -> tuple[spaceblock.SpaceblockError, spaceblock.SpaceblockError]:
    """Both sides' errors, the sender's first, which must be the same but for whose fault they are."""
    sending = peers.here.send(*sources)
    offer = await peers.offer()
    ours, theirs = await failures(sending, offer.accept(folder))
    assert type(ours) is type(theirs)
    assert (ours.errno, ours.item, ours.phase) == (theirs.errno, theirs.item, theirs.phase)
    assert ours.exit_code == 6
    assert ours.remote is not theirs.remote
    assert_helpful(ours, theirs)
    return ours, theirs


async def test_a_disk_that_is_full_ends_a_stream_of_unknown_size_at_once(tmp_path: Path) -> None:
    """The pipe stays open: the sender learns it from the receiver, and not from the end of its own source."""
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb") as out,
        os.fdopen(writing, "wb", buffering=0) as into,
        small_disk(tmp_path / "disk", options="size=64k") as target,
    ):
        async with pair() as peers:
            into.write(bytes([1]) * 60_000)
            sending = peers.here.send(spaceblock.Item(b"small", name="a"), spaceblock.Item(out, name="endless"))
            receiving = (await peers.offer()).accept(target)
            into.write(bytes([1]) * 60_000)
            ours, theirs = await failures(sending, receiving)
        assert [name for name in names_below(target) if name != "a"] == []
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.NoSpace)
        assert (error.errno, error.item, error.phase, error.exit_code) == (errno.ENOSPC, 1, "transferring", 6)
        assert "no space left on device; free some space" in str(error)
    assert (ours.remote, theirs.remote) == (True, False)


def test_a_disk_that_is_mounted_for_reading_only_is_named_as_such_before_anybody_sends(
    commands: Commands, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", options="ro,size=64k") as target:
        refused = commands.run("receive", "--listen", "127.0.0.1:0", "--dir", target)
    assert refused.code == 6
    assert "read-only file system; mount it for writing or choose a folder on another disk" in refused.err


async def test_a_disk_that_cannot_keep_what_it_took_fails_the_item_before_it_counts_as_durable(tmp_path: Path) -> None:
    source = file_of(tmp_path, "large", 40 * MIB)  # more than may be not durable
    with lying_disk(tmp_path / "disk") as target:
        async with pair() as peers:
            ours, _ = await fail(peers, source, folder=target)
        assert "large" not in names_below(target)
    assert isinstance(ours, spaceblock.StorageError)
    assert ours.errno in (errno.ENOSPC, errno.EIO)
    assert ours.item in (0, None), "the file could not be flushed, or the journal not be written"
    assert (ours.phase, ours.remote) == ("transferring", True)


async def test_a_source_whose_disk_fails_is_given_up_and_the_rest_goes_on(tmp_path: Path, inbox: Path) -> None:
    other = file_of(tmp_path, "other", 1000)
    with dying_disk(tmp_path / "disk", "broken", os.urandom(20 * MIB)) as folder:
        async with pair() as peers:
            ours, theirs = await fail(peers, folder / "broken", other, folder=inbox)
    assert isinstance(ours, spaceblock.SourceError)
    assert (ours.errno, ours.item, ours.phase, ours.remote) == (errno.EIO, 0, "transferring", False)
    assert str(tmp_path) not in str(theirs)
    for error in (ours, theirs):
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["other"]
    assert names_below(inbox) == ["other"]


async def test_a_disk_without_room_for_more_files_says_so(tmp_path: Path) -> None:
    sources = [file_of(tmp_path, f"{number}.txt", 10) for number in range(20)]
    with small_disk(tmp_path / "disk", options="size=1m,nr_inodes=10") as target:
        async with pair() as peers:
            ours, _ = await fail(peers, *sources, folder=target)
    assert isinstance(ours, spaceblock.NoSpace)
    assert (ours.errno, ours.phase) == (errno.ENOSPC, "transferring")


async def test_a_read_only_disk_is_found_before_data_moves(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", options="ro,size=1m") as target:
        async with pair() as peers:
            ours, _ = await fail(peers, b"data", folder=target)
    assert isinstance(ours, spaceblock.TargetNotWritable)
    assert (ours.errno, ours.item, ours.phase) == (errno.EROFS, None, "preparing")


async def test_another_disk_in_the_folder_is_found_before_data_moves(tmp_path: Path, inbox: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (inbox / "a").mkdir()
    with (
        small_disk(inbox / "disk", options="size=1m"),
        same_disk(inbox / "a" / "a disk", again=tmp_path / "elsewhere"),
    ):
        async with pair() as peers:
            for name, place in [("disk/x", "disk"), ("disk/new/x", "disk"), ("a/a disk/x", "a/a disk")]:
                sending = peers.here.send(spaceblock.Item(b"data", name=name), spaceblock.Item(b"more", name="a/x"))
                ours, theirs = await failures(sending, (await peers.offer()).accept(inbox))
                for error in (ours, theirs):
                    assert isinstance(error, spaceblock.NameRejected)
                    assert f"needs the folder '{place}', which is another disk on the receiver's side" in str(error)
            items = [spaceblock.Item(b"data", name=name) for name in ("disk/x", "a/a disk/x", "disk2/x", "a/x")]
            sent, _ = await deliver(
                peers, *items, sending={"rename": lambda item, problem: problem.proposal}, folder=inbox
            )
    assert sent.renamed == {"disk/x": "disk (1)/x", "a/a disk/x": "a (1)/a disk/x"}
    assert {name for name, data in tree(inbox).items() if data} == {"disk (1)/x", "a (1)/a disk/x", "disk2/x", "a/x"}
    assert names_below(tmp_path / "elsewhere") == []


async def test_another_disk_that_appears_meanwhile_is_told_as_such(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spaceblock.storage.folder.mounts_below", lambda folder: frozenset())
    with small_disk(inbox / "disk", options="size=1m"):
        async with pair() as peers:
            ours, _ = await fail(peers, spaceblock.Item(b"data", name="disk/x"), folder=inbox)
    assert (ours.errno, ours.item, ours.phase) == (errno.EXDEV, 0, "verifying")
    assert "receive into that folder itself" in str(ours)
    assert names_below(inbox) == ["disk"]
