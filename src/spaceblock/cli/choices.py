"""What the words of a command say about its connection: which side listens, with which ticket, key and options."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import click

from ..errors import LocalProtocolError
from ..identity import parse_peer_id
from ..limits import Timeouts
from ..listener import split_address
from ..options import Options
from ..tickets import TEXT_MAX, Ticket

TICKET_VARIABLE = "SPACEBLOCK_TICKET"
"""The environment variable that a ticket may come from, so that no list of processes shows it."""

_ANY_ADDRESS = ("0.0.0.0", 0)


@dataclass(frozen=True, slots=True)
class Choices:
    """The common options of ``send`` and ``receive``, as they were given."""

    ticket: str | None
    ticket_file: str | None
    listen: str | None
    advertise: tuple[str, ...]
    trust: tuple[str, ...]
    timeout: float | None
    identity: str | None
    json: bool
    quiet: bool

    def find_ticket(self) -> Ticket | None:
        """The ticket to connect with, from the command, a file, the environment or a prompt; None: this side listens.

        Raises ``click.UsageError`` for a contradiction and :class:`TicketMalformed`.
        """
        if self.ticket is not None and self.ticket_file is not None:
            raise click.UsageError("a ticket and --ticket-file were given: choose one of them")
        text = self.ticket
        if text == "-":
            text = _ask()
        elif self.ticket_file is not None:
            text = _read(self.ticket_file)
        listens = {"--listen": self.listen, "--advertise": self.advertise, "--trust": self.trust}
        listening = [name for name, given in listens.items() if given]
        if text is None and not listening:
            text = os.environ.get(TICKET_VARIABLE) or None
        if text is None:
            return None
        if listening:
            raise click.UsageError(f"{listening[0]} is for the side that listens: leave it out or give no ticket")
        return Ticket.parse(text)

    def address(self) -> tuple[str, int]:
        """Where to listen; raises ``click.UsageError``."""
        if self.listen is None:
            return _ANY_ADDRESS
        try:
            return split_address(self.listen, 0)
        except LocalProtocolError as error:
            raise click.UsageError(f"--listen: {error.message}") from None

    def options(self) -> Options:
        """The options of the library; raises ``click.UsageError`` for a value that it would not take."""
        try:
            for peer_id in self.trust:
                parse_peer_id(peer_id)
            for address in self.advertise:
                split_address(address, 1)
        except LocalProtocolError as error:
            raise click.UsageError(error.message) from None
        timeouts = Timeouts() if self.timeout is None else Timeouts(connect=self.timeout)
        return Options(identity=self.identity, trust=self.trust, advertise=self.advertise, timeouts=timeouts)


def _ask() -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f'"-" asks for the ticket, which takes a terminal: use --ticket-file or {TICKET_VARIABLE}'
        )
    return str(click.prompt("Ticket", hide_input=True, err=True))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(TEXT_MAX + 1)
    except OSError as error:
        raise click.UsageError(f"the ticket file cannot be read: {error.strerror}") from None
