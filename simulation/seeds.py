"""Scenarios made up from a number: the same one each time.

What they are made of is bounded so that each takes a fraction of a second: most transfers are of some kilobytes, a few
of a megabyte or two. Half of the networks are good ones, on which nothing but success is allowed.
"""

from __future__ import annotations

import random
from typing import Any

from spaceblock.quic import TransportOptions

from .hosts import Kind
from .network import IPV6_HEADERS, Conditions
from .scenario import Flow, Rebinding, Scenario, Transfer

PAIRS = (
    *[(Kind.NATIVE, Kind.NATIVE)] * 8,
    *[(Kind.NATIVE, Kind.STOCK), (Kind.STOCK, Kind.NATIVE)] * 4,
    *[(Kind.NATIVE, Kind.AIOQUIC), (Kind.AIOQUIC, Kind.NATIVE)] * 2,
    *[(Kind.AIOQUIC, Kind.STOCK), (Kind.STOCK, Kind.AIOQUIC)],
)
SUITES = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
SIZE_MAX = 2_000_000


def scenario(seed: int) -> Scenario:
    """What happens under this number."""
    chance = random.Random(f"scenario {seed}")
    client, server = chance.choice(PAIRS)
    good = chance.random() < 0.5
    latency = _spread(chance, 0.0001, 0.4)
    forward, back = (_conditions(chance, latency, good=good) for _ in range(2))
    suites = _suites(chance)
    client_options, server_options = (_options(chance, kind, suites) for kind in (client, server))
    budget = int(_spread(chance, 1_000, SIZE_MAX))
    rate = min(way.rate or 1e9 for way in (forward, back))
    budget = min(budget, int(rate * 60))
    transfers = _transfers(chance, budget, Kind.STOCK in (client, server))
    return Scenario(
        seed=seed,
        client=client,
        server=server,
        transfers=transfers,
        forward=forward,
        back=back,
        client_options=client_options,
        server_options=server_options,
        rebindings=_rebindings(chance),
        retry=chance.random() < 0.1,
        ipv6=chance.random() < 0.2,
        certificate=chance.choice((0, 0, 0, 1_000, 10_000)),
        full=chance.choice((0.0, 0.0, 0.0, 0.01, 0.2)),
    )


def _conditions(chance: random.Random, latency: float, *, good: bool) -> Conditions:
    rate = _spread(chance, 50_000, 100_000_000) if chance.random() < 0.7 else None
    fields: dict[str, Any] = {
        "latency": latency * chance.uniform(0.5, 1.5),
        "rate": rate,
        "queue": int(max(30_000, (rate or 0) * _spread(chance, 0.002, 0.5))),
        "marking": chance.choice((0.0, 0.0, 0.02)),
        "mark_above": chance.choice((None, 15_000)),
        "bleaching": chance.random() < 0.1,
    }
    if not good:
        fields["loss"] = chance.choice((0.0, _spread(chance, 0.0001, 0.25)))
        fields["duplication"] = chance.choice((0.0, _spread(chance, 0.001, 0.5)))
        fields["reordering"] = chance.choice((0.0, _spread(chance, 0.001, 0.5)))
        fields["late"] = _spread(chance, 0.0001, 0.05)
        fields["corruption"] = chance.choice((0.0, 0.0, _spread(chance, 0.0001, 0.2)))
        if chance.random() < 0.15:
            start = _spread(chance, 0.01, 20)
            fields["blackholes"] = ((start, start + _spread(chance, 0.05, 40)),)
    return Conditions(**fields)


def _options(chance: random.Random, kind: Kind, suites: tuple[str, ...]) -> TransportOptions:
    window = int(_spread(chance, 4_000, 2_000_000))
    size = chance.choice((1_200, 1_452, 1_452, 1_452, 4_000, 9_000 - IPV6_HEADERS, 65_507))
    streams = chance.choice((1, 2, 5, 64))
    return TransportOptions(
        datagram_size=1_200 if kind is Kind.STOCK else size,
        idle_timeout=chance.choice((5.0, 30.0)),
        stream_window=window,
        control_window=max(4_000, window // 8),
        connection_reserve=max(8_000, window // 2),
        max_streams_uni=streams,
        max_streams_bidi=max(2, streams),
        key_update_packets=chance.choice((2**22, 2**22, 30, 300)),
        cipher_suites=suites,
    )


def _suites(chance: random.Random) -> tuple[str, ...]:
    first = chance.choice(SUITES)
    return (first, *(suite for suite in SUITES if suite != first))


def _transfers(chance: random.Random, budget: int, with_stock: bool) -> tuple[Transfer, ...]:
    count = chance.choice((1, 2, 3, 5, 10))
    shares = [chance.random() ** 3 for _ in range(2 * count)]
    sizes = iter([int(budget * share / sum(shares)) if chance.random() < 0.95 else 0 for share in shares])
    transfers = []
    for _ in range(count):
        there, back = (_flow(chance, next(sizes), give_up=not with_stock) for _ in range(2))
        transfers.append(
            Transfer(
                there,
                back if chance.random() < 0.4 else None,
                by_client=chance.random() < 0.6,
                start=chance.choice((0.0, 0.0, chance.uniform(0, 2))),
            )
        )
    return tuple(transfers)


def _flow(chance: random.Random, size: int, *, give_up: bool) -> Flow:
    ending = chance.choice(("whole",) * 8 + ("reset", "stop")) if give_up else "whole"
    return Flow(
        size,
        pieces=chance.choice((1, 1, 3, 20)),
        pause=chance.choice((0.0, _spread(chance, 0.0001, 0.2))),
        reset_after=chance.randint(0, size) if ending == "reset" else None,
        stop_after=chance.randint(0, size) if ending == "stop" else None,
        hold=chance.choice((0.0, 0.0, _spread(chance, 0.0001, 0.1))),
    )


def _rebindings(chance: random.Random) -> tuple[Rebinding, ...]:
    count = chance.choice((0, 0, 0, 0, 0, 0, 0, 1, 1, 3))
    times = sorted(_spread(chance, 0.01, 10) for _ in range(count))
    return tuple(Rebinding(at, address=chance.random() < 0.5) for at in times)


def _spread(chance: random.Random, low: float, high: float) -> float:
    """Any number between two, each order of magnitude as likely as the others."""
    return float(low * (high / low) ** chance.random())
