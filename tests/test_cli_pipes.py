"""The commands in pipelines: standard input is sent as it comes, and standard output takes what arrives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from blake3 import blake3

from e2e.disks import small_disk
from support import pattern

PATIENCE = 60.0
LOCAL = ("--listen", "127.0.0.1:0")


class Side:
    """One command, whose standard streams are bytes."""

    def __init__(self, folder: Path, *words: str | Path, **streams: Any) -> None:
        self.log = folder / f"stderr-{words[0]}"
        kept = {name: value for name, value in os.environ.items() if name != "SPACEBLOCK_TICKET"}
        environment = {**kept, "SPACEBLOCK_HOME": str(folder / f"home-{words[0]}")}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **streams}
        arguments = [sys.executable, "-m", "spaceblock", *map(str, words)]
        with open(self.log, "wb") as errors:
            self.process = subprocess.Popen(arguments, env=environment, stderr=errors, **streams)

    @property
    def out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ticket(self) -> str:
        """The ticket that was printed on standard output."""
        return self.out.readline().decode().strip()

    def end(self, number: signal.Signals | None = None) -> tuple[int, str]:
        """The exit code and what was said, after a signal if there is one."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        return code, self.log.read_text()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Any]:
    started: list[Side] = []

    def start(*words: str | Path, **streams: Any) -> Side:
        started.append(Side(tmp_path, *words, **streams))
        return started[-1]

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # as in the background of a shell; the commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for side in started:
        side.process.kill()
        side.process.wait()
        for stream in (side.process.stdin, side.process.stdout):
            if stream is not None:
                stream.close()


def test_a_tree_moves_through_a_pipeline_of_tar(tmp_path: Path, inbox: Path, sides: Any) -> None:
    for name in ("a", "sub/b", "sub/deep/c"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pattern(700_000, seed=len(name)))
    pack = subprocess.Popen(["tar", "c", "-C", tmp_path, "tree"], stdout=subprocess.PIPE)
    sender = sides("send", "-", *LOCAL, stdin=pack.stdout)
    assert pack.stdout is not None
    pack.stdout.close()
    receiver = sides("receive", sender.ticket(), "--yes", "--dir", "-")
    unpack = subprocess.run(["tar", "x", "-C", inbox], stdin=receiver.out, check=False, timeout=PATIENCE)
    assert (unpack.returncode, pack.wait(), sender.end()[0], receiver.end()[0]) == (0, 0, 0, 0)
    for path in (tmp_path / "tree").rglob("*"):
        copy = inbox / path.relative_to(tmp_path)
        assert copy.is_dir() if path.is_dir() else copy.read_bytes() == path.read_bytes()


def test_standard_input_has_no_name_unless_it_is_given_one(inbox: Path, sides: Any) -> None:
    for words, name in (((), "unnamed-0"), (("--name", "notes.txt"), "notes.txt")):
        sender = sides("send", "-", *words, *LOCAL, stdin=subprocess.PIPE)
        receiver = sides("receive", sender.ticket(), "--yes", "--dir", inbox)
        sender.process.stdin.write(b"hello")
        sender.process.stdin.close()
        assert (sender.end()[0], receiver.end()[0]) == (0, 0)
        assert (inbox / name).read_bytes() == b"hello"
        assert blake3(b"hello").hexdigest() in receiver.end()[1]


def test_a_file_as_standard_input_is_sent_from_where_it_stands(tmp_path: Path, inbox: Path, sides: Any) -> None:
    (tmp_path / "source").write_bytes(b"head\nbody")
    with open(tmp_path / "source", "rb", buffering=0) as source:
        source.read(5)
        sender = sides("send", "-", "--name", "x", *LOCAL, stdin=source)
    receiver = sides("receive", sender.ticket(), "--yes", "--json", "--dir", inbox)
    assert (sender.end()[0], receiver.end()[0]) == (0, 0)
    assert b'"size": 9' in receiver.out.readline(), "the offer knows the size"
    assert (inbox / "x").read_bytes() == b"body"


def test_standard_output_carries_what_arrives_and_nothing_else(tmp_path: Path, sides: Any) -> None:
    (tmp_path / "source").write_bytes(pattern(500_000))
    receiver = sides("receive", "--yes", "--dir", "-", *LOCAL)
    ticket = ""
    while not ticket.startswith("sb2"):
        lines = receiver.log.read_text().splitlines()
        ticket = lines[-1] if lines and receiver.log.read_text().endswith("\n") else ""
    sender = sides("send", "--to", ticket, tmp_path / "source")
    assert receiver.out.read() == pattern(500_000)
    assert (sender.end()[0], receiver.end()[0]) == (0, 0)
    assert "standard output" in receiver.end()[1]


def test_standard_output_takes_one_item(tmp_path: Path, sides: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    sender = sides("send", tmp_path / "a", tmp_path / "b", *LOCAL)
    receiver = sides("receive", sender.ticket(), "--yes", "--dir", "-")
    assert receiver.out.read() == b""
    code, said = sender.end()
    assert (code, receiver.end()[0]) == (3, 3)
    assert "standard output takes one item" in said


def test_json_and_data_do_not_share_standard_output(sides: Any) -> None:
    code, said = sides("receive", "--dir", "-", "--json").end()
    assert code == 2
    assert "both need standard output" in said


def test_a_full_device_ends_both_with_the_reason(tmp_path: Path, sides: Any) -> None:
    sender = sides("send", "-", *LOCAL, stdin=subprocess.PIPE)
    with open("/dev/full", "wb") as full:
        receiver = sides("receive", sender.ticket(), "--yes", "--dir", "-", stdout=full)
    sender.process.stdin.write(b"hello")
    sender.process.stdin.flush()  # and it stays open: nobody waits for the rest
    for code, said in (sender.end(), receiver.end()):
        assert code == 6
        assert "no space left on device" in said


def test_a_full_disk_ends_a_sender_whose_input_never_ends(tmp_path: Path, sides: Any) -> None:
    with small_disk(tmp_path / "disk", options="size=1m") as disk, open("/dev/zero", "rb") as endless:
        sender = sides("send", "-", *LOCAL, stdin=endless)
        receiver = sides("receive", sender.ticket(), "--yes", "--dir", disk)
        for code, said in (sender.end(), receiver.end()):
            assert code == 6
            assert "no space left on device; free some space" in said
        assert list(disk.iterdir()) == []


def test_a_reader_that_goes_away_ends_both_with_the_reason(sides: Any) -> None:
    reading, writing = os.pipe()
    sender = sides("send", "-", *LOCAL, stdin=subprocess.PIPE)
    receiver = sides("receive", sender.ticket(), "--yes", "--dir", "-", stdout=writing)
    os.close(reading)
    os.close(writing)
    sender.process.stdin.write(b"hello")
    sender.process.stdin.flush()
    for code, said in (sender.end(), receiver.end()):
        assert code == 6
        assert "keep the program that reads it running" in said


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_an_interrupt_does_not_wait_for_a_pipe(who: str, sides: Any) -> None:
    sender = sides("send", "-", *LOCAL, stdin=subprocess.PIPE)
    receiver = sides("receive", sender.ticket(), "--yes", "--dir", "-")
    sender.process.stdin.write(b"hello")
    sender.process.stdin.flush()
    assert receiver.out.read(5) == b"hello"
    stopped, other = (sender, receiver) if who == "sender" else (receiver, sender)
    assert stopped.end(signal.SIGINT)[0] == 130
    assert other.end()[0] == 1


@pytest.mark.parametrize("who", ["sender", "receiver"])
def test_nobody_is_told_that_a_pipe_goes_on_from_what_arrived(who: str, inbox: Path, sides: Any) -> None:
    sender = sides("send", "-", *LOCAL, "--json", stdin=subprocess.PIPE)
    ticket = json.loads(sender.ticket())["ticket"]
    receiver = sides("receive", ticket, "--yes", "--dir", inbox)
    sender.process.stdin.write(b"hello")
    sender.process.stdin.flush()
    while json.loads(sender.out.readline())["bytes_done"] < 5:
        pass
    stopped, other = (sender, receiver) if who == "sender" else (receiver, sender)
    stopped.end(signal.SIGINT)
    _, said = other.end()
    told = f"the {who} cancelled the transfer; give the same command again when the other side is ready\n"
    assert said.endswith(told)
    assert os.listdir(inbox) == []
