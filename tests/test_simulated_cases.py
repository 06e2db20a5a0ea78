"""The cases of QUIC's interoperability runner, on a simulated network: each with our engine on both sides, and with
stock aioquic as the client and as the server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from simulation.hosts import Kind
from simulation.network import ECT_0, Conditions, Fate, Passage
from simulation.scenario import Flow, Rebinding, Scenario, Transfer
from simulation.transfers import Outcome, Simulation, simulate

from spaceblock.quic import TransportOptions

SIDES = {
    "native-native": (Kind.NATIVE, Kind.NATIVE),
    "native-stock": (Kind.NATIVE, Kind.STOCK),
    "stock-native": (Kind.STOCK, Kind.NATIVE),
}
each_pair = pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
MBIT = 125_000
"""Bytes a second."""

INITIAL, RETRY = 0, 3
"""Types of long headers (RFC 9000, section 17.2)."""

SMALL = (Transfer(Flow(200), Flow(1_000)),)


@dataclass
class Seen:
    """What passed, by direction."""

    passages: list[Passage] = field(default_factory=list)

    def long(self, kind: int, *, forward: bool) -> list[Passage]:
        """Datagrams that begin with a packet of this type."""
        return [each for each in self.passages if each.forward is forward and each.data[0] >> 4 == 0xC | kind]

    def marks(self, *, forward: bool) -> Counter[int]:
        return Counter(each.ecn for each in self.passages if each.forward is forward)


def run(sides: tuple[Kind, Kind], prepare: Any = None, **fields: Any) -> tuple[Outcome, Seen]:
    """Run a scenario in which no stream may be lost."""
    seen = Seen()

    def watch(simulation: Simulation) -> None:
        simulation.network.watchers.append(seen.passages.append)
        if prepare is not None:
            prepare(simulation)

    outcome = simulate(Scenario(client=sides[0], server=sides[1], **fields), watch)
    assert set(outcome.ends) == {"whole"}
    return outcome, seen


def both_ways(**conditions: Any) -> dict[str, Conditions]:
    """The same conditions in both directions, on a path that carries what Ethernet does."""
    each = Conditions(**{"mtu": 1_500, **conditions})
    return {"forward": each, "back": each}


def both_options(**options: Any) -> dict[str, TransportOptions]:
    return {"client_options": TransportOptions(**options), "server_options": TransportOptions(**options)}


def fetch(*sizes: int) -> tuple[Transfer, ...]:
    """The client asks on a stream for each, and the server answers."""
    return tuple(Transfer(Flow(50), Flow(size)) for size in sizes)


def token_size(initial: bytes) -> int:
    """The length that follows the two connection IDs of an Initial packet, below 64 or two bytes long."""
    at = 6 + initial[5]
    at += 1 + initial[at]
    return initial[at] if initial[at] < 0x40 else int.from_bytes(initial[at : at + 2], "big") - 0x4000


@each_pair
def test_handshake(sides: tuple[Kind, Kind]) -> None:
    outcome, seen = run(sides, transfers=SMALL)
    assert outcome.seconds < 0.5
    assert not seen.long(RETRY, forward=False)
    assert not any(each.data[1:5] == bytes(4) for each in seen.passages if each.data[0] & 0x80)


@each_pair
def test_transfer(sides: tuple[Kind, Kind]) -> None:
    """Flow control: the windows are a small part of what is fetched."""
    windows = both_options(stream_window=64_000, control_window=32_000, connection_reserve=64_000, max_streams_uni=2)
    outcome, _ = run(sides, transfers=fetch(300_000, 500_000, 200_000), **windows)
    assert outcome.ends == {"whole": 6}


@each_pair
def test_longrtt(sides: tuple[Kind, Kind]) -> None:
    outcome, _ = run(sides, transfers=fetch(300_000), **both_ways(latency=0.75))
    assert 3 < outcome.seconds < 30


@each_pair
def test_multiplexing(sides: tuple[Kind, Kind]) -> None:
    """Many more streams than may be open at once."""
    count = 500 if Kind.STOCK in sides else 1_999  # the time that aioquic takes grows with the square of it
    outcome, _ = run(sides, transfers=fetch(*[32] * count), **both_options(max_streams_bidi=100))
    assert outcome.ends == {"whole": 2 * count}


@each_pair
def test_chacha20(sides: tuple[Kind, Kind]) -> None:
    run(sides, transfers=fetch(300_000), **both_options(cipher_suites=("CHACHA20_POLY1305_SHA256",)))


@each_pair
def test_retry(sides: tuple[Kind, Kind]) -> None:
    _, seen = run(sides, transfers=SMALL, retry=True)
    assert len(seen.long(RETRY, forward=False)) == 1
    first, second, *_ = seen.long(INITIAL, forward=True)
    assert first.data[6:14] != second.data[6:14]  # the server chose another destination
    assert (token_size(first.data), token_size(second.data) > 20) == (0, True)


@each_pair
def test_keyupdate(sides: tuple[Kind, Kind]) -> None:
    counts: list[int] = []

    def look(simulation: Simulation) -> None:
        for talker in (simulation.client, simulation.server):
            engine = getattr(talker, "engine", None)
            if engine is not None:
                counts.append(engine.packets.phases.count)

    def ask(simulation: Simulation) -> None:
        if sides[0] is Kind.STOCK:
            simulation.loop.call_later(0.1, lambda: simulation.client.request_key_update())  # type: ignore[union-attr]
        simulation.loop.call_later(0.3, look, simulation)

    updates = both_options(key_update_packets=100 if sides[0] is Kind.NATIVE else 2**22)
    run(sides, ask, transfers=fetch(3_000_000), **both_ways(rate=80 * MBIT), **updates)
    assert min(counts) >= 1


@each_pair
@pytest.mark.parametrize("faults", [{"loss": 0.3}, {"corruption": 0.3}], ids=["handshakeloss", "handshakecorruption"])
def test_handshake_on_a_bad_network(sides: tuple[Kind, Kind], faults: dict[str, float]) -> None:
    """A third of all datagrams is lost or changed, fifty times."""
    fates: Counter[Fate] = Counter()
    patient = both_options(handshake_timeout=300, idle_timeout=120)
    for seed in range(50):
        outcome, _ = run(sides, seed=seed, transfers=SMALL, **both_ways(latency=0.015, **faults), **patient)
        fates += Counter(outcome.fates)
    assert fates[Fate.LOST] + fates[Fate.CHANGED] > 200


@each_pair
@pytest.mark.parametrize("faults", [{"loss": 0.02}, {"corruption": 0.02}], ids=["transferloss", "transfercorruption"])
def test_transfer_on_a_bad_network(sides: tuple[Kind, Kind], faults: dict[str, float]) -> None:
    outcome, _ = run(sides, transfers=fetch(2_000_000), **both_ways(latency=0.015, rate=10 * MBIT, **faults))
    assert outcome.fates[Fate.LOST] + outcome.fates[Fate.CHANGED] > 20
    assert outcome.seconds < 60


@each_pair
def test_blackhole(sides: tuple[Kind, Kind]) -> None:
    """Two seconds of silence after each five."""
    holes = tuple((5.0 + 7 * n, 7.0 + 7 * n) for n in range(10))
    ways = both_ways(latency=0.015, rate=2 * MBIT, blackholes=holes)
    outcome, _ = run(sides, transfers=fetch(2_000_000), **ways)
    assert outcome.fates[Fate.SWALLOWED] > 0
    assert 10 < outcome.seconds < 40


@each_pair
def test_ipv6(sides: tuple[Kind, Kind]) -> None:
    _, seen = run(sides, transfers=fetch(300_000), ipv6=True)
    assert {":" in each.source[0] for each in seen.passages} == {True}


@each_pair
@pytest.mark.parametrize("address", [False, True], ids=["rebind-port", "rebind-addr"])
def test_rebind(sides: tuple[Kind, Kind], address: bool) -> None:
    """A NAT changes what the server sees of the client, in the middle of a transfer and again."""
    moves = tuple(Rebinding(1.0 + 5 * n, address) for n in range(3))
    ways = both_ways(latency=0.015, rate=2 * MBIT)
    outcome, seen = run(sides, transfers=fetch(4_000_000), rebindings=moves, **ways)
    assert len({each.source for each in seen.passages if each.forward}) == 4
    assert outcome.seconds < 30


@each_pair
def test_ecn(sides: tuple[Kind, Kind]) -> None:
    """Packets allow marks for as long as the peer counts them; stock aioquic never does."""
    ways = both_ways(rate=10 * MBIT, queue=1_000_000, mark_above=50_000)
    outcome, seen = run(sides, transfers=(*fetch(1_000_000), Transfer(Flow(1_000_000))), **ways)
    for kind, forward in zip(sides, (True, False), strict=True):
        marked, all_sent = seen.marks(forward=forward)[ECT_0], seen.marks(forward=forward).total()
        if kind is Kind.STOCK:
            assert marked == 0
        elif Kind.STOCK in sides:
            assert 0 < marked < 0.2 * all_sent
        else:
            assert marked > 0.8 * all_sent
    assert outcome.fates[Fate.OVERFLOWED] == 0 or Kind.STOCK in sides


@each_pair
def test_amplificationlimit(sides: tuple[Kind, Kind]) -> None:
    """A server with a long certificate says no more than three times what it heard, until it knows the address."""

    def lose(simulation: Simulation) -> None:
        network = simulation.network
        # All that the client says after its first flight.
        network.drop = lambda forward, data: forward and 0.005 < network.now < 3

    _, seen = run(sides, lose, transfers=SMALL, certificate=8_000, **both_ways(latency=0.015))
    before = [each for each in seen.passages if each.time < 3]
    heard = sum(len(each.data) for each in before if each.forward and each.fate is Fate.ARRIVES)
    said = sum(len(each.data) for each in before if not each.forward)
    assert heard <= said <= 3 * heard
    assert sum(len(each.data) for each in seen.passages if not each.forward) > 8_000


# Not among the runner's: the path's MTU (RFC 9000, section 14).


@each_pair
def test_a_path_for_small_packets(sides: tuple[Kind, Kind]) -> None:
    """1280 bytes are what every path of IPv6 takes."""
    run(sides, transfers=(*fetch(300_000), Transfer(Flow(300_000))), **both_ways(mtu=1_280))


@each_pair
def test_a_path_that_shrinks(sides: tuple[Kind, Kind]) -> None:
    def shrink(simulation: Simulation) -> None:
        for forward in (True, False):
            simulation.network.change(Conditions(rate=10 * MBIT, mtu=1_280), forward=forward)

    run(
        sides,
        lambda simulation: simulation.loop.call_later(0.5, shrink, simulation),
        transfers=(*fetch(1_500_000), Transfer(Flow(1_500_000))),
        **both_ways(rate=10 * MBIT),
    )
