# Invariant: a text is a ticket or TicketMalformed, never anything else; a ticket has one spelling, which it is
# written in again; neither an error nor a repr shows a ticket's secret.
"""Tickets, as text and as what is below the checksum; and proofs."""

from __future__ import annotations

from collections.abc import Hashable

from blake3 import blake3

from spaceblock.errors import TicketMalformed
from spaceblock.trust.identity import to_base32
from spaceblock.trust.tickets import SECRET_SIZE, TICKET_ID_SIZE, Ticket, read_proof

from .choices import Choices

SIZE_MAX = 9_000


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    kind = choices.below(3)
    if kind == 0:
        return _parse(choices.rest().decode("utf-8", "surrogateescape"))
    if kind == 1:
        body = choices.rest()
        return _parse("sb2" + to_base32(body + blake3(body).digest(4)))
    return _proof(choices.rest())


def seeds() -> dict[str, bytes]:
    peer_id, ticket_id, secret = (bytes([number]) * size for number, size in ((1, 32), (2, 16), (3, 32)))
    one = Ticket(peer_id, (("192.0.2.1", 4433),), ticket_id, secret, 1_900_000_000)
    hosts = (("192.0.2.1", 1), ("2001:db8::1", 65_535), ("host-1.example", 80), ("a_b", 9))
    many = Ticket(peer_id, hosts, ticket_id, secret, 253_402_300_799)
    tickets = {"one-address": one.encode(), "many-addresses": many.encode()}
    found = {f"text-{name}": b"\0" + text.encode() for name, text in tickets.items()}
    for name, text in tickets.items():
        found[f"body-{name}"] = b"\1" + _body_of(text)
    return found | {
        "text-newer": b"\0sb3abcdef",
        "text-none": b"\0https://example.org",
        "text-on-paper": b"\0  " + one.encode().upper().encode()[:40] + b"\n " + one.encode().encode()[40:],
        "proof": b"\2\1" + ticket_id + secret,
    }


def _body_of(text: str) -> bytes:
    """The bytes below the checksum of a good ticket."""
    import base64

    word = text[3:].upper()
    return base64.b32decode(word + "=" * (-len(word) % 8))[:-4]


def _parse(text: str) -> Hashable:
    try:
        ticket = Ticket.parse(text)
    except TicketMalformed as error:
        words = str(error)
        assert len(text) < 12 or text[3:] not in words
        return words[:40]
    written = ticket.encode()
    assert written == "".join(text.split()).lower()
    assert Ticket.parse(written) == ticket
    assert ticket.secret.hex() not in repr(ticket)
    assert repr(ticket.secret) not in repr(ticket)
    assert written not in repr(ticket)
    return "ticket", len(ticket.addresses)


def _proof(value: bytes) -> Hashable:
    parts = read_proof(value)
    assert (parts is not None) == (len(value) == 1 + TICKET_ID_SIZE + SECRET_SIZE and value[0] == 1)
    assert parts is None or b"\1" + b"".join(parts) == value
    return parts is None
