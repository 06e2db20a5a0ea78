"""Names from a peer: which may become a path, which clash, how a taken one is changed, and how any of them is shown."""

from __future__ import annotations

import ntpath
import os
import posixpath
import shutil
import sys
import tracemalloc
import unicodedata
from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.display import printable, shortened, shown
from spaceblock.errors import NameRejected
from spaceblock.names import (
    DEPTH_MAX,
    STAGING_PREFIX,
    NameRules,
    alternative,
    find_problems,
    local_rules,
    refusal,
)
from spaceblock.wire.manifest import Entry, EntryKind
from spaceblock.wire.messages import NameUnit, System

POSIX = NameRules(System.POSIX, 255, NameUnit.BYTES, 4_000)
WINDOWS = NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000)
APPLE = NameRules(System.APPLE, 255, NameUnit.UTF16, 1_000)
POINTS = NameRules(System.UNKNOWN, 10, NameUnit.CODE_POINTS, 4_000)

every_system = pytest.mark.parametrize("rules", [POSIX, WINDOWS, APPLE], ids=lambda rules: rules.system.name.lower())


# What no system takes.


@every_system
@pytest.mark.parametrize("name", ["a", "a.txt", "a/b/c.tar.gz", ".hidden", "ünïcödé 名前", "a b", "con-fig", "-rf"])
def test_a_plain_relative_path_is_accepted(rules: NameRules, name: str) -> None:
    assert rules.check(name) == name


@every_system
@pytest.mark.parametrize(
    "name", ["..", "../a", "a/..", "a/../b", "a/../../b", "../../../../etc/passwd", ".", "./a", "a/./b", "a/."]
)
def test_a_part_that_leads_elsewhere_is_refused(rules: NameRules, name: str) -> None:
    with pytest.raises(NameRejected, match="could lead out of the folder"):
        rules.check(name)


@every_system
@pytest.mark.parametrize("name", ["/", "/etc/passwd", "//server/share", "a//b", "a/", "/a/"])
def test_an_absolute_name_or_an_empty_part_is_refused(rules: NameRules, name: str) -> None:
    with pytest.raises(NameRejected, match="absolute or has an empty part"):
        rules.check(name)


@every_system
def test_no_name_at_all_is_refused(rules: NameRules) -> None:
    assert rules.problem("") == "is empty"


@every_system
@pytest.mark.parametrize("name", ["\0", "a\0", "a.txt\0.exe", "a/b\0/c"])
def test_a_nul_is_refused(rules: NameRules, name: str) -> None:
    assert "NUL" in (rules.problem(name) or "")


@every_system
@pytest.mark.parametrize("name", ["\ud800", "a\udcff.txt", "folder/\udfff"])
def test_an_unpaired_surrogate_is_refused_and_shown_escaped(rules: NameRules, name: str) -> None:
    with pytest.raises(NameRejected, match=r"\\ud.*is not valid Unicode") as caught:
        rules.check(name)
    caught.value.message.encode()


@every_system
@pytest.mark.parametrize("name", [STAGING_PREFIX, ".spaceblock-00ff/0", ".SpaceBlock-x", ".\u017fpaceblock-x/a"])
def test_the_place_of_unfinished_files_cannot_be_named(rules: NameRules, name: str) -> None:
    assert "reserved" in (rules.problem(name) or "")


@every_system
def test_the_prefix_of_unfinished_files_is_free_below_other_folders(rules: NameRules) -> None:
    assert rules.problem(f"backup/{STAGING_PREFIX}0") is None


@every_system
def test_folders_are_nested_up_to_a_limit(rules: NameRules) -> None:
    assert rules.problem("/".join("a" * DEPTH_MAX)) is None
    assert "nested deeper" in (rules.problem("/".join("a" * (DEPTH_MAX + 1))) or "")


def test_the_whole_name_has_a_limit_in_bytes() -> None:
    fits = "/".join(["é" * 100] * 5)
    assert len(fits.encode()) == 1_004
    assert APPLE.problem(fits) == "is longer than 1000 bytes"
    assert POSIX.problem(fits) is None


@pytest.mark.parametrize(
    ("rules", "longest", "unit"),
    [
        (POSIX, "é" * 127 + "e", "255 bytes"),
        (WINDOWS, "😀" * 127 + "e", "255 UTF-16 units"),
        (APPLE, "😀" * 127 + "e", "255 UTF-16 units"),
        (POINTS, "😀" * 10, "10 characters"),
    ],
)
def test_each_part_has_a_limit_in_the_systems_own_unit(rules: NameRules, longest: str, unit: str) -> None:
    assert rules.problem(f"a/{longest}") is None
    assert rules.problem(f"a/{longest}e") == f"has a part longer than {unit}"


# What Windows does not take.


@pytest.mark.parametrize(
    "name",
    [
        "C:",
        "C:file",
        "C:/Windows/win.ini",
        "a/C:/b",
        "\\\\server\\share\\a",
        "\\\\?\\C:\\a",
        "..\\..\\a",
        "a\\b",
        "file.txt:stream",
        "file.txt::$DATA",
        "a?",
        "a*",
        "<a>",
        'a"b',
        "a|b",
        "a\nb",
        "a\x1b[2Jb",
        "\x1f",
    ],
)
def test_windows_refuses_drives_shares_streams_and_its_own_characters(name: str) -> None:
    with pytest.raises(NameRejected, match="which Windows does not allow"):
        WINDOWS.check(name)


@pytest.mark.parametrize("name", ["a.", "a ", "a. .", "a./b", "folder /b", "... ", "con. ", "a.txt."])
def test_windows_refuses_an_ending_that_it_would_drop(name: str) -> None:
    with pytest.raises(NameRejected, match="ends in a space or a dot"):
        WINDOWS.check(name)


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "con",
        "Prn",
        "AUX",
        "nul",
        "COM1",
        "com9",
        "COM¹",
        "com²",
        "LPT1",
        "LPT³",
        "CONIN$",
        "CONOUT$",
        "CLOCK$",
        "con.txt",
        "nul.tar.gz",
        "COM¹.log",
        "aux .txt",
        "a/nul",
        "nul/a",
    ],
)
def test_windows_refuses_the_names_of_devices(name: str) -> None:
    with pytest.raises(NameRejected, match="name of a Windows device"):
        WINDOWS.check(name)


@pytest.mark.parametrize(
    "name", ["console", "COM", "COM10", "LPT", "nullable.txt", "a.con", "auxiliary", "COM1-log.txt"]
)
def test_windows_takes_names_that_only_resemble_devices(name: str) -> None:
    assert WINDOWS.problem(name) is None


@pytest.mark.parametrize("rules", [POSIX, APPLE], ids=["posix", "apple"])
@pytest.mark.parametrize("name", ["C:x", "a\\b", "nul", "a:b", "a.", "a ", "what?", "a\x1b[2J", "a\u202eb", "..."])
def test_elsewhere_these_are_names_like_any_other(rules: NameRules, name: str) -> None:
    assert rules.problem(name) is None


def test_this_program_follows_the_rules_of_its_own_system() -> None:
    rules = local_rules()
    assert rules.check("a/b.txt") == "a/b.txt"
    assert rules.name_limit == 255


# Nothing outside the folder, however the name was made.

PIECES = st.sampled_from(
    ["..", ".", "/", "\\", "C:", "a", "\0", "//", "\\\\?\\", ":x", " ", "\ud800", "~", "con", "\u2215", "\uff0e\uff0e"]
)
ANY_NAME = st.lists(PIECES, max_size=9).map("".join) | st.text(alphabet=st.characters(), max_size=20)


@given(ANY_NAME)
def test_no_accepted_name_leads_outside_the_folder(name: str) -> None:
    if POSIX.fault(name) is None:
        joined = posixpath.join("/root/folder", name)
        assert posixpath.normpath(joined) == joined
        assert joined.startswith("/root/folder/")
    if WINDOWS.fault(name) is None:
        path = PureWindowsPath(name)
        assert not path.drive
        assert not path.root
        if sys.version_info >= (3, 13):
            assert not ntpath.isreserved(name)
        else:
            assert not path.is_reserved()
        assert ntpath.normpath(ntpath.join("D:\\folder", name)) == ntpath.join("D:\\folder", *name.split("/"))


@given(ANY_NAME)
def test_the_file_system_itself_puts_no_accepted_name_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    if POSIX.fault(name) is not None:
        return
    folder = tmp_path_factory.mktemp("folder")
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "xb"):
        pass
    (found,) = (path for path in folder.rglob("*") if path.is_file())
    assert found.relative_to(folder).as_posix() == name
    shutil.rmtree(folder)


# Names that clash.


def entries_of(files: list[str], folders: list[str]) -> list[Entry]:
    """A manifest's entries, folders first."""
    named = [Entry(EntryKind.FOLDER, name) for name in folders]
    return named + [Entry(EntryKind.FILE, name, item) for item, name in enumerate(files)]


def accept(rules: NameRules, files: list[str], folders: list[str]) -> None:
    assert find_problems(rules, entries_of(files, folders)) == []


def refused(rules: NameRules, files: list[str], folders: list[str] | None = None) -> NameRejected:
    entries = entries_of(files, folders or [])
    return refusal(entries, find_problems(rules, entries))


@every_system
def test_files_and_folders_that_do_not_clash_are_accepted(rules: NameRules) -> None:
    accept(rules, ["a/x", "a/y", "b/x", "x", "ab"], ["a", "a/empty", "b", "a"])


@every_system
def test_two_files_of_one_name_are_refused(rules: NameRules) -> None:
    assert "the same file" in refused(rules, ["a/x", "b", "a/x"]).message


@every_system
@pytest.mark.parametrize(
    ("files", "folders"),
    [
        (["a", "a/b"], []),
        (["a/b", "a"], []),
        (["a"], ["a"]),
        (["a"], ["a/b/c"]),
        (["a/b/c", "a/b"], []),
        (["x", "a/b"], ["a/b"]),
    ],
)
def test_a_file_cannot_also_be_a_folder(rules: NameRules, files: list[str], folders: list[str]) -> None:
    error = refused(rules, files, folders)
    assert "is a file and also the folder of" in error.message
    assert error.name in files


@every_system
def test_every_name_of_a_set_is_checked(rules: NameRules) -> None:
    assert "lead out" in refused(rules, ["a", "../b"]).message
    assert "lead out" in refused(rules, ["a"], ["b", ".."]).message


@pytest.mark.parametrize("rules", [WINDOWS, APPLE], ids=["windows", "apple"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("readme", "README"),
        ("a/x", "A/X"),
        ("\u00e9", "e\u0301"),
        ("\u00c9", "e\u0301"),
        ("stra\u00dfe", "STRASSE"),
        ("\u212a", "k"),
        ("\u017f\u0301", "\u015b"),
        ("\u1e9e\u0301", "S\u015b"),
    ],
)
def test_where_case_and_composition_do_not_count_names_that_differ_in_them_clash(
    rules: NameRules, one: str, other: str
) -> None:
    assert "the same file" in refused(rules, [one, other]).message
    accept(POSIX, [one, other], [])


def test_a_part_that_is_too_long_is_not_folded() -> None:
    """Sorting thousands of combining marks takes milliseconds, and an offer may have very many such names."""
    marks = "a" + "\u0316\u0301" * 400
    assert WINDOWS.fold(marks) == marks
    assert WINDOWS.fold(marks[:100].upper()) == WINDOWS.fold(marks[:100])
    assert WINDOWS.fold("A\udcff") == "a\udcff"  # what is not Unicode, as a file system may have it


@pytest.mark.parametrize("rules", [WINDOWS, APPLE], ids=["windows", "apple"])
def test_a_file_and_a_folder_clash_in_another_case_too(rules: NameRules) -> None:
    assert "also the folder" in refused(rules, ["Data", "data/x"]).message
    accept(rules, ["Data/x", "data/y"], ["DATA"])


@given(st.text(max_size=8))
def test_however_a_name_is_composed_or_written_it_means_the_same_file(name: str) -> None:
    folded = WINDOWS.fold(name)
    for form in ("NFC", "NFD"):
        assert WINDOWS.fold(unicodedata.normalize(form, name)) == folded
    assert WINDOWS.fold(name.casefold()) == folded


@given(
    st.sampled_from([POSIX, WINDOWS, APPLE, POINTS]),
    st.lists(st.tuples(st.booleans(), st.text("aAb./ é\0", max_size=6) | st.just(f"{STAGING_PREFIX}a")), max_size=6),
)
def test_looking_at_all_names_at_once_finds_what_looking_at_each_does(
    rules: NameRules, named: list[tuple[bool, str]]
) -> None:
    entries = [Entry(EntryKind.FOLDER if folder else EntryKind.FILE, name) for folder, name in named]
    # A name that has to be looked at closely takes the short way from all of them; a deep one changes nothing else.
    deep = Entry(EntryKind.FOLDER, "/".join("y" * 20))
    closely = find_problems(rules, [*entries, deep])
    assert find_problems(rules, entries) == closely
    if rules.are_plain([entry.name for entry in entries]):
        assert not any(rules.fault(entry.name) for entry in entries)


def test_deep_names_take_no_more_memory_than_their_length() -> None:
    names = ["/".join(f"{number:x}-{'x' * 50}" for _ in range(DEPTH_MAX)) for number in range(200)]
    tracemalloc.start()
    try:
        accept(POSIX, names, [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * sum(map(len, names)), "one copy of every prefix would be 30 times as much"


def test_of_very_many_bad_names_only_some_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.names.tree.NAME_PROBLEMS_MAX", 3)
    for names in (["/"] * 5, ["a:"] * 5, ["x"] * 5):
        entries = entries_of(names, [])
        assert len(find_problems(WINDOWS, entries)) == 3
        assert "(and 2 more names cannot be used)" in refused(WINDOWS, names).message


# Another name for a file whose name is taken.


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("a", "a (1)"),
        ("a.txt", "a (1).txt"),
        ("a.tar.gz", "a (1).tar.gz"),
        ("a/b.c/d", "a/b.c/d (1)"),
        ("a/b.c/d.e", "a/b.c/d (1).e"),
        (".bashrc", ".bashrc (1)"),
        (".config.json", ".config (1).json"),
        ("a.", "a. (1)"),
        ("2024.01.05 report.pdf", "2024.01.05 report (1).pdf"),
        ("Dr. No", "Dr. No (1)"),
        ("v1.2 final", "v1.2 final (1)"),
        (".tar.gz", ".tar (1).gz"),
    ],
)
def test_another_name_keeps_folder_and_suffix(name: str, other: str) -> None:
    assert alternative(name, 1, POSIX) == other


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125 + "x", "😀" * 62 + "xyz", "a." + "b" * 249])
def test_another_name_is_cut_between_characters_to_fit(stem: str) -> None:
    name = alternative(f"folder/{stem}.bin", 9_999, POSIX)
    assert len(name.removeprefix("folder/").encode()) <= 255
    assert name.endswith(" (9999).bin")
    assert POSIX.problem(name) is None


@given(st.text(alphabet=st.sampled_from("a.é😀 \u0301"), min_size=1, max_size=255), st.integers(1, 10_000))
def test_any_other_name_fits_and_differs(last: str, number: int) -> None:
    last = last.encode()[:255].decode(errors="ignore")
    other = alternative(last, number, POSIX)
    assert len(other.encode()) <= 255
    assert other != last
    assert f" ({number})" in other
    assert alternative(f"folder/{last}", number, POSIX) == f"folder/{other}"


# Names as a person sees them.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.txt", "plain name.txt"),
        ("名前 ünïcödé 😀", "名前 ünïcödé 😀"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("a\x7f\x9bb", "a\\x7f\\x9bb"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("a\u200bb\u200d\ufeff", "a\\u200bb\\u200d\\ufeff"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\u0301a", "\\u0301a"),
        ("e\u0301", "e\u0301"),
        ("Z" + "\u0301" * 6, "Z" + "\u0301" * 4 + "\\u0301" * 2),
        ("a\u3164\u2800b", "a\\u3164\\u2800b"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


@given(
    st.text(alphabet=st.characters(), max_size=40)
    | st.text(alphabet=st.sampled_from("\x1b\x9b\u202e\ud800a"), max_size=9)
)
def test_nothing_that_misleads_is_ever_shown(name: str) -> None:
    text = printable(name)
    text.encode()
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert not any(unicodedata.category(ch) in hidden for ch in text)
    assert not any(unicodedata.bidirectional(ch) in {"LRO", "RLO", "LRE", "RLE", "PDF", "LRI", "RLI"} for ch in text)
    assert printable(text) == text


def test_a_very_long_name_is_shown_without_its_middle() -> None:
    assert shown("x.txt") == "'x.txt'"
    assert shown("\x1b" + "x" * 500 + ".txt", 20) == repr("\\x1bxxxxxx…xxxxx.txt")
    assert len(shortened("x" * 500, 20)) == 20
