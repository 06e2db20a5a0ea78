"""What simulations have found, each as small as it could be made."""

from __future__ import annotations

import pytest
from simulation.hosts import Kind
from simulation.scenario import Flow, Scenario, Transfer
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
