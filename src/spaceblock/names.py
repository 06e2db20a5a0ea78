"""Names from elsewhere: which of them may become a path here, and how to show one safely.

A name on the wire is a relative path whose parts are joined by ``/``, whatever the sender's system. This module is the
only one that decides whether such a name is acceptable; it touches no disk.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from .display import printable
from .errors import NameRejected
from .messages import NameUnit, System

STAGING_PREFIX = ".spaceblock-"
"""The hidden folder that holds a transfer's unfinished files begins with this; no peer may name it."""

DEPTH_MAX = 64
"""Folders in one name: far beyond real trees, far below what would exhaust descriptors or stack."""


@dataclass(frozen=True, slots=True)
class NameRules:
    """What one system accepts: ``name_limit`` for each part in ``name_unit``, ``path_limit`` for the whole in bytes."""

    system: System
    name_limit: int
    name_unit: NameUnit
    path_limit: int

    def problem(self, name: str) -> str | None:
        """Why ``name`` cannot be used, as the end of a sentence, or None if it can."""
        try:
            encoded = name.encode()
        except UnicodeEncodeError:
            return "is not valid Unicode"
        if not name:
            return "is empty"
        if len(encoded) > self.path_limit:
            return f"is longer than {self.path_limit} bytes"
        parts = name.split("/")
        if len(parts) > DEPTH_MAX:
            return f"is nested deeper than {DEPTH_MAX} folders"
        for part in parts:
            reason = self._part_problem(part)
            if reason is not None:
                return reason
        if parts[0].casefold().startswith(STAGING_PREFIX):
            return f"begins with {STAGING_PREFIX!r}, which is reserved for unfinished transfers"
        return None

    def check(self, name: str) -> str:
        """Return ``name``; raises :class:`NameRejected` if it is not a plain relative path here."""
        reason = self.problem(name)
        if reason is not None:
            raise NameRejected(
                f"the name {printable(name)!r} {reason}: rename it on the sending side and send again", name=name
            )
        return name

    def fold(self, name: str) -> str:
        """The form in which two names that mean the same file here are equal: on Windows and Apple's systems that of
        canonical caseless matching (Unicode, definition D145)."""
        if self.system is System.POSIX:
            return name
        return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())

    def _part_problem(self, part: str) -> str | None:
        if not part:
            return "is absolute or has an empty part"
        if part in (".", ".."):
            return f"has {part!r} as a part, which could lead out of the folder"
        if "\0" in part:
            return "contains a NUL character"
        if _length(part, self.name_unit) > self.name_limit:
            return f"has a part longer than {self.name_limit} {_UNIT_WORDS[self.name_unit]}"
        if self.system is System.WINDOWS:
            return _windows_problem(part)
        return None


def local_rules() -> NameRules:
    """The rules of the system that this program runs on."""
    if sys.platform == "win32":
        return NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
    if sys.platform == "darwin":
        return NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000)
    return NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000)


def check_names(rules: NameRules, files: Iterable[str], folders: Iterable[str]) -> None:
    """Check every name of a set and that no two of them clash; raises :class:`NameRejected` for the first problem.

    What is kept grows with the names' lengths and not with their depths, as a hostile list has both.
    """
    places: dict[tuple[int, str], int] = {}  # a folder's number and a folded part below it, to the number of that
    owners: list[str] = [""]  # the name that first had each place; place 0 is the folder that all are in
    taken: dict[int, str] = {}  # the places of files

    def place_of(name: str) -> int:
        place = 0
        for part in name.split("/"):
            if place in taken:
                raise _clash(name, taken[place])
            place = places.setdefault((place, rules.fold(part)), len(owners))
            if place == len(owners):
                owners.append(name)
        return place

    for name in folders:
        place_of(rules.check(name))
    for name in files:
        known = len(owners)
        place = place_of(rules.check(name))
        if place in taken:
            raise NameRejected(
                f"{printable(name)!r} and {printable(taken[place])!r} are the same file on the receiver's system: "
                "rename one of them on the sending side and send again",
                name=name,
            )
        if place < known:
            raise _clash(owners[place], name)
        taken[place] = name


def alternative(name: str, number: int) -> str:
    """The ``number``-th other name for a file whose name is taken: ``a/b.tar.gz`` becomes ``a/b (1).tar.gz``.

    The last part has at most 255 bytes, and so at most 255 UTF-16 units.
    """
    folder, slash, last = name.rpartition("/")
    found = _SUFFIX.search(last, 1)
    suffix = last[found.start() :] if found else ""
    ending = f" ({number}){suffix}"
    stem = last[: len(last) - len(suffix)].encode()[: _PART_MAX - len(ending.encode())].decode(errors="ignore")
    return f"{folder}{slash}{stem}{ending}"


def _clash(inner: str, file: str) -> NameRejected:
    return NameRejected(
        f"{printable(file)!r} is a file and also the folder of {printable(inner)!r}: "
        "rename one of them on the sending side and send again",
        name=file,
    )


def _length(part: str, unit: NameUnit) -> int:
    if unit is NameUnit.BYTES:
        return len(part.encode())
    if unit is NameUnit.UTF16:
        return len(part.encode("utf-16-le")) // 2
    return len(part)


def _windows_problem(part: str) -> str | None:
    for ch in part:
        if ch in '<>:"\\|?*' or ch < " ":
            return f"contains {printable(ch)!r}, which Windows does not allow"
    if part[-1] in " .":
        return "has a part that ends in a space or a dot, which Windows drops"
    if part.partition(".")[0].rstrip(" ").upper() in _WINDOWS_DEVICES:
        return "has a part that is the name of a Windows device"
    return None


_PART_MAX = 255
_SUFFIX = re.compile(r"(\.tar)?\.[^. ]{1,16}\Z")
_UNIT_WORDS = {NameUnit.BYTES: "bytes", NameUnit.UTF16: "UTF-16 units", NameUnit.CODE_POINTS: "characters"}
_WINDOWS_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)
