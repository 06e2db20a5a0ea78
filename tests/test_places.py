"""Where a listener keeps its port and tickets: whose is whose, and what goes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from spaceblock import ListenerBusy, Options
from spaceblock.errors import TicketExpired
from spaceblock.limits import COMMANDS_KEPT
from spaceblock.trust import places
from spaceblock.trust.identity import Identity
from spaceblock.trust.places import Place, open_book

HOST = "127.0.0.1"


@pytest.fixture
def server(tmp_path: Path) -> Identity:
    return Identity.load(tmp_path)


def place(server: Identity, port: int | range = 0, host: str = HOST, name: str | None = None) -> Place:
    return open_book(server, host, port, Options(name=name), lambda peer_id: False)


def kept_port(server: Identity, port: int | range = 0, host: str = HOST, name: str | None = None) -> int | None:
    found = place(server, port, host, name)
    with found.book as book:
        return book.port


def keep_port(server: Identity, number: int) -> None:
    with place(server).book as book:
        book.remember_port(number)


def give(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be another process of a command."""
    monkeypatch.setattr(sys, "orig_argv", command.split())
    monkeypatch.setattr(places, "_used", set())


def test_the_same_command_has_the_same_place(server: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    give("program first", monkeypatch)
    keep_port(server, 4433)
    give("program second", monkeypatch)
    assert kept_port(server) is None
    give("program first", monkeypatch)
    assert kept_port(server) == 4433
    assert kept_port(server, host="0.0.0.0") is None
    assert kept_port(server, port=range(4000, 5000)) is None
    assert kept_port(server, name="a name") is None
    monkeypatch.chdir(tmp_path)
    assert kept_port(server) is None


def test_only_one_listener_of_a_command_has_its_place(server: Identity) -> None:
    with place(server).book as book:
        book.remember_port(4433)
        other = place(server)
        assert not other.is_commands
        with other.book as second:
            assert second.port is None
    assert kept_port(server) == 4433


def test_a_place_of_its_own_is_not_shared(server: Identity) -> None:
    for port, name in ((0, "inbox"), (4433, None)):
        found = place(server, port, name=name)
        with found.book:
            assert not found.is_commands
            with pytest.raises(ListenerBusy):
                place(server, port, name=name)


@pytest.mark.parametrize("is_left", [False, True])
def test_a_commands_tickets_are_for_the_next_process_unless_it_was_left_in_order(
    server: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_left: bool
) -> None:
    give("program", monkeypatch)
    found = place(server)
    ticket = found.book.issue([(HOST, 4433)], 60, time.time())
    if is_left:
        found.leave()
    found.book.close()

    give("program", monkeypatch)
    assert is_expired(place(server), ticket) == is_left


def test_a_commands_tickets_are_not_for_another_listener_of_the_process(
    server: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    give("program", monkeypatch)
    found = place(server)
    ticket = found.book.issue([(HOST, 4433)], 60, time.time())
    found.book.close()
    assert is_expired(place(server), ticket)


def test_the_commands_that_were_not_given_for_longest_are_forgotten(
    server: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    give("running", monkeypatch)
    running = place(server)
    running.book.remember_port(4433)
    for number in range(COMMANDS_KEPT + 2):
        give(f"program {number}", monkeypatch)
        keep_port(server, 1000 + number)
        for age, lock in enumerate(sorted(server_places(server).glob("*/listener.lock"), key=os.path.getmtime)):
            os.utime(lock, (age, age))  # a coarse clock would not tell them apart
    assert len(list(server_places(server).iterdir())) == COMMANDS_KEPT + 1, "that of the running one is kept"
    give("program 0", monkeypatch)
    assert kept_port(server) is None
    give(f"program {COMMANDS_KEPT + 1}", monkeypatch)
    assert kept_port(server) == 1000 + COMMANDS_KEPT + 1
    running.book.close()
    give("running", monkeypatch)


def test_where_nothing_can_be_kept_a_command_does_without(server: Identity) -> None:
    server_places(server).write_bytes(b"in the way")
    found = place(server)
    assert not found.is_commands
    found.leave()
    found.book.close()


def test_an_identity_without_a_home_keeps_nothing() -> None:
    found = open_book(Identity.ephemeral(), HOST, 4433, Options(), lambda peer_id: False)
    assert not found.is_commands
    found.book.close()


def is_expired(found: Place, ticket: object) -> bool:
    from spaceblock.trust.tickets import Ticket, proof

    assert isinstance(ticket, Ticket)
    alice = Identity.ephemeral()
    with found.book as book:
        try:
            book.admit(alice.certificate(proof(ticket, alice.public_key)), time.time())
        except TicketExpired:
            return True
        return False


def server_places(server: Identity) -> Path:
    assert server.home is not None
    return server.home / "listeners"
