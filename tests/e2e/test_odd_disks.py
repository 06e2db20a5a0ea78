"""Every way in which a disk can refuse, by the system call that really fails: one typed error on both sides.

The disks are made by FUSE, so it is the kernel that says what they say.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

import spaceblock
from bad_names import BAD, FORTY, GOOD, is_complete, write_forty
from spaceblock import Item, NoSpace, StorageError, TargetExists, TargetNotWritable

from .disks import odd_disk
from .support import Pair, assert_helpful, deliver, failures, file_of, names_below, pair, tree, within

SIZE = 1_000_000


def is_same_on_both_sides(ours: spaceblock.SpaceblockError, theirs: spaceblock.SpaceblockError) -> bool:
    """Whether both sides know the same, but for whose fault it is."""
    known = [
        (type(error), error.code, error.errno, error.item, error.phase, error.exit_code) for error in (ours, theirs)
    ]
    return known[0] == known[1] and ours.remote is not theirs.remote


async def fail(peers: Pair, *sources: object, folder: Path) -> tuple[spaceblock.SpaceblockError, ...]:
    """Both sides' errors, the sender's first, which must be the same."""
    sending = peers.here.send(*sources)
    ours, theirs = await failures(sending, (await peers.offer()).accept(folder))
    assert is_same_on_both_sides(ours, theirs)
    assert_helpful(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize(
    ("operation", "name", "kind", "phase"),
    [
        ("write", "EDQUOT", NoSpace, "transferring"),
        ("write", "ENOSPC", NoSpace, "transferring"),
        ("write", "EIO", StorageError, "transferring"),
        ("write", "EFBIG", StorageError, "transferring"),
        ("fsync", "EIO", StorageError, "verifying"),
        ("fsync", "EDQUOT", NoSpace, "verifying"),
        ("link", "EDQUOT", NoSpace, "verifying"),
        ("link", "EIO", StorageError, "verifying"),
        ("link", "EROFS", TargetNotWritable, "verifying"),
        ("link", "EACCES", TargetNotWritable, "verifying"),
        ("mkdir", "EDQUOT", NoSpace, "preparing"),
        ("mkdir", "EACCES", TargetNotWritable, "preparing"),
        ("mkdir", "EROFS", TargetNotWritable, "preparing"),
        ("mkdir", "EIO", StorageError, "preparing"),
    ],
)
async def test_what_the_receivers_disk_says_is_what_both_sides_are_told(
    operation: str, name: str, kind: type[StorageError], phase: str, tmp_path: Path
) -> None:
    source = file_of(tmp_path, "x", SIZE)
    fault = (name, SIZE // 2) if operation == "write" else (name,)
    # Files get their names in one of two ways.
    faults = {"link": fault, "rename2": fault} if operation == "link" else {operation: fault}
    with odd_disk(tmp_path / "disk", faults=faults) as target:
        async with pair() as peers:
            ours, theirs = await fail(peers, source, folder=target)
        assert names_below(target) == []
    assert type(ours) is kind
    assert ours.errno == theirs.errno == getattr(errno, name)
    assert (ours.phase, ours.exit_code, ours.remote) == (phase, 6, True)
    assert ours.item == (None if phase == "preparing" else 0)
    assert os.strerror(getattr(errno, name)).lower() in str(ours).lower()


@pytest.mark.parametrize("name", ["EIO", "EACCES", "EPERM", "ESTALE"])
async def test_what_the_senders_disk_says_is_what_both_sides_are_told(name: str, tmp_path: Path, inbox: Path) -> None:
    with odd_disk(tmp_path / "disk", faults={"read": (name, SIZE // 2)}) as folder:
        source, other = file_of(folder, "x", SIZE), file_of(tmp_path, "other", 100)
        async with pair() as peers:
            ours, theirs = await fail(peers, source, other, folder=inbox)
    assert isinstance(ours, spaceblock.SourceError)
    assert ours.errno == theirs.errno == getattr(errno, name)
    assert (ours.item, ours.phase, ours.exit_code, ours.remote) == (0, "transferring", 6, False)
    assert isinstance(theirs, PermissionError) == (name in ("EACCES", "EPERM"))
    assert names_below(inbox) == ["other"], "the rest arrives"


async def test_one_item_that_the_disk_cannot_keep_leaves_the_others(tmp_path: Path) -> None:
    sources = [file_of(tmp_path, name, size) for name, size in (("small", 100), ("large", SIZE), ("other", 100))]
    with odd_disk(tmp_path / "disk", faults={"write": ("EIO", SIZE // 2)}) as target:
        async with pair() as peers:
            ours, theirs = await fail(peers, *sources, folder=target)
        assert sorted(names_below(target)) == ["other", "small"]
    for error in (ours, theirs):
        assert (error.errno, error.item) == (errno.EIO, 1)
        assert error.receipt is not None
        assert [item.path for item in error.receipt.items] == ["small", "other"]


async def test_where_there_are_no_hard_links_files_get_their_names_all_the_same(tmp_path: Path) -> None:
    with odd_disk(tmp_path / "disk", faults={"link": ("EPERM",), "rename2": ("EINVAL",)}) as target:
        (target / "x").write_text("mine")
        async with pair() as peers:
            sent, _ = await deliver(peers, Item(b"data", name="x"), folder=target)
        assert tree(target) == {"x": b"mine", "x (1)": b"data"}
    assert sent.items[0].path == "x (1)"


async def test_a_disk_that_does_not_tell_how_much_is_free_is_believed(tmp_path: Path) -> None:
    with odd_disk(tmp_path / "disk", faults={"silent": ("EIO",)}) as target:
        async with pair() as peers:
            await deliver(peers, Item(bytes(SIZE), name="x"), folder=target)
        assert names_below(target) == ["x"]


async def test_a_disk_that_gives_everything_one_mode_is_received_into(tmp_path: Path) -> None:
    """Such as a stick with FAT, on which all that is ours looks as if others could read it."""
    with odd_disk(tmp_path / "disk", system="windows") as target:
        async with pair() as peers:
            await deliver(peers, Item(bytes(SIZE), name="d/x"), Item(b"small", name="d/y"), folder=target)
        assert names_below(target) == ["d", "d/x", "d/y"]
        assert (target / "d/x").stat().st_mode & 0o777 == 0o755


async def test_a_disk_that_ignores_case_overwrites_nothing(tmp_path: Path) -> None:
    for system in ("windows", "apple"):
        with odd_disk(tmp_path / system, system=system) as target:
            (target / "Caf\u00e9").write_text("mine")
            async with pair() as peers:
                sent, _ = await deliver(peers, Item(b"data", name="cafe\u0301"), folder=target)
                assert sent.items[0].path == "cafe\u0301 (1)"
                sending = peers.here.send(Item(b"data", name="CAFE\u0301"))
                ours, _ = await failures(sending, (await peers.offer()).accept(target, on_conflict="error"))
                assert isinstance(ours, TargetExists)
                both = [Item(b"1", name="Name"), Item(b"2", name="name")]
                sending = peers.here.send(*both)
                ours, _ = await failures(sending, (await peers.offer()).accept(target, on_conflict="overwrite"))
                assert isinstance(ours, spaceblock.NameRejected)
                sent, _ = await deliver(
                    peers, *both, sending={"rename": lambda item, problem: problem.proposal}, folder=target
                )
                assert [item.path for item in sent.items] == ["Name", "name (1)"]
            assert (target / "caf\u00e9").read_text() == "mine"


@pytest.mark.parametrize("asks", ["sender", "receiver"])
@pytest.mark.parametrize("system", ["windows", "apple"])
async def test_forty_bad_names_end_in_a_complete_copy_by_a_callback(system: str, asks: str, tmp_path: Path) -> None:
    source = write_forty(tmp_path / "forty")
    for name in BAD["no text"] if asks == "receiver" else []:
        (source / name).rename(source / f"text-{len(name)}")  # only a sender can give a name to what has none
    asked: list[str] = []

    def ask(item: spaceblock.OfferItem, problem: spaceblock.BadName) -> str:
        asked.append(problem.name)
        return problem.proposal

    with odd_disk(tmp_path / "disk", system=system) as target:
        async with pair() as peers:
            sending = peers.here.send(source, rename=ask if asks == "sender" else None)
            receiving = (await peers.offer()).accept(target, rename=ask if asks == "receiver" else None)
            sent, received = await within(asyncio.gather(sending, receiving))
        assert is_complete(target)
        by_name = {item.name: item for item in sent.items}
        for name in asked:
            place = sent.renamed[name]
            assert (target / place).read_bytes() == (source.parent / name).read_bytes()
            assert by_name[name].path == place
    assert len(sent.items) == len(FORTY) + len(GOOD)
    assert [item.path for item in sent.items] == [item.path for item in received.items]
    refused = {"windows": 9, "apple": 2}[system] - (asks == "receiver")
    assert len(asked) == len(sent.renamed) == 4 * refused


async def test_the_limits_that_a_disk_is_found_to_have_are_those_it_has(tmp_path: Path, inbox: Path) -> None:
    """A name of the greatest length that is allowed arrives; one more and it is refused before data moves."""
    for system, longest, unit in [
        ("windows", "\u00e9" * 255, "UTF-16 units"),
        ("apple", "\u00e9" * 127 + "x", "bytes"),
    ]:
        with odd_disk(tmp_path / system, system=system) as target:
            async with pair() as peers:
                await deliver(peers, Item(b"data", name=longest), folder=target)
                sending = peers.here.send(Item(b"data", name=longest + "x"))
                ours, _ = await failures(sending, (await peers.offer()).accept(target))
        assert isinstance(ours, spaceblock.NameRejected)
        assert f"longer than 255 {unit}" in str(ours)
