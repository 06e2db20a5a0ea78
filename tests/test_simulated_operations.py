"""Operations of two programs and of the network between them, in sequences that Hypothesis makes up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from simulation.hosts import Kind
from simulation.playground import Playground

NUMBERS = st.integers(0, 11)
SIZES = st.one_of(st.integers(0, 3), st.integers(0, 3_000), st.integers(0, 100_000))
LIKELIHOODS = st.sampled_from((0.0, 0.02, 0.3))


class Operations(RuleBasedStateMachine):
    """Any operation at any time; what must hold is checked by the playground after each."""

    def __init__(self) -> None:
        super().__init__()
        self.ground: Playground | None = None

    @initialize(
        sides=st.sampled_from(
            [(Kind.NATIVE, Kind.NATIVE)] * 3 + [(Kind.NATIVE, Kind.STOCK), (Kind.STOCK, Kind.NATIVE)]
        ),
        seed=st.integers(0, 1_000),
        window=st.sampled_from((4_000, 30_000, 2_000_000)),
        streams=st.sampled_from((1, 2, 64)),
        updates=st.sampled_from((2**22, 3, 20)),
        size=st.sampled_from((1_200, 1_452, 65_507)),
    )
    def begin(self, sides: tuple[Kind, Kind], seed: int, window: int, streams: int, updates: int, size: int) -> None:
        if Kind.STOCK in sides:
            streams = 64  # stock aioquic resets streams that it may not name yet
        self.ground = Playground(
            *sides,
            seed=seed,
            stream_window=window,
            control_window=window,
            connection_reserve=window,
            max_streams_uni=streams,
            max_streams_bidi=streams,
            key_update_packets=updates,
            datagram_size=1_200 if Kind.STOCK in sides else size,
        )

    @property
    def it(self) -> Playground:
        assert self.ground is not None
        return self.ground

    @precondition(lambda self: len(self.it.streams) < 12)
    @rule(by_client=st.booleans(), unidirectional=st.booleans())
    def open(self, **fields: Any) -> None:
        self.it.open(**fields)

    @rule(number=NUMBERS, size=SIZES, by_opener=st.booleans(), end=st.booleans())
    def write(self, **fields: Any) -> None:
        self.it.write(**fields)

    @rule(number=NUMBERS, by_opener=st.booleans())
    def reset(self, **fields: Any) -> None:
        self.it.reset(**fields)

    @rule(number=NUMBERS, by_opener=st.booleans())
    def stop(self, **fields: Any) -> None:
        self.it.stop(**fields)

    @rule(by_client=st.booleans())
    def hold(self, by_client: bool) -> None:
        self.it.hold(by_client=by_client)

    @rule(by_client=st.booleans())
    def ping(self, by_client: bool) -> None:
        self.it.ping(by_client=by_client)

    @rule(seconds=st.sampled_from((0.001, 0.011, 0.05, 0.4, 5.0)))
    def pass_time(self, seconds: float) -> None:
        self.it.pass_time(seconds)

    @rule(
        forward=st.booleans(),
        loss=LIKELIHOODS,
        duplication=LIKELIHOODS,
        reordering=LIKELIHOODS,
        corruption=LIKELIHOODS,
        rate=st.sampled_from((None, 20_000.0, 1_000_000.0)),
        queue=st.sampled_from((5_000, 1_000_000)),
        marking=LIKELIHOODS,
        bleaching=st.booleans(),
    )
    def change(self, **conditions: Any) -> None:
        self.it.change(**conditions)

    @rule(forward=st.booleans(), count=st.integers(1, 20))
    def lose(self, forward: bool, count: int) -> None:
        self.it.lose(count, forward=forward)

    @rule(port=st.integers(50_002, 50_009))
    def rebind(self, port: int) -> None:
        self.it.rebind(port)

    @precondition(lambda self: self.it.network.now > 1)
    @rule(by_client=st.booleans())
    def close(self, by_client: bool) -> None:
        self.it.close(by_client=by_client)

    def teardown(self) -> None:
        if self.ground is not None:
            self.ground.finish()


Operations.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestOperations = pytest.mark.timeout(600)(Operations.TestCase)
