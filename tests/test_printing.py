"""Names that command a terminal or mislead a reader: whatever shows them, on either side, shows escapes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import spaceblock
from commands import Commands, Ended
from spaceblock import Item

LOCAL = ("--listen", "127.0.0.1:0")

HOSTILE = "a\x1b[2J\x1b]0;title\x07\u202egpj\u2066\u200b\u2028\x85\x9b31m\x08\x7f\rFAKE\nFAKE\tFAKE"
"""It clears the screen, sets a title, rings, turns the direction, and begins lines of its own."""

RAW = ["\x1b[2J", "\x1b]", "\x07", "\u202e", "\u2066", "\u200b", "\u2028", "\x85", "\x9b", "\x08", "\x7f", "\tFAKE"]
ESCAPED = r"a\x1b[2J\x1b]0;title\x07\u202egpj"


def assert_safe(text: str, *, shows: bool = True) -> None:
    """Nothing of a hostile name comes through as it is; that it was meant to be shown at all is checked too."""
    assert [raw for raw in RAW if raw in text] == []
    assert re.search(r"[\r\n]FAKE", text) is None, "a line that a name begins"
    if shows:
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]", "", text).replace("\\\\", "\\")
        assert ESCAPED in plain, plain


def assert_all_safe(ended: Ended) -> None:
    """Whatever a command wrote."""
    assert_safe(ended.err)
    assert_safe(ended.out, shows=False)


async def receive(
    commands: Commands,
    inbox: Path,
    *items: Item,
    keys: dict[str, str],
    words: tuple[str, ...],
    links: Literal["skip", "copy"] = "skip",
) -> Ended:
    """What a receiver on a terminal shows of an offer; ``keys`` are what to type after which words."""
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", *words, terminal=True)
    line = await asyncio.to_thread(receiver.read_line)
    ticket = json.loads(line)["ticket"] if "--json" in words else line
    async with spaceblock.connect(ticket) as peer:
        sending = peer.send(*items, links=links)
        for question, answer in keys.items():
            await asyncio.to_thread(receiver.terminal.wait_for, question)
            receiver.terminal.type(answer)
        try:
            await asyncio.wait_for(sending, 30)
        except spaceblock.SpaceblockError as error:
            assert_safe(str(error), shows=False)
    return await asyncio.to_thread(receiver.end)


async def test_an_offer_its_bar_and_its_receipt_are_shown_escaped(commands: Commands, inbox: Path) -> None:
    items = [Item(bytes(3_000_000), name=HOSTILE), Item(b"more", name=f"{HOSTILE}-folder/{HOSTILE}")]
    received = await receive(commands, inbox, *items, keys={"Accept? [y/N]": "y\n"}, words=())
    assert received.code == 0, received.err
    assert_all_safe(received)
    assert (inbox / HOSTILE).exists()
    assert received.err.count("BLAKE3") == 2


async def test_links_of_an_offer_are_shown_too(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    """Who accepts one file does not accept a link that would take another's place, unless told of it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x")
    (source / f"link{HOSTILE}").symlink_to("file")
    keys = {"Accept? [y/N]": "y\n"}
    received = await receive(commands, inbox, Item(source, name="copy"), keys=keys, links="copy", words=())
    assert received.code == 0, received.err
    assert_all_safe(received)
    assert "1 item and 1 symbolic link, 1 B" in received.err
    (line,) = [line for line in received.err.splitlines() if " -> " in line]
    assert line.split()[0] == "link"
    assert line.rstrip().endswith("-> file")


@pytest.mark.parametrize(
    ("count", "keys"),
    [(2, {"Accept? [y/N] ": "y\n"}), (30, {"  30 empty folders\r\nAccept? [y/N, l": "l\n", "copy/within/9": "y\n"})],
)
async def test_empty_folders_of_an_offer_are_shown_too(
    commands: Commands, inbox: Path, tmp_path: Path, count: int, keys: dict[str, str]
) -> None:
    """They are made like all else, and may be all that there is."""
    source = tmp_path / "source"
    for number in range(count):
        (source / "within" / f"{number}{HOSTILE}").mkdir(parents=True)
    received = await receive(commands, inbox, Item(source, name="copy"), keys=keys, words=())
    assert received.code == 0, received.err
    assert_all_safe(received)
    assert f"What  {count} empty folders, 0 B" in received.err
    assert received.err.count("   folder  copy/within/") == count
    assert len(list((inbox / "copy" / "within").iterdir())) == count


async def test_a_question_for_another_name_is_shown_escaped(commands: Commands, inbox: Path) -> None:
    keys = {"Accept? [y/N]": "y\n", "New name": "\n"}
    received = await receive(commands, inbox, Item(b"x", name=HOSTILE + "x" * 300), keys=keys, words=())
    assert received.code == 0, received.err
    assert_all_safe(received)
    assert "renamed" in received.err


async def test_an_error_with_a_name_is_shown_escaped(commands: Commands, inbox: Path) -> None:
    (inbox / HOSTILE).write_text("mine")
    for words in (("--yes", "--on-conflict", "error"), ("--yes", "--on-conflict", "error", "--json")):
        received = await receive(commands, inbox, Item(b"x", name=HOSTILE), keys={}, words=words)
        assert received.code == 6
        assert_all_safe(received)


async def test_what_is_skipped_or_taken_is_shown_escaped(commands: Commands, inbox: Path) -> None:
    (inbox / HOSTILE).write_text("x")
    for words, said in ((("--skip",), "there already"), (("--rename",), "renamed")):
        received = await receive(commands, inbox, Item(b"x", name=HOSTILE), keys={}, words=("--yes", *words))
        assert received.code == 0, received.err
        assert said in received.err
        assert_all_safe(received)


async def test_json_has_the_real_names_in_ascii(commands: Commands, inbox: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes", "--json")
    found = await asyncio.to_thread(receiver.read_until, lambda found: found["type"] == "ticket")
    async with spaceblock.connect(found["ticket"]) as peer:
        await peer.send(Item(b"x", name=HOSTILE))
    received = await asyncio.to_thread(receiver.end)
    assert received.out.isascii()
    assert all(line.isprintable() for line in received.out.splitlines())
    assert received.objects[-1]["items"][0]["name"] == HOSTILE


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    """A folder in which everything has such a name, and some things cannot be sent."""
    top = tmp_path / HOSTILE
    top.mkdir()
    (top / HOSTILE).write_bytes(bytes(3_000_000))
    (top / f"link {HOSTILE}").symlink_to("/outside")
    os.mkfifo(top / f"pipe {HOSTILE}")
    return top


@pytest.mark.parametrize("links", ["skip", "copy"])
def test_a_sender_shows_its_own_names_escaped(
    links: str, commands: Commands, hostile_folder: Path, inbox: Path
) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes", "-q")
    sender = commands.start("send", "--to", receiver.read_line(), "--links", links, hostile_folder, terminal=True)
    sent, received = sender.end(), receiver.end()
    assert (sent.code, received.code) == (0, 0), sent.err
    assert sent.err.count("left out") == 2
    assert_all_safe(sent)


@pytest.mark.parametrize("words", [(), ("--json",), ("--verbose",)])
def test_a_folder_full_of_links_fills_no_screen(
    commands: Commands, tmp_path: Path, inbox: Path, words: tuple[str, ...]
) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for number in range(50):
        (top / f"link{number:02}").symlink_to("elsewhere")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--yes", "-q")
    sent = commands.run("send", "--to", receiver.read_line(), *words, top)
    assert (sent.code, receiver.end().code) == (0, 0), sent.err
    named = [line for line in sent.err.splitlines() if "left out" in line]
    assert len(named) == (50 if "--verbose" in words else 20)
    assert named[19].endswith("/link19: it is a link, and links are copied only if asked for")
    assert ("spaceblock: and 30 more warnings: --verbose prints all" in sent.err) == ("--verbose" not in words)


@pytest.mark.parametrize("debug", ["0", "1"])
def test_a_path_that_is_not_there_is_shown_escaped(debug: str, commands: Commands, tmp_path: Path) -> None:
    ended = commands.run("send", *LOCAL, tmp_path / HOSTILE, terminal=True, SPACEBLOCK_DEBUG=debug)
    assert ended.code == 6
    assert ("Traceback" in ended.err) == (debug == "1")
    assert_all_safe(ended)
    receiver = commands.start("receive", *LOCAL, "--dir", tmp_path / HOSTILE, terminal=True, SPACEBLOCK_DEBUG=debug)
    receiver.terminal.wait_for("Make it? [Y/n]")
    receiver.terminal.type("n\n")
    ended = receiver.end()
    assert ended.code == 6
    assert_all_safe(ended)


def test_a_folder_of_such_a_name_can_be_received_into(commands: Commands, tmp_path: Path) -> None:
    target = tmp_path / HOSTILE
    target.mkdir()
    (tmp_path / "x").write_text("x")
    receiver = commands.start("receive", *LOCAL, "--dir", target, "--once", "--yes", terminal=True)
    assert commands.run("send", "--to", receiver.read_line(), tmp_path / "x").code == 0
    received = receiver.end()
    assert (target / "x").exists()
    assert_all_safe(received)


async def test_errors_of_the_library_and_their_tracebacks_are_safe_to_print(
    inbox: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, hostile_folder: Path
) -> None:
    caplog.set_level(logging.DEBUG, "spaceblock")
    (inbox / HOSTILE).write_text("mine")
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        there = await anext(listener.peers())
        offers = there.offers()
        long = Item(b"x", name=HOSTILE + "x" * 300)
        cases: list[tuple[Callable[[], spaceblock.Transfer], Any]] = [
            (lambda: peer.send(tmp_path / "missing" / HOSTILE), None),
            (lambda: peer.send(Item(b"x", name=f"../{HOSTILE}")), None),
            (lambda: peer.send(hostile_folder / f"pipe {HOSTILE}"), None),
            (lambda: peer.send(Item(b"x", name=HOSTILE)), {"folder": inbox, "on_conflict": "error"}),
            (lambda: peer.send(Item(b"x", name=HOSTILE)), {"folder": inbox / HOSTILE / HOSTILE}),
            (lambda: peer.send(long), {"folder": inbox}),
            (lambda: peer.send(long, rename=lambda item, problem: 1 / 0), {"folder": inbox}),  # type: ignore[arg-type, return-value]
            (lambda: peer.send(long, rename=lambda item, problem: HOSTILE + "/.."), {"folder": inbox}),
            (lambda: peer.send(Item(b"x", name="x")), HOSTILE),
        ]
        shown = 0
        for send, choices in cases:
            ends: list[Any] = [send()]
            if isinstance(choices, dict):
                ends.append((await anext(offers)).accept(**choices))
            elif choices is not None:
                await (await anext(offers)).decline(choices)
            for end in ends:
                with pytest.raises(spaceblock.SpaceblockError) as caught:
                    await asyncio.wait_for(end, 30)
                error = caught.value
                assert str(error).isprintable()
                for text in (str(error), repr(error), error.told(), "".join(traceback.format_exception(error))):
                    shown += ESCAPED in text.replace("\\\\", "\\")
                    assert_safe(text, shows=False)
    assert shown > 20
    for record in caplog.records:
        assert_safe(record.getMessage(), shows=False)
