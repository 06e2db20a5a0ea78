"""The command line as its users meet it: real processes, their exit codes, and what they write where."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

import spaceblock
from commands import Commands, Ended
from spaceblock.cli import main
from spaceblock.names import STAGING_PREFIX
from spaceblock.process.interrupts import COMMAND_SIGNALS
from spaceblock.trust.tickets import Ticket
from support import uncounted

LOCAL = ("--listen", "127.0.0.1:0")
SEND_HINT = "On the other computer run: spaceblock send --to TICKET PATH"
RECEIVE_HINT = "On the other computer run: spaceblock receive TICKET"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A file to send."""
    path = tmp_path / "report.pdf"
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that takes seconds to send."""
    monkeypatch.setenv("SPACEBLOCK_ENGINE", "aioquic")  # the slower one
    path = tmp_path / "video.mp4"
    with open(path, "wb") as file:
        for _ in range(200):
            file.write(bytes(1_000_000))
    return path


def hexdigest(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()


# What it does.


def test_a_file_and_a_folder_arrive(commands: Commands, inbox: Path, report: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "holiday").mkdir(parents=True)
    (photos / "holiday" / "beach.jpg").write_bytes(b"sand")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    ticket = receiver.read_line()
    sent = commands.run("send", "--to", ticket, report, photos)
    received = receiver.end()
    assert (sent.code, received.code) == (0, 0), (sent, received)
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()
    assert (inbox / "photos" / "holiday" / "beach.jpg").read_bytes() == b"sand"
    # Standard output holds the ticket and nothing else; people read the rest on standard error.
    assert (sent.out, received.out) == ("", ticket + "\n")
    assert SEND_HINT in received.err.splitlines()
    for side in (sent, received):
        assert f"BLAKE3 {hexdigest(report)}  report.pdf" in side.err.splitlines()
        assert re.search(r"(sent|received) 2 items, 300 kB in .* verified on both ends$", side.err.rstrip())
        assert "\x1b" not in side.err


def test_a_listening_sender_serves_a_receiver(commands: Commands, inbox: Path, report: Path) -> None:
    sender = commands.start("send", *LOCAL, report)
    received = commands.run("receive", sender.read_line(), "--dir", inbox, "--yes")
    sent = sender.end()
    assert (sent.code, received.code) == (0, 0), (sent, received)
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()
    assert RECEIVE_HINT in sent.err.splitlines()
    assert received.out == ""


def test_json_tells_programs_everything(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "--json")
    ticket = receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]
    sent = commands.run("send", "--json", "--to", ticket, report)
    received = receiver.end()
    kinds = [found["type"] for found in received.objects]
    assert kinds == ["ticket", "offer", *["progress"] * (len(kinds) - 3), "complete"]
    assert received.objects[1]["items"] == [{"index": 0, "name": "report.pdf", "size": 300_000}]
    assert received.objects[-2]["bytes_done"] == received.objects[-2]["bytes_total"] == 300_000
    for side in (sent, received):
        complete = side.objects[-1]
        assert (complete["type"], complete["bytes"]) == ("complete", 300_000)
        assert complete["seconds"] > 0
        item = complete["items"][0]
        assert (item["name"], item["size"], item["digest"]) == ("report.pdf", 300_000, hexdigest(report))
        assert (side.code, side.err) == (0, "")


def test_a_receiver_goes_on_and_takes_several_at_once(
    commands: Commands, inbox: Path, report: Path, video: Path
) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--json")
    ticket = receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]
    long = commands.start("send", "--to", ticket, video)
    first = receiver.read_until(lambda found: found["type"] == "offer")
    # The same peer may come again with its ticket, here while its first transfer still runs.
    assert commands.run("send", "--to", ticket, report).code == 0
    done = receiver.read_until(lambda found: found["type"] == "complete")
    assert done["transfer"] != first["transfer"]
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()
    assert receiver.end(signal.SIGINT).code == 130
    assert long.end().code == 1


def test_many_items_have_a_summary_instead_of_digests(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(21):
        (folder / str(number)).touch()
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    sent = commands.run("send", "--to", receiver.read_line(), folder)
    assert "BLAKE3 " not in sent.err
    assert "sent 21 items, 0 B" in sent.err
    assert receiver.end().code == 0


def test_quiet_leaves_tickets_and_errors(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "--quiet")
    assert commands.run("send", "-q", "--to", receiver.read_line(), report).err == ""
    assert receiver.end().err == ""
    assert commands.run("send", "-q", "missing").err.startswith("spaceblock: cannot send 'missing'")


def test_what_is_there_is_renamed_or_skipped_as_asked(commands: Commands, inbox: Path, report: Path) -> None:
    (inbox / "report.pdf").write_text("mine")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--json", "--on-conflict", "skip")
    ticket = receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]
    sent = commands.run("send", "--to", ticket, report)
    assert receiver.read_until(lambda found: found["type"] == "complete")["items"][0]["skipped"] is True
    assert receiver.end(signal.SIGTERM).code == 143
    assert "skipped, something else has its name: report.pdf" in sent.err
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    sent = commands.run("send", "--to", receiver.read_line(), report)
    assert receiver.end().code == sent.code == 0
    assert "  report (1).pdf" in sent.err
    assert (inbox / "report.pdf").read_text() == "mine"
    assert (inbox / "report (1).pdf").read_bytes() == report.read_bytes()


# Where a ticket comes from.


def test_a_ticket_from_the_environment_or_a_file(commands: Commands, inbox: Path, report: Path, tmp_path: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes")
    ticket = receiver.read_line()
    kept = tmp_path / "ticket.txt"
    kept.write_text(f"  {ticket}\n")
    assert commands.run("send", "--ticket-file", kept, report).code == 0
    assert commands.run("send", report, SPACEBLOCK_TICKET=ticket).code == 0
    assert sorted(path.name for path in inbox.iterdir()) == ["report (1).pdf", "report.pdf"]
    assert receiver.end(signal.SIGINT).code == 130


def test_a_ticket_typed_at_a_prompt_is_not_shown(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    ticket = receiver.read_line()
    sender = commands.start("send", "--to", "-", report, terminal=True)
    sender.terminal.wait_for("Ticket")
    sender.terminal.type(ticket + "\n")
    sent = sender.end()
    assert (sent.code, receiver.end().code) == (0, 0)
    assert ticket not in sent.err


def test_a_trusted_peer_needs_no_ticket_of_its_own(commands: Commands, inbox: Path, report: Path) -> None:
    friend = commands.run("id", home="friend")
    assert re.fullmatch(r"[a-z2-7]{52}\n", friend.out)
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--trust", friend.out.strip())
    ticket = receiver.read_line()
    assert commands.run("send", "--to", ticket, report).code == 0
    assert commands.run("send", "--to", ticket, report, home="friend").code == 0
    assert receiver.end(signal.SIGINT).code == 130


# On a terminal.


def test_a_question_then_a_bar(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil\x1b[2J.bin"
    evil.write_bytes(bytes(5_000_000))
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", terminal=True)
    ticket = receiver.read_line()
    sender = commands.start("send", "--to", ticket, evil, terminal=True, NO_COLOR="1")
    receiver.terminal.wait_for("Accept? [y/N]")
    sender.terminal.wait_for("waiting for the receiver's user")
    receiver.terminal.type("y\n")
    sent, received = sender.end(), receiver.end()
    assert (sent.code, received.code) == (0, 0)
    assert (inbox / evil.name).read_bytes() == bytes(5_000_000)
    question, _, after = received.err.partition("Accept?")
    sender_id = commands.run("id", home="send").out.strip()
    assert f"From  {sender_id}\r\nWhat  1 item, 5.00 MB\r\nInto  {inbox} (" in question
    assert "  5.00 MB  evil\\x1b[2J.bin" in question
    for shown in (after, sent.err):
        assert "━━━" in shown
        assert " of 5.00 MB" in shown
        assert f"BLAKE3 {blake3(bytes(5_000_000)).hexdigest()}  evil\\x1b[2J.bin" in shown
        assert "\x1b[2J" not in shown
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor is back
    assert "\x1b[38;" in received.err
    assert "\x1b[38;" not in sent.err


def test_no_is_told_to_the_sender(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", terminal=True)
    sender = commands.start("send", "--to", receiver.read_line(), report)
    receiver.terminal.wait_for("Accept? [y/N]")
    receiver.terminal.type("\n")
    sent, received = sender.end(), receiver.end()
    assert (sent.code, received.code) == (3, 3)
    assert "spaceblock: the receiver declined" in sent.err
    assert list(inbox.iterdir()) == []


def test_interrupting_the_question(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, terminal=True)
    sender = commands.start("send", "--to", receiver.read_line(), report)
    receiver.terminal.wait_for("Accept? [y/N]")
    assert receiver.end(signal.SIGINT).code == 130
    assert sender.end().code == 1


# How it ends when something is wrong.


def assert_failed(ended: Ended, code: int, words: str) -> None:
    """One sentence on standard error, and the exit code."""
    assert (ended.code, ended.out) == (code, ""), ended
    assert "Traceback" not in ended.err
    sentences = [line for line in ended.err.splitlines() if line.startswith("spaceblock: ")]
    assert len(sentences) == 1, ended.err
    assert words in sentences[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["send"], "missing argument"),
        (["send", "-", "-"], "standard input can be sent once"),
        (["send", "-", "--to", "-"], "cannot be both the ticket and a path"),
        (["send", "a", "--name", "b"], "--name is for standard input"),
        (["send", "a/same", "b/same"], "2 paths are called 'same'"),
        (["send", "--to", "-", "report.pdf"], "takes a terminal"),
        (["send", "--to", "word", __file__], "is neither a ticket nor the name"),
        (["send", "--to", "word", "--listen", "127.0.0.1:0", __file__], "--listen is for the side that listens"),
        (["send", "--to", "word", "--ticket-file", __file__, __file__], "choose one of them"),
        (["receive", "--listen", "nowhere:x"], "'nowhere:x' is not an address"),
        (["receive", "--trust", "somebody"], "--trust: this is not a peer ID"),
        (["receive", "--timeout", "0"], "--timeout"),
        (["receive", "--bogus"], "--bogus"),
        (["fetch"], "fetch"),
    ],
)
def test_wrong_usage(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in COMMAND_SIGNALS}
    code = main(words)  # in this process, which is quicker
    for number, handler in before.items():
        signal.signal(number, handler)
    assert_failed(Ended(code, *capsys.readouterr()), 2, sentence)


def test_errors_as_json(commands: Commands) -> None:
    ended = commands.run("send", "--json", "--to", "word", __file__)
    assert ended.code == 2
    assert [(found["type"], found["code"]) for found in ended.objects] == [("error", "ticket_malformed")]
    assert ended.objects[0]["message"] in ended.err


def test_a_missing_source_or_folder_is_found_before_anything_is_tried(commands: Commands, tmp_path: Path) -> None:
    assert_failed(commands.run("send", tmp_path / "missing"), 6, "no such file or directory; check the path")
    assert_failed(commands.run("send", "/dev/null"), 6, "neither a file nor a folder: redirect it")
    assert_failed(commands.run("receive", "--dir", tmp_path / "missing"), 6, "create the folder or choose another")
    assert_failed(commands.run("receive", "--dir", __file__), 6, "not a directory; choose a folder")


@pytest.mark.parametrize("name", ["downloads", "downloads/2026/from desk"])
def test_a_missing_folder_is_made_when_wanted(commands: Commands, report: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    receiver = commands.start("receive", *LOCAL, "--dir", folder, "--yes", "--once", terminal=True)
    receiver.terminal.wait_for("Make it? [Y/n]")
    assert not folder.exists()
    receiver.terminal.type("\n")
    assert commands.run("send", "--to", receiver.read_line(), report).code == 0
    assert receiver.end().code == 0
    assert (folder / report.name).read_bytes() == report.read_bytes()


@pytest.mark.parametrize(
    ("folder", "answer", "sentence"),
    [("missing", "n", "create the folder or choose another"), ("file/inner", "y", "cannot make the folder")],
)
def test_a_missing_folder_that_is_not_made(
    commands: Commands, tmp_path: Path, folder: str, answer: str, sentence: str
) -> None:
    (tmp_path / "file").touch()
    receiver = commands.start("receive", *LOCAL, "--dir", tmp_path / folder, terminal=200)
    receiver.terminal.wait_for("Make it? [Y/n]")
    receiver.terminal.type(f"{answer}\n")
    ended = receiver.end()
    assert (ended.code, ended.out) == (6, "")
    assert sentence in ended.err
    assert not (tmp_path / "missing").exists()


def test_a_folder_that_vanished_is_told_to_both(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    ticket = receiver.read_line()
    inbox.rmdir()
    assert_failed(commands.run("send", "--to", ticket, report), 6, "no such file or directory")
    assert receiver.end().code == 6


def test_nobody_there(commands: Commands, report: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        nobody = Ticket(bytes(32), (silent.getsockname(),), bytes(16), bytes(32), 4_000_000_000).encode()
        ended = commands.run("send", "--timeout", "0.3", "--to", nobody, report)
    assert_failed(ended, 4, "127.0.0.1")


def test_without_a_terminal_nothing_is_accepted_unasked(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once")
    assert_failed(commands.run("send", "--to", receiver.read_line(), report), 3, "start it with --yes there")
    received = receiver.end()
    assert received.code == 3
    assert "use --yes" in received.err
    assert list(inbox.iterdir()) == []


def test_a_ticket_that_another_peer_used(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes")
    ticket = receiver.read_line()
    assert commands.run("send", "--to", ticket, report).code == 0
    assert_failed(commands.run("send", "--to", ticket, report, home="other"), 3, "already used by another peer")
    assert receiver.end(signal.SIGINT).code == 130


def test_a_name_that_cannot_be_sent(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    reserved = tmp_path / ".spaceblock-mine"
    reserved.touch()
    sender = commands.start("send", *LOCAL, reserved)
    ticket = sender.read_line()
    received = commands.run("receive", ticket, "--dir", inbox, "--yes")
    sent = sender.end()
    assert sent.code == 7
    assert "spaceblock: the name '.spaceblock-mine'" in sent.err
    told = "without an offer" if "without an offer" in received.err else "before it greeted"  # whichever comes first
    assert_failed(received, 4, told)


async def test_a_sender_that_names_a_file_outside_the_folder(
    commands: Commands, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AnyName:
        def are_plain(self, names: list[str]) -> bool:
            return True

    monkeypatch.setattr("spaceblock.storage.sources.WIRE_RULES", AnyName())
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    async with spaceblock.connect(receiver.read_line()) as peer:
        with pytest.raises(spaceblock.NameRejected, match="could lead out of the folder"):
            await peer.send(spaceblock.Item(b"gotcha", name="../outside"))
    received = receiver.end()
    assert received.code == 7
    assert not (inbox.parent / "outside").exists()


async def test_a_sender_whose_digest_does_not_fit(
    commands: Commands, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spaceblock.protocol.sender import Sender

    honest = Sender.item_sent

    def lie(sender: Sender, item: int, size: int, digest: bytes) -> None:
        honest(sender, item, size, bytes(32))

    monkeypatch.setattr(Sender, "item_sent", lie)
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "--json")
    ticket = receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]
    async with spaceblock.connect(ticket) as peer:
        with pytest.raises(spaceblock.IntegrityError):
            await peer.send(spaceblock.Item(b"0123456789", name="numbers"))
    received = receiver.end()
    assert (received.code, received.objects[-1]["code"]) == (5, "integrity")
    (unfinished,) = os.listdir(inbox)
    assert unfinished.startswith(STAGING_PREFIX), "what arrived stays, but not under its name"


@pytest.mark.parametrize(
    ("interrupted", "number", "code"),
    [("send", signal.SIGINT, 130), ("receive", signal.SIGINT, 130), ("send", signal.SIGTERM, 143)],
)
def test_an_interrupt_is_told_to_the_other_side(
    commands: Commands, inbox: Path, video: Path, interrupted: str, number: signal.Signals, code: int
) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    sender = commands.start("send", "--json", "--to", receiver.read_line(), video)
    sender.read_until(lambda found: bool(found["type"] == "progress" and found["bytes_done"]))
    sides = {"send": sender, "receive": receiver}
    stopped = sides.pop(interrupted).end(number)
    (other,) = (side.end() for side in sides.values())
    assert (stopped.code, other.code) == (code, 1), (stopped.err, other.err)
    assert stopped.err.endswith("spaceblock: interrupted\n")
    if interrupted == "receive":  # the other one prints JSON
        assert "what arrived is kept: send the same again to go on from there\n" in stopped.err
    who = {"send": "sender", "receive": "receiver"}[interrupted]
    assert f"the {who} cancelled the transfer" in other.err
    assert all(name.startswith(STAGING_PREFIX) for name in os.listdir(inbox)), "what is durable stays, under no name"
    if interrupted == "send":
        last = stopped.objects[-1]
        assert (last["type"], last["code"], last["exit_code"]) == ("error", "interrupted", code)


def test_a_reader_that_went_away(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "spaceblock", "receive", *LOCAL, "--dir", str(inbox)],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 1
    assert ended.stderr.endswith("spaceblock: standard output was closed before the end: keep its reader running\n")


def test_debugging_shows_where_an_error_came_from(commands: Commands) -> None:
    ended = commands.run("send", "missing", SPACEBLOCK_DEBUG="1")
    assert ended.code == 6
    assert "Traceback" in ended.err


# How quickly it starts.


@pytest.mark.parametrize("words", [["--help"], ["send", "--help"], ["--version"], ["send"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    script = "import sys; from spaceblock.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    program = [sys.executable, "-c", script, *words]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, env=uncounted())
    loaded = set(ended.stderr.split())
    assert "click" in loaded
    assert not loaded & {"aioquic", "cryptography", "rich", "blake3", "sqlite3"}


def test_without_a_command_there_is_help(commands: Commands) -> None:
    ended = commands.run()
    assert ended.code == 2
    assert "Usage: spaceblock" in ended.err
