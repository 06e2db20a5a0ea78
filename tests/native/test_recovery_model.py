"""Loss detection in any order of events against a model."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from recovery_model import SIZE, Model

from spaceblock.quic.native.recovery import (
    ACK_ELICITING,
    IN_FLIGHT,
    MTU_PROBE,
    NEVER,
    Recovery,
)

MS = 1_000
SECOND = 1_000_000
DATA = ACK_ELICITING | IN_FLIGHT
ACK_ONLY = 0
SECRET = bytes(range(16))


class Conversation(RuleBasedStateMachine):
    """Packets sent, received in any order or not at all, acknowledged in any way, and timers late or early."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(5 * MS, 3)
        self.recovery = Recovery(SECRET, max_ack_delay=5 * MS, ack_delay_exponent=3)
        self.now = SECOND
        self.sent: list[int] = []
        self.received: set[int] = set()

    @rule(
        count=st.integers(1, 8),
        flags=st.sampled_from([DATA, DATA, DATA, ACK_ONLY, IN_FLIGHT, DATA | MTU_PROBE]),
        size=st.integers(30, 1_400),
    )
    def send(self, count: int, flags: int, size: int) -> None:
        for _ in range(count):
            pn = self.recovery.send(self.now, size, flags)
            assert pn is not None
            self.model.send(pn, self.now, size, flags)
            self.sent.append(pn)

    @rule(count=st.integers(5, 12), pause=st.integers(10_000, 1_000_000))
    def send_now_and_then(self, count: int, pause: int) -> None:
        for _ in range(count):
            self.now += pause
            self.send(1, DATA, SIZE)

    @rule(duration=st.one_of(st.integers(0, 3_000), st.integers(0, 100_000), st.integers(0, 2_000_000)))
    def wait(self, duration: int) -> None:
        self.now += duration

    @rule(back=st.integers(0, 30), count=st.integers(1, 12), step=st.integers(1, 4), delay=st.integers(0, 2_000))
    def receive_and_acknowledge(self, back: int, count: int, step: int, delay: int) -> None:
        """Some packets arrive, perhaps late, and the peer tells of all that ever did."""
        stop = len(self.sent) - back
        self.received.update(self.sent[max(0, stop - count * step) : max(0, stop) : step])
        self.acknowledge(self.received, delay)

    @rule(mask=st.integers(1, 2**40 - 1), delay=st.integers(0, 2_000))
    def acknowledge_anything(self, mask: int, delay: int) -> None:
        self.acknowledge({pn for i, pn in enumerate(reversed(self.sent)) if mask >> i & 1}, delay)

    def acknowledge(self, numbers: set[int], delay: int) -> None:
        if not numbers:
            return
        spans: list[tuple[int, int]] = []
        for pn in sorted(numbers, reverse=True):
            if spans and spans[-1][0] == pn + 1:
                spans[-1] = (pn, spans[-1][1])
            else:
                spans.append((pn, pn + 1))
        spans = spans[:64]
        self.recovery.acknowledge(spans, self.now, delay)
        self.model.acknowledge({pn for span in spans for pn in range(*span)}, self.now, delay)
        self.lists_agree()

    @rule(early=st.integers(-5_000, 1))
    def run_timer(self, early: int) -> None:
        due = self.recovery.timeout()
        if due != NEVER:
            self.now = max(self.now, due - early)
        assert self.recovery.on_timer(self.now) == self.model.on_timer(self.now)
        self.lists_agree()

    def lists_agree(self) -> None:
        assert self.recovery.acked_packets() == self.model.acked
        assert self.recovery.lost_packets() == self.model.lost

    @invariant()
    def agree(self) -> None:
        recovery, model = self.recovery, self.model
        in_flight = [packet for packet in model.waiting.values() if packet.in_flight]
        assert recovery.bytes_in_flight == sum(packet.size for packet in in_flight)
        if in_flight:
            assert recovery.oldest == min(packet.pn for packet in in_flight)
        assert recovery.timeout() == model.timeout()
        assert (recovery.latest_rtt, recovery.min_rtt) == (model.latest, model.least)
        assert recovery.smoothed_rtt == pytest.approx(model.smoothed)
        assert recovery.rtt_variation == pytest.approx(model.variation, abs=1e-6)
        assert (recovery.pto_count, recovery.largest_acked) == (model.pto_count, model.largest_acked)
        assert recovery.packet_threshold == model.packet_threshold
        assert recovery.time_threshold == model.time_threshold
        ours, theirs = recovery.congestion, model.congestion
        assert (ours.window, ours.threshold) == (theirs.window, theirs.threshold)
        assert (ours.reductions, ours.undone) == (theirs.reductions, theirs.undone)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=50)
