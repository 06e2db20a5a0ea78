"""What one target accepts of one name: its length, its characters, how it begins and ends.

The rules that keep a name inside of the folder hold on every target. The others are those of the target's file system,
which :mod:`spaceblock.storage.probe` asks, or what its system is known for.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from itertools import repeat

from ..display import shown
from ..errors import NameRejected
from ..process.lazily import dataclass
from ..wire import NAME_MAX
from ..wire.messages import NameRule, NameUnit, System

STAGING_PREFIX = ".spaceblock-"
"""The hidden folder that holds a transfer's unfinished files begins with this; no peer may name it."""

DEPTH_MAX = 64
"""Parts of one name: far beyond real trees, far below what would exhaust descriptors or stack."""

_DEPTH_PLAIN = 8
"""Parts of a name up to which keeping all the folders above it, each by its whole name, is no burden."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a name cannot be used: the rule that it breaks, and the reason as the end of a sentence about the name."""

    rule: NameRule
    reason: str


@dataclass(frozen=True, slots=True)
class NameRules:
    """What one target accepts.

    ``name_limit`` bounds each part in ``name_unit``, ``path_limit`` the whole in bytes of UTF-8; 0 is not known.
    ``suffix_limit`` is what the target adds to a part while its file is incomplete, in ``name_unit``; it is already
    taken off ``name_limit``. ``caseless`` says whether names that differ in case or composition mean the same file,
    ``windows`` whether Windows' characters, devices and endings are refused; None is what ``system`` is known for.
    ``letters`` is the encoding that a program's locale gives to names where it is not one of all characters.
    """

    system: System
    name_limit: int
    name_unit: NameUnit
    path_limit: int
    suffix_limit: int = 0
    caseless: bool | None = None
    windows: bool | None = None
    letters: str | None = None

    @property
    def ignores_case(self) -> bool:
        """Whether two names that differ in case or composition may mean the same file."""
        return self.system is not System.POSIX if self.caseless is None else self.caseless

    @property
    def follows_windows(self) -> bool:
        """Whether what Windows refuses is refused."""
        return self.system is System.WINDOWS if self.windows is None else self.windows

    def fault(self, name: str) -> Fault | None:
        """Why ``name`` cannot be used, or None if it can."""
        found = self.fault_of_whole(name)
        if found is not None:
            return found
        for part in name.split("/"):
            found = self.fault_of_part(part)
            if found is not None:
                return found
        return None

    def are_plain(self, names: Sequence[str]) -> bool:
        """Whether it takes no closer look to see that :meth:`fault` finds nothing wrong with any of ``names``, and that
        they are not deep, as with nearly all that there are: looked at together, for a tree has many."""
        whole = "\0".join(names)
        if self.follows_windows or not whole.isascii() or whole.count("\0") != len(names) - 1:
            return False
        limit = min(self.path_limit or NAME_MAX, NAME_MAX)
        longest = max(map(len, names))
        all_parts = f"/{whole}/".replace("\0", "/")
        return (
            not any(part in all_parts for part in ("//", "/./", "/../"))
            and longest <= limit
            and (longest <= (self.name_limit or limit) or max(map(len, all_parts.split("/"))) <= self.name_limit)
            and max(map(str.count, names, repeat("/"))) < _DEPTH_PLAIN
            and STAGING_PREFIX not in whole.lower()
        )

    def problem(self, name: str) -> str | None:
        """Why ``name`` cannot be used, as the end of a sentence, or None if it can."""
        found = self.fault(name)
        return None if found is None else found.reason

    def check(self, name: str) -> str:
        """Return ``name``; raises :class:`NameRejected` if it is not a plain relative path here."""
        reason = self.problem(name)
        if reason is not None:
            raise NameRejected(
                f"the name {shown(name)} {reason}: rename it on the sending side and send again", name=name
            )
        return name

    def fold(self, part: str) -> str:
        """The form in which two names that mean the same file here are equal: on a target that ignores case that of
        canonical caseless matching (Unicode, definition D145). What is too long is refused in any case, and to sort its
        combining marks could take very long: it stays as it is."""
        if not self.ignores_case or 0 < self.name_limit < len(part):
            return part
        return unicodedata.normalize("NFD", unicodedata.normalize("NFD", part).casefold())

    def length(self, part: str) -> int:
        """How long ``part`` is in this target's unit."""
        if self.name_unit is NameUnit.BYTES:
            return len(part.encode())
        if self.name_unit is NameUnit.UTF16:
            return len(part.encode("utf-16-le")) // 2
        return len(part)

    def cut(self, part: str, limit: int) -> str:
        """The longest beginning of ``part`` that has at most ``limit`` of this target's units."""
        limit = max(limit, 0)
        if self.name_unit is NameUnit.BYTES:
            return part.encode()[:limit].decode(errors="ignore")
        if self.name_unit is NameUnit.UTF16:
            return part.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", errors="ignore")
        return part[:limit]

    def fault_of_whole(self, name: str) -> Fault | None:
        """What is wrong with ``name`` that no part of it shows."""
        try:
            size = len(name) if name.isascii() else len(name.encode())
        except UnicodeEncodeError:
            return Fault(NameRule.CHARACTER, "is not valid Unicode")
        if not name:
            return Fault(NameRule.NOT_RELATIVE, "is empty")
        limit = min(self.path_limit or NAME_MAX, NAME_MAX)
        if size > limit:
            return Fault(NameRule.PATH_TOO_LONG, f"is longer than {limit} bytes")
        if name.count("/") >= DEPTH_MAX:
            return Fault(NameRule.TOO_DEEP, f"is nested deeper than {DEPTH_MAX} folders")
        if name.partition("/")[0].casefold().startswith(STAGING_PREFIX):
            return Fault(
                NameRule.RESERVED, f"begins with {STAGING_PREFIX!r}, which is reserved for unfinished transfers"
            )
        return None

    def fault_of_part(self, part: str) -> Fault | None:
        """What is wrong with one part of a name that is valid Unicode."""
        if not part:
            return Fault(NameRule.NOT_RELATIVE, "is absolute or has an empty part")
        if part in (".", ".."):
            return Fault(NameRule.NOT_RELATIVE, f"has {part!r} as a part, which could lead out of the folder")
        if "\0" in part:
            return Fault(NameRule.CHARACTER, "contains a NUL character")
        # No character counts as more than four of any unit, which spares most names the exact count.
        if self.name_limit and 4 * len(part) > self.name_limit and self.length(part) > self.name_limit:
            counted = f"{self.name_limit} {_UNIT_WORDS[self.name_unit]}"
            return Fault(NameRule.TOO_LONG, f"has a part longer than {counted}")
        for ch in part if self.letters and not part.isascii() else ():
            if not self.can_write(ch):
                text = f"contains {shown(ch)}, which the receiver's locale ({self.letters}) cannot write"
                return Fault(NameRule.CHARACTER, text)
        return _windows_fault(part) if self.follows_windows else None

    def can_write(self, ch: str) -> bool:
        """Whether the target's locale has this character."""
        try:
            return bool(self.letters is None or ch.encode(self.letters))
        except UnicodeEncodeError:
            return False


def local_rules() -> NameRules:
    """What the system that this program runs on is known for."""
    if sys.platform == "win32":
        return NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
    if sys.platform == "darwin":
        return NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000)
    return NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000)


WIRE_RULES = NameRules(System.POSIX, 0, NameUnit.BYTES, NAME_MAX)
"""What every receiver refuses and what cannot be said on the wire: a sender finds this out by itself."""


def forbidden(ch: str) -> bool:
    """Whether Windows refuses this character in a name."""
    return ch in '<>:"\\|?*' or ch < " "


def is_device(part: str) -> bool:
    """Whether Windows takes this part of a name for one of its devices."""
    return part.partition(".")[0].rstrip(" ").upper() in _WINDOWS_DEVICES


def _windows_fault(part: str) -> Fault | None:
    for ch in part:
        if forbidden(ch):
            return Fault(NameRule.CHARACTER, f"contains {shown(ch)}, which Windows does not allow")
    if part[-1] in " .":
        return Fault(NameRule.ENDING, "has a part that ends in a space or a dot, which Windows drops")
    if is_device(part):
        return Fault(NameRule.RESERVED, "has a part that is the name of a Windows device")
    return None


OF_THE_SYSTEM = frozenset({NameRule.CHARACTER, NameRule.RESERVED, NameRule.ENDING})
"""Rules that differ from system to system, and of which a receiver may have more than its limits tell."""

_UNIT_WORDS = {NameUnit.BYTES: "bytes", NameUnit.UTF16: "UTF-16 units", NameUnit.CODE_POINTS: "characters"}
_WINDOWS_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)
