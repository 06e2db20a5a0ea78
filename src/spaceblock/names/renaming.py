"""Other names for those that a target does not accept: what is proposed, and what follows from each answer.

A proposal keeps as much of the name as it can, its extension above all; it is acceptable to the target and means no
file or folder that another entry has. A target may refuse more than its limits tell, so what concerns characters,
devices and endings is mended for every system at once.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..display import shown
from ..process.lazily import dataclass
from ..wire import NAME_MAX
from ..wire.manifest import Entry, EntryKind
from ..wire.messages import NameRule
from .rules import DEPTH_MAX, OF_THE_SYSTEM, STAGING_PREFIX, Fault, NameRules, forbidden, is_device
from .tree import Problem


@dataclass(frozen=True, slots=True)
class BadName:
    """A name that cannot be used, for whoever is asked for another one.

    ``rule`` is the :class:`NameRule` that it breaks (or the number of one from the future) and ``reason`` the end of a
    sentence about the name. ``limits`` are those of the target; ``proposal`` keeps to them and is free, or is empty
    where nothing would do. ``is_folder``: what is below the folder moves with it.
    """

    name: str
    rule: int
    reason: str
    limits: NameRules
    proposal: str
    is_folder: bool = False

    def __str__(self) -> str:
        return f"{shown(self.name)} {self.reason}"


class Renaming:
    """Other names for the entries of one manifest, given one after the other.

    ``entries`` has them with the names of this moment, in the order of the manifest. ``limits`` are those of the target
    and what its ``problems`` tell of it beyond them.
    """

    def __init__(self, entries: Sequence[Entry], limits: NameRules, problems: Iterable[Problem] = ()) -> None:
        self.entries: list[Entry] = list(entries)
        limits = _learned(limits, problems, entries)
        self.limits: NameRules = limits
        self._first = [entry.name for entry in entries]
        self._sorted = sorted(range(len(entries)), key=self._first.__getitem__)
        self._keys = [self._first[index] for index in self._sorted]
        self._folders = {entry.name for entry in entries if entry.kind is EntryKind.FOLDER}
        self._numbers: dict[str, int] = {}
        self._taken = _Taken(limits)
        for entry in entries:
            self._taken.add(entry)

    def in_order(self, problems: Iterable[Problem]) -> list[Problem]:
        """``problems`` in the order in which to ask: folders before what is in them."""

        def key(problem: Problem) -> tuple[bool, int, int]:
            entry = self.entries[problem.entry]
            return entry.kind is not EntryKind.FOLDER, entry.name.count("/"), problem.entry

        return sorted(problems, key=key)

    def is_mended(self, problem: Problem) -> bool:
        """Whether another answer has given this entry a name that will do, as part of what is in a folder."""
        name = self.entries[problem.entry].name
        return name != self._first[problem.entry] and self.limits.fault(name) is None

    def changes(self) -> dict[int, str]:
        """The new names, by entry."""
        return {index: entry.name for index, entry in enumerate(self.entries) if entry.name != self._first[index]}

    def bad_name(self, problem: Problem) -> BadName:
        """What to show to who is asked, a proposal among it."""
        entry = self.entries[problem.entry]
        is_folder = entry.kind is EntryKind.FOLDER
        return BadName(entry.name, problem.rule, problem.reason, self.limits, self.propose(problem), is_folder)

    def propose(self, problem: Problem) -> str:
        """Another name that would do, or an empty string where none does."""
        limits = self.limits
        if problem.rule in OF_THE_SYSTEM and not limits.follows_windows:
            limits = replace(limits, windows=True)
        wanted = _mended(self.entries[problem.entry].name, limits)
        numbered = self._taken.file_above(wanted)
        if problem.rule == NameRule.EXISTS:  # what is there already is in the way of the whole tree
            numbered = 0
        last = None
        for number in self._numbers_of(_alike(wanted, limits, numbered)):
            name = _fitted(wanted, limits, number, numbered)
            if limits.fault(name) is not None or name == last:
                break
            if not self._taken.has(name) and self._taken.file_above(name) is None:
                return name
            last = name
        return ""

    def rename(self, entry: int, name: str) -> Fault | None:
        """Give ``entry`` another name, and what is below it too if it is a folder; or say why that cannot be.

        Where a file's name differs in a folder that no entry names, everything in that folder moves along.
        """
        fault = self.limits.fault(name)
        if fault is None and self._taken.has(name):
            fault = Fault(NameRule.COLLISION, "is the name of something else that is sent")
        if fault is None and self._taken.file_above(name) is not None:
            fault = Fault(NameRule.FILE_AND_FOLDER, "has a folder that is the name of a file")
        if fault is not None:
            return fault
        before, after = self.entries[entry].name, name
        if self.entries[entry].kind is not EntryKind.FOLDER:
            before, after = self._moved_folder(before, after)
        self._give(entry, name)
        if before:
            for index in self._below(before, entry):
                self._give(index, after + self.entries[index].name[len(before) :])
        return None

    def _give(self, index: int, name: str) -> None:
        self._taken.remove(self.entries[index])
        self.entries[index] = replace(self.entries[index], name=name)
        self._taken.add(self.entries[index])

    def _moved_folder(self, before: str, after: str) -> tuple[str, str]:
        """The folder, one that no entry names, in which alone two names of a file differ; empty if that is not so."""
        old, _, last = before.rpartition("/")
        new, _, new_last = after.rpartition("/")
        alone = old and new and old != new and last == new_last and old not in self._folders
        return (old, new) if alone else ("", "")

    def _below(self, folder: str, entry: int) -> Iterator[int]:
        """The other entries in ``folder``, found by the names that they had first; one that has left it since by a name
        of its own is not in it any more."""
        first = self._first[entry]
        if self.entries[entry].kind is not EntryKind.FOLDER:
            first = first.rpartition("/")[0]
        prefix = first + "/"
        for position in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[position].startswith(prefix):
                break
            index = self._sorted[position]
            if index != entry and self.entries[index].name.startswith(folder + "/"):
                yield index

    def _numbers_of(self, alike: str) -> Iterator[int]:
        """0 for the name itself, then numbers that were not tried for it before, nor for those that are ``alike``."""
        yield 0
        for _ in range(ALTERNATIVES_MAX):
            self._numbers[alike] = number = self._numbers.get(alike, 0) + 1
            yield number


def alternatives(name: str, limits: NameRules) -> Iterator[str]:
    """``name``, and then other names for where it is taken, as many as are worth trying."""
    yield name
    for number in range(1, ALTERNATIVES_MAX):
        yield alternative(name, number, limits)


def alternative(name: str, number: int, limits: NameRules) -> str:
    """The ``number``-th other name for a file whose name is taken: ``a/b.tar.gz`` becomes ``a/b (1).tar.gz``.

    The last part keeps to its limit.
    """
    folder, slash, last = name.rpartition("/")
    return folder + slash + _numbered(last, number, limits)


def _learned(limits: NameRules, problems: Iterable[Problem], entries: Sequence[Entry]) -> NameRules:
    """``limits`` with what the target refuses although they would allow it."""
    strange = [problem for problem in problems if limits.fault(entries[problem.entry].name) is None]
    rules = {problem.rule for problem in strange}
    learned = replace(
        limits,
        windows=limits.follows_windows or not rules.isdisjoint(OF_THE_SYSTEM),
        caseless=limits.ignores_case or NameRule.COLLISION in rules,
    )
    unlike = [entries[problem.entry].name for problem in strange if problem.rule == NameRule.CHARACTER]
    if any(not name.isascii() and learned.fault(name) is None for name in unlike):
        return replace(learned, letters="ascii")  # no rule of a system's is behind it, so a locale's letters are
    return learned


class _Taken:
    """Which names files and folders have. A name that was given up stays taken, but is no file any more."""

    def __init__(self, limits: NameRules) -> None:
        self._fold = limits.fold
        self._places: dict[tuple[int, str], int] = {}
        self._files: Counter[int] = Counter()

    def add(self, entry: Entry) -> None:
        place = 0
        for part in entry.name.split("/"):
            place = self._places.setdefault((place, self._fold(part)), len(self._places) + 1)
        if entry.kind is not EntryKind.FOLDER:
            self._files[place] += 1

    def remove(self, entry: Entry) -> None:
        if entry.kind is not EntryKind.FOLDER:
            *_, place = self._way(entry.name)
            self._files[place] -= 1

    def has(self, name: str) -> bool:
        return len(list(self._way(name))) == name.count("/") + 1

    def file_above(self, name: str) -> int | None:
        """Which part of ``name`` but the last is the name of a file."""
        folder, slash, _ = name.rpartition("/")
        if slash:
            for index, place in enumerate(self._way(folder)):
                if self._files[place]:
                    return index
        return None

    def _way(self, name: str) -> Iterator[int]:
        """The places along ``name``, as far as it is known."""
        place: int | None = 0
        for part in name.split("/"):
            place = self._places.get((place or 0, self._fold(part)))
            if place is None:
                return
            yield place


def _mended(name: str, limits: NameRules) -> str:
    """``name`` with everything mended that can be mended part by part."""
    text = "".join("_" if "\ud800" <= ch <= "\udfff" else ch for ch in name)
    parts = [part for part in text.split("/") if part not in ("", ".", "..")] or ["unnamed"]
    del parts[DEPTH_MAX - 1 : -1]
    mended = (part if limits.fault_of_part(part) is None else _mended_part(part, limits) for part in parts)
    return _unreserved("/".join(mended))


def _unreserved(name: str) -> str:
    """``name`` without the dot that makes it the place of unfinished files."""
    return name[1:] if name.casefold().startswith(STAGING_PREFIX) else name


def _mended_part(part: str, limits: NameRules) -> str:
    part = "".join(ch if limits.can_write(ch) else "_" for ch in part)
    if limits.follows_windows:
        part = "".join("_" if forbidden(ch) else ch for ch in part).rstrip(" .") or "_"
        if is_device(part):
            stem, dot, rest = part.partition(".")
            part = f"{stem.rstrip(' ')}_{dot}{rest}"
    return _numbered(part.replace("\0", "_"), 0, limits)


def _fitted(name: str, limits: NameRules, number: int, numbered: int | None) -> str:
    """``name`` in at most ``path_limit`` bytes: by a shorter last part first, then without the innermost folders.

    A ``number`` that is not 0 goes to the folder with the index ``numbered``, or to the last part.
    """
    *folders, last = name.split("/")
    if numbered is not None and numbered < len(folders):
        folders[numbered] = _numbered(folders[numbered], number, limits)
        number = 0
    while True:
        path = "".join(folder + "/" for folder in folders)
        room = (limits.path_limit or NAME_MAX) - len(path.encode())
        if not folders or room >= min(_LAST_MIN, len(last.encode()) + _NUMBER_ROOM):
            return _unreserved(path + _numbered(last, number, limits, room))
        folders.pop()


def _alike(wanted: str, limits: NameRules, numbered: int | None) -> str:
    """What is the same for all names that could become the same name by a number: a peer can send a great many, and to
    try the numbers of each anew takes as long as there are pairs of them. Where a number hardly fits it is empty."""
    name = _fitted(wanted, limits, _LARGE_NUMBER, numbered)
    return limits.fold(name) if limits.fault(name) is None else ""


def _numbered(last: str, number: int, limits: NameRules, room: int = NAME_MAX) -> str:
    """``last`` with a number before its extension (0: without), at most ``room`` bytes and as long as a part may be."""
    found = _SUFFIX.search(last, 1)
    mark = f" ({number})" if number else ""
    forms = [(last[: found.start()], mark + found.group())] if found else []
    for stem, ending in (*forms, (last, mark)):
        whole = stem + ending
        if (not limits.name_limit or limits.length(whole) <= limits.name_limit) and len(whole.encode()) <= room:
            return whole
        units = limits.name_limit - limits.length(ending) if limits.name_limit else NAME_MAX
        short = limits.cut(stem, units).encode()[: max(room - len(ending.encode()), 0)].decode(errors="ignore")
        short = short.rstrip(" .")
        if short:
            return short + ending
    return last


_LAST_MIN = 64
"""Bytes below which a last part is not shortened while there are folders to leave out."""

_NUMBER_ROOM = 8
ALTERNATIVES_MAX = 10_000
_LARGE_NUMBER = 99_999
_SUFFIX = re.compile(r"(\.tar)?\.[^. ]{1,16}\Z")
