"""Names that cannot be used, on the command line: questions on a terminal, proposals unasked, and safe printing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import spaceblock
from commands import Commands
from spaceblock import Item, NameRules
from spaceblock.messages import NameUnit, System

WINDOWS = NameRules(System.WINDOWS, 100, NameUnit.UTF16, 400)
LOCAL = ("--listen", "127.0.0.1:0")

FORTY = [
    *[f"{ch}{number}.txt" for number, ch in enumerate('<>:"|?*\\')],
    *[f"control {number}{chr(number)}.txt" for number in (1, 7, 9, 10, 27, 31)],
    *["con", "PRN.txt", "aux.tar.gz", "nul", "COM1", "lpt9.log", "conin$"],
    *["dot.", "dots...", "space ", "dot. "],
    *["long" * 30 + ".txt", "é" * 110, "😀" * 55 + ".jpeg"],
    *["README", "readme", "ReadMe", "straße", "STRASSE", "caf\u00e9", "cafe\u0301"],
    *["folder:/inner", "folder:/aux", "/".join(["deep" * 20] * 5) + "/file"],
    *["evil\u202egpj.exe:", "ok too.txt"],
]


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """A folder whose names another system would not take, but for a few."""
    top = tmp_path / "forty"
    for name in FORTY:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return top


def contents(folder: Path) -> list[str]:
    return sorted(path.read_text() for path in folder.rglob("*") if path.is_file())


async def take(
    listener: spaceblock.Listener, inbox: Path, monkeypatch: pytest.MonkeyPatch, limits: NameRules = WINDOWS
) -> spaceblock.Receipt:
    """Accept the next offer into a folder that has the limits of another system."""
    monkeypatch.setattr("spaceblock.storage.folder.rules_of", lambda *_: limits)
    async for offer in listener:
        return await offer.accept(inbox)
    raise AssertionError


async def test_forty_bad_names_end_in_a_complete_copy_by_questions(
    commands: Commands, forty: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(FORTY) == 40
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--to", listener.ticket, forty, terminal=True)
        # The first question is about a folder, which is renamed by hand; the second about one more; then all is taken.
        await asyncio.to_thread(sender.terminal.wait_for, "New name")
        sender.terminal.type("mine\n")
        sender.terminal.type("what?\n")
        sender.terminal.type("chosen by hand\n")
        sender.terminal.type("!\n")
        receipt = await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 0, sent.err
    assert contents(inbox) == sorted(FORTY)
    assert len(receipt.items) == 40
    assert all(WINDOWS.fault(item.path or "") is None for item in receipt.items)
    assert (inbox / "forty" / "mine" / "inner").exists()
    assert any("chosen by hand" in (item.path or "") for item in receipt.items)
    assert "contains '?', which Windows does not allow" in sent.err, "an answer that would not do is asked again"
    assert "sent 40 items" in sent.err
    assert receipt.renamed["forty/folder:/inner"] == "forty/mine/inner"
    assert len(receipt.renamed) >= 35
    for raw in ("\x07", "\x1b7", "\x1b.", "\u202e"):
        assert raw not in sent.err


async def test_proposals_can_be_taken_unasked(
    commands: Commands, forty: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--json", "--fix-names", "--to", listener.ticket, forty)
        receipt = await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 0, sent.err
    assert contents(inbox) == sorted(FORTY)
    complete = sent.objects[-1]
    assert complete["renamed"] == dict(receipt.renamed)
    assert sent.out.isascii(), "names travel in JSON as escapes"


async def test_without_a_terminal_the_names_are_refused_with_an_exit_code_of_their_own(
    commands: Commands, forty: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--to", listener.ticket, forty)
        with pytest.raises(spaceblock.NameRejected, match="more names cannot be used"):
            await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 7
    assert "spaceblock: the name 'forty/" in sent.err
    assert contents(inbox) == []


async def test_the_receivers_user_is_asked_where_the_sender_cannot(commands: Commands, inbox: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", terminal=True)
    ticket = await asyncio.to_thread(receiver.read_line)
    async with spaceblock.connect(ticket) as peer:
        items = [Item(str(number).encode(), name=f"{number}{'x' * 300}.txt") for number in range(3)]
        sending = peer.send(*items)
        await asyncio.to_thread(receiver.terminal.wait_for, "Accept? [y/N]")
        receiver.terminal.type("y\n")
        await asyncio.to_thread(receiver.terminal.wait_for, "New name")
        receiver.terminal.type("folder/first.txt\nsecond.txt\n\n")
        receipt = await asyncio.wait_for(sending, 30)
    received = await asyncio.to_thread(receiver.end)
    assert received.code == 0, received.err
    paths = [item.path for item in receipt.items]
    assert paths == ["folder/first.txt", "second.txt", "2" + "x" * 250 + ".txt"]
    assert [(inbox / path).read_text() for path in paths if path] == ["0", "1", "2"]
    assert "renamed '0xxx" in received.err


async def test_a_receiver_that_was_told_yes_asks_nothing(commands: Commands, inbox: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes", terminal=True)
    async with spaceblock.connect(await asyncio.to_thread(receiver.read_line)) as peer:
        with pytest.raises(spaceblock.NameRejected):
            await asyncio.wait_for(peer.send(Item(b"x", name="x" * 300)), 30)
    assert (await asyncio.to_thread(receiver.end)).code == 7


async def test_a_receiver_can_fix_names_unasked(commands: Commands, inbox: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes", "--fix-names")
    async with spaceblock.connect(await asyncio.to_thread(receiver.read_line)) as peer:
        await asyncio.wait_for(peer.send(Item(b"x", name="x" * 300)), 30)
    assert (await asyncio.to_thread(receiver.end)).code == 0
    assert os.listdir(inbox) == ["x" * 255]


def test_two_paths_of_one_name_are_a_question_too(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text(folder)
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    paths = (tmp_path / "a" / "same.txt", tmp_path / "b" / "same.txt")
    sender = commands.start("send", "--to", receiver.read_line(), *paths, terminal=True)
    sender.terminal.wait_for("New name (Enter: 'same (1).txt'")
    sender.terminal.type("\n")
    assert (sender.end().code, receiver.end().code) == (0, 0)
    assert {path.name: path.read_text() for path in inbox.iterdir()} == {"same.txt": "a", "same (1).txt": "b"}


def test_a_repeated_send_is_compared_and_costs_nothing(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.pdf"
    report.write_bytes(os.urandom(100_000))
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--skip")
    ticket = receiver.read_line()
    assert commands.run("send", "--to", ticket, report).code == 0
    again = commands.run("send", "--to", ticket, report)
    assert again.code == 0
    assert "skipped, it was there already: report.pdf" in again.err
    assert "sent 0 items and skipped 1, 0 B" in again.err
    (inbox / "report.pdf").write_bytes(os.urandom(100_000))
    assert "skipped, something else has its name: report.pdf" in commands.run("send", "--to", ticket, report).err


def test_a_file_is_replaced_when_asked(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    (inbox / "x").write_text("old")
    (tmp_path / "x").write_text("new")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "--overwrite")
    assert commands.run("send", "--to", receiver.read_line(), tmp_path / "x").code == 0
    assert receiver.end().code == 0
    assert {path.name: path.read_text() for path in inbox.iterdir()} == {"x": "new"}


def test_contradicting_choices_are_refused(commands: Commands) -> None:
    ended = commands.run("receive", "--skip", "--on-conflict", "overwrite")
    assert ended.code == 2
    assert "choose one of them" in ended.err
