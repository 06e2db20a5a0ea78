"""Made-up transfers on made-up networks: each whole, or given up where that was asked for, or a typed error in time.

The same as ``make simulate SEEDS=300``. A failure names the command that runs its seed again.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from simulation.batch import run
from simulation.hosts import Kind
from simulation.network import Conditions
from simulation.scenario import Flow, Scenario, Transfer
from simulation.seeds import scenario
from simulation.transfers import Simulation, Wrong, simulate

SEEDS = 300
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first: int) -> None:
    result = run(range(first, first + CHUNK))
    assert not result.failures, "\n".join(result.failures.values())


def test_seeds_meet_everything() -> None:
    """What the other test runs is no row of easy cases."""
    made = [scenario(seed) for seed in range(SEEDS)]
    assert {(each.client, each.server) for each in made} >= {
        (Kind.NATIVE, Kind.NATIVE),
        (Kind.NATIVE, Kind.STOCK),
        (Kind.STOCK, Kind.NATIVE),
    }
    for name in ("loss", "duplication", "reordering", "corruption", "marking", "bleaching", "blackholes", "rate"):
        assert sum(bool(getattr(each.forward, name)) for each in made) > SEEDS / 50, name
    for name in ("retry", "ipv6", "full", "certificate", "rebindings"):
        assert SEEDS / 50 < sum(bool(getattr(each, name)) for each in made) < SEEDS / 2, name
    flows = [transfer.there for each in made for transfer in each.transfers]
    assert sum(flow.reset_after is not None for flow in flows) > SEEDS / 20
    assert sum(flow.stop_after is not None for flow in flows) > SEEDS / 20
    assert 50 < sum(each.is_harsh for each in made) < SEEDS / 2
    assert max(each.bytes for each in made) > 1_000_000


# What is judged.


def test_bytes_that_differ_are_found() -> None:
    def tamper(simulation: Simulation) -> None:
        flow = simulation.flows[0][0]
        on_data = flow.on_data
        flow.on_data = lambda data, fin: on_data(data[:-1] + b"?", fin)  # type: ignore[method-assign]

    with pytest.raises(Wrong, match="stream 0, there differs between"):
        simulate(Scenario(transfers=(Transfer(Flow(100_000)),)), tamper)


def test_a_time_out_is_allowed_on_a_harsh_network_only() -> None:
    black = Conditions(blackholes=((0.05, 1_000.0),))
    harsh = Scenario(transfers=(Transfer(Flow(5_000_000)),), forward=black)
    assert simulate(harsh).ends == {"lost": 1}

    def prepare(simulation: Simulation) -> None:
        simulation.loop.call_later(0.05, lambda: simulation.network.change(black, forward=True))

    with pytest.raises(Wrong, match="connection ended: nothing came from the peer for too long"):
        simulate(replace(harsh, forward=Conditions()), prepare)


def test_a_transfer_that_never_ends_is_found() -> None:
    """Its reader holds more than the window, and the connection is kept alive."""
    endless = Scenario(transfers=(Transfer(Flow(5_000_000, hold=10_000)),))

    def keep_alive(simulation: Simulation) -> None:
        if simulation.client is not None:
            simulation.client.keep_alive()
        simulation.loop.call_later(5, keep_alive, simulation)

    with pytest.raises(Wrong, match=r"not over after 360 s of virtual time: \{'open': 1\}"):
        simulate(endless, keep_alive)


# What is written about it.


def test_the_documents_example_runs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "simulation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})  # it asserts for itself
