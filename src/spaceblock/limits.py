"""Every bound on what a peer can make this side hold, do or wait for, with its default and its reason.

Sizes are in bytes, times in seconds. What the wire itself fixes is a module constant; what a user may change is a field
of :class:`Limits`, :class:`Timeouts` or of :class:`spaceblock.Options`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .errors import LocalProtocolError
from .process.lazily import dataclass

MESSAGE_PAYLOAD_MAX = 65_536
"""Payload of any message but ``Block``: a page holds hundreds of entries, and a parser never buffers more than this."""

TEXT_MAX = 1_024
"""UTF-8 bytes of an error's text on the wire."""

ITEM_TEXT_MAX = 512
"""Characters that are kept of the error of one item, which loses its middle: each item of a transfer may have one."""

PHASE_MAX = 64
"""UTF-8 bytes of a phase's name on the wire."""

DATAGRAM_MIN = 1_200
"""The smallest datagram that every QUIC path carries (RFC 9000, section 14)."""

DATAGRAM_MAX = 65_507
"""The largest payload of a UDP datagram over IPv4."""

SLOT_SIZE = 1_048_576 + 65_536
"""One buffer of a ring: the largest ``Block`` message with its header, and room for small ones beside it."""

SMALL_ITEM = 1_048_576
"""Items up to this size share a data stream back to back; larger ones get a stream of their own."""


def check_choice(name: str, value: Any, fits: Callable[[Any], bool], wanted: str) -> None:
    """Raise :class:`LocalProtocolError` where what a program chose does not fit, or is of another type altogether."""
    try:
        good = fits(value)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise LocalProtocolError(f"{name} is {value!r}: choose {wanted}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may ask for at most; passing one raises :class:`spaceblock.errors.LimitExceeded` on both sides."""

    items: int = 1_000_000
    """Items of one transfer."""

    manifest_bytes: int = 256 * 1024 * 1024
    """Encoded requests and manifest of one transfer."""

    transfers: int = 64
    """Transfers of one connection at once, in each direction."""

    total_size: int = 2**62 - 1
    """Bytes of one transfer, as announced and as received."""

    peers: int = 1024
    """Connections of one listener at once."""

    not_durable: int = 32 * 1024 * 1024
    """Received bytes of one transfer into a folder that a loss of power may cost; before there are more, nothing more
    is read. They are what is sent again after an interruption."""

    connections: int = 64
    """Connections of one peer to one listener at once."""

    offers: int = 64
    """Offers of one peer that nobody has answered yet, over all its connections."""

    offered_bytes: int = 512 * 1024 * 1024
    """Encoded requests and manifests of all open transfers of one peer, over all its connections."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_choice(f"Limits.{name}", getattr(self, name), lambda number: number >= 0, "a number from 0 up")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase may last; passing one raises :class:`spaceblock.errors.Stalled` naming the phase."""

    connect: float = 10.0
    """From the first datagram to the listener's ``Hello``."""

    offer: float = 300.0
    """How long an offer waits for its answer before it expires."""

    idle: float = 30.0
    """How long nothing may arrive or be acknowledged between peers; of one transfer, half as long again, so that a lost
    connection is noticed first."""

    sink: float = 300.0
    """How long the receiver's disk or program may take over bytes that have arrived."""

    source: float = 300.0
    """How long a pipe or program that is being sent may give nothing."""

    verify: float = 300.0
    """From the last byte to the receiver's ``Verified``, while its heartbeat says that it verifies or flushes."""

    retry: float = 30.0
    """How long a transfer whose connection was lost waits for another one, and a side that can connect tries to; 0: it
    does not."""

    close: float = 5.0
    """How long the closing choreography may take before the connection is dropped."""

    def __post_init__(self) -> None:
        for name in ("connect", "offer", "sink", "source", "verify"):
            check_choice(f"Timeouts.{name}", getattr(self, name), lambda time: time > 0, "a number of seconds above 0")
        for name in ("retry", "close"):
            check_choice(f"Timeouts.{name}", getattr(self, name), lambda time: time >= 0, "seconds, from 0 up")
        # Every time-out but this one may be infinite. A peer is told this one, and QUIC has no number for that.
        check_choice("Timeouts.idle", self.idle, lambda time: 0 < time < math.inf, "a number of seconds above 0")


HEARTBEAT = 0.25
"""Seconds between the receiver's reports while bytes move."""

RING_SLOTS = 16
"""Buffers of one ring; a transfer has one ring, so this times :data:`SLOT_SIZE` bounds what it holds."""

CHECKPOINTS = 4
"""Checkpoints begun within :attr:`Limits.not_durable`, so that the disk flushes one part while others arrive."""

PARTIALS_KEPT = 7 * 86_400.0
"""Seconds for which what is left of an interrupted transfer is kept for another attempt."""

PARTIALS_MAX = 64
"""Interrupted transfers kept in one folder; of more the oldest go."""

PARTIALS_PEER = 16
"""Those of one peer among them, so that nobody pushes out what others left."""

PARTIALS_BYTES = 2**40
"""Bytes on the disk of what one peer left in one folder; of more the oldest go, and the newest stays in any case."""

WRONG_TICKETS = 32
"""Handshakes of one address (of IPv6: one network of 64 bits) without a ticket or trust that are judged within
:data:`WRONG_TICKETS_SECONDS`; after that its packets begin no connection until these are over."""

WRONG_TICKETS_ALL = 256
"""Such handshakes of all addresses together; after that everybody has to prove an address before anything is kept."""

WRONG_TICKETS_SECONDS = 60.0
"""Seconds after which wrong tickets are forgotten."""

GUESSERS_MAX = 4_096
"""Addresses of wrong tickets remembered; of more the oldest go."""

HALF_OPEN_UNPROVED = 128
"""Handshakes under way at once with addresses that need not be proved; everybody else is answered with Retry, for which
nothing is kept (RFC 9000, section 8.1.2)."""

HALF_OPEN_MAX = 256
"""Handshakes under way at once; more are ignored."""

REMEMBERED_MAX = 1_000
"""Transfers that an identity remembers in each direction, so that the same command resumes them or hears their end."""

REMEMBERED_SECONDS = 30 * 86_400.0
"""Seconds after which one of them may be forgotten."""

OUTCOMES_KEPT = 1_000_000
"""Items of complete transfers whose outcomes are in memory, as no file has them; of more the oldest transfers go."""

COMMANDS_KEPT = 64
"""Commands whose listener is given its port again when they are; of more those go that were not used for longest."""

DATA_STREAMS = 2
"""Data streams that a sender keeps open at once for one transfer."""

DATA_STREAMS_MAX = 64
"""Data streams that a peer may open for one transfer at once."""

REREADS = 3
"""Items of one transfer that are open at once to be read again, on either side: a peer may find fault with all."""

NAME_PROBLEMS_MAX = 100_000
"""Names that a receiver refuses at once: a bound on what the reasons take on both sides. The rest is told in the next
round."""

NAME_ROUNDS = 3
"""How often a receiver asks for other names in one transfer, and how often a person is asked for the same one."""

CONTROL_BACKLOG = 262_144
"""Bytes of control messages queued before their maker waits: a list of a million items is made as it is sent."""

DATA_BACKLOG = 4 * 1_048_576
"""Bytes of one data stream queued in the engine beyond what may be in flight, before the next buffer is filled."""

FLIGHT_MAX = 4 * 1_048_576
"""Bytes in flight that are allowed for beyond :data:`DATA_BACKLOG`: some congestion windows know no bound."""

ADDRESSES_MAX = 16
"""Addresses of one peer, in a ticket too: enough for a machine with several networks, few enough to try them all."""

RATE_MIN = 1_000
"""Bytes a second below which the smallest portion takes so long that a peer would think that nobody is there."""
