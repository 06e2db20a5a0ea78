# Invariant: a name that the rules accept stays inside its folder, keeps the target's limits and is not the staging
# folder's; one that they refuse is refused in printable words; of a set without a problem no two names mean the same
# file, and none is both file and folder; every other name that is proposed is one that is accepted, and when all are
# taken no problem is left.
"""Names from a peer."""

from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from collections.abc import Hashable

from spaceblock.display import printable
from spaceblock.errors import NameRejected
from spaceblock.names import STAGING_PREFIX, NameRules, Renaming, alternative, find_problems, refusal
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import NameUnit, System

from .choices import Choices, piece

RULES = (
    NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000),
    NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000),
    NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000),
    NameRules(System.UNKNOWN, 10, NameUnit.CODE_POINTS, 40),
    NameRules(System.POSIX, 143, NameUnit.BYTES, 0, 12, caseless=True, windows=True),
    NameRules(System.UNKNOWN, 0, NameUnit.BYTES, 0),
)
KINDS = (EntryKind.FILE, EntryKind.FOLDER, EntryKind.LINK)
ROUNDS_MAX = 3
"""How often the receiver may ask for other names."""


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    rules = RULES[choices.below(len(RULES))]
    entries = list[Entry]()
    while choices:
        number = choices.byte()
        kind = KINDS[number % len(KINDS)]
        name = choices.piece().decode("utf-8", "surrogateescape")
        item = len(entries) if kind is EntryKind.FILE else None
        entries.append(Entry(kind, name, item, target="x" if kind is EntryKind.LINK else None))
        _check_one(rules, name, 1 + number)
    return _check_set(rules, entries)


def seeds() -> dict[str, bytes]:
    plain = ["a.txt", "data/hello.txt", "data/x/ü.tar.gz"]
    hostile = [
        "../up",
        "/root",
        "a//b",
        "a/./b",
        "C:\\x",
        "a:stream",
        "NUL.txt",
        "COM¹",
        "x.",
        "x ",
        "a\0b",
        "a\u202eb",
    ]
    clashing = ["a/b", "a", "A", "straße", "STRASSE", "\u00e9", "e\u0301", ".spaceblock-1/x", ".SpaceBlock-1"]
    lists = {"plain": plain, "hostile": hostile, "clashing": clashing, "long": ["x" * 255, "x" * 256, "a/" * 65 + "b"]}
    found = {}
    for number in range(len(RULES)):
        for what, list_of_names in lists.items():
            names = b"".join(bytes([3 * at]) + piece(name.encode()) for at, name in enumerate(list_of_names))
            found[f"rules-{number}-{what}"] = bytes([number]) + names
    folders = [(1, "con"), (0, "con/x"), (0, "con/X"), (1, "a"), (0, "a"), (2, "a/b"), (0, "a/b/c")]
    names = b"".join(bytes([kind]) + piece(name.encode()) for kind, name in folders)
    return found | {f"rules-{number}-folders": bytes([number]) + names for number in range(len(RULES))}


def _check_one(rules: NameRules, name: str, number: int) -> None:
    _check_plain(printable(name))
    try:
        assert rules.check(name) == name
    except NameRejected as error:
        assert rules.problem(name) is not None
        _check_plain(str(error))
        return
    assert rules.problem(name) is None
    for module in (posixpath, ntpath) if rules.follows_windows else (posixpath,):
        root = module.normpath("/root")
        joined = module.normpath(module.join(root, name))
        assert not module.isabs(name)
        assert not module.splitdrive(name)[0]
        assert joined.startswith(root + module.sep)
        assert module.relpath(joined, root).replace(module.sep, "/") == name
    assert not name.lower().startswith(STAGING_PREFIX)
    assert not rules.path_limit or len(name.encode()) <= rules.path_limit
    assert not rules.name_limit or all(rules.length(part) <= rules.name_limit for part in name.split("/"))
    other = alternative(name, number, rules)
    assert other.rpartition("/")[0] == name.rpartition("/")[0]
    if rules.name_limit != 10:  # as short as no real one is
        assert other != name
        assert not rules.path_limit or len(other.encode()) > rules.path_limit or rules.problem(other) is None


def _check_plain(text: str) -> None:
    """No terminal would act on it, and nothing in it is hidden."""
    assert all(ch.isprintable() or unicodedata.category(ch) == "Zs" for ch in text)


def _check_set(rules: NameRules, entries: list[Entry]) -> Hashable:
    problems = find_problems(rules, entries)
    if problems:
        _check_plain(str(refusal(entries, problems)))
        return tuple(sorted({problem.rule for problem in problems})), _mend(rules, entries)
    _check_apart(rules, entries)
    return len(entries)


def _check_apart(rules: NameRules, entries: list[Entry]) -> None:
    places = [_place(rules, entry.name) for entry in entries if entry.kind is not EntryKind.FOLDER]
    folders = {_place(rules, entry.name) for entry in entries if entry.kind is EntryKind.FOLDER}
    above = {place[:depth] for place in (*places, *folders) for depth in range(1, len(place))}
    assert len(set(places)) == len(places)
    assert not set(places) & (above | folders)


def _place(rules: NameRules, name: str) -> tuple[str, ...]:
    return tuple(map(rules.fold, name.split("/")))


def _mend(rules: NameRules, entries: list[Entry]) -> str:
    """Take every proposal, as a user does who has no better idea."""
    for _ in range(ROUNDS_MAX):
        renaming = Renaming(entries, rules)
        for problem in renaming.in_order(find_problems(rules, entries)):
            bad = renaming.bad_name(problem)
            _check_plain(str(bad))
            if not bad.proposal:
                return "nothing would do"
            assert rules.fault(bad.proposal) is None
            assert renaming.rename(problem.entry, bad.proposal) is None
        entries = renaming.entries
        if not find_problems(rules, entries):
            _check_apart(rules, entries)
            return "mended"
    raise AssertionError(f"problems are left: {find_problems(rules, entries)}")
