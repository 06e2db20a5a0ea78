"""Disks that fail, seen from the command line: both processes end with the documented code and the same reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from commands import Command, Commands
from e2e.disks import odd_disk
from support import pattern

LOCAL = ("--listen", "127.0.0.1:0")
SIZE = 1_000_000


@contextmanager
def receiver_into(commands: Commands, folder: Path) -> Iterator[tuple[Command, str]]:
    receiver = commands.start("receive", *LOCAL, "--dir", folder, "--yes", "--once", "--json")
    yield receiver, receiver.read_until(lambda found: found["type"] == "ticket")["ticket"]


@pytest.mark.parametrize(
    ("operation", "name", "code"),
    [
        ("write", "ENOSPC", "no_space"),
        ("write", "EDQUOT", "no_space"),
        ("write", "EIO", "storage"),
        ("mkdir", "EACCES", "target_not_writable"),
        ("mkdir", "EROFS", "target_not_writable"),
        ("fsync", "EIO", "storage"),
    ],
)
def test_both_commands_say_what_the_receivers_disk_says(
    operation: str, name: str, code: str, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(pattern(SIZE))
    fault = (name, SIZE // 2) if operation == "write" else (name,)
    with odd_disk(tmp_path / "disk", faults={operation: fault}) as disk:
        with receiver_into(commands, disk) as (receiver, ticket):
            sent = commands.run("send", "--to", ticket, tmp_path / "x", "--json")
            received = receiver.end()
        assert os.listdir(disk) == []
    for ended in (sent, received):
        assert ended.code == 6
        assert ended.objects[-1]["type"] == "error"
        assert ended.objects[-1]["code"] == code
        assert os.strerror(getattr(errno, name)).lower() in ended.err.lower()
    assert (sent.objects[-1]["remote"], received.objects[-1]["remote"]) == (True, False)
    assert sent.objects[-1]["phase"] == received.objects[-1]["phase"]


def test_both_commands_say_what_the_senders_disk_says(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    with odd_disk(tmp_path / "disk", faults={"read": ("EIO", SIZE // 2)}) as disk:
        (disk / "x").write_bytes(pattern(SIZE))
        with receiver_into(commands, inbox) as (receiver, ticket):
            sent = commands.run("send", "--to", ticket, disk / "x", "--json")
            received = receiver.end()
    for ended in (sent, received):
        assert ended.code == 6
        assert ended.objects[-1]["code"] == "source"
        assert "input/output error" in ended.err.lower()
    assert os.listdir(inbox) == []
