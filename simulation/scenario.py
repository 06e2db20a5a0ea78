"""What happens in one simulation, as values: two sides, the network between them, and the transfers that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

from spaceblock.quic import TransportOptions

from .hosts import Kind
from .network import Conditions

HARSH = 0.03
"""Likelihood of losing a datagram from which on a connection may give up."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What one side writes to a stream, and how the other reads it."""

    size: int
    pieces: int = 1
    """Writes, of about one size."""

    pause: float = 0.0
    """Seconds between two writes."""

    reset_after: int | None = None
    """Bytes written after which the writer gives up; None: it goes on to the end."""

    stop_after: int | None = None
    """Bytes read after which the reader wants no more."""

    hold: float = 0.0
    """Seconds that bytes lie with the reader before it grants credit for them again."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A stream: ``there`` is written by the side that opens it, ``back`` on a bidirectional one by the other."""

    there: Flow
    back: Flow | None = None
    by_client: bool = True
    start: float = 0.0
    """Seconds after the handshake at which it is opened."""


@dataclass(frozen=True, slots=True)
class Rebinding:
    """A NAT gives the client another port, or another address and port.

    Where there is one, the client says something every second: a server that is not told cannot know.
    """

    at: float
    """Seconds after the client's handshake."""
    address: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One simulation; ``seed`` is where all chance in it comes from."""

    seed: int = 0
    client: Kind = Kind.NATIVE
    server: Kind = Kind.NATIVE
    transfers: tuple[Transfer, ...] = (Transfer(Flow(100_000)),)
    forward: Conditions = field(default_factory=Conditions)
    back: Conditions = field(default_factory=Conditions)
    client_options: TransportOptions = field(default_factory=TransportOptions)
    server_options: TransportOptions = field(default_factory=TransportOptions)
    rebindings: tuple[Rebinding, ...] = ()
    retry: bool = False
    ipv6: bool = False
    certificate: int = 0
    """Bytes by which the server's certificate is longer than it need be."""
    full: float = 0.0
    """Likelihood that a write to a socket of ours finds no room."""

    @property
    def is_harsh(self) -> bool:
        """Whether a time-out is an end that one may expect."""
        ways = (self.forward, self.back)
        return any(way.loss + way.corruption >= HARSH or way.blackholes for way in ways)

    @property
    def bytes(self) -> int:
        """What is written in all."""
        flows = [flow for each in self.transfers for flow in (each.there, each.back) if flow is not None]
        return sum(flow.size for flow in flows)

    @property
    def limit(self) -> float:
        """Seconds of virtual time within which everything must be over."""
        rate = min(way.rate or 1e9 for way in (self.forward, self.back))
        idle = max(self.client_options.idle_timeout, self.server_options.idle_timeout)
        round_trip = self.forward.latency + self.back.latency
        return 120 + 4 * idle + 50 * self.bytes / rate + 1_000 * round_trip * (1 + self.bytes / 1_000_000)
