"""Trees as they are on disk: modes, times, empty folders, links, files with two names, and holes that stay holes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

import spaceblock

from .disks import small_disk
from .support import PATIENCE, Pair, assert_helpful, deliver, digest_of, failures, file_of, pair, tree, within

pytestmark = pytest.mark.usefixtures("connections_live_on")

YEAR_2001 = 1_000_000_000_123_456_789

GIB = 1 << 30


def allocated(path: Path) -> int:
    """Bytes that a file takes of its disk."""
    return path.stat().st_blocks * 512


def sparse_file(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    """A file of ``size`` bytes that has only ``data``, each at its offset, and holes in between."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in data:
            file.seek(offset)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    if allocated(path) >= size:
        pytest.skip("this file system has no sparse files")
    return path


def links_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): os.readlink(path) for path in folder.rglob("*") if path.is_symlink()}


async def test_a_tree_arrives_with_its_modes_times_and_empty_folders(tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "tree"
    for name in ("run", "sub/secret", "sub/deep/plain"):
        file_of(source, name, 1000)
    (source / "empty" / "er").mkdir(parents=True)
    (source / "run").chmod(0o755)
    (source / "sub/secret").chmod(0o600)
    (source / "sub").chmod(0o500)
    paths = sorted(source.rglob("*"), key=lambda path: -len(path.parts))
    for number, path in enumerate(paths):
        os.utime(path, ns=(0, YEAR_2001 + number))
    os.utime(source, ns=(0, YEAR_2001 - 1))
    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
    assert tree(inbox / "tree") == tree(source)
    for path in [source, *paths]:
        ours, theirs = path.stat(), (inbox / path.relative_to(tmp_path)).stat()
        assert ours.st_mode == theirs.st_mode
        assert ours.st_mtime_ns == theirs.st_mtime_ns
    for folder in (source, inbox / "tree"):
        (folder / "sub").chmod(0o700)


async def test_files_of_distant_centuries_arrive_with_the_time_of_their_arrival(tmp_path: Path, inbox: Path) -> None:
    """Their nanoseconds since 1970 do not fit into the 64 bits that the core and a journal have for them."""
    source = tmp_path / "tree"
    files = [file_of(source, "small", 10), file_of(source, "small too", 10), file_of(source, "large", 3_000_000)]
    try:
        for path, year in zip(files, (2400, 1600, 2400), strict=True):
            os.utime(path, ns=(0, (year - 1970) * 31_556_952 * 10**9))
    except OverflowError:
        pytest.skip("this system counts the seconds of its files in 32 bits")
    if not all(abs(path.stat().st_mtime_ns) >= 2**63 for path in files[::2]):
        pytest.skip("this file system knows no such times")
    before = time.time_ns() - 10**9
    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
        await deliver(peers, files[0], folder=inbox)
    assert tree(inbox / "tree") == tree(source)
    assert (inbox / "small").read_bytes() == files[0].read_bytes()
    assert min((inbox / "tree" / path.name).stat().st_mtime_ns for path in files[::2]) > before


async def test_links_are_left_out_unless_asked_for(tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "tree"
    file_of(source, "sub/file", 1000)
    targets = {
        "latest": "sub/file",
        "sub/up": "../latest",
        "dangling": "nowhere",
        "out": "../..",
        "root": "/etc/passwd",
    }
    for name, target in targets.items():
        (source / name).symlink_to(target)
    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
        assert sorted(tree(inbox / "tree")) == ["sub", "sub/file"]
        await deliver(peers, spaceblock.Item(source, name="copy"), folder=inbox, sending={"links": "copy"})
    assert links_below(inbox / "copy") == {name: targets[name] for name in ("latest", "sub/up", "dangling")}
    assert (inbox / "copy/sub/up").read_bytes() == (source / "sub/file").read_bytes()


async def test_a_file_with_two_names_arrives_under_both(tmp_path: Path, inbox: Path) -> None:
    source = tmp_path / "tree"
    first = file_of(source, "first", 1000)
    os.link(first, source / "second")
    async with pair() as peers:
        await deliver(peers, source, folder=inbox)
    assert set(tree(inbox / "tree").values()) == {first.read_bytes()}
    assert sorted(tree(inbox / "tree")) == ["first", "second"]


# Holes.


def same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", one, other], check=False).returncode == 0


async def send_sparse(peers: Pair, source: Path, inbox: Path) -> spaceblock.ReceiptItem:
    sent, received = await deliver(peers, source, folder=inbox)
    assert sent.items == received.items
    assert same(source, inbox / source.name)
    return received.items[0]


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (10_000_000, []),
        (10_000_000, [(0, b"head")]),
        (10_000_000, [(9_999_996, b"tail")]),
        (10_000_001, [(4_000_000, os.urandom(300_000)), (7_000_000, b"x")]),
    ],
    ids=["nothing but a hole", "head", "tail", "islands"],
)
async def test_holes_stay_holes(size: int, data: list[tuple[int, bytes]], tmp_path: Path, inbox: Path) -> None:
    source = sparse_file(tmp_path / "sparse", size, *data)
    async with pair() as peers:
        item = await send_sparse(peers, source, inbox)
    assert item.digest == digest_of(source.read_bytes())
    assert allocated(inbox / "sparse") <= allocated(source) + 4096


async def test_a_part_of_a_sparse_file_arrives_sparse(tmp_path: Path, inbox: Path) -> None:
    source = sparse_file(tmp_path / "sparse", 10_000_000, (5_000_000, b"island"))
    async with pair() as peers:
        await deliver(peers, spaceblock.Item(source, range=(1_000_001, 9_000_001)), folder=inbox)
    assert (inbox / "sparse").read_bytes() == source.read_bytes()[1_000_001:9_000_001]
    assert allocated(inbox / "sparse") < 1_000_000


async def test_the_holes_of_a_file_become_zeros_in_a_buffer(tmp_path: Path) -> None:
    source = sparse_file(tmp_path / "sparse", 3_000_000, (1_000_000, b"island"))
    target = bytearray(b"x" * 3_000_000)
    async with pair() as peers:
        await deliver(peers, source, into=[target])
    assert target == source.read_bytes()


async def test_five_gibibytes_of_hardly_anything_arrive_sparse(tmp_path: Path, inbox: Path) -> None:
    source = sparse_file(tmp_path / "sparse", 5 * GIB, (0, b"begin"), (3 * GIB + 5, os.urandom(100_000)))
    async with pair() as peers:
        sending = peers.here.send(source)
        receiving = (await peers.offer()).accept(inbox)
        sent, received = await within(asyncio.gather(sending, receiving), 10 * PATIENCE)  # both sides hash it all
    assert sent.items == received.items
    assert (inbox / "sparse").stat().st_size == 5 * GIB
    assert allocated(inbox / "sparse") < 1_000_000
    with source.open("rb") as ours, (inbox / "sparse").open("rb") as theirs:
        for file in (ours, theirs):
            file.seek(3 * GIB)
        assert ours.read(200_000) == theirs.read(200_000)


async def test_a_sparse_file_needs_room_for_its_data_alone(tmp_path: Path) -> None:
    source = sparse_file(tmp_path / "sparse", 100_000_000, (50_000_000, os.urandom(100_000)))
    with small_disk(tmp_path / "disk", options="size=1m") as target:
        async with pair() as peers:
            await send_sparse(peers, source, target)
            await deliver(peers, spaceblock.Item(source, name="part", range=(1, 60_000_001)), folder=target)
            dense = sparse_file(tmp_path / "dense", 2_000_000, (0, os.urandom(1_200_000)))
            sending = peers.here.send(dense)
            ours, theirs = await failures(sending, (await peers.offer()).accept(target))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.NoSpace)
        assert "room for" in str(error), "what cannot fit is still refused before data moves"


# Sources that change.


@pytest.mark.parametrize("change", ["deleted", "replaced", "moved away", "rewritten and dated back"])
async def test_a_file_that_changes_before_its_turn_is_told_on_both_sides(
    change: str, tmp_path: Path, inbox: Path
) -> None:
    source = file_of(tmp_path, "log", 10_000)
    before = source.stat()
    async with pair() as peers:
        sending = peers.here.send(source, b"buffer")
        offer = await peers.offer()
        if change == "deleted":
            source.unlink()
        elif change == "replaced":
            file_of(tmp_path, "other", 10_000).rename(source)
        elif change == "moved away":
            source.rename(tmp_path / "elsewhere")
        else:
            source.write_bytes(os.urandom(10_000))
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
        ours, theirs = await failures(sending, offer.accept(inbox))
    for error in (ours, theirs):
        assert isinstance(error, spaceblock.SourceChanged)
        assert (error.item, error.phase, error.exit_code) == (0, "transferring", 6)
    assert (ours.remote, theirs.remote) == (False, True)
    assert_helpful(ours, theirs)
    assert tree(inbox) == {"unnamed-1": b"buffer"}
