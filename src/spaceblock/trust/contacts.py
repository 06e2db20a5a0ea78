"""Where a peer can be reached, and which key to expect there: what is known of a peer without a ticket."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from ..errors import LocalProtocolError
from ..limits import ADDRESSES_MAX
from ..process.lazily import dataclass
from .identity import parse_peer_id


@dataclass(frozen=True, slots=True)
class Contact:
    """A listener that trusts this side's key, to connect to without a ticket: its peer ID and its addresses.

    An address is ``HOST:PORT``, or ``[HOST]:PORT`` for IPv6; they are tried in order. There is nothing secret in it.
    Raises :class:`LocalProtocolError` for what is no peer ID or no address, and where there are none or more than 16.
    """

    peer: str
    addresses: Sequence[str]

    def __post_init__(self) -> None:
        given = self.addresses
        if not isinstance(given, Sequence) or isinstance(given, str) or not 0 < len(given) <= ADDRESSES_MAX:
            raise LocalProtocolError(f"a contact has a list of 1 to {ADDRESSES_MAX} addresses: give them as HOST:PORT")
        _ = self.peer_id, self.endpoints

    @property
    def peer_id(self) -> bytes:
        """The peer ID, 32 bytes."""
        return parse_peer_id(self.peer)

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """The addresses as hosts and ports."""
        return tuple(split_address(address) for address in self.addresses)


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT`` as host and port; raises :class:`LocalProtocolError`."""
    if not isinstance(text, str):
        raise LocalProtocolError(f"{text!r} is not an address: write HOST:PORT, or [HOST]:PORT for IPv6")
    host, colon, port = text.rpartition(":")
    if (text.count(":") > 1 and not text.startswith("[")) or text.endswith("]"):
        host, colon, port = text, "", ""
    elif not colon:
        host, port = text, ""
    host = host.strip("[]")
    if not host or (not port and (default_port is None or colon)) or (port and not port.isdecimal()):
        raise LocalProtocolError(f"{text!r} is not an address: write HOST:PORT, or [HOST]:PORT for IPv6")
    number = int(port) if port else default_port
    if number is None or number > 65_535:
        raise LocalProtocolError(f"{text!r} has no valid port: choose 0 to 65535")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise LocalProtocolError(f"{host!r} is not an IPv6 address: write [HOST]:PORT") from None
    return host, number
