"""Commands under bad circumstances: standard streams that are missing or full, no network, no home, odd numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands import Commands
from support import pattern

LOCAL = ("--listen", "127.0.0.1:0")
CLOSED = "standard output was closed before the end: keep its reader running"
FULL = "standard output cannot be written to: no space left on device; direct it elsewhere"

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")


def run(
    home: Path, words: list[str | Path], redirected: str = "", before: list[str] | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run ``spaceblock WORDS`` in a shell's redirection, such as ``>&-``."""
    names = ("SPACEBLOCK_TICKET", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [*(before or []), "sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "spaceblock", *words],
        env={**kept, "SPACEBLOCK_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
    )


def said(ended: subprocess.CompletedProcess[bytes]) -> str:
    return ended.stderr.decode().replace("\r\n", "\n")


# Standard streams.


@pytest.mark.parametrize("words", [["id"], ["receive", *LOCAL], ["doctor", "--json"], ["--help"], ["send", "--help"]])
def test_without_a_standard_output_nothing_is_done_in_vain(tmp_path: Path, words: list[str | Path]) -> None:
    ended = run(tmp_path, words, ">&-")
    assert ended.returncode == 1
    assert said(ended).endswith(f"spaceblock: {CLOSED}\n")


@needs_full
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", [["id"], ["doctor", "--json"], ["completion", "bash"], ["--help"], ["send", "missing", "--json"]]
)
def test_a_standard_output_that_is_full_is_told(tmp_path: Path, words: list[str | Path], unbuffered: str) -> None:
    ended = run(tmp_path, words, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    if words[0] == "send":
        assert ended.returncode == 6, "what went wrong first is what counts"
        return
    assert ended.returncode == 1
    assert said(ended) == f"spaceblock: {FULL}\n"


@needs_full
def test_the_exit_code_tells_where_nothing_else_can(tmp_path: Path) -> None:
    assert run(tmp_path, ["send", "missing"], ">/dev/full 2>/dev/full").returncode == 6
    assert run(tmp_path, ["send", "missing", "--json"], "<&- >&- 2>&-").returncode == 6
    assert run(tmp_path, ["nonsense"], "2>/dev/full").returncode == 2


def test_without_a_standard_error_data_are_still_alone(commands: Commands, tmp_path: Path) -> None:
    data = pattern(300_000)
    (tmp_path / "data").write_bytes(data)
    sender = commands.start("send", *LOCAL, tmp_path / "data")
    ended = run(tmp_path / "other", ["receive", sender.read_line(), "--yes", "--dir", "-"], "2>&-")
    assert ended.returncode == 0
    assert ended.stdout == data
    assert sender.end().code == 0


def test_without_a_standard_input_nothing_is_sent_from_it(tmp_path: Path) -> None:
    ended = run(tmp_path, ["send", "-", *LOCAL], "<&-")
    assert ended.returncode == 2
    assert said(ended).startswith("spaceblock: there is no standard input: give a path\n")
    ended = run(tmp_path, ["send", "--to", "-", "x"], "<&-")
    assert ended.returncode == 2
    assert "which takes a terminal" in said(ended)


# Words.


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["receive", "--timeout", "nan"], "write a number of seconds"),
        (["send", "--retry", "nan", "file"], "write a number of seconds"),
        (["receive", "--retry", "inf"], "write a number of seconds"),
        (["receive", "--timeout", "inf"], "write a number of seconds"),
        (["peers", "--seconds", "nan"], "write a number of seconds"),
        (["receive", "--advertise", "two words"], "--advertise: a ticket cannot hold the host name 'two words'"),
        (["send", "--to", "", "x"], "the ticket is empty: give the word that the listener printed"),
    ],
)
def test_words_that_mean_nothing_are_wrong_usage(tmp_path: Path, words: list[str | Path], reason: str) -> None:
    ended = run(tmp_path, words)
    assert ended.returncode == 2
    assert reason in said(ended)
    assert not ended.stdout


@pytest.mark.parametrize(
    ("name", "reason"), [("", "the name '' is empty"), ("../x", "'..' as a part"), ("/x", "is absolute")]
)
def test_a_name_that_no_receiver_takes_is_found_before_anybody_is_asked_to_come(
    tmp_path: Path, name: str, reason: str
) -> None:
    ended = run(tmp_path, ["send", "-", "--name", name, *LOCAL])
    assert ended.returncode == 7
    assert reason in said(ended)
    assert not ended.stdout


# The computer.


def test_without_a_network_no_listener_is_found(tmp_path: Path) -> None:
    pytest.importorskip("zeroconf")
    alone = ["unshare", "--net"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can take the network away, and only on Linux")
    ended = run(tmp_path, ["peers", "--seconds", "0.1"], before=alone)
    assert ended.returncode == 4
    assert said(ended).startswith("spaceblock: this computer's network takes no multicast (")


def test_a_home_that_cannot_be_used_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run(tmp_path / "file" / "home", ["id"])
    assert ended.returncode == 6
    assert said(ended).endswith("; choose a folder, and name it in SPACEBLOCK_HOME\n")


@pytest.mark.parametrize("home", ["here", ""])
def test_a_home_that_depends_on_the_current_folder_or_is_empty_is_none(tmp_path: Path, home: str) -> None:
    there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(tmp_path)]
    ended = run(tmp_path, ["id"], "", there, SPACEBLOCK_HOME="", XDG_DATA_HOME="", HOME=home)
    assert ended.returncode == 6
    assert said(ended) == "spaceblock: this user's home folder is not known: set SPACEBLOCK_HOME to a folder\n"
    assert not list(tmp_path.iterdir())


def test_a_key_without_a_path_is_not_made_in_the_current_folder(tmp_path: Path) -> None:
    there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(tmp_path)]
    ended = run(tmp_path, ["id", "--identity", ""], "", there)
    assert ended.returncode == 6
    assert said(ended) == "spaceblock: the path of the key is empty: name a file or a folder, or leave it out\n"
    assert not list(tmp_path.iterdir())


# Two of a kind.


def test_two_that_send_to_each_other_are_told_so_at_once(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    one = commands.start("send", *LOCAL, tmp_path / "file", home="one")
    other = commands.start("send", "--to", one.read_line(), tmp_path / "file", home="other")
    ended = [other.end(), one.end()]
    assert any(
        each.code == 3 and "the receiver declined: it sends, too; run spaceblock receive on one of the two" in each.err
        for each in ended
    ), ended
    assert all(each.code in (1, 3, 4) for each in ended), ended


def test_two_that_receive_from_each_other_wonder(commands: Commands, inbox: Path) -> None:
    one = commands.start("receive", *LOCAL, "--dir", inbox, home="one")
    other = commands.start("receive", one.read_line(), "--dir", inbox, home="other", terminal=200)
    other.terminal.wait_for("nothing is offered yet: see that the other side sends, and does not receive")
    assert (other.end(signal.SIGINT).code, one.end(signal.SIGINT).code) == (130, 130)
