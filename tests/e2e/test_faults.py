"""What may go wrong with sources and targets: the same typed error on both sides, and nothing lost or left behind."""

from __future__ import annotations

import asyncio
import errno
import mmap
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock.storage.folder import FolderSink
from spaceblock.trust.identity import Identity

from .disks import small_disk
from .stages import sender_reads
from .support import (
    BLOCK,
    Pair,
    assert_helpful,
    digest_of,
    failure,
    failures,
    file_of,
    names_below,
    pair,
    resizable,
    tree,
    until,
    visible,
    within,
)

NOBODY = 65_534
__all__ = ["FolderSink"]


async def fail(peers: Pair, *sources: object, **choices: Any) -> list[spaceblock.SpaceblockError]:
    """The sender's and the receiver's error when ``sources`` are accepted with ``choices``."""
    sending = peers.here.send(*sources)
    offer = await within(peers.offer())
    return await failures(sending, offer.accept(**choices))


# Sources.


async def test_a_source_that_does_not_exist_is_never_offered(tmp_path: Path) -> None:
    async with pair() as peers:
        error = await failure(peers.here.send(tmp_path / "none"))
        assert isinstance(error, spaceblock.SourceMissing)
        assert isinstance(error, FileNotFoundError)
        assert (error.code, error.errno, error.phase) == ("source_missing", errno.ENOENT, "preparing")
        assert not error.remote
        assert_helpful(error)
        assert not peers.there._incoming, "the other side has heard of it"


async def test_one_missing_source_among_others_fails_the_whole_before_anything_is_offered(tmp_path: Path) -> None:
    present = file_of(tmp_path, "present", 10)
    buffer = bytearray(b"held meanwhile")
    async with pair() as peers:
        error = await failure(peers.here.send(present, buffer, tmp_path / "missing"))
        assert isinstance(error, spaceblock.SourceMissing)
        assert "missing" in str(error)
    assert resizable(buffer)


@pytest.mark.parametrize("thing", [3, None, object(), ["list"]])
async def test_what_is_neither_path_nor_buffer_is_refused_at_once(thing: object) -> None:
    async with pair() as peers:
        with pytest.raises(spaceblock.LocalProtocolError, match="give a path, a buffer, a binary file"):
            peers.here.send(thing)


async def test_sending_nothing_is_refused_at_once() -> None:
    async with pair() as peers:
        with pytest.raises(spaceblock.LocalProtocolError, match="name at least one"):
            peers.here.send()


async def test_a_special_file_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with pair() as peers:
        error = await failure(peers.here.send(tmp_path / "pipe"))
    assert isinstance(error, spaceblock.SourceError)
    assert_helpful(error)


@pytest.mark.parametrize("bad", [(5, 4), (-1, 2), (0, 11)])
async def test_a_range_outside_of_the_source_is_refused(bad: tuple[int, int], tmp_path: Path) -> None:
    source = file_of(tmp_path, "x", 10)
    buffer = bytearray(10)
    async with pair() as peers:
        assert_helpful(await failure(peers.here.send(spaceblock.Item(source, range=bad))))
        with pytest.raises(spaceblock.LocalProtocolError, match="choose one within"):
            peers.here.send(spaceblock.Item(buffer, range=bad))
    assert resizable(buffer)


@contextmanager
def unprivileged() -> Iterator[tuple[Path, spaceblock.Options]]:
    """A folder and options for a process that may not do everything: as root, this one gives its rights up meanwhile.

    Modes mean nothing to root.
    """
    folder = Path(tempfile.mkdtemp())
    options = spaceblock.Options(identity=Identity.ephemeral())
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield folder, options
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o700)
        shutil.rmtree(folder)


async def test_a_file_that_may_not_be_read_is_never_offered() -> None:
    with unprivileged() as (folder, options):
        secret = file_of(folder, "secret", 10)
        secret.chmod(0)
        async with pair(options) as peers:
            error = await failure(peers.here.send(secret))
    assert isinstance(error, spaceblock.SourceUnreadable)
    assert isinstance(error, PermissionError)
    assert error.errno == errno.EACCES
    assert_helpful(error)


async def test_a_folder_that_may_not_be_read_is_never_offered() -> None:
    with unprivileged() as (folder, options):
        file_of(folder, "tree/inner/file", 10)
        (folder / "tree" / "inner").chmod(0)
        async with pair(options) as peers:
            error = await failure(peers.here.send(folder / "tree"))
    assert isinstance(error, spaceblock.SourceUnreadable)
    assert_helpful(error)


async def test_a_file_that_vanishes_after_it_was_offered_fails_alone(inbox: Path, tmp_path: Path) -> None:
    good = file_of(tmp_path, "good", 1000)
    gone = file_of(tmp_path, "gone", 1000)
    last = file_of(tmp_path, "last", 1000)
    async with pair() as peers:
        sending = peers.here.send(good, gone, last)
        offer = await peers.offer()
        gone.unlink()
        ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceChanged)
        assert (error.item, error.errno, error.phase) == (1, errno.ENOENT, "transferring")
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["good", "last"]
    assert (ours.remote, theirs.remote) == (False, True)
    assert str(tmp_path) in str(ours)
    assert str(tmp_path) not in str(theirs), "which folders a sender has is none of a receiver's business"
    assert_helpful(ours, theirs)
    assert tree(inbox) == {"good": good.read_bytes(), "last": last.read_bytes()}


async def test_a_source_that_shrank_after_it_was_offered_is_not_sent(tmp_path: Path, inbox: Path) -> None:
    source = file_of(tmp_path, "log", 1000)
    async with pair() as peers:
        sending = peers.here.send(source)
        offer = await peers.offer()
        os.truncate(source, 10)
        ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceChanged)
        assert error.item == 0
    assert_helpful(ours, theirs)
    assert tree(inbox) == {}


@pytest.mark.parametrize("change", ["shorter", "longer", "rewritten", "deleted", "replaced"])
async def test_a_source_that_changes_while_it_is_sent_fails_and_leaves_nothing(
    change: str, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 24 * BLOCK
    source = file_of(tmp_path, "log", size)
    other = file_of(tmp_path, "other", 10)
    gate = sender_reads(monkeypatch)
    async with pair() as peers:
        sending = peers.here.send(source, other)
        offer = await peers.offer()
        receiving = offer.accept(inbox)
        await within(gate.reached.wait())
        if change == "shorter":
            os.truncate(source, size // 2)
        elif change == "deleted":
            source.unlink()
        elif change == "replaced":
            file_of(tmp_path, "new", size).rename(source)
        else:
            with source.open("ab" if change == "longer" else "r+b") as file:
                file.write(b"changed")
            os.utime(source, ns=(1, 1))
        gate.open()
        ours, theirs = await failures(sending, receiving)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceChanged)
        assert error.item == 0
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["other"]
    assert "send it again" in str(ours)
    assert str(tmp_path) not in str(theirs)
    assert tree(inbox) == {"other": other.read_bytes()}


async def test_what_is_written_through_a_map_unnoticed_arrives_as_it_was_read(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is dirty already is written to without a new time. Nobody can tell that from no change at all; so all
    that is promised is that both sides' digest is that of the bytes that arrived."""
    source = file_of(tmp_path, "data", 24 * BLOCK)
    with source.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = bytes(len(mapped))
        gate = sender_reads(monkeypatch)
        async with pair() as peers:
            sending = peers.here.send(source)
            receiving = (await peers.offer()).accept(inbox)
            await within(gate.reached.wait())
            mapped[:] = b"\1" * len(mapped)
            gate.open()
            try:
                sent, received = await within(asyncio.gather(sending, receiving))
            except spaceblock.SourceChanged:  # this system does notice
                assert names_below(inbox) == []
                return
    arrived = (inbox / "data").read_bytes()
    assert sent.items == received.items
    assert sent.items[0].digest == digest_of(arrived)
    assert set(arrived) == {0, 1}, "the beginning is from before, the end from after"


# Targets.


async def test_a_target_folder_that_does_not_exist(tmp_path: Path) -> None:
    source = file_of(tmp_path, "x", 10)
    async with pair() as peers:
        ours, theirs = await fail(peers, source, folder=tmp_path / "nowhere")
    assert str(tmp_path) in str(theirs)
    assert str(tmp_path) not in str(ours), "which folders a receiver has is none of a sender's business"
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.TargetMissing)
        assert isinstance(error, FileNotFoundError)
        assert (error.code, error.errno) == ("target_missing", errno.ENOENT)
        assert "create the folder" in str(error)
    assert (ours.remote, theirs.remote) == (True, False)
    assert not (tmp_path / "nowhere").exists()


async def test_a_target_that_is_a_file(tmp_path: Path) -> None:
    source = file_of(tmp_path, "x", 10)
    before = source.read_bytes()
    async with pair() as peers:
        ours, theirs = await fail(peers, source, folder=source)
    assert isinstance(ours, spaceblock.TargetMissing)
    assert isinstance(theirs, spaceblock.TargetMissing)
    assert_helpful(ours, theirs)
    assert source.read_bytes() == before


async def test_a_target_folder_that_may_not_be_written_to() -> None:
    with unprivileged() as (folder, options):
        target = folder / "target"
        target.mkdir()
        target.chmod(0o555)
        async with pair(options) as peers:
            ours, theirs = await fail(peers, b"data", folder=target)
        assert list(target.iterdir()) == []
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.TargetNotWritable)
        assert isinstance(error, PermissionError)
        assert error.errno == errno.EACCES
        assert "choose a folder" in str(error)


async def test_a_target_on_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", options="ro,size=1m") as target:
        async with pair() as peers:
            ours, theirs = await fail(peers, b"data", folder=target)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.TargetNotWritable)
        assert error.errno == errno.EROFS
    assert_helpful(ours, theirs)


async def test_an_offer_that_cannot_fit_is_refused_before_data_moves(inbox: Path) -> None:
    disk = os.statvfs(inbox)
    buffer = bytes(256 * 1024 * 1024)
    sources = [buffer] * (2 * disk.f_bavail * disk.f_frsize // len(buffer) + 1)
    async with pair() as peers:
        ours, theirs = await fail(peers, *sources, folder=inbox)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.NoSpace)
        assert (error.code, error.errno) == ("no_space", errno.ENOSPC)
        assert "free some space" in str(error)
    assert (ours.remote, theirs.remote) == (True, False)
    assert tree(inbox) == {}


async def test_a_disk_that_fills_up_meanwhile_ends_the_transfer_with_its_real_cause(tmp_path: Path) -> None:
    sources = [file_of(tmp_path, f"{number}.txt", 10) for number in range(20)]
    with small_disk(tmp_path / "disk", options="size=1m,nr_inodes=10") as target:
        async with pair() as peers:
            ours, theirs = await fail(peers, *sources, folder=target)
        for error in (ours, theirs):
            assert isinstance(error, spaceblock.NoSpace)
            assert error.errno == errno.ENOSPC
            assert "free some space" in str(error)
        left = visible(target)
    assert all(left[name] == (tmp_path / name).read_bytes() for name in left), "half a file under a final name"


async def test_an_item_that_the_disk_does_not_take_fails_alone(tmp_path: Path, inbox: Path) -> None:
    small = file_of(tmp_path, "small", 10_000)
    large = file_of(tmp_path, "large", 3_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with pair() as peers:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            ours, theirs = await fail(peers, large, small, folder=inbox)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.StorageError)
        assert (error.item, error.errno) == (0, errno.EFBIG)
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["small"]
    assert_helpful(ours, theirs)
    assert tree(inbox) == {"small": small.read_bytes()}


async def test_a_name_that_is_taken_is_an_error_on_request(tmp_path: Path, inbox: Path) -> None:
    old = file_of(inbox, "x", 10).read_bytes()
    source = file_of(tmp_path, "x", 20)
    async with pair() as peers:
        ours, theirs = await fail(peers, source, folder=inbox, on_conflict="error")
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.TargetExists)
        assert isinstance(error, FileExistsError)
        assert error.item == 0
    assert_helpful(ours, theirs)
    assert tree(inbox) == {"x": old}


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/../x", ".", "", "a\0b", "\udcff", ".spaceblock-0/x"])
async def test_a_name_that_no_receiver_should_take_is_refused_before_it_is_offered(name: str) -> None:
    async with pair() as peers:
        error = await failure(peers.here.send(spaceblock.Item(b"data", name=name)))
    assert isinstance(error, spaceblock.NameRejected)
    assert_helpful(error)


async def test_a_link_in_the_target_folder_is_not_followed(tmp_path: Path, inbox: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (inbox / "a").symlink_to(outside)
    async with pair() as peers:
        ours, theirs = await fail(peers, spaceblock.Item(b"data", name="a/b"), folder=inbox)
    assert isinstance(ours, spaceblock.NameRejected)
    assert isinstance(theirs, spaceblock.NameRejected)
    assert_helpful(ours, theirs)
    assert tree(outside) == {}


# Buffers.


@pytest.mark.parametrize(
    "into",
    [
        [bytearray(9)],
        [bytearray(11)],
        [bytearray(10), bytearray(10)],
        [],
        [bytes(10)],
        [memoryview(bytearray(20))[::2]],
        ["no buffer"],
    ],
    ids=["too small", "too large", "too many", "too few", "read-only", "not contiguous", "no buffer"],
)
async def test_a_buffer_that_does_not_fit_is_refused_before_data_moves(into: list[object]) -> None:
    before = [bytes(buffer) for buffer in into if isinstance(buffer, bytearray)]
    async with pair() as peers:
        ours, theirs = await fail(peers, b"0123456789", into=into)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.BufferUnfit)
        assert isinstance(error, ValueError)
        assert error.code == "buffer"
    assert (ours.remote, theirs.remote) == (True, False)
    assert_helpful(ours, theirs)
    buffers = [buffer for buffer in into if isinstance(buffer, bytearray)]
    assert [bytes(buffer) for buffer in buffers] == before
    assert all(map(resizable, buffers))


async def test_a_source_buffer_that_is_not_contiguous_is_refused_at_once() -> None:
    buffer = bytearray(20)
    async with pair() as peers:
        with pytest.raises(spaceblock.BufferUnfit, match="not C-contiguous"):
            peers.here.send(b"fine", memoryview(buffer)[::2])
    assert resizable(buffer)


async def test_buffers_are_free_again_when_the_transfer_is_over() -> None:
    source, target = bytearray(400_000), bytearray(400_000)
    async with pair() as peers:
        sending = peers.here.send(source)
        assert not resizable(source), "it must be held from the call on"
        offer = await peers.offer()
        receiving = offer.accept(into=[target])
        await within(receiving)
        assert resizable(target)
        await within(sending)
        assert resizable(source)


@pytest.mark.parametrize(
    "choices",
    [{}, {"folder": ".", "into": []}, {"folder": ".", "on_conflict": "ask"}, {"folder": ".", "durability": "maybe"}],
)
async def test_an_answer_that_makes_no_sense_can_be_given_again(choices: dict[str, object], inbox: Path) -> None:
    async with pair() as peers:
        sending = peers.here.send(b"data")
        offer = await peers.offer()
        with pytest.raises(spaceblock.LocalProtocolError):
            offer.accept(**choices)  # type: ignore[arg-type]
        await within(offer.accept(inbox))
        await within(sending)


async def test_two_transfers_of_the_same_name_at_once_do_not_meet(tmp_path: Path, inbox: Path) -> None:
    first, second = file_of(tmp_path / "1", "x", 200_000), file_of(tmp_path / "2", "x", 200_000)
    async with pair() as peers:
        sending = [peers.here.send(first), peers.here.send(second)]
        receiving = [(await peers.offer()).accept(inbox) for _ in range(2)]
        await within(asyncio.gather(*sending, *receiving))
    assert sorted(tree(inbox)) == ["x", "x (1)"]
    assert set(tree(inbox).values()) == {first.read_bytes(), second.read_bytes()}


async def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "x", 24 * BLOCK)
    gate = sender_reads(monkeypatch)
    async with pair() as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(inbox)
        await within(gate.reached.wait())
        (inbox / "x").write_text("mine")
        gate.open()
        receipt = await within(receiving)
        await within(sending)
    assert tree(inbox) == {"x": b"mine", "x (1)": source.read_bytes()}
    assert receipt.items[0].path == "x (1)"


async def test_a_target_folder_that_vanishes_meanwhile_is_a_storage_error(
    tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_of(tmp_path, "sub/x", 24 * BLOCK).parent
    gate = sender_reads(monkeypatch)
    async with pair() as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(inbox)
        await within(gate.reached.wait())
        shutil.rmtree(inbox)
        gate.open()
        ours, theirs = await failures(sending, receiving)
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.StorageError)
    assert_helpful(ours, theirs)
    await until(lambda: not inbox.exists())


async def test_a_file_that_is_removed_from_the_hidden_folder_fails_before_all_has_come(
    tmp_path: Path, inbox: Path
) -> None:
    size = 24 * 1024 * 1024
    slow = spaceblock.Options(limits=spaceblock.Limits(not_durable=size // 8), bandwidth=size)
    async with pair(slow, here=slow) as peers:
        sending = peers.here.send(file_of(tmp_path, "large", size))
        receiving = (await peers.offer()).accept(inbox)
        await until(lambda: sending.progress.durable > 0)
        (hidden,) = os.listdir(inbox)
        shutil.rmtree(inbox / hidden)
        for error in await failures(sending, receiving):
            assert isinstance(error, spaceblock.StorageError)
            assert "was removed from the hidden folder" in str(error)
        assert receiving.progress.bytes_done < size
        assert sending.progress.durable <= sending.progress.bytes_done
    assert tree(inbox) == {}
