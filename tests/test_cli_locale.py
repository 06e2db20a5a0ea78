"""A locale without most letters, such as C: names arrive whole all the same, or others are asked for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import spaceblock
from commands import Command, Commands, Ended
from spaceblock import BadName, Item, OfferItem

ASCII = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Otherwise Python takes UTF-8 for such a locale by itself."""

LOCAL = ("--listen", "127.0.0.1:0")
PEER = "tvrqinl3jc33ghavk3ekxbq7rknyebrbdvwud6yft6wnzkvjws2a"

RECEIVER = """
import asyncio, sys
from spaceblock import SpaceblockError, listen

async def main(inbox, asks):
    async with listen("127.0.0.1") as listener:
        print(listener.ticket, flush=True)
        offer = await anext(aiter(listener))
        try:
            await offer.accept(inbox, rename=(lambda item, problem: problem.proposal) if asks else None)
        except SpaceblockError as error:
            print(error.message.encode("unicode_escape").decode())

asyncio.run(main(*sys.argv[1:]))
"""
"""A program of somebody else's, which has to make do with the letters that it has."""

SENDER = "import spaceblock, sys; spaceblock.sync.send(*sys.argv[1:], links='copy')"


@pytest.fixture(autouse=True)
def _without_most_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASCII.items():
        monkeypatch.setenv(name, value)
    code = "import sys; sys.exit(sys.getfilesystemencoding() != 'ascii')"
    if subprocess.run([sys.executable, "-c", code]).returncode:
        pytest.skip("names are UTF-8 here, whatever the locale is")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """A folder with names in several scripts, one of which is no text in any."""
    papers = tmp_path / "gr\u00fcne Akten"
    (papers / "\u65e5\u672c").mkdir(parents=True)
    (papers / "\u65e5\u672c" / "\U0001f600.txt").write_text("face")
    (papers / "caf\u00e9.bin").write_bytes(bytes(3_000_000))
    return papers


@pytest.fixture
def no_text(tmp_path: Path) -> Path:
    """A file whose name is no text."""
    path = tmp_path / os.fsdecode(b"\xff")
    try:
        path.touch()
    except OSError:
        pytest.skip("this disk has no such names")
    return path


def names_in(folder: Path) -> list[bytes]:
    """What the folder holds, as the disk has it."""
    return sorted(os.fsencode(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def program(inbox: Path, asks: str) -> Iterator[subprocess.Popen[str]]:
    """A receiver in that locale, which takes what is proposed if it ``asks``."""
    code = [sys.executable, "-c", RECEIVER, str(inbox), asks]
    both = subprocess.STDOUT
    with subprocess.Popen(code, stdout=subprocess.PIPE, stderr=both, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def proposed(item: OfferItem, problem: BadName) -> str:
    """A user who takes what is proposed."""
    assert "which the receiver's locale (ascii) cannot write" in problem.reason
    return problem.proposal


def accepted(receiver: Command, sender: Command) -> tuple[Ended, Ended]:
    """How both end after the receiver's user said yes."""
    receiver.terminal.wait_for("Accept? [y/N]")
    receiver.terminal.type("y\n")
    return sender.end(), receiver.end()


def test_names_arrive_byte_for_byte_between_two_terminals(commands: Commands, inbox: Path, papers: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", terminal=True)
    sender = commands.start("send", "--to", receiver.read_line(), papers, terminal=True)
    sent, received = accepted(receiver, sender)
    assert (sent.code, received.code) == (0, 0), (sent, received)
    assert names_in(inbox / papers.name) == names_in(papers)
    assert f"3.00 MB  {papers.name}/caf\u00e9.bin\r\n" in received.err
    for shown in (sent.err, received.err):
        assert f"  {papers.name}/\u65e5\u672c/\U0001f600.txt\r\n" in shown
        assert "\u2501\u2501\u2501" in shown


def test_names_that_are_typed_or_no_text_are_asked_for_until_they_do(
    commands: Commands, inbox: Path, tmp_path: Path
) -> None:
    broken = tmp_path / os.fsdecode(b"caf\xe9.txt")
    broken.write_text("x")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes")
    sender = commands.start("send", "--to", receiver.read_line(), broken, terminal=True)
    sender.terminal.wait_for("New name (Enter: 'caf_.txt'")
    sender.terminal.type("caf\udce9\n")
    sender.terminal.wait_for("New name", 2)
    sender.terminal.type("caf\u00e9.txt\n")
    assert (sender.end().code, receiver.end().code) == (0, 0)
    assert names_in(inbox) == ["caf\u00e9.txt".encode()]


def test_programs_are_told_real_names_and_people_what_is_missing(commands: Commands, inbox: Path, papers: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "--json")
    sent = commands.run("send", "--to", receiver.read_until(lambda _: True)["ticket"], papers, "--json")
    received = receiver.end()
    assert (sent.code, received.code) == (0, 0)
    for ended in (sent, received):
        assert {item["name"] for item in ended.objects[-1]["items"]} == {
            f"{papers.name}/caf\u00e9.bin",
            f"{papers.name}/\u65e5\u672c/\U0001f600.txt",
        }
    missing = commands.run("send", papers / "\u00fc")
    assert missing.code == 6
    assert f"cannot send '{papers}/\u00fc'" in missing.err


def test_a_peers_name_is_kept_shown_and_completed(commands: Commands) -> None:
    assert commands.run("trust", PEER, "--name", "b\u00fcro").out == f"{PEER}  b\u00fcro\n"
    words = "spaceblock send --to b"
    asked = commands.run(home="trust", _SPACEBLOCK_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="3")
    assert asked.out == "plain,b\u00fcro\n"


def test_what_standard_output_has_no_letter_for_is_escaped(commands: Commands) -> None:
    assert commands.run("trust", PEER, "--name", "b\u00fcro").code == 0
    assert commands.run("trust", PYTHONIOENCODING="ascii").out == f"{PEER}  b\\xfcro\n"


async def test_a_program_without_the_letters_sends_the_names_that_are_on_the_disk(inbox: Path, papers: Path) -> None:
    (papers / "link").symlink_to("caf\u00e9.bin")
    (papers / "caf\u00e9 too.bin").touch()
    async with spaceblock.listen("127.0.0.1") as listener:
        sender = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, listener.ticket, papers)
        offer = await asyncio.wait_for(anext(aiter(listener)), 30)
        assert "gr\u00fcne Akten/caf\u00e9.bin" in [item.name for item in offer.items]
        await offer.accept(inbox)
        assert await sender.wait() == 0
    assert names_in(inbox / papers.name) == names_in(papers)
    assert (inbox / papers.name / "link").readlink() == Path("caf\u00e9.bin")


async def test_a_program_without_the_letters_still_refuses_names_that_are_no_text(no_text: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        sender = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SENDER, listener.ticket, no_text, stderr=subprocess.PIPE
        )
        _, said = await sender.communicate()
    assert b"is not valid Unicode" in said


@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_a_program_without_the_letters_gets_other_names(who: str, inbox: Path) -> None:
    with program(inbox, "asks" if who == "receiver" else "") as receiver:
        assert receiver.stdout is not None
        async with spaceblock.connect(receiver.stdout.readline()) as peer:
            names = ["gr\u00fcn/\u65e5\u672c.txt", "gr\u00fcn/?\u00e9.txt", "a?"]
            items = [Item(name.encode(), name=name) for name in names]
            receipt = await asyncio.wait_for(peer.send(*items, rename=proposed if who == "sender" else None), 30)
        assert receiver.stdout.read() == ""
    assert names_in(inbox) == [b"a?", b"gr_n", b"gr_n/__ (1).txt", b"gr_n/__.txt"]
    assert [(inbox / receipt.renamed.get(name, name)).read_text() for name in names] == names


async def test_a_program_without_the_letters_says_which_name_it_cannot_write(inbox: Path) -> None:
    with program(inbox, "") as receiver:
        assert receiver.stdout is not None
        async with spaceblock.connect(receiver.stdout.readline()) as peer:
            with pytest.raises(spaceblock.NameRejected, match=r"'\u00fc', which the receiver's locale"):
                await asyncio.wait_for(peer.send(Item(b"x", name="\u00fc")), 30)
        assert "the name '\\xfc' contains '\\xfc', which the receiver's locale" in receiver.stdout.read()
    assert names_in(inbox) == []


async def test_a_program_without_the_letters_makes_no_link_to_where_it_cannot_write(
    inbox: Path, tmp_path: Path
) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to("\u00fc")
    with program(inbox, "") as receiver:
        assert receiver.stdout is not None
        async with spaceblock.connect(receiver.stdout.readline()) as peer:
            await asyncio.wait_for(peer.send(tmp_path / "top", links="copy"), 30)
        said = "left out the link 'top/link': this locale (ascii) cannot write where it leads\n"
        assert receiver.stdout.read() == said
    assert names_in(inbox) == [b"top"]
