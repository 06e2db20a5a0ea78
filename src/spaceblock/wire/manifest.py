"""The names of a transfer: which item is which file, and what folders and links go with them.

Names travel apart from the bytes, and a transfer of unnamed buffers has none at all. An entry is what the sender said
and nothing more: whether its name can be used on this system is decided by :mod:`spaceblock.names`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum

from ..errors import LocalProtocolError, RemoteProtocolError
from ..process.lazily import dataclass


class EntryKind(IntEnum):
    """What an entry names."""

    FILE = 0
    FOLDER = 1
    LINK = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a transfer.

    ``name`` is a relative path whose parts are joined by ``/``. ``item`` is the index of the item with the bytes: a
    file has one, a folder or a symbolic link has none. ``mode`` holds POSIX permission bits (at most 0o7777),
    ``mtime_ns`` the time of the last change in nanoseconds since 1970. ``target`` is what a link, and nothing else,
    points to.
    """

    kind: EntryKind
    name: str
    item: int | None = None
    mode: int | None = None
    mtime_ns: int | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All entries of a transfer, in the order in which they were sent.

    ``items`` is the number of the transfer's items, where it is known. Raises :class:`LocalProtocolError` when an entry
    names an item that does not exist, two entries name the same item, or two have the same name.
    """

    entries: tuple[Entry, ...] = ()
    items: int | None = None

    def __post_init__(self) -> None:
        if not self._is_sound():
            self._find_fault()

    def _is_sound(self) -> bool:
        """Whether nothing is wrong, looked at all at once."""
        names = {entry.name for entry in self.entries}
        items = [entry.item for entry in self.entries if entry.item is not None and entry.kind is EntryKind.FILE]
        return (
            len(names) == len(self.entries)
            and len(set(items)) == len(items) == sum(entry.item is not None for entry in self.entries)
            and (not items or (min(items) >= 0 and (self.items is None or max(items) < self.items)))
        )

    def _find_fault(self) -> None:
        names = set()
        named: dict[int, Entry] = {}
        for entry in self.entries:
            if entry.name in names:
                raise LocalProtocolError(f"two entries have the name {entry.name!r}: give one of them another name")
            names.add(entry.name)
            if entry.item is not None:
                self._add_item(named, entry, entry.item)

    @classmethod
    def checked(cls, entries: Iterable[Entry], items: int) -> Manifest:
        """The manifest that a peer sent for ``items`` items; raises :class:`RemoteProtocolError` where it is wrong."""
        try:
            return cls(tuple(entries), items)
        except LocalProtocolError as error:
            raise RemoteProtocolError(f"the peer's manifest contradicts itself: {error}") from error

    def renamed(self, names: Mapping[int, str]) -> Manifest:
        """The same entries, some with other names, by index, and links that follow what they point to; raises
        :class:`LocalProtocolError` for two names that are equal."""
        entries = list(self.entries)
        for index, name in names.items():
            entries[index] = replace(entries[index], name=name)
        return Manifest(tuple(retargeted(self.entries, entries)), self.items)

    def _add_item(self, named: dict[int, Entry], entry: Entry, item: int) -> None:
        if entry.kind is not EntryKind.FILE:
            raise LocalProtocolError(f"the entry {entry.name!r} is no file but has an item: leave the item out")
        if item < 0 or (self.items is not None and item >= self.items):
            raise LocalProtocolError(f"the entry {entry.name!r} names item {item}, which does not exist: correct it")
        other = named.setdefault(item, entry)
        if other is not entry:
            names = f"{other.name!r} and {entry.name!r}"
            raise LocalProtocolError(f"the entries {names} both name item {item}: let each item have one name")


def retargeted(first: Sequence[Entry], last: Sequence[Entry]) -> list[Entry]:
    """``last``, which are the entries ``first`` under other names, with links that point where they did before."""
    entries = list(last)
    if not any(entry.target is not None for entry in first):
        return entries
    moved = {before.name: after.name for before, after in zip(first, last, strict=True)}
    for index, entry in enumerate(entries):
        if entry.target is not None:
            aim = _aim(first[index].name, entry.target)
            if aim in moved and _aim(entry.name, entry.target) != moved[aim]:
                folder = posixpath.dirname("/" + entry.name)
                entries[index] = replace(entry, target=posixpath.relpath("/" + moved[aim], folder))
    return entries


def entries_of(manifest: Manifest | None) -> tuple[Entry, ...]:
    """Those of a transfer that may have no names at all."""
    return () if manifest is None else manifest.entries


def new_names(before: Manifest | None, after: Manifest | None) -> frozenset[str]:
    """The names in ``after`` that no file or link has in ``before``: those of folders are shown to nobody."""
    shown = {entry.name for entry in entries_of(before) if entry.kind is not EntryKind.FOLDER}
    return frozenset(entry.name for entry in entries_of(after)) - shown


def _aim(name: str, target: str) -> str:
    """Which name a link called ``name`` points to; one that is absolute or leads out points to none."""
    if target.startswith("/"):
        return ""
    depth = name.count("/")
    ups = sum(part == ".." for part in target.split("/"))
    return "" if ups > depth else posixpath.normpath(posixpath.join("/", posixpath.dirname(name), target))[1:]


def renamed(first: Sequence[Entry], last: Sequence[Entry], places: Mapping[int, str]) -> dict[str, str]:
    """What became of names: entries were offered as ``first`` and are now called as in ``last``, but items that arrived
    are where ``places`` says."""
    names = {}
    for before, after in zip(first, last, strict=True):
        name = after.name if before.item is None else places.get(before.item, before.name)
        if name != before.name:
            names[before.name] = name
    return names
