"""What the system knows of the way to a peer, asked without sending it anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

from ..limits import DATAGRAM_MAX
from .interface import Address

IPV4_HEADERS = 28
IPV6_HEADERS = 48
"""Bytes of an IP packet before the UDP payload."""


class Way(tuple[Any, ...]):
    """A peer's socket address that knows which one of ours the peer talks to, so that it is answered from there.

    To the peer any other one is a stranger's (RFC 9000, section 9), and a system that has many does not know.
    """

    local: bytes = b""
    """4 bytes for an IPv4 socket, 16 for an IPv6 socket; none leaves it to the system."""


def tell_ways(sock: socket.socket) -> bool:
    """Have the system say which of our addresses each datagram came to; False where there is but one, or it cannot."""
    if not _IS_LINUX or sock.getsockname()[0] not in _WILDCARDS:
        return False
    try:
        sock.setsockopt(*_TELL_WAYS[sock.family], 1)
    except OSError:
        return False
    return True


def way_of(address: Any, ancillary: list[tuple[int, int, bytes]]) -> Any:
    """A sender's address with what the system said of ours, if it did."""
    for level, kind, value in ancillary:
        local = b""
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            local = value[4:8]
        elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and value[0] != _MULTICAST:
            local = value[:16]
        if local:
            way = Way(address)
            way.local = local
            return way
    return address


def answer_by(address: Any) -> list[tuple[int, int, bytes]]:
    """What has the system send a datagram to an address from the one of ours that it knows."""
    local = address.local if isinstance(address, Way) else b""
    if not local:
        return []
    if len(local) == 4:
        return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + local + bytes(4))]
    return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, local + bytes(4))]


def largest_datagram(address: Any) -> int:
    """Bytes of UDP payload that leave this system for a socket address in one packet; :data:`DATAGRAM_MAX` at most.

    It is the local network's limit, or a smaller one that the system learned of; the path may carry less.
    """
    host, *rest = address
    if host.startswith("::ffff:") and "." in host:
        host, rest = host.removeprefix("::ffff:"), rest[:1]
    is_ipv6 = ":" in host
    level, option = (socket.IPPROTO_IPV6, _IPV6_MTU) if is_ipv6 else (socket.IPPROTO_IP, _IP_MTU)
    try:
        # Connecting a UDP socket sends nothing, but chooses a route.
        with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, *rest))
            packet = probe.getsockopt(level, option)
    except OSError:
        return DATAGRAM_MAX
    return min(packet - (IPV6_HEADERS if is_ipv6 else IPV4_HEADERS), DATAGRAM_MAX)


def reachable_addresses(host: str, port: int) -> list[Address]:
    """Where others may reach a socket that is bound to ``host`` and ``port``.

    For a wildcard address those are the addresses of the default routes, then loopback.
    """
    if host not in _WILDCARDS:
        return [(host, port)]
    # Connecting a UDP socket sends nothing, but chooses the source address of the route; the targets are the
    # addresses set aside for documentation (RFC 5737, RFC 3849).
    routes = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    families = [socket.AF_INET] if host == "0.0.0.0" else [socket.AF_INET, socket.AF_INET6]
    addresses: list[Address] = []
    for family, target in routes:
        if family in families:
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                addresses.append((probe.getsockname()[0], port))
    addresses.append(("127.0.0.1", port))
    return list(dict.fromkeys(addresses))


async def look_up(host: str, port: int, family: int, flags: int = 0, timeout: float | None = None) -> list[Any]:
    """What ``getaddrinfo`` says, at once for an address of digits, and on a thread if a name must be resolved.

    Raises OSError, and :class:`asyncio.TimeoutError` after ``timeout`` seconds.
    """
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM, flags=flags | socket.AI_NUMERICHOST)
    except OSError:
        loop = asyncio.get_running_loop()
        found = loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM, flags=flags)
        return await asyncio.wait_for(found, timeout)


_WILDCARDS = ("0.0.0.0", "::")
_MULTICAST = 0xFF  # the first byte of such an IPv6 address, which nobody can send from
_IS_LINUX = sys.platform == "linux"
_IP_PKTINFO = 8  # <linux/in.h> and <linux/in6.h>
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_TELL_WAYS = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO),
}
_IP_MTU = 14  # <linux/in.h> and <linux/in6.h>; the socket module has no names for them yet
_IPV6_MTU = 24
