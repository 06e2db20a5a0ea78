"""Names that cannot be used, on the command line: questions on a terminal, proposals unasked, and safe printing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import spaceblock
from bad_names import BAD, FORTY, GOOD, is_complete, leads_to_the_copy, write_forty
from commands import Commands
from e2e.disks import odd_disk
from spaceblock import Item, NameRules
from spaceblock.wire.messages import NameUnit, System

WINDOWS = NameRules(System.WINDOWS, 100, NameUnit.UTF16, 400)
LOCAL = ("--listen", "127.0.0.1:0")


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """A folder whose names another system would not take, but for a few."""
    return write_forty(tmp_path / "forty")


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
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--to", listener.ticket, forty, terminal=True)
        # What is no text is asked for before the offer; then two names are given by hand, and the rest is taken.
        await asyncio.to_thread(sender.terminal.wait_for, "New name")
        sender.terminal.type("\n" * 4)
        sender.terminal.type("what?\n")
        sender.terminal.type("what\n")
        sender.terminal.type("mine/by hand.txt\n")
        sender.terminal.type("!\n")
        receipt = await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 0, sent.err
    assert is_complete(inbox)
    assert len(receipt.items) == len(FORTY) + len(GOOD)
    assert all(WINDOWS.fault(item.path or "") is None for item in receipt.items)
    assert (inbox / "forty" / "what").exists(), "a name without a folder stays in its folder"
    assert (inbox / "mine" / "by hand.txt").exists()
    assert "contains '?', which Windows does not allow" in sent.err, "an answer that would not do is asked again"
    assert f"sent {len(receipt.items)} items" in sent.err
    assert sent.err.count("New name") == 4 + 3 + 1, "nobody was asked any more after '!'"


def test_forty_bad_names_end_in_a_complete_copy_by_questions_on_a_disk_that_knows_them_not(
    commands: Commands, forty: Path, tmp_path: Path
) -> None:
    """Two real processes, and a real disk that follows Windows' rules."""
    with odd_disk(tmp_path / "disk", system="windows") as disk:
        receiver = commands.start("receive", *LOCAL, "--dir", disk, "--yes", "--once", "--json")
        ticket = receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]
        sender = commands.start("send", "--to", ticket, forty, terminal=True)
        sender.terminal.wait_for("New name")
        sender.terminal.type("\n" * 20)
        sender.terminal.type("!\n")
        sent, received = sender.end(), receiver.end()
        assert (sent.code, received.code) == (0, 0), sent.err
        assert is_complete(disk)
        renamed = received.objects[-1]["renamed"]
        # It was offered under other names where it had none that is text.
        assert len(renamed) == sum(len(names) for kind, names in BAD.items() if kind not in ("no text", "too long"))
        assert all((disk / place).exists() for place in renamed.values())
    assert sent.err.count("New name") == 21
    for raw in ("\x07", "\x1b[2J", "\u202e"):
        assert raw not in sent.err


async def test_a_question_breaks_between_words(
    commands: Commands, tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "con.txt").touch()
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--to", listener.ticket, tmp_path / "papers", terminal=60)
        await asyncio.to_thread(sender.terminal.wait_for, "proposals): ")
        sender.terminal.type("\n")
        await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 0, sent.err
    assert "'papers/con.txt' has a part that is the name of a Windows\r\n  device\r\n" in sent.err
    assert "New name (Enter: 'papers/con_.txt', !: that and all further\r\n  proposals): " in sent.err


async def test_proposals_can_be_taken_unasked(
    commands: Commands, forty: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--json", "--fix-names", "--to", listener.ticket, forty)
        await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 0, sent.err
    assert is_complete(inbox)
    assert leads_to_the_copy(sent.objects[-1]["renamed"], inbox, "forty")
    assert sent.out.isascii(), "names travel in JSON as escapes"


async def test_without_a_terminal_the_names_are_refused_with_an_exit_code_of_their_own(
    commands: Commands, forty: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        sent = await asyncio.to_thread(commands.run, "send", "--to", listener.ticket, forty)
        assert sent.code == 7
        assert "is not valid Unicode" in sent.err
        for name in BAD["no text"]:
            (forty / name).unlink()
        taking = asyncio.ensure_future(take(listener, inbox, monkeypatch))
        sender = commands.start("send", "--to", listener.ticket, forty)
        with pytest.raises(spaceblock.NameRejected, match="more names cannot be used"):
            await asyncio.wait_for(taking, 30)
        sent = await asyncio.to_thread(sender.end)
    assert sent.code == 7
    assert "spaceblock: the name 'forty/" in sent.err
    assert sent.err.endswith("with --fix-names what is proposed is taken for every such name\n")
    assert os.listdir(inbox) == []


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


@pytest.mark.parametrize("ways", [("--skip", "--on-conflict", "overwrite"), ("--overwrite", "--rename")])
def test_contradicting_choices_are_refused(commands: Commands, ways: tuple[str, ...]) -> None:
    ended = commands.run("receive", *ways)
    assert ended.code == 2
    assert "choose one of them" in ended.err
