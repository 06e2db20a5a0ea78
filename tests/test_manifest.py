"""A manifest refuses to contradict itself."""

from __future__ import annotations

import pytest

from spaceblock.errors import LocalProtocolError, RemoteProtocolError
from spaceblock.wire.manifest import Entry, EntryKind, Manifest, renamed

FOLDER = Entry(EntryKind.FOLDER, "photos", mode=0o755)
FILE = Entry(EntryKind.FILE, "photos/cat.jpg", 0)
OTHER = Entry(EntryKind.FILE, "photos/dog.jpg", 2)
LINK = Entry(EntryKind.LINK, "best", target="photos/cat.jpg")


def test_no_entries_at_all() -> None:
    assert Manifest.checked([], 0).entries == ()


def test_manifests_with_equal_entries_are_equal() -> None:
    assert Manifest((FOLDER, FILE)) == Manifest((FOLDER, FILE))
    assert Manifest((FOLDER, FILE)) != Manifest((FILE, FOLDER)), "the order is part of it"


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ((FILE, FILE), "two entries have the name"),
        ((FILE, Entry(EntryKind.FOLDER, FILE.name)), "two entries have the name"),
        ((FILE, Entry(EntryKind.FILE, "copy", 0)), "both name item 0"),
        ((Entry(EntryKind.FILE, "late", 3),), "item 3, which does not exist"),
        ((Entry(EntryKind.FILE, "early", -1),), "item -1, which does not exist"),
        ((Entry(EntryKind.FOLDER, "folder", 0),), "no file but has an item"),
    ],
)
def test_contradictions(entries: tuple[Entry, ...], reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        Manifest(entries, items=3)
    with pytest.raises(RemoteProtocolError, match=f"contradicts itself.*{reason}"):
        Manifest.checked(entries, 3)


def test_hostile_names_do_not_reach_the_message_raw() -> None:
    entry = Entry(EntryKind.FILE, "\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", 0)
    with pytest.raises(RemoteProtocolError) as caught:
        Manifest.checked([entry, entry], 1)
    assert caught.value.message.isprintable()


def links(*entries: tuple[str, str | None]) -> Manifest:
    """Files, and links where there is a target."""
    made: list[Entry] = []
    for name, target in entries:
        item = sum(entry.item is not None for entry in made)
        made.append(Entry(EntryKind.LINK, name, target=target) if target else Entry(EntryKind.FILE, name, item))
    return Manifest(tuple(made))


@pytest.mark.parametrize(
    ("link", "target", "names", "now"),
    [
        ("top/link", "a:b", {0: "top/a_b"}, "a_b"),
        ("top/sub/link", "../a:b", {0: "top/a_b"}, "../a_b"),
        ("top/link", "./a:b", {0: "new/a_b"}, "../new/a_b"),
        ("top/link", "a:b", {0: "new/a:b", 1: "new/link"}, "a:b"),
        ("top/link", "a:b", {1: "far/away/link"}, "../../top/a:b"),
        ("top/link", "a:b", {1: "top/other"}, "a:b"),
        ("top/link", "elsewhere", {0: "x"}, "elsewhere"),
        ("top/link", "/top/a:b", {0: "x"}, "/top/a:b"),
        ("top/link", "../../top/a:b", {0: "x"}, "../../top/a:b"),
    ],
)
def test_a_link_follows_what_it_points_to(link: str, target: str, names: dict[int, str], now: str) -> None:
    manifest = links(("top/a:b", None), (link, target)).renamed(names)
    assert manifest.entries[1].target == now


def test_what_became_of_names_is_told_by_where_things_are() -> None:
    first = [Entry(EntryKind.FOLDER, "d:"), Entry(EntryKind.FILE, "d:/a", 0), Entry(EntryKind.FILE, "d:/lost", 1)]
    last = [Entry(EntryKind.FOLDER, "d"), Entry(EntryKind.FILE, "d/a", 0), Entry(EntryKind.FILE, "d/lost", 1)]
    assert renamed(first, last, {0: "d/a (1)"}) == {"d:": "d", "d:/a": "d/a (1)"}
