"""Loss detection by the examples of RFC 9002; any order of events is in ``test_recovery_model.py``."""

from __future__ import annotations

import pytest

from spaceblock.errors import RemoteProtocolError
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
