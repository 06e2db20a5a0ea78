"""Other names for those that a target cannot hold: what is proposed, and what follows from an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.names import DEPTH_MAX, NameRules, Problem, Renaming, find_problems, renaming
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import NameRule, NameUnit, System

POSIX = NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000)
WINDOWS = NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
APPLE = NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000)
TIGHT = NameRules(System.WINDOWS, 12, NameUnit.UTF16, 60, suffix_limit=8)
LATIN = NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000, letters="latin-1")


def entries_of(*names: str) -> list[Entry]:
    """Files, and a folder for each name that ends with a slash."""
    return [
        Entry(EntryKind.FOLDER, name[:-1]) if name.endswith("/") else Entry(EntryKind.FILE, name, item)
        for item, name in enumerate(names)
    ]


def mended(rules: NameRules, *names: str) -> list[str]:
    """The names after every proposal was taken."""
    renaming = Renaming(entries_of(*names), rules)
    for problem in renaming.in_order(find_problems(rules, renaming.entries)):
        fault = renaming.rename(problem.entry, renaming.bad_name(problem).proposal)
        assert fault is None, (fault, problem)
    assert find_problems(rules, renaming.entries) == []
    return [entry.name for entry in renaming.entries]


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (POSIX, [f"{'x' * 251}{item % 100:04}{item:09}" for item in range(300)]),
        (APPLE, [f"{item:09b}".translate({ord("0"): "x", ord("1"): "X"}) for item in range(300)]),
    ],
    ids=["nearly the same", "the same but for case"],
)
def test_proposals_for_a_great_many_names_that_become_the_same_take_few_attempts(
    monkeypatch: pytest.MonkeyPatch, rules: NameRules, names: list[str]
) -> None:
    attempts = []
    fitted = renaming._fitted

    def attempt(wanted: str, limits: NameRules, number: int, numbered: int | None) -> str:
        attempts.append(wanted)
        return fitted(wanted, limits, number, numbered)

    monkeypatch.setattr(renaming, "_fitted", attempt)
    assert len(set(mended(rules, *names))) == len(names)
    assert len(attempts) < 5 * len(names)


@pytest.mark.parametrize(
    ("rules", "name", "proposal"),
    [
        (WINDOWS, "a:b.txt", "a_b.txt"),
        (WINDOWS, "what?.tar.gz", "what_.tar.gz"),
        (WINDOWS, "tab\there", "tab_here"),
        (WINDOWS, "con.txt", "con_.txt"),
        (WINDOWS, "a/aux .log", "a/aux_.log"),
        (WINDOWS, "COM¹", "COM¹_"),
        (WINDOWS, "end. ", "end"),
        (WINDOWS, "...", "_"),
        (WINDOWS, "C:\\Windows\\win.ini", "C__Windows_win.ini"),
        (WINDOWS, "file.txt:stream", "file.txt_stream"),
        (POSIX, "../../etc/passwd", "etc/passwd"),
        (POSIX, "/etc/passwd", "etc/passwd"),
        (POSIX, "a//b", "a/b"),
        (POSIX, "..", "unnamed"),
        (POSIX, "", "unnamed"),
        (POSIX, "a\0b.c", "a_b.c"),
        (POSIX, "\udcff.txt", "_.txt"),
        (POSIX, ".spaceblock-x/a", "spaceblock-x/a"),
        (POSIX, "x" * 300 + ".txt", "x" * 251 + ".txt"),
        (POSIX, "é" * 200 + ".tar.gz", "é" * 124 + ".tar.gz"),
        (WINDOWS, "😀" * 200 + ".txt", "😀" * 125 + ".txt"),
        (POSIX, "a/" * DEPTH_MAX + "b", "a/" * (DEPTH_MAX - 1) + "b"),
        (
            APPLE,
            "é" * 200 + "/" + "é" * 200 + "/" + "é" * 200 + ".txt",
            "é" * 200 + "/" + "é" * 200 + "/" + "é" * 97 + ".txt",
        ),
        (LATIN, "\u00e9/\u65e5\u672c.txt", "\u00e9/__.txt"),
        (TIGHT, "extraordinary.txt", "extraord.txt"),
        (TIGHT, "x.extraordinary", "x.extraordin"),
    ],
)
def test_a_proposal_keeps_what_can_be_kept(rules: NameRules, name: str, proposal: str) -> None:
    assert mended(rules, name) == [proposal]


def test_a_proposal_is_free() -> None:
    assert mended(WINDOWS, "a_b.txt", "a:b.txt", "A?b.txt") == ["a_b.txt", "a_b (1).txt", "A_b (2).txt"]


def test_files_that_mean_the_same_get_numbers() -> None:
    assert mended(WINDOWS, "README", "readme", "Readme") == ["README", "readme (1)", "Readme (2)"]
    assert mended(POSIX, "a", "a", "a") == ["a", "a (1)", "a (2)"]


def test_a_file_that_is_a_folder_too_gives_way() -> None:
    assert mended(POSIX, "a", "a/b", "a/c") == ["a (1)", "a/b", "a/c"]


def test_what_is_in_a_folder_moves_with_it() -> None:
    names = ["a:b/", "a:b/c/", "a:b/c/x", "a:b/y?", "other"]
    assert mended(WINDOWS, *names) == ["a_b", "a_b/c", "a_b/c/x", "a_b/y_", "other"]


def test_what_is_in_a_folder_without_an_entry_moves_with_it_too() -> None:
    renaming = Renaming(entries_of("a:b/x", "a:b/y", "a:b/z?"), WINDOWS)
    problems = find_problems(WINDOWS, renaming.entries)
    assert [problem.entry for problem in problems] == [0, 1, 2]
    assert renaming.rename(0, "good/x") is None
    assert [entry.name for entry in renaming.entries] == ["good/x", "good/y", "good/z?"]
    assert [problem.entry for problem in find_problems(WINDOWS, renaming.entries)] == [2]


def test_an_entry_that_was_moved_out_of_a_folder_stays_where_it_is() -> None:
    renaming = Renaming(entries_of("d:/", "d:/x", "d:/y"), WINDOWS)
    assert renaming.rename(1, "x") is None
    assert renaming.rename(0, "d") is None
    assert renaming.changes() == {0: "d", 1: "x", 2: "d/y"}


def test_folders_are_asked_for_before_what_is_in_them() -> None:
    entries = entries_of("d:/e:/f:", "d:/", "d:/e:/", "a:")
    problems = Renaming(entries, WINDOWS).in_order(find_problems(WINDOWS, entries))
    assert [entries[problem.entry].name for problem in problems] == ["d:", "d:/e:", "a:", "d:/e:/f:"]


def test_an_answer_that_would_not_do_is_refused() -> None:
    renaming = Renaming(entries_of("a:", "b", "c/d"), WINDOWS)
    rules = {
        "b?": NameRule.CHARACTER,
        "B": NameRule.COLLISION,
        "C": NameRule.COLLISION,
        "b/x": NameRule.FILE_AND_FOLDER,
        "../x": NameRule.NOT_RELATIVE,
        "": NameRule.NOT_RELATIVE,
        "x" * 256: NameRule.TOO_LONG,
    }
    for name, rule in rules.items():
        fault = renaming.rename(0, name)
        assert fault is not None
        assert fault.rule is rule
    assert renaming.changes() == {}
    assert renaming.rename(0, "new/a") is None
    assert renaming.changes() == {0: "new/a"}


def test_a_name_of_a_file_that_gave_way_can_become_a_folder() -> None:
    renaming = Renaming(entries_of("a", "a/b", "x:"), WINDOWS)
    assert renaming.rename(0, "other") is None
    assert renaming.rename(2, "a/x") is None


def test_where_a_receiver_has_rules_of_its_own_the_proposal_suits_every_system() -> None:
    renaming = Renaming(entries_of("a:b", "con", "x "), POSIX)
    rules = [NameRule.CHARACTER, NameRule.RESERVED, NameRule.ENDING]
    problems = [Problem(entry, rule, "is not liked") for entry, rule in enumerate(rules)]
    assert [renaming.propose(problem) for problem in problems] == ["a_b", "con_", "x"]


def test_where_a_receiver_refuses_what_every_system_takes_the_proposal_is_plain() -> None:
    renaming = Renaming(entries_of("\u00e9", "e"), POSIX, problems := [Problem(0, NameRule.CHARACTER, "is not liked")])
    assert renaming.propose(problems[0]) == "_"
    renaming = Renaming(entries_of("\u00e9:"), POSIX, problems)
    assert renaming.propose(problems[0]) == "\u00e9_"


def test_what_is_there_already_is_avoided_at_the_top() -> None:
    renaming = Renaming(entries_of("data/x/y.txt"), POSIX)
    assert renaming.propose(Problem(0, NameRule.EXISTS, "is there")) == "data (1)/x/y.txt"


def test_limits_that_leave_no_room_leave_no_proposal() -> None:
    renaming = Renaming(entries_of("abcdef", "abc"), NameRules(System.POSIX, 1, NameUnit.BYTES, 3))
    assert [renaming.propose(Problem(entry, NameRule.TOO_LONG, "is too long")) for entry in (0, 1)] == ["a", "a"]
    assert renaming.rename(0, "a") is None
    assert renaming.propose(Problem(1, NameRule.TOO_LONG, "is too long")) == ""


def test_a_folder_that_would_be_a_file_gets_a_number() -> None:
    assert mended(POSIX, "a\0", "a\0/b") == ["a_", "a_ (1)/b"]
    assert mended(POSIX, ".spaceblock-1", ".spaceblock-1/b") == ["spaceblock-1", "spaceblock-1 (1)/b"]


def test_a_part_that_comes_to_the_top_is_not_left_reserved() -> None:
    limits = NameRules(System.POSIX, 60, NameUnit.BYTES, 70)
    assert mended(limits, "x" * 60 + "/", "x" * 60 + "/.spaceblock-1") == ["x" * 60, "spaceblock-1"]


# However the names are made.

PARTS = st.sampled_from(
    [
        *["a", "A", "a:", "b", "..", "", ".", "con", "CON.txt", "x.", "x ", "é", "e\u0301", "\0", "\udcff", "?", "a?"],
        *["y" * 20, "z" * 300 + ".tar.gz", "😀" * 130, ".spaceblock-1", "\x1b[2J"],
    ]
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join) | st.text(alphabet=st.characters(), max_size=12)
TARGETS = st.builds(
    NameRules,
    st.sampled_from([System.POSIX, System.WINDOWS, System.APPLE, System.UNKNOWN]),
    st.integers(12, 255),
    st.sampled_from(NameUnit),
    st.integers(200, 4_000),
)


@given(TARGETS, st.lists(st.tuples(NAMES, st.booleans()), max_size=12))
def test_a_proposal_is_acceptable_and_unique(rules: NameRules, given_names: list[tuple[str, bool]]) -> None:
    names = list(dict.fromkeys(name + "/" * is_folder for name, is_folder in given_names))
    renaming = Renaming(entries_of(*names), rules)
    for _ in range(3):
        for problem in renaming.in_order(find_problems(rules, renaming.entries)):
            bad = renaming.bad_name(problem)
            if rules.fault(bad.name) is None and problem.rule not in (NameRule.COLLISION, NameRule.FILE_AND_FOLDER):
                continue  # mended by what became of its folder
            assert rules.fault(bad.proposal) is None
            assert renaming.rename(problem.entry, bad.proposal) is None
    assert find_problems(rules, renaming.entries) == []
    folded = [tuple(map(rules.fold, entry.name.split("/"))) for entry in renaming.entries if entry.item is not None]
    assert len(set(folded)) == len(folded)
