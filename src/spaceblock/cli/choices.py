"""What the words of a command say about its connection: which side listens, with which ticket, key and options."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import click

from ..display import printable
from ..errors import LocalProtocolError, TicketMalformed
from ..limits import Timeouts
from ..options import Options
from ..process.lazily import dataclass
from ..trust.contacts import Contact, split_address
from ..trust.identity import parse_peer_id
from ..trust.tickets import TEXT_MAX, Ticket, usual_address
from . import lan
from .console import can_ask
from .prompts import ask_hidden
from .quantities import parse_ports, parse_size
from .trusted import NAME_MAX, TrustedPeer, TrustedPeers

TICKET_VARIABLE = "SPACEBLOCK_TICKET"
"""The environment variable that a ticket may come from, so that no list of processes shows it."""


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
    verbose: bool = False
    port: str | None = None
    announce: str | None = None
    limit: str | None = None
    retry: float | None = None

    def find_ticket(self) -> Ticket | TrustedPeer | None:
        """What to connect with: a ticket from the command, a file, the environment or a prompt, or a trusted peer by
        its name; None: this side listens.

        Raises ``click.UsageError`` for a contradiction and :class:`TicketMalformed`.
        """
        if self.ticket is not None and self.ticket_file is not None:
            raise click.UsageError("a ticket and --ticket-file were given: choose one of them")
        text = self.ticket
        if text == "-":
            text = _ask()
        elif self.ticket_file is not None:
            text = _read(self.ticket_file)
        listens = {
            "--listen": self.listen,
            "--port": self.port,
            "--advertise": self.advertise,
            "--trust": self.trust,
            "--announce": self.announce,
        }
        listening = [name for name, given in listens.items() if given]
        if text is None and not listening:
            text = os.environ.get(TICKET_VARIABLE) or None
        if text is None:
            if self.announce is not None:
                lan.check()
            return None
        if listening:
            raise click.UsageError(f"{listening[0]} is for the side that listens: leave it out or give no ticket")
        return self._peer_named(text.strip())

    def address(self) -> tuple[str, int | range]:
        """Where to listen; raises ``click.UsageError``."""
        host, port = ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"), 0
        if self.listen is not None:
            try:
                host, port = split_address(self.listen, 0)
            except LocalProtocolError as error:
                raise click.UsageError(f"--listen: {error.message}") from None
        if self.port is None:
            return host, port
        if port:
            raise click.UsageError("--listen has a port and --port was given: leave one of them out")
        try:
            return host, parse_ports(self.port)
        except ValueError as error:
            raise click.UsageError(f"--port: {error}") from None

    def trusted(self) -> TrustedPeers:
        """The peers that this identity trusts."""
        return TrustedPeers.of(self.identity)

    def options(self) -> Options:
        """The options of the library; raises ``click.UsageError`` for a value that it would not take."""
        for option, given, check in (
            ("--trust", self.trust, parse_peer_id),
            ("--advertise", self.advertise, lambda address: usual_address(*split_address(address, 1))),
        ):
            try:
                for word in given:
                    check(word)
            except LocalProtocolError as error:
                raise click.UsageError(f"{option}: {error.message}") from None
        timeouts = Timeouts()
        if self.timeout is not None:
            timeouts = replace(timeouts, connect=self.timeout)
        if self.retry is not None:
            timeouts = replace(timeouts, retry=self.retry)
        trust = [*self.trust, *(peer.peer for peer in self.trusted().all)]
        try:
            bandwidth = None if self.limit is None else parse_size(self.limit)
            return Options(
                identity=self.identity, trust=trust, advertise=self.advertise, timeouts=timeouts, bandwidth=bandwidth
            )
        except (LocalProtocolError, ValueError) as error:
            raise click.UsageError(f"--limit: {error}") from None

    async def reach(self, target: Ticket | TrustedPeer) -> Ticket | Contact:
        """Where ``target`` is; raises :class:`Unreachable`."""
        return await lan.reach(target, Timeouts().connect if self.timeout is None else self.timeout)

    def _peer_named(self, text: str) -> Ticket | TrustedPeer:
        """A ticket, or who has this name here; raises :class:`TicketMalformed` for neither."""
        if not text or len(text) > NAME_MAX or text.startswith("sb2"):
            return Ticket.parse(text)
        peer = self.trusted().find(text)
        if peer is None:
            name = printable(text)
            raise TicketMalformed(
                f"{name!r} is neither a ticket nor the name of a trusted peer: copy the ticket whole, or run "
                "spaceblock trust PEER_ID --name NAME"
            )
        if not peer.addresses:
            lan.check()
        return peer


def _ask() -> str:
    if not can_ask():
        raise click.UsageError(
            f'"-" asks for the ticket, which takes a terminal: use --ticket-file or {TICKET_VARIABLE}'
        )
    while not (ticket := ask_hidden("Ticket:")):
        pass
    return ticket


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(TEXT_MAX + 1)
    except OSError as error:
        raise click.UsageError(f"the ticket file cannot be read: {error.strerror}") from None
