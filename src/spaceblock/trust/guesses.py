"""What wrong tickets cost: addresses that keep trying are not listened to for a while.

Only an address that finished a handshake is counted, so that nobody can have another one shut out by forging it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from time import monotonic

from ..limits import GUESSERS_MAX, WRONG_TICKETS, WRONG_TICKETS_ALL, WRONG_TICKETS_SECONDS
from ..process.lazily import dataclass


@dataclass(slots=True)
class _Count:
    """Wrong tickets since ``start``."""

    start: float
    count: int = 0


class Guesses:
    """The wrong tickets that one listener has seen lately; ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._by_network: dict[str, _Count] = {}
        self._all = _Count(clock())

    def __len__(self) -> int:
        return len(self._by_network)

    def wrong(self, host: str) -> None:
        """A peer at ``host`` had no ticket that is good here, and is not trusted."""
        network = _network_of(host)
        found = self._recent(self._by_network.pop(network, None))
        found.count += 1
        self._by_network[network] = found
        while len(self._by_network) > GUESSERS_MAX:
            del self._by_network[next(iter(self._by_network))]
        self._all = self._recent(self._all)
        self._all.count += 1

    def refuses(self, host: str) -> bool:
        """Whether ``host`` is to begin no connection at present."""
        if not self._by_network:
            return False
        return self._recent(self._by_network.get(_network_of(host))).count >= WRONG_TICKETS

    @property
    def many(self) -> bool:
        """Whether there were so many of late that everybody has to prove an address first."""
        return self._recent(self._all).count >= WRONG_TICKETS_ALL

    def _recent(self, count: _Count | None) -> _Count:
        now = self._clock()
        return count if count is not None and now - count.start < WRONG_TICKETS_SECONDS else _Count(now)


def _network_of(host: str) -> str:
    """What one guesser is taken to have: an IPv4 address, or a network of 64 bits."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
