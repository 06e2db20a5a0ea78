"""What simulations have found, each as small as it could be made."""

from __future__ import annotations

import pytest
from simulation.hosts import Kind
from simulation.network import Conditions
from simulation.scenario import Flow, Rebinding, Scenario, Transfer
from simulation.transfers import Simulation, simulate

from spaceblock.quic import TransportOptions


@pytest.mark.parametrize("server", [Kind.NATIVE, Kind.STOCK])
def test_a_stream_that_ended_before_the_hand_over_and_is_consumed_after_it_makes_way_for_another(server: Kind) -> None:
    first, second = Transfer(Flow(100, hold=2), by_client=False), Transfer(Flow(100), by_client=False)
    one_at_a_time = TransportOptions(max_streams_uni=1)

    def lose_the_confirmation(simulation: Simulation) -> None:
        short = iter([True])
        simulation.network.drop = lambda forward, data: not forward and data[0] < 0x80 and next(short, False)

    scenario = Scenario(server=server, transfers=(first, second), client_options=one_at_a_time)
    assert simulate(scenario, lose_the_confirmation).ends == {"whole": 2}


@pytest.mark.parametrize("server", [Kind.NATIVE, Kind.STOCK])
def test_credit_that_is_told_again_names_no_stream_that_the_peer_does_not_allow_yet(server: Kind) -> None:
    small, few = TransportOptions(control_window=20_000), TransportOptions(max_streams_bidi=2)
    # Of these aioquic allows 128 at once, whatever the options say.
    size, count = (20_000, 135) if server is Kind.STOCK else (300_000, 4)
    transfers = (Transfer(Flow(10), Flow(size)),) * count
    scenario = Scenario(
        server=server,
        transfers=transfers,
        forward=Conditions(loss=0.025),
        back=Conditions(rate=500_000),
        client_options=small,
        server_options=few,
    )
    assert simulate(scenario).ends == {"whole": 2 * count}


def test_a_client_that_moves_before_it_knows_that_the_handshake_is_confirmed_is_followed() -> None:
    """What it says then is behind its Handshake packets, in one datagram, since its window is full."""
    scenario = Scenario(
        transfers=(Transfer(Flow(23_000)),),
        forward=Conditions(latency=0.016),
        back=Conditions(latency=0.016),
        rebindings=(Rebinding(0.019, address=True),),
        client_options=TransportOptions(idle_timeout=5),
    )
    assert simulate(scenario).ends == {"whole": 1}
