"""The network: two directions with conditions of their own, between sockets that have addresses.

A datagram fares in this order: a blackhole or a size beyond the MTU swallows it; it waits for its turn where there is a
rate, or is dropped where the queue is full; it is lost, changed or cut, marked, sent twice; it travels, and some take
longer. Whoever has the address when it arrives gets it. All chance comes from the seed.
"""

from __future__ import annotations

import enum
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .clock import START, VirtualLoop

IPV4_HEADERS = 28
IPV6_HEADERS = 48
"""Bytes of an IP packet before the UDP payload."""

NOT_ECT, ECT_1, ECT_0, CE = range(4)
"""The two ECN bits of an IP header (RFC 3168, section 5)."""

_APART = 1e-8
"""Seconds between two datagrams that would arrive at once, so that they stay in order."""


class Fate(enum.Enum):
    """What became of a datagram."""

    ARRIVES = "arrives"
    LOST = "lost"
    SWALLOWED = "swallowed"
    """By a blackhole."""
    TOO_LARGE = "too large"
    OVERFLOWED = "overflowed"
    CHANGED = "changed"
    NOWHERE = "nowhere"
    """Nobody had the address any more."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one direction treats datagrams; likelihoods are from 0 to 1."""

    latency: float = 0.01
    """Seconds of a datagram's way."""

    rate: float | None = None
    """Bytes a second, headers included; None: any number."""

    queue: int = 200_000
    """Bytes that wait for their turn, where there is a rate; what does not fit is dropped."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Likelihood that a datagram takes up to twice as long, or ``late`` more where that is more."""

    late: float = 0.002
    corruption: float = 0.0
    """Likelihood that bits are changed, or that the end is cut off."""

    mtu: int = 65_575
    """Bytes of an IP packet at most, headers included; by default the most that IPv6 can say."""

    marking: float = 0.0
    """Likelihood that the network marks congestion on a datagram that allows it (RFC 3168)."""

    mark_above: int | None = None
    """Bytes in the queue above which it does so always."""

    bleaching: bool = False
    """ECN bits are erased on the way."""

    blackholes: tuple[tuple[float, float], ...] = ()
    """When nothing arrives: from and until, in seconds since the beginning."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A datagram that was sent, as an observer sees it; ``time`` is in seconds since the beginning."""

    time: float
    forward: bool
    source: tuple[Any, ...]
    to: tuple[Any, ...]
    data: bytes = field(repr=False)
    ecn: int
    fate: Fate


class Station(Protocol):
    """Where datagrams arrive and come from."""

    forward: bool
    address: tuple[Any, ...]

    def arrive(self, data: bytes, source: tuple[Any, ...], ecn: int) -> None:
        """Take in a datagram."""


class Link:
    """One direction, and how far its queue is."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.free_at = 0.0
        self.last_arrival = 0.0


class Network:
    """Both directions: ``forward`` is what clients send."""

    def __init__(self, loop: VirtualLoop, seed: int, forward: Conditions, back: Conditions) -> None:
        self.loop = loop
        self.fates: dict[Fate, int] = dict.fromkeys(Fate, 0)
        """How many datagrams fared how."""
        self.watchers: list[Callable[[Passage], None]] = []
        self.drop: Callable[[bool, bytes], bool] = lambda forward, data: False
        """For tests: whether a datagram is lost, by its direction and content."""
        self._links = {True: Link(forward), False: Link(back)}
        self._stations: dict[tuple[Any, ...], Station] = {}
        self._random = random.Random(f"network {seed}")
        self._trace = hashlib.blake2b(digest_size=16)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.loop.time() - START

    @property
    def trace(self) -> str:
        """A digest of all that was sent so far: of two runs of one seed, it is the same."""
        return self._trace.hexdigest()

    def conditions(self, *, forward: bool) -> Conditions:
        """Of one direction, at present."""
        return self._links[forward].conditions

    def change(self, conditions: Conditions, *, forward: bool) -> None:
        """From now on, one direction has other conditions."""
        self._links[forward].conditions = conditions

    def join(self, station: Station) -> None:
        """Bring datagrams for the station's address to it."""
        self._stations[station.address] = station

    def leave(self, station: Station) -> None:
        """The station is gone."""
        if self._stations.get(station.address) is station:
            del self._stations[station.address]

    def rebind(self, station: Station, address: tuple[Any, ...]) -> None:
        """From now on a NAT shows a station under another address, and nothing finds it under its old one."""
        self.leave(station)
        station.address = address
        self.join(station)

    def send(self, station: Station, data: bytes, to: tuple[Any, ...], ecn: int = NOT_ECT) -> None:
        """Carry one datagram, or lose it."""
        link = self._links[station.forward]
        conditions = link.conditions
        fate = self._first_fate(link, station.forward, data, to)
        chance = self._random.random
        departs = self.loop.time()
        waits = 0.0
        if fate is Fate.ARRIVES and conditions.rate is not None:
            waits = max(link.free_at - departs, 0.0) * conditions.rate
            if waits > 0 and waits + len(data) > conditions.queue:
                fate = Fate.OVERFLOWED
            else:
                departs = link.free_at = max(link.free_at, departs) + (len(data) + IPV4_HEADERS) / conditions.rate
        if fate is Fate.ARRIVES and chance() < conditions.loss:
            fate = Fate.LOST
        arriving = data
        if fate is Fate.ARRIVES and chance() < conditions.corruption:
            fate, arriving = Fate.CHANGED, self._change(data)
        self._note(station, data, to, ecn, fate)
        if fate not in (Fate.ARRIVES, Fate.CHANGED):
            return
        if conditions.bleaching:
            ecn = NOT_ECT
        elif ecn in (ECT_0, ECT_1):
            marks = conditions.mark_above is not None and waits > conditions.mark_above
            ecn = CE if marks or chance() < conditions.marking else ecn
        for _ in range(1 + (chance() < conditions.duplication)):
            at = max(departs + conditions.latency, link.last_arrival + _APART)
            if chance() < conditions.reordering:
                at += chance() * max(conditions.latency, conditions.late)
            else:
                link.last_arrival = at
            self.loop.call_at(at, self._arrive, arriving, station.address, to, ecn)

    def _first_fate(self, link: Link, forward: bool, data: bytes, to: tuple[Any, ...]) -> Fate:
        conditions = link.conditions
        now = self.now
        if any(start <= now < stop for start, stop in conditions.blackholes):
            return Fate.SWALLOWED
        headers = IPV6_HEADERS if ":" in to[0] else IPV4_HEADERS
        if len(data) + headers > conditions.mtu:
            return Fate.TOO_LARGE
        return Fate.LOST if self.drop(forward, data) else Fate.ARRIVES

    def _arrive(self, data: bytes, source: tuple[Any, ...], to: tuple[Any, ...], ecn: int) -> None:
        station = self._stations.get(to)
        if station is None:
            self.fates[Fate.NOWHERE] += 1
        else:
            station.arrive(data, source, ecn)

    def _change(self, data: bytes) -> bytes:
        changed = bytearray(data)
        if self._random.random() < 0.25:
            del changed[self._random.randrange(len(changed)) :]
        else:
            for _ in range(self._random.choice((1, 1, 2, 30))):
                changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _note(self, station: Station, data: bytes, to: tuple[Any, ...], ecn: int, fate: Fate) -> None:
        self.fates[fate] += 1
        passage = Passage(self.now, station.forward, station.address, to, data, ecn, fate)
        self._trace.update(f"{passage.time:.9f} {passage.source} {to} {ecn} {fate.value} ".encode() + data)
        for watch in self.watchers:
            watch(passage)
