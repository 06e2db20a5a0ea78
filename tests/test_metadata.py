"""Modes, times, folders and links: what is offered of a tree, and what a target folder takes over of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.errors import NameRejected, TargetExists
from spaceblock.options import Conflict, Links
from spaceblock.storage.folder import FolderSink
from spaceblock.storage.metadata import leads_out
from spaceblock.storage.sources import hold_buffers, prepare
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from support import requests_of

YEAR_2001 = 1_000_000_000_123_456_789


def offered(path: Path, links: Links = "skip") -> dict[str, Entry]:
    """The manifest's entries for ``path``, by name."""
    offer = prepare(hold_buffers([path]), links)
    assert offer.manifest is not None
    return {entry.name: entry for entry in offer.manifest.entries}


def file(name: str, item: int = 0, mode: int | None = None, mtime_ns: int | None = None) -> Entry:
    return Entry(EntryKind.FILE, name, item, mode, mtime_ns)


def folder(name: str, mode: int | None = None, mtime_ns: int | None = None) -> Entry:
    return Entry(EntryKind.FOLDER, name, None, mode, mtime_ns)


def link(name: str, target: str, mtime_ns: int | None = None) -> Entry:
    return Entry(EntryKind.LINK, name, mtime_ns=mtime_ns, target=target)


def received(path: Path, *entries: Entry, on_conflict: Conflict = "rename", fail: tuple[int, ...] = ()) -> None:
    """Receive ``entries``, each file with the bytes "new", but for the items in ``fail``."""
    items = sum(entry.kind is EntryKind.FILE for entry in entries)
    sink = FolderSink(path, on_conflict)
    try:
        skip = sink.prepare(requests_of(*[3] * items), Manifest(entries, items))
        wanted = [item for item in range(items) if item not in skip]
        for item in wanted:
            sink.begin(item)
            sink.write(item, 0, memoryview(b"new"))
            sink.finish(item)
        for item in fail:
            sink.discard(item)
        sink.place([item for item in wanted if item not in fail])
    finally:
        sink.close()


def mode_of(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# What is offered.


def test_modes_and_times_are_offered_but_nothing_that_makes_a_program_somebody_elses(tmp_path: Path) -> None:
    inner = tmp_path / "d"
    inner.mkdir()
    (inner / "a").write_bytes(b"x")
    os.utime(inner / "a", ns=(0, YEAR_2001))
    (inner / "a").chmod(0o6751)
    inner.chmod(0o3750)
    entries = offered(inner)
    assert (entries["d/a"].mode, entries["d/a"].mtime_ns) == (0o751, YEAR_2001)
    assert (entries["d"].mode, entries["d"].mtime_ns) == (0o750, inner.stat().st_mtime_ns)


def test_a_buffer_has_neither_mode_nor_time() -> None:
    offer = prepare(hold_buffers([b"x"]))
    assert offer.manifest is None


def test_links_are_left_out_unless_they_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inner = tmp_path / "d"
    (inner / "sub").mkdir(parents=True)
    (inner / "a").write_bytes(b"x")
    targets = {"near": "a", "sub/up": "../a", "sub/top": "..", "gone": "nowhere"}
    hostile = {"out": "..", "sub/far": "../../x", "abs": str(tmp_path), "twist": "sub/../../x"}
    for name, target in (targets | hostile).items():
        (inner / name).symlink_to(target)
    assert sorted(offered(inner)) == ["d", "d/a", "d/sub"]
    with caplog.at_level(logging.WARNING, "spaceblock"):
        caplog.clear()
        entries = offered(inner, "copy")
    links = {entry.name[2:]: entry.target for entry in entries.values() if entry.kind is EntryKind.LINK}
    assert links == targets
    assert sum("leads out of what is sent" in record.getMessage() for record in caplog.records) == len(hostile)


def test_a_file_with_two_names_is_offered_under_both(tmp_path: Path) -> None:
    inner = tmp_path / "d"
    inner.mkdir()
    (inner / "a").write_bytes(b"x")
    os.link(inner / "a", inner / "b")
    assert {entry.item for entry in offered(inner).values() if entry.item is not None} == {0, 1}


# Which links are safe.


@pytest.mark.parametrize("target", ["a", "a/b", "./a", "..", "../a", "../../a", "a//b", ".", "...", "../.b/..c"])
def test_a_link_that_stays_inside(target: str) -> None:
    assert not leads_out(target, 2)


@pytest.mark.parametrize(
    "target",
    ["", "/", "/etc/passwd", "../../..", "../../../a", "a/..", "a/../../../b", "./a/../b", "a\0b", "C:/x", "\\b"],
)
def test_a_link_that_may_lead_out(target: str) -> None:
    assert leads_out(target, 2)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "c"]), min_size=1, max_size=8), st.integers(0, 3))
def test_no_safe_link_leads_out_even_through_others(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], depth: int
) -> None:
    """``a`` goes up as far as a link may at its depth; whatever goes through it stays inside all the same."""
    target = "/".join(parts)
    if leads_out(target, depth):
        return
    root = tmp_path_factory.mktemp("root")
    place = root.joinpath(*["f"] * depth)
    place.mkdir(parents=True, exist_ok=True)
    (place / "a").symlink_to("/".join([".."] * depth) or ".")
    (place / "link").symlink_to(target)
    assert Path(os.path.realpath(place / "link")).is_relative_to(os.path.realpath(root))


# What is taken over.


def test_modes_are_taken_over_as_far_as_the_umask_lets_them(tmp_path: Path, umask: None) -> None:
    received(
        tmp_path,
        folder("d", 0o777),
        folder("locked", 0o555),
        file("d/run", 0, 0o755),
        file("d/secret", 1, 0o600),
        file("locked/fixed", 2, 0o444),
        file("plain", 3),
        file("root", 4, 0o6777),
    )
    modes = {str(path.relative_to(tmp_path)): mode_of(path) for path in tmp_path.rglob("*")}
    assert modes == {
        "d": 0o750,
        "d/run": 0o750,
        "d/secret": 0o600,
        "locked": 0o550,
        "locked/fixed": 0o440,
        "plain": 0o640,
        "root": 0o750,
    }
    assert os.umask(0o027) == 0o027


def test_times_are_taken_over_also_of_folders_and_links(tmp_path: Path) -> None:
    received(
        tmp_path,
        folder("d", mtime_ns=YEAR_2001 + 1),
        folder("d/e", mtime_ns=YEAR_2001 + 2),
        folder("empty", mtime_ns=-1),
        file("d/e/a", 0, mtime_ns=YEAR_2001 + 3),
        link("d/e/l", "a", YEAR_2001 + 4),
    )
    names = ["d", "d/e", "empty", "d/e/a", "d/e/l"]
    times = [(tmp_path / name).lstat().st_mtime_ns for name in names]
    assert times == [YEAR_2001 + 1, YEAR_2001 + 2, -1, YEAR_2001 + 3, YEAR_2001 + 4]


@pytest.mark.parametrize("mtime_ns", [-(2**61) * 10**9, (2**61 - 1) * 10**9 + 999_999_999])
def test_a_time_that_no_file_system_has_is_left_out(tmp_path: Path, mtime_ns: int) -> None:
    received(tmp_path, folder("d", mtime_ns=mtime_ns), file("d/a", 0, mtime_ns=mtime_ns), link("l", "d", mtime_ns))
    assert (tmp_path / "d" / "a").read_bytes() == b"new"
    assert (tmp_path / "l").is_symlink()


def test_a_folder_that_was_there_keeps_its_mode_and_time(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    received(tmp_path, folder("d", 0o755, YEAR_2001), folder("d/new", 0o500, YEAR_2001), file("d/a", 0))
    assert mode_of(tmp_path / "d") == 0o700
    assert (tmp_path / "d").stat().st_mtime_ns != YEAR_2001
    assert (mode_of(tmp_path / "d/new"), (tmp_path / "d/new").stat().st_mtime_ns) == (0o500, YEAR_2001)


def test_empty_folders_arrive_with_nothing_else(tmp_path: Path) -> None:
    received(tmp_path, folder("d", 0o500, YEAR_2001), folder("d/e", 0o700, YEAR_2001))
    assert (mode_of(tmp_path / "d"), (tmp_path / "d").stat().st_mtime_ns) == (0o500, YEAR_2001)
    (tmp_path / "d").chmod(0o700)


def test_folders_are_finished_also_when_an_item_failed(tmp_path: Path) -> None:
    received(tmp_path, folder("d", 0o750, YEAR_2001), file("d/a", 0), file("d/b", 1), fail=(1,))
    assert (tmp_path / "d").stat().st_mtime_ns == YEAR_2001
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["a"]


# Links.


def test_links_arrive_as_they_are(tmp_path: Path) -> None:
    received(tmp_path, file("d/a", 0), link("latest", "d/a"), link("d/self", "."), link("d/up", "../latest"))
    assert {name: os.readlink(tmp_path / name) for name in ("latest", "d/self", "d/up")} == {
        "latest": "d/a",
        "d/self": ".",
        "d/up": "../latest",
    }
    assert (tmp_path / "d/up").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../x", "d/../../x", ""])
def test_a_link_that_leads_out_refuses_the_whole_before_data_moves(tmp_path: Path, target: str) -> None:
    with pytest.raises(NameRejected, match="may lead out"):
        received(tmp_path, file("a", 0), link("l", target))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_written_through_a_link_of_the_same_offer(tmp_path: Path) -> None:
    with pytest.raises(NameRejected):
        received(tmp_path / ".", file("l/a", 0), link("l", "d"))
    assert list(tmp_path.iterdir()) == []


def test_a_link_through_a_link_that_was_there_before_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "mine").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING, "spaceblock"):
        received(inbox, file("a", 0), link("l", "mine"), link("m", "mine/x"), link("n", "a"))
    assert sorted(path.name for path in inbox.iterdir()) == ["a", "mine", "n"]
    assert sum("left out the link" in record.getMessage() for record in caplog.records) == 2


def test_a_link_whose_name_is_taken_follows_what_was_asked_for(tmp_path: Path) -> None:
    for on_conflict in ("rename", "skip", "overwrite", "error"):
        inbox = tmp_path / on_conflict
        inbox.mkdir()
        (inbox / "l").symlink_to("old")
        (inbox / "m").symlink_to("a")
        if on_conflict == "error":
            with pytest.raises(TargetExists, match="'l' is already there"):
                received(inbox, file("a", 0), link("l", "a"), on_conflict="error")
        else:
            received(inbox, file("a", 0), link("l", "a"), link("m", "a"), on_conflict=on_conflict)
    found = {str(path.relative_to(tmp_path)): os.readlink(path) for path in tmp_path.rglob("*") if path.is_symlink()}
    assert found == {
        "rename/l": "old",
        "rename/l (1)": "a",
        "rename/m": "a",
        "skip/l": "old",
        "skip/m": "a",
        "overwrite/l": "a",
        "overwrite/m": "a",
        "error/l": "old",
        "error/m": "a",
    }


def test_an_entry_without_content_is_refused(tmp_path: Path) -> None:
    for entry in (Entry(EntryKind.FILE, "x"), Entry(EntryKind.LINK, "x")):
        with pytest.raises(NameRejected, match="has no content"):
            received(tmp_path, entry)
