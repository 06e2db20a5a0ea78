"""Commands whose user goes: Ctrl-C at a question or a bar, a window that is closed, an offer that is taken back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import spaceblock
from commands import Command, Commands
from spaceblock import Item
from support import pattern
from test_screens import screen_of

AGAIN = "; give the same command again when the other side is ready, and it goes on from what arrived"


def receiver_of(commands: Commands, tmp_path: Path, size: int = 300_000) -> Command:
    """A receiver on a terminal, and beside its inbox a file of so many bytes to send to it."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "movie.mov").write_bytes(pattern(size))
    return commands.start("receive", "--listen", "127.0.0.1:0", "--dir", tmp_path / "inbox", terminal=True)


@pytest.fixture
def asked(commands: Commands, tmp_path: Path) -> tuple[Command, Command]:
    """A receiver on a terminal that asks about an offer, and the sender that waits on another."""
    receiver = receiver_of(commands, tmp_path)
    sender = commands.start("send", "--to", receiver.read_line(), tmp_path / "movie.mov", terminal=True)
    receiver.terminal.wait_for("Accept? [y/N]")
    sender.terminal.wait_for("waiting for the receiver's user")
    return receiver, sender


def test_a_receiver_whose_window_is_closed_tells_the_sender(asked: tuple[Command, Command], tmp_path: Path) -> None:
    receiver, sender = asked
    receiver.terminal.hang_up()
    assert receiver.end().code == 128 + signal.SIGHUP
    ended = sender.end()
    said = " ".join(line.strip() for line in screen_of(ended.err, 100))
    told = {1: f"spaceblock: the receiver cancelled the transfer{AGAIN}", 3: "spaceblock: the receiver declined"}
    assert said == told[ended.code], "the second where the end of what is typed was seen before the signal"
    assert os.listdir(tmp_path / "inbox") == []


def test_a_sender_whose_window_is_closed_tells_the_receiver_who_is_not_asked_any_more(
    asked: tuple[Command, Command],
) -> None:
    receiver, sender = asked
    sender.terminal.hang_up()
    assert sender.end().code == 128 + signal.SIGHUP
    receiver.terminal.wait_for("the sender cancelled the transfer; give the same command again")
    assert receiver.end(signal.SIGINT).code == 130


def test_after_an_offer_that_was_taken_back_the_next_is_asked_about(
    asked: tuple[Command, Command], commands: Commands, tmp_path: Path
) -> None:
    receiver, sender = asked
    assert sender.end(signal.SIGINT).code == 130
    receiver.terminal.wait_for("the sender cancelled the transfer")
    sender = commands.start("send", "--to", receiver.read.strip(), tmp_path / "movie.mov", terminal=True)
    receiver.terminal.wait_for("Accept? [y/N]", times=2)
    receiver.terminal.type("y\n")
    assert sender.end().code == 0
    assert receiver.end(signal.SIGINT).code == 130
    assert (tmp_path / "inbox" / "movie.mov").read_bytes() == pattern(300_000)


def test_what_was_typed_before_a_question_is_no_answer_to_it(commands: Commands, tmp_path: Path) -> None:
    receiver = receiver_of(commands, tmp_path)
    ticket = receiver.read_line()
    receiver.terminal.type("y\n")
    receiver.terminal.wait_for("y\r\n")
    sender = commands.start("send", "--to", ticket, tmp_path / "movie.mov")
    receiver.terminal.wait_for("Accept? [y/N]")
    receiver.terminal.type("n\n")
    assert sender.end().code == 3
    assert receiver.end(signal.SIGINT).code == 130
    assert os.listdir(tmp_path / "inbox") == []


@pytest.fixture(params=["send --to - movie.mov", "receive -", "receive --dir missing"])
def before_anything(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Command:
    """A command that asks for something before it does anything."""
    (tmp_path / "movie.mov").touch()
    monkeypatch.chdir(tmp_path)
    command = commands.start(*request.param.split(), terminal=True)
    command.terminal.wait_for("Make it? [Y/n] " if "missing" in request.param else "Ticket: ")
    return command


def test_an_interrupt_at_a_first_question(before_anything: Command) -> None:
    before_anything.terminal.type("\x03")
    ended = before_anything.end()
    assert (ended.code, ended.out) == (130, "")
    question, end = screen_of(ended.err, 100)
    assert question.startswith(("Ticket:", "There is no folder 'missing'. Make it? [Y/n]"))
    assert end == "spaceblock: interrupted"
    assert not Path("missing").exists()


def test_a_window_that_is_closed_at_a_first_question(before_anything: Command) -> None:
    before_anything.terminal.hang_up()
    ended = before_anything.end()
    assert (ended.code, ended.out) == (128 + signal.SIGHUP, "")
    assert not Path("missing").exists()


def test_the_end_of_what_is_typed_is_no_answer(before_anything: Command) -> None:
    before_anything.terminal.type("\x04")
    assert before_anything.end().code == 130
    assert not Path("missing").exists()


def test_what_was_asked_stays_above_the_end(asked: tuple[Command, Command]) -> None:
    receiver, _ = asked
    ended = receiver.end(signal.SIGINT)
    assert screen_of(ended.err, 100)[-2:] == ["Accept? [y/N]", "spaceblock: interrupted"]


@pytest.mark.parametrize("typed", ["\x04", "maybe\n", "no\n"])
def test_whatever_is_not_yes_is_no(asked: tuple[Command, Command], tmp_path: Path, typed: str) -> None:
    receiver, sender = asked
    receiver.terminal.type(typed)
    assert sender.end().code == 3
    receiver.terminal.wait_for("the offer was declined")
    lines = screen_of(receiver.end(signal.SIGINT).err, 100)
    assert lines[-3].rstrip() == f"Accept? [y/N] {typed.strip()}".replace("\x04", "").rstrip()
    assert lines[-2] == "spaceblock: the offer was declined: answer y to accept the next"
    assert os.listdir(tmp_path / "inbox") == []


@pytest.mark.parametrize(("key", "code"), [("\x03", 130), ("\x04", 7)])
@pytest.mark.parametrize("who", ["sender", "receiver"])
async def test_a_question_about_a_name_that_has_no_answer(
    commands: Commands, tmp_path: Path, who: str, key: str, code: int
) -> None:
    (tmp_path / "inbox").mkdir()
    async with spaceblock.listen("127.0.0.1") as listener:
        if who == "sender":
            paths = [tmp_path / os.fsdecode(name) for name in (b"a\xff", b"b\xff")]
            for path in paths:
                path.touch()
            asked = commands.start("send", "--to", listener.ticket, *paths, terminal=True)
        else:
            words = ("receive", listener.ticket, "--dir", tmp_path / "inbox", "--once")
            asked = commands.start(*words, terminal=True)
            peer = await anext(aiter(listener.peers()))
            sending = peer.send(*[Item(b"x", name=letter * 300) for letter in "ab"])
            await asyncio.to_thread(asked.terminal.wait_for, "Accept? [y/N]")
            asked.terminal.type("y\n")
        await asyncio.to_thread(asked.terminal.wait_for, "proposals): ")
        asked.terminal.type(key)
        ended = await asyncio.to_thread(asked.end)
        if who == "receiver":
            error = spaceblock.NameRejected if code == 7 else spaceblock.TransferCancelled
            with pytest.raises(error):
                await asyncio.wait_for(sending, 30)
    assert ended.code == code, ended.err
    assert ended.err.count("New name") == 1
    said = screen_of(ended.err, 100)
    assert any(line.startswith("spaceblock:") for line in said), "what is said begins on a line of its own"
    assert os.listdir(tmp_path / "inbox") == []


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_the_sign_that_a_terminal_shows_for_an_interrupt_leaves_no_bar_behind(
    commands: Commands, tmp_path: Path, columns: int
) -> None:
    receiver = receiver_of(commands, tmp_path, 3_000_000)
    sender = commands.start("send", "--to", receiver.read_line(), tmp_path / "movie.mov", terminal=columns)
    receiver.terminal.wait_for("Accept? [y/N]")
    sender.terminal.wait_for("waiting for")
    sender.terminal.type("\x03")
    ended = sender.end()
    assert ended.code == 130
    assert " ".join(line.strip() for line in screen_of(ended.err, columns)) == "spaceblock: interrupted"


SHELL = 'set -m; "$@"; while code=$?; [ "$code" = 148 ]; do echo is stopped >&2; read _; fg >&2; done; exit "$code"'
"""One with jobs, which goes on when Enter is pressed."""

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


def test_a_command_that_its_user_stops_gives_the_cursor_back_and_goes_on_drawing(
    commands: Commands, tmp_path: Path
) -> None:
    receiver = receiver_of(commands, tmp_path)
    words = ("send", "--to", receiver.read_line(), tmp_path / "movie.mov")
    sender = commands.start(*words, terminal=True, shell=SHELL)
    sender.terminal.wait_for("waiting for the receiver's user")
    sender.terminal.type("\x1a")
    sender.terminal.wait_for("is stopped")
    stopped = sender.terminal.written
    assert stopped.rindex(SHOWN) > stopped.rindex(HIDDEN)
    assert not any("movie.mov" in line for line in screen_of(stopped, 100))
    sender.terminal.type("\n")
    sender.terminal.wait_for(HIDDEN, times=stopped.count(HIDDEN) + 1)
    sender.terminal.wait_for("waiting for the receiver's user", times=stopped.count("receiver's user") + 1)
    sender.terminal.type("\x1a")
    sender.terminal.wait_for("is stopped", times=2)
    sender.terminal.type("\n")
    receiver.terminal.wait_for("Accept? [y/N]")
    receiver.terminal.type("y\n")
    ended = sender.end()
    assert ended.code == 0
    assert ended.err.rindex(SHOWN) > ended.err.rindex(HIDDEN)
    assert receiver.end(signal.SIGINT).code == 130


def test_a_command_that_goes_on_in_the_background_leaves_the_cursor_alone(commands: Commands, tmp_path: Path) -> None:
    receiver = receiver_of(commands, tmp_path)
    words = ("send", "--to", receiver.read_line(), tmp_path / "movie.mov")
    sender = commands.start(*words, terminal=True, shell='set -m; "$@"; bg >&2; echo behind >&2; wait %1')
    sender.terminal.wait_for("waiting for the receiver's user")
    sender.terminal.type("\x1a")
    sender.terminal.wait_for("behind")
    receiver.terminal.wait_for("Accept? [y/N]")
    receiver.terminal.type("y\n")
    ended = sender.end()
    assert ended.code == 0
    before, _, after = ended.err.partition("behind")
    assert before.rindex(SHOWN) > before.rindex(HIDDEN)
    assert HIDDEN not in after
    assert "verified on both ends" in ended.err
    assert receiver.end(signal.SIGINT).code == 130
