"""Tickets: one word that lets one peer in, and the proof of holding one that never shows the secret.

A ticket's text is one unbroken word: ``sb2``, then the lowercase base32 (RFC 4648) without padding of these bytes;
numbers are big-endian::

    1    version of this layout, 1
    32   peer ID of the listener
    16   ticket ID, random
    32   secret, random
    8    expiry, seconds since 1970-01-01 UTC
    1    number of addresses, 1 to 16, in the order in which to try them; each is
           1    kind: 4 an IPv4 address, 6 an IPv6 address, 0 a host name
           n    4 bytes; 16 bytes; or one byte of length and then the name, lowercase ASCII
           2    UDP port, not 0
    4    the first bytes of the BLAKE3 digest of all before

Every version ends with the same checksum, so that a damaged version byte is not taken for a newer version. A ticket has
one spelling: what would encode differently is refused.

The proof travels in the client's certificate (:data:`spaceblock.trust.identity.ADMISSION_OID`)::

    1    version, 1
    16   ticket ID
    32   HMAC-SHA256 under the secret, of "spaceblock admission v1", the ticket ID, the client's raw public key (32
         bytes) and the listener's peer ID (32 bytes)

It is of no use to whoever copies it: the key is the client's, which the TLS handshake proves, and the peer ID is that
of this one listener. Secrets never appear in a ``repr`` or in an error's message.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import field
from ipaddress import IPv4Address, IPv6Address, ip_address

from blake3 import blake3

from ..display import address_text
from ..errors import LocalProtocolError, TicketMalformed
from ..limits import ADDRESSES_MAX
from ..process.lazily import dataclass
from .identity import KEY_SIZE, PEER_ID_SIZE, from_base32, peer_id_text, to_base32

TICKET_ID_SIZE = 16
SECRET_SIZE = 32

EXPIRY_MAX = 253_402_300_799
"""The last second of the year 9999, in seconds since 1970: the last that calendars can show."""

TEXT_MAX = 8_192
"""Characters of a ticket's text; sixteen of the longest host names need 6743."""

_PREFIX = "sb2"
_VERSION = 1
_CHECKSUM_SIZE = 4
_HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}")
_NAME, _IPV4, _IPV6 = 0, 4, 6

_PROOF_VERSION = 1
_PROOF_LABEL = b"spaceblock admission v1"
_TAG_SIZE = 32

_DAMAGED = "the ticket was damaged on its way: copy the whole word again"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a listener is, who it is, and what lets one peer in.

    ``addresses`` are (IPv4 address, IPv6 address or host name, UDP port); they are brought to their usual spelling.
    ``expires`` is in seconds since 1970. Raises :class:`LocalProtocolError` for values that no ticket can hold.
    """

    peer_id: bytes
    addresses: tuple[tuple[str, int], ...]
    ticket_id: bytes
    secret: bytes = field(repr=False)
    expires: int

    def __post_init__(self) -> None:
        sizes = (len(self.peer_id), len(self.ticket_id), len(self.secret))
        if sizes != (PEER_ID_SIZE, TICKET_ID_SIZE, SECRET_SIZE):
            raise LocalProtocolError(f"a ticket's peer ID, ID and secret have 32, 16 and 32 bytes, not {sizes}")
        if not 0 <= self.expires <= EXPIRY_MAX:
            raise LocalProtocolError("a ticket expires between 1970 and the year 9999: choose another lifetime")
        if not 1 <= len(self.addresses) <= ADDRESSES_MAX:
            raise LocalProtocolError(f"a ticket holds 1 to {ADDRESSES_MAX} addresses, not {len(self.addresses)}")
        object.__setattr__(self, "addresses", tuple(usual_address(host, port) for host, port in self.addresses))

    def __repr__(self) -> str:
        where = ", ".join(address_text(host, port) for host, port in self.addresses)
        return f"<Ticket {self.ticket_id.hex()} for {peer_id_text(self.peer_id)} at {where}, expires {self.expires}>"

    def encode(self) -> str:
        """The ticket's text, which holds the secret: to be shown to one person."""
        head = bytes([_VERSION]) + self.peer_id + self.ticket_id + self.secret + self.expires.to_bytes(8, "big")
        body = head + bytes([len(self.addresses)]) + b"".join(_encode_address(*address) for address in self.addresses)
        return _PREFIX + to_base32(body + _checksum(body))

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """The mirror of :meth:`encode`; white space and upper case, as come from mail and paper, are forgiven.

        Raises :class:`TicketMalformed`, whose message says what is wrong and never quotes the text.
        """
        if len(text) > TEXT_MAX:
            raise TicketMalformed(f"the text is too long for a ticket: give the one word that begins with {_PREFIX}")
        word = "".join(text.split())
        if not word:
            raise TicketMalformed("the ticket is empty: give the word that the listener printed")
        if not word.isascii():
            raise TicketMalformed(_DAMAGED)
        body = _checked_body(word.lower())
        try:
            ticket = _decode_body(body)
        except (ValueError, IndexError, LocalProtocolError):
            ticket = None
        if ticket is None or ticket.encode() != word.lower():
            raise TicketMalformed("the ticket does not follow the rules for tickets: ask for a new one")
        return ticket


def proof(ticket: Ticket, client_public_key: bytes) -> bytes:
    """What the holder of ``client_public_key`` (raw, 32 bytes) shows the listener instead of the secret; 49 bytes."""
    tag = proof_tag(ticket.secret, ticket.ticket_id, client_public_key, ticket.peer_id)
    return bytes([_PROOF_VERSION]) + ticket.ticket_id + tag


def read_proof(value: bytes) -> tuple[bytes, bytes] | None:
    """Ticket ID and tag of a proof; ``None`` when its version or length is another."""
    if len(value) != 1 + TICKET_ID_SIZE + _TAG_SIZE or value[0] != _PROOF_VERSION:
        return None
    return value[1 : 1 + TICKET_ID_SIZE], value[1 + TICKET_ID_SIZE :]


def proof_tag(secret: bytes, ticket_id: bytes, client_public_key: bytes, server_peer_id: bytes) -> bytes:
    """The HMAC of a proof, 32 bytes. All its parts have fixed lengths, so that none can pass for another."""
    if len(client_public_key) != KEY_SIZE:
        raise LocalProtocolError(f"an Ed25519 public key has {KEY_SIZE} bytes, not {len(client_public_key)}")
    return hmac.digest(secret, _PROOF_LABEL + ticket_id + client_public_key + server_peer_id, "sha256")


def _checked_body(word: str) -> bytes:
    """The bytes before the checksum, of a version that is known here."""
    if re.match(r"sb[3-9]", word):
        raise TicketMalformed("the ticket is from a newer version of Spaceblock: update this one")
    if not word.startswith(_PREFIX):
        raise TicketMalformed(f"this is not a ticket: a ticket begins with {_PREFIX}, and is printed by the listener")
    try:
        data = from_base32(word[len(_PREFIX) :])
    except ValueError:
        raise TicketMalformed(_DAMAGED) from None
    body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if not body or _checksum(body) != checksum:
        raise TicketMalformed(_DAMAGED)
    if body[0] > _VERSION:
        raise TicketMalformed("the ticket is from a newer version of Spaceblock: update this one")
    return body


def _decode_body(body: bytes) -> Ticket:
    """Raises ``ValueError``, ``IndexError`` or :class:`LocalProtocolError`; trailing bytes show when encoding again."""
    reader = _Reader(body)
    reader.take(1)
    peer_id, ticket_id, secret = reader.take(PEER_ID_SIZE), reader.take(TICKET_ID_SIZE), reader.take(SECRET_SIZE)
    expires = reader.number(8)
    addresses = tuple(_decode_address(reader) for _ in range(reader.number(1)))
    return Ticket(peer_id, addresses, ticket_id, secret, expires)


class _Reader:
    """A bounded cursor: takes exactly what it is asked for or raises ``IndexError``."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._position:
            raise IndexError("the ticket is too short")
        self._position += count
        return self._data[self._position - count : self._position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


def usual_address(host: str, port: int) -> tuple[str, int]:
    """An address as tickets have it; raises :class:`LocalProtocolError` for one that they cannot hold."""
    if not 0 < port < 65_536:
        raise LocalProtocolError(f"a ticket cannot hold the port {port}: choose one from 1 to 65535")
    try:
        address = ip_address(host)
    except ValueError:
        name = host.lower()
        if not _HOST_NAME.fullmatch(name):
            raise LocalProtocolError(f"a ticket cannot hold the host name {host!r}: write it in plain ASCII") from None
        return name, port
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise LocalProtocolError(f"the zone in {host!r} means nothing on another machine: use an address without one")
    return str(address), port


def _encode_address(host: str, port: int) -> bytes:
    try:
        address = ip_address(host)
        wire = bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
    except ValueError:
        wire = bytes([_NAME, len(host)]) + host.encode("ascii")
    return wire + port.to_bytes(2, "big")


def _decode_address(reader: _Reader) -> tuple[str, int]:
    kind = reader.number(1)
    if kind == _IPV4:
        host = str(IPv4Address(reader.take(4)))
    elif kind == _IPV6:
        host = str(IPv6Address(reader.take(16)))
    elif kind == _NAME:
        host = reader.take(reader.number(1)).decode("ascii")
    else:
        raise ValueError("an unknown kind of address")
    return host, reader.number(2)


def _checksum(body: bytes) -> bytes:
    return blake3(body).digest(_CHECKSUM_SIZE)
