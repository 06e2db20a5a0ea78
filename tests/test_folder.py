"""Receiving into a folder: names, conflicts, links, full disks, and what is left afterwards.

The sink is used as a transfer uses it: prepare, then for each item begin, write and finish, then place, and close.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.display import shown
from spaceblock.errors import (
    NameRejected,
    NoSpace,
    SpaceblockError,
    StorageError,
    TargetExists,
    TargetMissing,
    TargetNotWritable,
)
from spaceblock.names import STAGING_PREFIX, NameRules
from spaceblock.options import Conflict
from spaceblock.storage.folder import FolderSink
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import NameRule, NameUnit, System
from support import (
    BLOCK,
    UUID,
    manifest_of,
    no_more_descriptors,
    pattern,
    requests_of,
    soft_limit,
    unprivileged,
)

pytestmark = pytest.mark.usefixtures("nothing_stays_open")

DATA = b"what was received"
WINDOWS = NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
APPLE = NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def store(sink: FolderSink, item: int, data: bytes = DATA) -> None:
    """An item from its first byte to its last, not yet in place."""
    sink.begin(item)
    if data:
        sink.write(item, 0, memoryview(data))
    sink.finish(item)


def receive(
    target: Path, *names: str, on_conflict: Conflict = "rename", data: bytes = DATA
) -> list[str | SpaceblockError]:
    """Receive a file for each name; returns their final names or errors."""
    sink = FolderSink(target, on_conflict)
    try:
        skip = sink.prepare(requests_of(*[len(data)] * len(names)), manifest_of(*names))
        items = [item for item in range(len(names)) if item not in skip]
        for item in items:
            store(sink, item, data)
        return sink.place(items)
    finally:
        sink.close()


def refusal(target: Path, *names: str, on_conflict: Conflict = "rename") -> SpaceblockError:
    """The error with which an offer of these names is refused before any data."""
    sink = FolderSink(target, on_conflict)
    try:
        with pytest.raises(SpaceblockError) as caught:
            sink.prepare(requests_of(*[1] * len(names)), manifest_of(*names))
    finally:
        sink.close()
    return caught.value


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, hidden ones too; a folder counts by its name and a slash."""
    return {
        str(path.relative_to(folder)) + ("/" if path.is_dir() else ""): b"" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


# The way it should go.


def test_a_file_appears_under_its_name_only_when_it_is_placed(target: Path) -> None:
    sink = FolderSink(target)
    assert sink.prepare(requests_of(len(DATA)), manifest_of("a.txt")) == set()
    store(sink, 0)
    assert not (target / "a.txt").exists()
    assert sink.place([0]) == ["a.txt"]
    assert (target / "a.txt").read_bytes() == DATA
    sink.close()
    assert tree(target) == {"a.txt": DATA}, "and nothing else is left"


def test_folders_are_made_as_needed(target: Path) -> None:
    assert receive(target, "a/b/c.txt", "a/d.txt") == ["a/b/c.txt", "a/d.txt"]
    assert tree(target) == {"a/": b"", "a/b/": b"", "a/b/c.txt": DATA, "a/d.txt": DATA}


def test_empty_folders_are_made_too(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(), manifest_of(folders=("empty", "a/b")))
    sink.close()
    assert tree(target) == {"a/": b"", "a/b/": b"", "empty/": b""}


def test_folders_that_are_there_already_are_used(target: Path) -> None:
    (target / "a").mkdir()
    (target / "a" / "mine").write_bytes(b"mine")
    assert receive(target, "a/theirs") == ["a/theirs"]
    assert tree(target) == {"a/": b"", "a/mine": b"mine", "a/theirs": DATA}


def test_an_unnamed_item_gets_a_name_from_its_number(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1), manifest_of(None, "a"))
    store(sink, 0, b"x")
    assert sink.place([0]) == ["unnamed-0"]
    sink.close()


def test_without_a_manifest_no_item_has_a_name(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1), None)
    store(sink, 0, b"x")
    assert sink.place([0]) == ["unnamed-0"]
    sink.close()


def test_a_file_without_bytes_is_a_file(target: Path) -> None:
    assert receive(target, "empty", data=b"") == ["empty"]
    assert tree(target) == {"empty": b""}


def test_a_partial_range_becomes_a_file_of_its_own_length(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(100, Partial(10, 14)),)), manifest_of("part"))
    sink.begin(0)
    sink.write(0, 10, memoryview(b"ab"))
    sink.write(0, 12, memoryview(b"cd"))
    sink.finish(0)
    sink.place([0])
    sink.close()
    assert tree(target) == {"part": b"abcd"}


def test_files_are_for_others_what_the_umask_leaves(target: Path) -> None:
    before = os.umask(0o027)
    try:
        receive(target, "a/b")
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "a" / "b").stat().st_mode) == 0o640
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o750


def test_unfinished_files_are_for_nobody_else(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1), manifest_of("a"))
    (staging,) = target.iterdir()
    assert staging.name == STAGING_PREFIX + UUID.hex()
    assert stat.S_IMODE(staging.stat().st_mode) == 0o700
    sink.close()


def test_results_come_in_the_order_of_the_items(target: Path) -> None:
    names = ["z/1", "a/2", "z/3", "top", "a/4"]
    assert receive(target, *names) == names


def test_the_target_may_itself_be_reached_by_a_link(target: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(target)
    assert receive(tmp_path / "link", "a") == ["a"]
    assert tree(target) == {"a": DATA}


def test_closing_twice_is_harmless_and_closing_unprepared_too(target: Path) -> None:
    sink = FolderSink(target)
    sink.close()
    sink.prepare(requests_of(1), manifest_of("a"))
    sink.close()
    sink.close()
    assert tree(target) == {}


# A folder that cannot be received into.


def test_a_target_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere", "a")
    assert isinstance(error, TargetMissing)
    assert "nowhere" in str(error)
    assert "create the folder" in str(error)


def test_a_target_that_is_a_file_is_refused(target: Path) -> None:
    (target / "file").write_bytes(b"x")
    error = refusal(target / "file", "a")
    assert isinstance(error, TargetMissing)
    assert error.errno == errno.ENOTDIR


def test_a_target_that_is_a_named_pipe_does_not_hang(target: Path) -> None:
    os.mkfifo(target / "pipe")
    assert isinstance(refusal(target / "pipe", "a"), TargetMissing)


def test_a_target_that_is_no_path_at_all_is_refused() -> None:
    assert isinstance(refusal(Path("a\0b"), "a"), TargetMissing)


def test_a_target_that_cannot_be_written_is_refused_before_data_moves() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with unprivileged():
            error = refusal(Path(folder), "a")
        assert isinstance(error, TargetNotWritable)
        assert isinstance(error, PermissionError)
        assert os.listdir(folder) == []


def test_the_peer_is_not_told_where_a_folder_is_however_long_its_path() -> None:
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / ("x" * 150) / ("y" * 150)
        target.mkdir(parents=True)
        os.chmod(name, 0o755)
        target.chmod(0o555)
        with unprivileged():
            error = refusal(target, "a")
    assert isinstance(error, TargetNotWritable)
    assert str(target) in str(error)
    assert str(target.parent) not in error.told()


def test_a_name_that_only_the_disk_refuses_is_told_as_such(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = NameRules(System.POSIX, 0, NameUnit.BYTES, 0)
    monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_: limits)
    (error, placed) = receive(target, "x" * 300, "fine")
    assert isinstance(error, NameRejected)
    assert (error.item, error.errno) == (0, errno.ENAMETOOLONG)
    assert placed == "fine"


def test_a_folder_below_the_target_that_cannot_be_written_fails_its_own_files_only() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        locked = Path(folder, "locked")
        locked.mkdir(mode=0o555)
        with unprivileged():
            refused, placed = receive(Path(folder), "locked/a", "b")
        assert isinstance(refused, TargetNotWritable)
        assert "cannot create 'locked/a'" in str(refused)
        assert refused.name == "locked/a"
        assert placed == "b"
        assert tree(Path(folder)) == {"b": DATA, "locked/": b""}


def test_an_offer_larger_than_the_disk_is_refused_before_data_moves(target: Path) -> None:
    sink = FolderSink(target)
    with pytest.raises(NoSpace, match=r"room for \d+ bytes and the offer has 4611686018427387903"):
        sink.prepare(requests_of(2**62 - 1), manifest_of("a"))
    sink.close()
    assert tree(target) == {}


def test_what_is_skipped_needs_no_space(target: Path) -> None:
    (target / "huge").write_bytes(b"mine")
    sink = FolderSink(target, "skip")
    assert sink.prepare(requests_of(2**61, 1), manifest_of("huge", "small")) == {0}
    sink.close()


def test_a_disk_that_fills_up_is_told_as_such(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1), manifest_of("a", "b"))
    sink.begin(0)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), sink._open[0])
    with pytest.raises(NoSpace, match="cannot write 'a': no space left") as caught:
        sink.write(0, 0, memoryview(b"x"))
    assert (caught.value.item, caught.value.name, caught.value.errno) == (0, "a", errno.ENOSPC)
    sink.discard(0)
    store(sink, 1, b"x")
    assert sink.place([1]) == ["b"]
    sink.close()
    assert tree(target) == {"b": b"x"}


def test_a_file_larger_than_the_system_takes_fails_that_file(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(5_000, 5_000), manifest_of("a", "b"))
    sink.begin(0)
    with soft_limit(resource.RLIMIT_FSIZE, 4_096), pytest.raises(StorageError) as caught:
        sink.write(0, 0, memoryview(pattern(5_000)))
    assert caught.value.errno == errno.EFBIG
    sink.discard(0)
    store(sink, 1, pattern(5_000))
    assert sink.place([1]) == ["b"]
    sink.close()
    assert tree(target) == {"b": pattern(5_000)}


@pytest.mark.parametrize("spare", range(5))
def test_without_descriptors_an_offer_is_refused_and_leaves_nothing(target: Path, spare: int) -> None:
    sink = FolderSink(target)
    with no_more_descriptors(spare):
        if spare < 4:
            with pytest.raises(StorageError) as caught:
                sink.prepare(requests_of(1), manifest_of("a/b"))
            assert caught.value.errno == errno.EMFILE
        else:
            sink.prepare(requests_of(1), manifest_of("a/b"))
    sink.close()
    assert tree(target) == {}


def test_without_descriptors_an_item_fails_and_later_ones_go_on(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1), manifest_of("a", "b"))
    with no_more_descriptors(), pytest.raises(StorageError) as caught:
        sink.begin(0)
    assert caught.value.errno == errno.EMFILE
    sink.discard(0)
    store(sink, 1)
    with no_more_descriptors():
        (error,) = sink.place([1])
    assert isinstance(error, StorageError)
    assert error.errno == errno.EMFILE
    assert sink.place([1]) == ["b"]
    sink.close()


def test_files_of_any_number_of_folders_need_few_descriptors(target: Path) -> None:
    sink = FolderSink(target)
    names = [f"folder-{number}/file" for number in range(50)]
    sink.prepare(requests_of(*[1] * 50), manifest_of(*names))
    for item in range(50):
        store(sink, item, b"x")
    with no_more_descriptors(spare=4):
        assert sink.place(range(50)) == names
    sink.close()


# What is there already.


def test_a_taken_name_becomes_another_one(target: Path) -> None:
    (target / "a.txt").write_bytes(b"mine")
    (target / "a (1).txt").write_bytes(b"mine too")
    assert receive(target, "a.txt") == ["a (2).txt"]
    assert tree(target) == {"a.txt": b"mine", "a (1).txt": b"mine too", "a (2).txt": DATA}


def test_a_taken_name_can_be_skipped(target: Path) -> None:
    (target / "d").mkdir()
    (target / "d" / "a").write_bytes(b"mine")
    assert receive(target, "d/a", "d/b", "e/c", on_conflict="skip") == ["d/b", "e/c"]
    assert (target / "d" / "a").read_bytes() == b"mine"


def test_a_taken_name_can_be_an_error_before_data_moves(target: Path) -> None:
    (target / "b").write_bytes(b"mine")
    sink = FolderSink(target, "error")
    with pytest.raises(TargetExists, match="'b' is already there") as caught:
        sink.prepare(requests_of(1, 1), manifest_of("a", "b", folders=("new",)))
    sink.close()
    assert (caught.value.item, caught.value.name) == (1, "b")
    assert isinstance(caught.value, FileExistsError)
    assert tree(target) == {"b": b"mine"}, "and no folder was made"


def test_a_taken_name_can_be_overwritten(target: Path) -> None:
    (target / "a").write_bytes(b"old")
    assert receive(target, "a", on_conflict="overwrite") == ["a"]
    assert tree(target) == {"a": DATA}


def test_a_folder_is_never_overwritten(target: Path) -> None:
    (target / "a").mkdir()
    (target / "a" / "mine").write_bytes(b"mine")
    (error,) = receive(target, "a", on_conflict="overwrite")
    assert isinstance(error, StorageError)
    assert error.errno == errno.EISDIR
    assert tree(target) == {"a/": b"", "a/mine": b"mine"}


def test_a_folder_of_the_same_name_makes_a_file_take_another(target: Path) -> None:
    (target / "a").mkdir()
    assert receive(target, "a") == ["a (1)"]


@pytest.mark.parametrize("parent", ["a", "a/b"])
def test_a_file_where_a_folder_is_needed_is_refused_before_data_moves(target: Path, parent: str) -> None:
    (target / parent).parent.mkdir(exist_ok=True)
    (target / parent).write_bytes(b"mine")
    error = refusal(target, f"{parent}/c")
    assert isinstance(error, NameRejected)
    assert "is not a folder" in str(error)


@pytest.mark.parametrize("on_conflict", ["rename", "skip", "error"])
def test_a_name_that_appears_meanwhile_is_not_touched(target: Path, on_conflict: Conflict) -> None:
    sink = FolderSink(target, on_conflict)
    assert sink.prepare(requests_of(1), manifest_of("a")) == set()
    store(sink, 0)
    (target / "a").write_bytes(b"mine")
    (result,) = sink.place([0])
    sink.close()
    if on_conflict == "error":
        assert isinstance(result, TargetExists)
        assert tree(target) == {"a": b"mine"}
    else:
        assert result == "a (1)"
        assert tree(target) == {"a": b"mine", "a (1)": DATA}


def test_with_every_alternative_taken_the_item_fails(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.names.renaming.ALTERNATIVES_MAX", 3)
    for name in ("a", "a (1)", "a (2)"):
        (target / name).write_bytes(b"mine")
    (error,) = receive(target, "a")
    assert isinstance(error, TargetExists)
    assert set(tree(target)) == {"a", "a (1)", "a (2)"}


def test_the_longest_name_still_has_alternatives(target: Path) -> None:
    name = "é" * 125 + "x.txt"
    (target / name).write_bytes(b"mine")
    (other,) = receive(target, name)
    assert isinstance(other, str)
    assert (target / other).read_bytes() == DATA


def problems_of(target: Path, *names: str, folders: tuple[str, ...] = ()) -> dict[str, NameRule | int]:
    """The names that a folder does not take, with the rule that each breaks."""
    manifest = manifest_of(*names, folders=folders)
    sink = FolderSink(target)
    try:
        found = sink.name_problems(requests_of(*[1] * len(names)), manifest)
        assert all(shown(problem.reason) for problem in found)
        return {manifest.entries[problem.entry].name: problem.rule for problem in found}
    finally:
        sink.close()


def test_every_name_that_cannot_be_had_is_found_at_once(target: Path) -> None:
    names = ["ok", "x" * 256, "a/b\0", "../c", "d", "d/e", "é" * 128, "/".join(["y" * 200] * 30)]
    assert problems_of(target, *names) == {
        "x" * 256: NameRule.TOO_LONG,
        "a/b\0": NameRule.CHARACTER,
        "../c": NameRule.NOT_RELATIVE,
        "d": NameRule.FILE_AND_FOLDER,
        "é" * 128: NameRule.TOO_LONG,
        "/".join(["y" * 200] * 30): NameRule.PATH_TOO_LONG,
    }
    assert tree(target) == {}


def test_what_is_no_folder_is_told_once_for_all_that_is_below(target: Path) -> None:
    (target / "a").write_bytes(b"mine")
    (target / "b").mkdir()
    (target / "b" / "link").symlink_to(target)
    assert problems_of(target, "a/x", "a/y/z", folders=("a", "a/y")) == {"a": NameRule.EXISTS}
    assert problems_of(target, "a/x", "b/link/x", "b/x") == {"a/x": NameRule.EXISTS, "b/link/x": NameRule.EXISTS}
    assert problems_of(target, "a") == {}, "a taken name of a file is another matter"


@pytest.mark.parametrize(
    ("limits", "name", "rule"),
    [
        (WINDOWS, "a:b", NameRule.CHARACTER),
        (WINDOWS, "con", NameRule.RESERVED),
        (WINDOWS, "a.", NameRule.ENDING),
        (APPLE, "é" * 400, NameRule.TOO_LONG),
        (APPLE, "A", NameRule.COLLISION),
    ],
)
def test_the_folders_own_limits_count(
    target: Path, monkeypatch: pytest.MonkeyPatch, limits: NameRules, name: str, rule: NameRule
) -> None:
    assert rule not in problems_of(target, "a", name).values() or rule is NameRule.TOO_LONG
    monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_: limits)
    assert problems_of(target, "a", name) == {name: rule}


def test_another_name_keeps_to_the_folders_own_limit(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "spaceblock.storage.folder.rules_of", lambda *_: NameRules(System.POSIX, 12, NameUnit.BYTES, 60)
    )
    (target / "twelve12.txt").write_bytes(b"mine")
    assert receive(target, "twelve12.txt") == ["twel (1).txt"]


# What may be there already, byte for byte.


def test_a_file_of_the_same_size_can_be_compared(target: Path) -> None:
    (target / "same").write_bytes(DATA)
    (target / "longer").write_bytes(DATA + b"!")
    (target / "folder").mkdir()
    (target / "link").symlink_to("same")
    names = ["same", "longer", "folder", "link", "new"]
    sink = FolderSink(target, "skip")
    skip = sink.prepare(requests_of(*[len(DATA)] * 5), manifest_of(*names))
    assert skip == {0, 1, 2, 3}
    assert sink.comparable == {0}
    *portions, digest = sink.digest(0)
    assert digest == blake3(DATA).digest()
    assert portions == [len(DATA)]
    (target / "same").write_bytes(DATA * 100_000)
    assert len(list(sink.digest(0))) == 2, "it is another file, however long it has become"
    (target / "same").unlink()
    with pytest.raises(TargetMissing):
        list(sink.digest(0))
    sink.close()


def test_what_is_compared_is_not_followed_through_a_link(target: Path) -> None:
    (target / "a").write_bytes(DATA)
    sink = FolderSink(target, "skip")
    sink.prepare(requests_of(len(DATA)), manifest_of("a"))
    (target / "a").rename(target / "b")
    (target / "a").symlink_to("b")
    with pytest.raises(StorageError):
        list(sink.digest(0))
    sink.close()


# Nothing outside the target.


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "a/../../b", "..", ".spaceblock-x/a", "a\0b", ""])
def test_a_name_that_leads_elsewhere_is_refused_before_data_moves(target: Path, tmp_path: Path, name: str) -> None:
    error = refusal(target, name)
    assert isinstance(error, NameRejected)
    assert tree(tmp_path) == {"target/": b""}


def test_names_that_clash_are_refused_before_data_moves(target: Path) -> None:
    assert isinstance(refusal(target, "a", "a/b"), NameRejected)
    assert tree(target) == {}


def test_links_in_a_manifest_are_refused(target: Path) -> None:
    sink = FolderSink(target)
    entries = (Entry(EntryKind.LINK, "a", target="/etc/passwd"),)
    with pytest.raises(NameRejected, match="is a link"):
        sink.prepare(requests_of(), Manifest(entries, 0))
    sink.close()
    assert tree(target) == {}


@pytest.mark.parametrize("on_conflict", ["rename", "skip", "overwrite", "error"])
def test_a_folder_that_is_a_link_is_not_followed(target: Path, tmp_path: Path, on_conflict: Conflict) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "a").symlink_to(outside)
    for name in ("a/x", "a/b/x"):
        error = refusal(target, name, on_conflict=on_conflict)
        assert isinstance(error, NameRejected)
        assert "the folder 'a', which is a link" in str(error)
        assert "is a link" in str(error)
    assert tree(outside) == {}


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(target: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    sink = FolderSink(target)
    sink.prepare(requests_of(1), manifest_of("a/x", folders=("a",)))
    store(sink, 0)
    (target / "a").rmdir()
    (target / "a").symlink_to(outside)
    (error,) = sink.place([0])
    sink.close()
    assert isinstance(error, NameRejected)
    assert tree(outside) == {}


def test_a_dangling_link_is_no_folder_either(target: Path, tmp_path: Path) -> None:
    (target / "a").symlink_to(tmp_path / "new")
    assert isinstance(refusal(target, "a/x"), NameRejected)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_of_the_final_name_is_not_written_through(target: Path, tmp_path: Path, dangling: bool) -> None:
    outside = tmp_path / "outside"
    if not dangling:
        outside.write_bytes(b"mine")
    (target / "a").symlink_to(outside)
    assert receive(target, "a") == ["a (1)"]
    assert receive(target, "a", on_conflict="skip") == []
    assert isinstance(refusal(target, "a", on_conflict="error"), TargetExists)
    assert (target / "a").is_symlink()
    assert receive(target, "a", on_conflict="overwrite") == ["a"]
    assert not (target / "a").is_symlink(), "the link itself was replaced"
    assert dangling is not outside.exists()
    if not dangling:
        assert outside.read_bytes() == b"mine"


def test_the_target_may_move_while_files_arrive(target: Path, tmp_path: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1), manifest_of("d/a"))
    target.rename(tmp_path / "moved")
    target.symlink_to("/nonexistent")
    store(sink, 0)
    assert sink.place([0]) == ["d/a"]
    sink.close()
    assert tree(tmp_path / "moved") == {"d/": b"", "d/a": DATA}


def test_a_transfer_does_not_use_what_another_left_unfinished(target: Path) -> None:
    (target / (STAGING_PREFIX + UUID.hex())).mkdir()
    assert isinstance(refusal(target, "a"), TargetExists)
    assert tree(target) == {STAGING_PREFIX + UUID.hex() + "/": b""}, "it belongs to the other"


# What is left.


def test_what_was_not_placed_is_gone(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1, 1), manifest_of("a", "b", "c"))
    sink.begin(0)
    sink.write(0, 0, memoryview(b"x"))
    store(sink, 1)
    store(sink, 2)
    sink.place([2])
    sink.close()
    assert tree(target) == {"c": DATA}


def test_an_item_can_be_dropped_at_any_point(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1, 1), manifest_of("a", "b", "c"))
    sink.discard(0)
    sink.begin(1)
    sink.discard(1)
    store(sink, 2)
    sink.discard(2)
    sink.discard(2)
    (staging,) = target.iterdir()
    assert list(staging.iterdir()) == []
    sink.close()
    assert tree(target) == {}


def test_something_foreign_among_the_unfinished_files_is_left_alone(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1), manifest_of("a"))
    (staging,) = target.iterdir()
    (staging / "foreign").write_bytes(b"?")
    sink.close()
    assert (staging / "foreign").read_bytes() == b"?"


# File systems without hard links (most memory sticks, some network disks).


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_nothing_is_overwritten_either(target: Path) -> None:
    (target / "a").write_bytes(b"mine")
    assert receive(target, "a", "b") == ["a (1)", "b"]
    assert tree(target) == {"a": b"mine", "a (1)": DATA, "b": DATA}


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_link_is_not_written_through_either(target: Path, tmp_path: Path) -> None:
    (target / "a").symlink_to(tmp_path / "outside")
    assert receive(target, "a") == ["a (1)"]
    assert not (tmp_path / "outside").exists()


@pytest.mark.usefixtures("no_hard_links")
def test_without_hard_links_a_name_is_not_left_reserved_after_a_failure(target: Path) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1), manifest_of("a"))
    store(sink, 0)
    (staging,) = target.iterdir()
    next(staging.iterdir()).unlink()
    (error,) = sink.place([0])
    sink.close()
    assert isinstance(error, TargetMissing)
    assert tree(target) == {}


# Durability.


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of what was flushed to the disk, in order."""
    inodes: list[int] = []
    fsync = os.fsync

    def spy(fd: int) -> None:
        inodes.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", spy)
    return inodes


def test_a_durable_file_and_every_folder_that_was_made_for_it_are_flushed(target: Path, flushed: list[int]) -> None:
    receive(target, "a/b/c")
    inodes = [path.stat().st_ino for path in (target / "a" / "b" / "c", target, target / "a", target / "a" / "b")]
    assert flushed == inodes, "the file before its name, each folder's entry, and last the folder of the file"


def test_a_folder_is_flushed_once_for_all_its_files(target: Path, flushed: list[int]) -> None:
    (target / "d").mkdir()
    receive(target, "d/a", "x", "d/b", "d/c")
    assert flushed.count((target / "d").stat().st_ino) == 1


def test_without_durability_nothing_is_flushed(target: Path, flushed: list[int]) -> None:
    sink = FolderSink(target, durability="none")
    sink.prepare(requests_of(1), manifest_of("a/b"))
    store(sink, 0)
    assert sink.place([0]) == ["a/b"]
    sink.close()
    assert (sink.durable, flushed) == (False, [])


def test_a_disk_that_cannot_flush_fails_the_file(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = FolderSink(target)
    sink.prepare(requests_of(1, 1), manifest_of("a", "b"))
    store(sink, 1)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    (error,) = sink.place([1])
    assert isinstance(error, StorageError)
    assert "cannot flush 'b'" in error.message
    sink.close()
    assert tree(target) == {}


def test_an_unnamed_item_gets_a_name_that_no_other_has(tmp_path: Path) -> None:
    requests = SpaceblockRequests(b"u" * 16, 131_072, (SpaceblockRequest(0),) * 3)
    manifest = Manifest((Entry(EntryKind.FILE, "unnamed-1", item=0), Entry(EntryKind.FOLDER, "unnamed-4")))
    sink = FolderSink(tmp_path)
    sink.prepare(requests, manifest)
    for item in range(3):
        sink.begin(item)
        sink.finish(item)
    assert sink.place([0, 1, 2]) == ["unnamed-1", "unnamed-7", "unnamed-2"]
    sink.close()
