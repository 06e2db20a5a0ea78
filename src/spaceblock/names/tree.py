"""What a target accepts of all names of a transfer together: no two may mean the same file, and no file be a folder.

What is kept grows with the names' lengths and not with their depths, as a hostile list has both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ..display import shown
from ..errors import NameRejected
from ..limits import NAME_PROBLEMS_MAX
from ..process.lazily import dataclass
from ..wire.manifest import EntryKind
from ..wire.messages import NameRule
from .rules import Fault, NameRules


class Named(Protocol):
    """What has a name among others: an entry of a manifest."""

    @property
    def kind(self) -> EntryKind: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that cannot have its name: the rule that is broken (one of :class:`NameRule`, or a number from the
    future), and why, as the end of a sentence about the name."""

    entry: int
    rule: int
    reason: str


def find_problems(rules: NameRules, entries: Sequence[Named]) -> list[Problem]:
    """Every entry that cannot have its name, by index; of more than :data:`NAME_PROBLEMS_MAX` some.

    A folder whose own part is at fault is reported alone: what is below follows it. Where a file and a folder have the
    same name, it is the file that is reported; where two files have, the second.
    """
    if _are_plain(rules, entries):
        return []
    found: dict[int, Fault] = {}
    tree = NameTree(rules)
    places: list[int] = []  # of each entry: its own place if it is a folder, else that of the folder it is in
    last_folder, last_place = "", _ROOT  # neighbours are mostly in one folder
    for index, entry in enumerate(entries):
        if len(found) >= NAME_PROBLEMS_MAX:
            break
        fault = rules.fault_of_whole(entry.name)
        if fault is not None:
            found[index] = fault
            places.append(_NOWHERE)
            continue
        is_folder = entry.kind is EntryKind.FOLDER
        folder = entry.name if is_folder else entry.name.rpartition("/")[0]
        if is_folder or folder != last_folder:
            last_folder = folder
            last_place = tree.add_folder(folder, index, named=is_folder) if folder else _ROOT
        places.append(last_place)
        if not is_folder and not folder and "/" in entry.name:
            found[index] = Fault(NameRule.NOT_RELATIVE, "is absolute or has an empty part")
    for index, entry in enumerate(entries[: len(places)]):
        if index in found:
            continue
        if len(found) >= NAME_PROBLEMS_MAX:
            break
        fault = tree.fault_above(places[index], index)
        if fault is None and entry.kind is not EntryKind.FOLDER:
            last = entry.name.rpartition("/")[2]
            fault = rules.fault_of_part(last) or tree.add_file(places[index], last, index, entries)
        if fault is not None:
            found[index] = fault
    return [Problem(index, fault.rule, fault.reason) for index, fault in sorted(found.items())]


def _are_plain(rules: NameRules, entries: Sequence[Named]) -> bool:
    """Whether all is well with names that have nothing unusual about them, which is nearly always so."""
    names = [entry.name for entry in entries]
    if not rules.are_plain(names):
        return False
    if rules.ignores_case:
        names = [name.lower() for name in names]  # all they need, being ASCII
    kinds = [entry.kind is EntryKind.FOLDER for entry in entries]
    files = [name for name, is_folder in zip(names, kinds, strict=True) if not is_folder]
    folders = {name for name, is_folder in zip(names, kinds, strict=True) if is_folder}
    above = {name.rpartition("/")[0] for name in names}
    while above:
        folders |= above
        above = {name.rpartition("/")[0] for name in above} - folders
    return len(set(files)) == len(files) and folders.isdisjoint(files)


def refusal(entries: Sequence[Named], problems: Sequence[Problem]) -> NameRejected:
    """The error that tells of ``problems``, of which there is at least one: the first in full, and how many more."""
    first = problems[0]
    entry = entries[first.entry]
    more = len(problems) - 1
    others = f" (and {more} more {'name' if more == 1 else 'names'} cannot be used)" if more else ""
    return NameRejected(
        f"the name {shown(entry.name)} {first.reason}{others}: rename it on the sending side and send again",
        name=entry.name,
    )


class NameTree:
    """All names of a transfer as a tree of places, each a folder's place and a folded part below it.

    Place 0 is the folder that all are in.
    """

    def __init__(self, rules: NameRules) -> None:
        self._rules = rules
        self._folds = rules.ignores_case
        self._places: dict[tuple[int, str], int] = {}
        self._parents: list[int] = [_ROOT]
        self._owners: list[int] = [_NOBODY]  # the entry that first had each place
        self._folders: dict[int, int] = {}  # places that an entry names as its own folder
        self._files: dict[int, int] = {}
        self._faults: dict[int, Fault] = {}  # of the parts by which places were reached first

    def add_folder(self, name: str, entry: int, *, named: bool) -> int:
        """The place of folder ``name``; ``named`` if it is the name of ``entry``, not merely the beginning of it."""
        place = _ROOT
        for part in name.split("/"):
            place = self._place(place, part, entry)
        if named:
            self._folders.setdefault(place, entry)
        return place

    def add_file(self, folder: int, last: str, entry: int, entries: Sequence[Named]) -> Fault | None:
        """Give a file its place in ``folder``, or say why that is taken."""
        known = len(self._parents)
        place = self._place(folder, last, entry)
        if place in self._files:
            other = shown(entries[self._files[place]].name)
            return Fault(NameRule.COLLISION, f"is on the receiver's system the same file as {other}")
        if place < known:
            inner = shown(entries[self._owners[place]].name)
            return Fault(NameRule.FILE_AND_FOLDER, f"is a file and also the folder of {inner}")
        self._files[place] = entry
        return None

    def fault_above(self, place: int, entry: int) -> Fault | None:
        """What is wrong with the folders up from ``place`` that has to be told with ``entry``: a folder that another
        entry names is told with that one."""
        if not self._faults:
            return None
        worst = None
        for step in self._up(place):
            if step in self._faults and self._folders.get(step, entry) == entry:
                worst = self._faults[step]
        return worst

    def _up(self, place: int) -> Iterator[int]:
        while place != _ROOT:
            yield place
            place = self._parents[place]

    def _place(self, folder: int, part: str, entry: int) -> int:
        new = len(self._parents)
        place = self._places.setdefault((folder, self._rules.fold(part) if self._folds else part), new)
        if place == new:
            self._parents.append(folder)
            self._owners.append(entry)
            fault = self._rules.fault_of_part(part)
            if fault is not None:
                self._faults[place] = fault
        return place


_ROOT = 0
_NOWHERE = -1
_NOBODY = -1
