"""The same command again: a listener that was killed or interrupted is found where it was, by who has its ticket."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from commands import Command, Commands
from spaceblock.trust.tickets import Ticket

LOCAL = ("--listen", "127.0.0.1")
SLOWLY = ("--limit", "8M")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mkv"
    path.write_bytes(bytes(range(256)) * 131_072)
    return path


def ticket_of(command: Command) -> str:
    return str(command.read_until(lambda found: found["type"] == "ticket")["ticket"])


def port_of(ticket: str) -> int:
    return Ticket.parse(ticket).addresses[0][1]


def wait_for_bytes(command: Command) -> None:
    command.read_until(lambda found: bool(found["type"] == "progress" and found["durable"]))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_receiver_on_any_port_that_is_started_again(
    commands: Commands, inbox: Path, video: Path, how: signal.Signals
) -> None:
    receive = ("receive", *LOCAL, "--dir", inbox, "--yes", "--json")
    receiver = commands.start(*receive)
    ticket = ticket_of(receiver)
    send = ("send", *SLOWLY, "--json", "--to", ticket, video)
    sender = commands.start(*send)
    wait_for_bytes(sender)
    receiver.end(how)
    sender.end(signal.SIGKILL)

    receiver = commands.start(*receive)
    second = ticket_of(receiver)
    assert port_of(second) == port_of(ticket)
    sent = commands.run(*send)
    assert sent.code == 0, sent.err
    assert sent.objects[-1]["resumed"] > 0
    assert commands.run("send", "--to", second, video, home="somebody else").code == 0, "the new ticket is good too"
    receiver.end(signal.SIGINT)
    assert (inbox / video.name).read_bytes() == video.read_bytes()


def test_a_sender_that_listens_and_is_started_again(commands: Commands, inbox: Path, video: Path) -> None:
    send = ("send", *LOCAL, *SLOWLY, "--json", video)
    sender = commands.start(*send)
    ticket = ticket_of(sender)
    receive = ("receive", ticket, "--dir", inbox, "--yes", "--json")
    receiver = commands.start(*receive)
    wait_for_bytes(sender)
    for command in (sender, receiver):
        command.end(signal.SIGKILL)

    sender = commands.start(*send)
    assert port_of(ticket_of(sender)) == port_of(ticket)
    received = commands.run(*receive)
    sent = sender.end()
    assert (received.code, sent.code) == (0, 0), received.err + sent.err
    assert sent.objects[-1]["resumed"] > 0
    assert (inbox / video.name).read_bytes() == video.read_bytes()


@pytest.mark.parametrize("retry", [(), ("--retry", "0")], ids=["by itself", "not at all"])
def test_a_sender_goes_on_by_itself_when_the_receiver_is_started_again(
    commands: Commands, inbox: Path, video: Path, retry: tuple[str, ...]
) -> None:
    receive = ("receive", *LOCAL, "--dir", inbox, "--yes", "--json")
    receiver = commands.start(*receive)
    sender = commands.start("send", *SLOWLY, *retry, "--json", "--to", ticket_of(receiver), video)
    wait_for_bytes(sender)
    receiver.end(signal.SIGKILL)
    receiver = commands.start(*receive)
    ticket_of(receiver)
    sent = sender.end()
    receiver.end(signal.SIGINT)
    if retry:
        assert (sent.code, sent.objects[-1]["code"]) == (4, "connection_lost"), sent
        return
    assert sent.code == 0, sent
    assert sent.objects[-1]["resumed"] > 0
    assert (inbox / video.name).read_bytes() == video.read_bytes()


def test_a_byte_that_changed_meanwhile_is_mended_and_both_users_are_told(
    commands: Commands, inbox: Path, video: Path
) -> None:
    receive = ("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    receiver = commands.start(*receive)
    send = ("send", *SLOWLY, "--json", "--to", receiver.read_line(), video)
    sender = commands.start(*send)
    wait_for_bytes(sender)
    for command in (sender, receiver):
        command.end(signal.SIGKILL)
    (partial,) = [path for path in inbox.glob(".spaceblock-*/*") if path.name != "journal"]
    with partial.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"!")

    receiver = commands.start(*receive)
    receiver.read_line()
    sent, received = commands.run(*send), receiver.end()
    assert (sent.code, received.code) == (0, 0), sent.err + received.err
    assert (sent.objects[-1]["resumed"] > 0, sent.objects[-1]["repaired"]) == (True, 128 * 1024)
    for err in (sent.err, received.err):
        assert "'video.mkv' was not the same on both sides: 131072 bytes of it were sent once more" in err
    assert "131 kB of it sent once more to mend it, verified on both ends" in received.err
    assert (inbox / video.name).read_bytes() == video.read_bytes()


def test_another_command_is_another_listener(commands: Commands, tmp_path: Path, video: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", tmp_path, "--json")
    ticket = ticket_of(receiver)
    receiver.end(signal.SIGKILL)
    other = commands.start("receive", *LOCAL, "--dir", tmp_path, "--yes", "--json")
    ticket_of(other)
    assert commands.run("send", "--to", ticket, video).code != 0
    other.end(signal.SIGKILL)


def test_the_same_command_twice_at_once_is_two_listeners(commands: Commands, tmp_path: Path) -> None:
    receive = ("receive", *LOCAL, "--dir", tmp_path, "--json")
    first, second = commands.start(*receive), commands.start(*receive)
    ports = {port_of(ticket_of(first)), port_of(ticket_of(second))}
    assert len(ports) == 2
    for command in (first, second):
        command.end(signal.SIGKILL)
    third = commands.start(*receive)
    assert port_of(ticket_of(third)) in ports
    third.end(signal.SIGKILL)
