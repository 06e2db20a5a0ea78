"""What the system knows of the way to a peer, asked without sending anything."""

from __future__ import annotations

import socket
from typing import Any

from ..limits import DATAGRAM_MAX

IPV4_HEADERS = 28
IPV6_HEADERS = 48
"""Bytes of an IP packet before the UDP payload."""


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


_IP_MTU = 14  # <linux/in.h> and <linux/in6.h>; the socket module has no names for them yet
_IPV6_MTU = 24
