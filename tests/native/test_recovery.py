"""Loss detection by the examples of RFC 9002, and any order of events against a model that is written to be read."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spaceblock.errors import RemoteProtocolError
from spaceblock.quic.native.congestion import Congestion
from spaceblock.quic.native.recovery import (
    ACK_ELICITING,
    ACKED,
    IN_FLIGHT,
    LATE,
    LATE_MAX,
    LOST,
    MTU_PROBE,
    NEVER,
    PACKET_THRESHOLD_MAX,
    SENT_MAX,
    SENT_RESERVE,
    TIMER_EARLY,
    TIMER_LOSS,
    TIMER_PROBE,
    Recovery,
)

MS = 1_000
SECOND = 1_000_000
SIZE = 1_200
DATA = ACK_ELICITING | IN_FLIGHT
ACK_ONLY = 0
SECRET = bytes(range(16))
WORD = 2**64 - 1


def fresh(rtt: int = 0, **options: int) -> Recovery:
    """Nothing in flight; a round trip already known, without variation, if one is given."""
    recovery = Recovery(SECRET, **options)
    if rtt:
        recovery.seed_rtt(rtt, rtt, 0, rtt, 0)
    return recovery


def acked(recovery: Recovery) -> list[int]:
    return [pn for pn, _, _ in recovery.acked_packets()]


def lost(recovery: Recovery) -> list[int]:
    return [pn for pn, _, _ in recovery.lost_packets()]


def state(recovery: Recovery) -> tuple[object, ...]:
    """Everything that an acknowledgement may change."""
    names = [name for name in dir(Recovery) if not callable(getattr(Recovery, name)) and name[0] != "_"]
    window = recovery.congestion.window
    return (*(getattr(recovery, name) for name in names), window, recovery.timeout(), recovery.next_number())


# ---- Round trips (section 5.3) ----


def test_round_trips_by_hand() -> None:
    recovery = fresh(max_ack_delay=25 * MS, ack_delay_exponent=3)
    recovery.send(0, SIZE, count=4)
    recovery.acknowledge([(0, 1)], 100 * MS)
    assert (recovery.latest_rtt, recovery.min_rtt) == (100 * MS, 100 * MS)
    assert (recovery.smoothed_rtt, recovery.rtt_variation) == (100_000, 50_000)
    # 140 ms, of which the peer waited 20: |100 - 120| = 20, so 3/4 * 50 + 1/4 * 20, and 7/8 * 100 + 1/8 * 120.
    recovery.acknowledge([(0, 2)], 140 * MS, delay=20 * MS >> 3)
    assert (recovery.smoothed_rtt, recovery.rtt_variation) == (102_500, 42_500)
    # The peer says it waited 800 ms, but promised 25 at most: 180 - 25 = 155.
    recovery.acknowledge([(0, 3)], 180 * MS, delay=100_000)
    assert (recovery.smoothed_rtt, recovery.rtt_variation) == (109_062.5, 45_000)
    assert (recovery.latest_rtt, recovery.min_rtt) == (180 * MS, 100 * MS)


def test_a_delay_never_makes_a_round_trip_shorter_than_the_least() -> None:
    recovery = fresh()
    recovery.send(0, SIZE, count=2)
    recovery.acknowledge([(0, 1)], 100 * MS)
    recovery.acknowledge([(0, 2)], 110 * MS, delay=20 * MS >> 3)
    assert recovery.smoothed_rtt == 101_250


def test_the_largest_delay_on_the_wire_is_capped() -> None:
    recovery = fresh(max_ack_delay=16_383 * MS, ack_delay_exponent=20)
    recovery.send(0, SIZE, count=2)
    recovery.acknowledge([(0, 1)], 100 * MS)
    recovery.acknowledge([(0, 2)], 20 * SECOND, delay=2**62 - 1)
    assert recovery.smoothed_rtt == pytest.approx(7 / 8 * 100_000 + (20 * SECOND - 16_383 * MS) / 8)


def test_only_the_largest_number_tells_a_round_trip_and_only_with_something_that_asks_for_it() -> None:
    recovery = fresh()
    recovery.send(0, SIZE, count=3)
    recovery.acknowledge([(2, 3)], 50 * MS)
    recovery.acknowledge([(0, 3)], 90 * MS)
    assert (recovery.latest_rtt, acked(recovery)) == (50 * MS, [0, 1])
    recovery.send(100 * MS, SIZE)
    recovery.send(100 * MS, 50, ACK_ONLY)
    recovery.acknowledge([(4, 5)], 190 * MS)
    assert (recovery.latest_rtt, acked(recovery)) == (50 * MS, [4])


# ---- Losses (section 6.1) ----


def test_three_packets_later_is_lost() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=5)
    recovery.acknowledge([(2, 3)], 1 * MS)
    assert lost(recovery) == []
    recovery.acknowledge([(3, 4), (1, 2)], 1 * MS)
    assert (acked(recovery), lost(recovery)) == ([1, 3], [0])
    assert (recovery.oldest, recovery.bytes_in_flight) == (4, SIZE)


def test_nine_eighths_of_a_round_trip_later_is_lost() -> None:
    recovery = fresh(rtt=80 * MS)
    recovery.send(0, SIZE)
    recovery.send(10 * MS, SIZE)
    recovery.acknowledge([(1, 2)], 89 * MS)
    due = recovery.timeout()
    assert due == int(max(recovery.smoothed_rtt, recovery.latest_rtt) * 9 / 8)
    assert recovery.on_timer(due - 1) == TIMER_EARLY
    assert (recovery.on_timer(due), lost(recovery)) == (TIMER_LOSS, [0])
    assert (recovery.timeout(), recovery.bytes_in_flight) == (NEVER, 0)


def test_on_a_short_path_a_millisecond_passes_first() -> None:
    recovery = fresh(rtt=50)
    recovery.send(0, SIZE, count=2)
    recovery.acknowledge([(1, 2)], 60)
    assert recovery.timeout() == 1 * MS


def test_losses_come_in_order_and_once() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=30)
    recovery.acknowledge([(20, 21), (10, 11)], 100 * MS)
    assert acked(recovery) == [10, 20]
    assert lost(recovery) == [pn for pn in range(18) if pn != 10]
    recovery.acknowledge([(20, 22), (10, 11)], 100 * MS)
    assert (acked(recovery), lost(recovery)) == ([21], [18])


def test_the_loss_of_a_path_probe_is_no_congestion() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, 1_452, DATA | MTU_PROBE)
    recovery.send(0, SIZE, count=4)
    recovery.acknowledge([(1, 5)], 100 * MS)
    assert recovery.lost_packets() == [(0, DATA | MTU_PROBE, LOST)]
    assert (recovery.bytes_in_flight, recovery.congestion.reductions) == (0, 0)


# ---- Probe time-outs (section 6.2) ----


def test_the_probe_time_out_doubles_and_an_acknowledgement_ends_that() -> None:
    recovery = fresh(rtt=100 * MS, max_ack_delay=25 * MS)
    assert recovery.timeout() == NEVER
    recovery.send(0, SIZE)
    assert recovery.pto() == 126 * MS, "four variations are at least a millisecond"
    assert recovery.timeout() == 126 * MS
    assert recovery.on_timer(126 * MS) == TIMER_PROBE
    assert (recovery.lost_packets(), recovery.bytes_in_flight) == ([], SIZE), "nothing is lost by that"
    recovery.send(126 * MS, SIZE)
    assert recovery.timeout() == (126 + 252) * MS
    assert recovery.on_timer(378 * MS) == TIMER_PROBE
    assert (recovery.pto_count, recovery.timeout()) == (2, (126 + 504) * MS)
    recovery.acknowledge([(1, 2)], 380 * MS)
    assert (recovery.pto_count, recovery.probes) == (0, 0)


def test_probes_go_beyond_the_window() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=10)
    assert recovery.allowance(0) == 0
    recovery.on_timer(recovery.timeout())
    assert (recovery.probes, recovery.probe_packet()) == (2, 0)
    assert recovery.allowance(SECOND) == 2 * SIZE
    recovery.send(SECOND, 40, ACK_ONLY)
    recovery.send(SECOND, SIZE)
    assert recovery.allowance(SECOND) == SIZE
    recovery.send(SECOND, SIZE)
    assert recovery.allowance(SECOND) == 0


def test_the_probe_repeats_the_oldest_packet_that_asks_for_an_acknowledgement() -> None:
    recovery = fresh(rtt=100 * MS)
    assert recovery.probe_packet() is None
    recovery.send(0, SIZE, IN_FLIGHT)
    recovery.send(0, SIZE)
    assert (recovery.oldest, recovery.probe_packet()) == (0, 1)


def test_time_outs_stay_a_number_however_many_there_are() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE)
    for _ in range(100):
        assert recovery.on_timer(recovery.timeout()) == TIMER_PROBE
    assert recovery.timeout() == 126 * MS << 20


# ---- Persistent congestion (section 7.6) ----


def test_persistent_congestion_as_in_the_example() -> None:
    # Section 7.6.3, except that packet 9 is acknowledged a second after it was sent.
    recovery = fresh(max_ack_delay=0, next_pn=1)
    recovery.seed_rtt(1200 * MS, 1200 * MS, 200 * MS, 1200 * MS, -1)
    for time in (0, 1):
        recovery.send(time * SECOND, SIZE)
    recovery.acknowledge([(1, 2)], 1200 * MS)
    for time in (2, 3, 4, 5, 6, 8, 12):
        recovery.send(time * SECOND, SIZE)
    recovery.acknowledge([(9, 10), (1, 2)], 13 * SECOND)
    assert lost(recovery) == [2, 3, 4, 5, 6, 7, 8]
    assert recovery.congestion.window == 2 * SIZE
    # The next sample is taken as the least round trip, though shorter ones were seen (section 5.2).
    recovery.send(20 * SECOND, SIZE)
    recovery.acknowledge([(10, 11)], 25 * SECOND)
    assert recovery.min_rtt == 5 * SECOND


@pytest.mark.parametrize(("between", "window"), [([], 2), ([(7, 8), (3, 4)], 7)])
def test_an_acknowledgement_in_between_shows_that_congestion_is_not_persistent(
    between: list[tuple[int, int]], window: int
) -> None:
    recovery = fresh(rtt=100 * MS)
    for time in range(1, 12):
        recovery.send(time * SECOND, SIZE)
    recovery.acknowledge([(10, 11), *between], 12 * SECOND)
    assert lost(recovery) == [pn for pn in range(10) if (pn, pn + 1) not in between]
    assert 3 * SECOND < 3 * recovery.pto() < 9 * SECOND
    assert recovery.congestion.window == window * SIZE


def test_a_run_of_losses_goes_on_when_the_timer_finds_the_rest() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(1 * SECOND, SIZE)
    recovery.send(2 * SECOND, SIZE, count=3)
    recovery.acknowledge([(3, 4)], 2_100 * MS)
    assert (lost(recovery), recovery.congestion.window) == ([0], 7 * SIZE)
    recovery.on_timer(recovery.timeout())
    assert (lost(recovery), recovery.congestion.window) == ([1, 2], 2 * SIZE)


# ---- What must not be acknowledged (RFC 9000, sections 13.1 and 21.4) ----


def test_an_acknowledgement_of_what_was_never_sent_changes_nothing() -> None:
    recovery = fresh()
    recovery.send(0, SIZE, count=5)
    before = state(recovery)
    for spans in ([(5, 6)], [(0, 6)], [(2**62 - 1, 2**62), (0, 5)]):
        with pytest.raises(RemoteProtocolError, match="never sent"):
            recovery.acknowledge(spans, 10 * MS)
        assert state(recovery) == before


def test_an_acknowledgement_of_a_skipped_number_changes_nothing() -> None:
    recovery = fresh()
    while recovery.next_number() == recovery.next_pn:
        recovery.send(0, SIZE)
    skipped = recovery.next_pn
    recovery.send(0, SIZE, count=3)
    before = state(recovery)
    for spans in ([(skipped, skipped + 1)], [(0, skipped + 2)], [(skipped + 2, skipped + 3), (0, skipped + 1)]):
        with pytest.raises(RemoteProtocolError, match="skipped"):
            recovery.acknowledge(spans, 10 * MS)
        assert state(recovery) == before
    recovery.acknowledge([(skipped + 1, skipped + 4), (0, skipped)], 10 * MS)
    assert (recovery.oldest, recovery.lost_total) == (skipped + 4, 0)
    with pytest.raises(RemoteProtocolError, match="skipped"):
        recovery.acknowledge([(0, skipped + 4)], 10 * MS)


def siphash(secret: bytes, data: bytes) -> int:
    """SipHash-2-4 of a whole number of words."""
    k0, k1 = int.from_bytes(secret[:8], "little"), int.from_bytes(secret[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, turn in ((0, 1, 13), (2, 3, 16)):
                v[a] = (v[a] + v[b]) & WORD
                v[b] = ((v[b] << turn | v[b] >> (64 - turn)) & WORD) ^ v[a]
            v[0] = (v[0] << 32 | v[0] >> 32) & WORD
            for a, b, turn in ((2, 1, 17), (0, 3, 21)):
                v[a] = (v[a] + v[b]) & WORD
                v[b] = ((v[b] << turn | v[b] >> (64 - turn)) & WORD) ^ v[a]
            v[2] = (v[2] << 32 | v[2] >> 32) & WORD

    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[3] ^= len(data) << 56
    rounds(2)
    v[0] ^= len(data) << 56
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_skipped_numbers_are_placed_by_a_keyed_hash() -> None:
    # The eighth of the vectors that its authors published.
    assert siphash(SECRET, bytes(range(8))) == 0x93F5F5799A932462
    recovery = fresh()
    skipped: list[int] = []
    expected: list[int] = []
    while len(skipped) < 20:
        if recovery.next_number() != recovery.next_pn:
            skipped.append(recovery.next_pn)
        recovery.send(0, SIZE, ACK_ONLY)
    following = 0
    for draw in range(20):
        # The window is below 64 datagrams, so the place is drawn from the next 128 numbers but one.
        expected.append(following + 1 + siphash(SECRET, draw.to_bytes(8, "little")) % 128)
        following = expected[-1] + 1
    assert skipped == expected


def test_different_secrets_skip_different_numbers() -> None:
    places = set()
    for seed in range(20):
        recovery = Recovery(bytes([seed]) * 16)
        while recovery.next_number() == recovery.next_pn:
            recovery.send(0, SIZE, ACK_ONLY)
        places.add(recovery.next_pn)
    assert len(places) > 10


# ---- Losses that were none ----


def test_a_late_acknowledgement_takes_the_reduction_back_and_raises_the_threshold() -> None:
    recovery = fresh(rtt=100 * MS)
    window = recovery.congestion.window
    recovery.send(0, SIZE, count=10)
    recovery.acknowledge([(5, 9)], 100 * MS)
    assert lost(recovery) == [0, 1, 2, 3, 4]
    assert recovery.congestion.window < window
    recovery.acknowledge([(0, 9)], 110 * MS)
    assert recovery.acked_packets() == [(pn, DATA, LATE) for pn in range(5)]
    assert recovery.congestion.window == window
    assert (recovery.late_total, recovery.packet_threshold) == (5, 9)
    recovery.acknowledge([(0, 10)], 120 * MS)
    assert recovery.acked_packets() == [(9, DATA, ACKED)], "each is told once"


def test_a_packet_lost_by_time_that_came_late_lengthens_the_time() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=2)
    recovery.acknowledge([(1, 2)], 100 * MS)
    recovery.on_timer(recovery.timeout())
    recovery.acknowledge([(0, 2)], 120 * MS)
    assert (recovery.time_threshold, recovery.packet_threshold) == (10, 3)


def test_a_packet_that_takes_two_round_trips_is_waited_for_the_next_time() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=2)
    recovery.acknowledge([(1, 2)], 100 * MS)
    recovery.on_timer(recovery.timeout())
    recovery.acknowledge([(0, 2)], 190 * MS)
    assert recovery.time_threshold == 16
    recovery.send(200 * MS, SIZE, count=2)
    recovery.acknowledge([(3, 4)], 300 * MS)
    recovery.acknowledge([(2, 4)], 390 * MS)
    assert (recovery.lost_total, recovery.congestion.undone) == (1, 1)


def test_another_path_keeps_the_order_until_it_does_not() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=10)
    recovery.acknowledge([(8, 9)], 100 * MS)
    recovery.acknowledge([(0, 9)], 110 * MS)
    assert recovery.packet_threshold == 9
    recovery.reset_path()
    assert (recovery.packet_threshold, recovery.time_threshold) == (3, 9)


def test_losses_that_are_some_bring_the_first_thresholds_back() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=10)
    recovery.acknowledge([(8, 9)], 100 * MS)
    recovery.acknowledge([(0, 9)], 110 * MS)
    assert recovery.packet_threshold == 9
    reductions, now = recovery.congestion.reductions, 1_000 * MS
    while recovery.congestion.reductions < reductions + 16:
        assert recovery.packet_threshold == 9
        last = recovery.send(now, SIZE, count=12)
        assert last is not None
        now += 100 * MS
        recovery.acknowledge([(last, last + 1)], now)
        now += 1_000 * MS
        recovery.on_timer(now)
    assert recovery.packet_threshold == 3


def test_the_packet_threshold_has_a_bound() -> None:
    recovery = fresh(rtt=100 * MS)
    last = recovery.send(0, SIZE, count=30)
    for _ in range(20):
        last = recovery.send(0, SIZE, count=20)
    assert last is not None
    recovery.acknowledge([(last, last + 1)], 100 * MS)
    recovery.acknowledge([(last, last + 1), (0, 1)], 100 * MS)
    assert recovery.packet_threshold == PACKET_THRESHOLD_MAX


def test_after_a_probe_time_out_what_was_lost_is_forgotten() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=5)
    recovery.acknowledge([(3, 5)], 100 * MS)
    recovery.acknowledge([(3, 5), (0, 1)], 100 * MS + recovery.pto() - 1)
    assert recovery.acked_packets() == [(0, DATA, LATE)]
    recovery.acknowledge([(3, 5), (0, 2)], 100 * MS + recovery.pto())
    assert recovery.acked_packets() == []


def test_a_great_many_losses_are_remembered_in_part() -> None:
    recovery = fresh(rtt=100 * MS)
    numbers = [pn for _ in range(2 * LATE_MAX) if (pn := recovery.send(0, SIZE)) is not None]
    last = numbers[-1]
    recovery.acknowledge([(last, last + 1)], 100 * MS)
    assert recovery.lost_total == 2 * LATE_MAX - 3
    assert recovery.bytes_in_flight == 2 * SIZE
    recovery.acknowledge([(pn, pn + 1) for pn in reversed(numbers[::20])], 101 * MS)
    assert recovery.late_total == len(numbers[:LATE_MAX:20])


# ---- The ring ----


def test_packets_that_need_no_acknowledgement_hold_nothing() -> None:
    recovery = fresh()
    last = recovery.send(0, 40, ACK_ONLY, count=50_000)
    assert last is not None
    assert (recovery.oldest, recovery.next_pn) == (last, last + 1)
    assert (recovery.sent.capacity, recovery.bytes_in_flight, recovery.timeout()) == (256, 0, NEVER)


def test_the_ring_grows_to_its_limit_and_no_further() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.congestion.on_acked(2**30, 0, 1, 100 * MS, 0)
    assert recovery.send(0, 1, count=SENT_MAX - SENT_RESERVE - 5_000) is not None
    assert recovery.allowance(0) > 0
    last = None
    while (pn := recovery.send(0, 1)) is not None:
        last = pn
        if recovery.next_pn - recovery.oldest > SENT_MAX - SENT_RESERVE:
            assert recovery.allowance(0) == 0
    assert last is not None
    assert SENT_MAX - 2 <= recovery.next_pn - recovery.oldest <= SENT_MAX == recovery.sent.capacity
    recovery.on_timer(10 * SECOND)
    probe = recovery.probe_packet()
    assert probe == 0
    recovery.acknowledge([(0, 1)], 11 * SECOND)
    assert acked(recovery) == [0]
    assert recovery.send(0, 1) is not None


def test_records_survive_the_growth_of_the_ring() -> None:
    recovery = fresh(rtt=100 * MS, next_pn=1000)
    while recovery.next_pn < 3000:
        recovery.send(recovery.next_pn, SIZE)
    assert recovery.sent.capacity == 2048
    recovery.acknowledge([(1000, 1001)], 50 * MS)
    assert (acked(recovery), recovery.latest_rtt) == ([1000], 49 * MS)


# ---- Sending ----


def test_the_window_is_used_in_full_and_never_exceeded() -> None:
    recovery = fresh(rtt=50)
    assert recovery.allowance(0) == 10 * SIZE
    recovery.send(0, SIZE, count=9)
    recovery.send(0, 40, ACK_ONLY)
    assert recovery.allowance(0) == SIZE
    recovery.send(0, SIZE)
    assert (recovery.allowance(0), recovery.send_time()) == (0, NEVER)


def test_the_pacer_says_when_to_go_on() -> None:
    recovery = fresh(rtt=10 * MS, batch_size=4 * SIZE)
    assert recovery.allowance(0) == 4 * SIZE
    recovery.send(0, SIZE, count=4)
    assert recovery.allowance(0) == 0
    # 1.25 windows of 12000 bytes in 10 ms are 1.5 bytes a microsecond.
    assert recovery.send_time() == 1
    assert recovery.allowance(1) == 4 * SIZE


def test_what_the_application_does_not_use_does_not_grow() -> None:
    recovery = fresh(rtt=50)
    recovery.send(0, SIZE, count=2)
    recovery.on_app_limited(0)
    recovery.acknowledge([(0, 2)], 50)
    assert recovery.congestion.window == 10 * SIZE
    recovery.send(100, SIZE, count=10)
    recovery.allowance(100)
    recovery.acknowledge([(2, 12)], 150)
    assert recovery.congestion.window == 20 * SIZE


# ---- Hand-over and paths ----


def test_packets_sent_before_the_hand_over_are_taken_over() -> None:
    recovery = fresh(rtt=100 * MS, next_pn=2)
    recovery.take_over(2, 10 * MS, 300)
    recovery.take_over(5, 20 * MS, 60)
    with pytest.raises(ValueError, match="ascending"):
        recovery.take_over(5, 20 * MS, 60)
    assert recovery.start_at(8) == 0
    assert (recovery.oldest, recovery.next_number(), recovery.bytes_in_flight) == (2, 8, 360)
    assert recovery.timeout() == 20 * MS + recovery.pto()
    recovery.send(30 * MS, SIZE)
    # The handshake's numbers between were sent as well, in other packet number spaces or acknowledged before.
    recovery.acknowledge([(0, 9)], 130 * MS)
    assert (acked(recovery), lost(recovery)) == ([2, 5, 8], [])


def test_another_path_begins_as_new() -> None:
    recovery = fresh(rtt=100 * MS)
    recovery.send(0, SIZE, count=6)
    recovery.reset_path()
    assert (recovery.smoothed_rtt, recovery.min_rtt, recovery.congestion.window) == (333_000, 0, 12_000)
    recovery.acknowledge([(5, 6)], 50 * MS)
    assert lost(recovery) == [0, 1, 2]
    assert (recovery.latest_rtt, recovery.congestion.window) == (0, 12_000), "that was the old path"
    recovery.send(60 * MS, SIZE)
    recovery.acknowledge([(6, 7)], 75 * MS)
    assert (recovery.latest_rtt, recovery.min_rtt) == (15 * MS, 15 * MS)


@pytest.mark.parametrize("secret", [b"", bytes(15), bytes(17)])
def test_a_secret_has_16_bytes(secret: bytes) -> None:
    with pytest.raises(ValueError, match="pass 16"):
        Recovery(secret)


@pytest.mark.parametrize("options", [{"ack_delay_exponent": 21}, {"max_ack_delay": -1}, {"max_ack_delay": 2**34}])
def test_delays_that_no_peer_may_announce(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="transport parameters"):
        Recovery(SECRET, **options)


@pytest.mark.parametrize("spans", [[], [(1, 1)], [(2, 1)], [(0, 1), (2, 3)], [(1, 2), (0, 1)], [(0, 1)] * 257])
def test_ranges_that_no_ack_frame_has(spans: list[tuple[int, int]]) -> None:
    recovery = fresh()
    recovery.send(0, SIZE, count=5)
    with pytest.raises(ValueError, match="newest first"):
        recovery.acknowledge(spans, 0)


# ---- Any order of events against a model ----


@dataclass
class Packet:
    pn: int
    time: int
    size: int
    flags: int

    @property
    def in_flight(self) -> bool:
        return bool(self.flags & IN_FLIGHT)

    @property
    def eliciting(self) -> bool:
        return bool(self.flags & ACK_ELICITING)


class Model:
    """RFC 9002, appendix A, with dictionaries; slow, and without a thought for the machine."""

    def __init__(self, max_ack_delay: int, exponent: int) -> None:
        self.max_ack_delay, self.exponent = max_ack_delay, exponent
        self.congestion = Congestion(SIZE)
        self.next_pn = 0
        self.waiting: dict[int, Packet] = {}
        self.acked_ever: set[int] = set()
        self.late: dict[int, tuple[int, Packet, bool]] = {}
        self.run: list[Packet] = []
        self.largest_acked = -1
        self.latest = self.least = 0
        self.smoothed, self.variation = 333_000.0, 166_500.0
        self.first_sample: int | None = None
        self.fresh_least = False
        self.pto_count = 0
        self.loss_time = NEVER
        self.packet_threshold, self.time_threshold = 3, 9
        self.calm_since = 0
        self.last_eliciting = 0
        self.acked: list[tuple[int, int, int]] = []
        self.lost: list[tuple[int, int, int]] = []

    def pto(self) -> int:
        return int(self.smoothed + max(4 * self.variation, 1_000)) + self.max_ack_delay

    def timeout(self) -> int:
        if self.loss_time != NEVER:
            return self.loss_time
        if not any(packet.eliciting for packet in self.waiting.values()):
            return NEVER
        return int(self.last_eliciting + self.pto() * 2 ** min(self.pto_count, 20))

    def pass_by(self) -> None:
        """Packets that need no acknowledgement wait for none once everything before them is settled."""
        needed = [pn for pn, packet in self.waiting.items() if packet.in_flight]
        self.waiting = {pn: packet for pn, packet in self.waiting.items() if needed and pn >= min(needed)}

    def send(self, pn: int, time: int, size: int, flags: int) -> None:
        self.pass_by()
        self.waiting[pn] = Packet(pn, time, size, flags)
        self.next_pn = pn + 1
        if flags & ACK_ELICITING:
            self.last_eliciting = time

    def acknowledge(self, numbers: set[int], now: int, delay: int) -> None:
        largest, next_pn, until = max(numbers), self.next_pn, self.congestion.recovery_until
        new = [packet for pn, packet in sorted(self.waiting.items()) if pn in numbers]
        for packet in new:
            del self.waiting[packet.pn]
            self.acked_ever.add(packet.pn)
        self.late = {pn: each for pn, each in self.late.items() if each[0] > now - self.pto()}
        late = [packet for pn, (_, packet, _) in sorted(self.late.items()) if pn in numbers]
        self.acked = [(packet.pn, packet.flags, LATE) for packet in late]
        self.acked += [(packet.pn, packet.flags, ACKED) for packet in new]
        for packet in reversed(late):
            _, _, by_time = self.late.pop(packet.pn)
            self.run = []
            self.calm_since = self.congestion.reductions
            distance = self.largest_acked - packet.pn
            if by_time:
                taken = int(8 * (now - packet.time) / max(self.smoothed, self.latest, 1_000)) + 1
                self.time_threshold = max(self.time_threshold, min(taken, 16))
            elif distance >= self.packet_threshold:
                self.packet_threshold = min(distance + 1, PACKET_THRESHOLD_MAX)
            if not packet.flags & MTU_PROBE:
                self.congestion.on_spurious(packet.pn)
        eliciting = any(packet.eliciting for packet in new)
        if eliciting and new[-1].pn == largest:
            self.congestion.on_rtt(self.sample(now - new[-1].time, delay, now))
        self.largest_acked = max(self.largest_acked, largest)
        reductions = self.congestion.reductions
        self.detect(now)
        if self.acked:
            self.pto_count = 0
            growth = sum(packet.size for packet in new if packet.in_flight and packet.pn >= until)
            if self.congestion.reductions != reductions:
                growth = 0
            self.congestion.on_acked(growth, self.largest_acked, next_pn, int(self.smoothed), now)

    def sample(self, sample: int, delay: int, now: int) -> int:
        waited = min(delay << self.exponent, self.max_ack_delay)
        self.latest = sample
        if self.first_sample is None:
            self.first_sample = now
            self.least, self.smoothed, self.variation = sample, float(sample), sample / 2
            return sample
        self.least = sample if self.fresh_least else min(self.least, sample)
        self.fresh_least = False
        adjusted = sample - waited if sample >= self.least + waited else sample
        self.variation = 3 / 4 * self.variation + 1 / 4 * abs(self.smoothed - adjusted)
        self.smoothed = 7 / 8 * self.smoothed + 1 / 8 * adjusted
        return adjusted

    def detect(self, now: int) -> None:
        self.lost = []
        self.loss_time = NEVER
        delay = max(int(max(self.smoothed, self.latest) * self.time_threshold / 8), 1_000)
        persistent = False
        for pn, packet in sorted(self.waiting.items()):
            if pn > self.largest_acked or not packet.in_flight:
                continue
            by_time = self.largest_acked - pn < self.packet_threshold
            if not by_time or packet.time <= now - delay:
                del self.waiting[pn]
                self.lost.append((pn, packet.flags, LOST))
                self.late[pn] = (now, packet, by_time)
                persistent |= self.lose(packet)
            else:
                self.loss_time = min(self.loss_time, packet.time + delay)
        self.pass_by()
        if persistent:
            self.fresh_least = True
            self.run = []
            self.congestion.on_persistent()
        if self.congestion.reductions - self.calm_since >= 16:
            self.packet_threshold, self.time_threshold, self.calm_since = 3, 9, self.congestion.reductions

    def lose(self, packet: Packet) -> bool:
        if packet.flags & MTU_PROBE:
            return False
        self.congestion.on_lost(packet.pn, self.next_pn)
        if not packet.eliciting or self.first_sample is None or packet.time <= self.first_sample:
            return False
        self.run = [p for p in self.run if not any(p.pn < pn < packet.pn for pn in self.acked_ever)] + [packet]
        return packet.time - self.run[0].time > 3 * self.pto()

    def on_timer(self, now: int) -> int:
        self.acked, self.lost = [], []
        if now < self.timeout():
            return TIMER_EARLY
        if self.loss_time != NEVER:
            self.detect(now)
            return TIMER_LOSS
        self.pto_count += 1
        return TIMER_PROBE


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
