"""The window against CUBIC's formulas in plain Python, HyStart++ round by round, and the pacer by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.quic.native.congestion import Congestion, Pacer

DATAGRAM = 1200
SECOND = 1_000_000
RTT = 100_000
UNLIMITED = 2**64 - 1


@dataclass
class Cubic:
    """RFC 9438 after its first congestion event, in datagrams and seconds."""

    cwnd: float
    w_max: float = 0.0
    cwnd_prior: float = 0.0
    w_est: float = 0.0
    k: float = 0.0
    begun: float | None = None
    history: list[float] = field(default_factory=list)

    def lose(self) -> None:
        self.w_max = self.cwnd * 1.7 / 2 if self.cwnd < self.w_max else self.cwnd
        self.cwnd_prior = self.cwnd
        self.cwnd = max(2.0, self.cwnd * 0.7)
        self.begun = None

    def acknowledge(self, segments: float, rtt: float, now: float) -> None:
        if self.begun is None:
            self.begun = now
            self.w_max = max(self.w_max, self.cwnd)
            self.k = ((self.w_max - self.cwnd) / 0.4) ** (1 / 3)
            self.w_est = self.cwnd
        share = min(1.0, segments / self.cwnd)
        self.w_est += share * (1.0 if self.w_est >= self.cwnd_prior else 3 * 0.3 / 1.7)
        if self.curve(now) < self.w_est:
            self.cwnd = max(self.cwnd, self.w_est)
        else:
            target = min(max(self.curve(now + rtt), self.cwnd), 1.5 * self.cwnd)
            self.cwnd += (target - self.cwnd) * share

    def curve(self, now: float) -> float:
        assert self.begun is not None
        return 0.4 * (now - self.begun - self.k) ** 3 + self.w_max


def grown(datagrams: int) -> Congestion:
    """A window of so many datagrams, in slow start."""
    congestion = Congestion(DATAGRAM)
    congestion.on_acked(datagrams * DATAGRAM - congestion.window, 0, 1, RTT, 0)
    assert congestion.window == datagrams * DATAGRAM
    return congestion


def feed(congestion: Congestion, size: int, now: int, rtt: int = RTT) -> None:
    """Acknowledge ``size`` bytes of packets that were sent outside any recovery period."""
    congestion.on_acked(size, 10**9, 10**9 + 1, rtt, now)


# ---- The window at its beginning and its bounds ----


@pytest.mark.parametrize(("size", "window"), [(1200, 12_000), (1472, 14_720), (1500, 14_720), (9000, 18_000)])
def test_the_initial_window(size: int, window: int) -> None:
    assert Congestion(size).window == window


@pytest.mark.parametrize("size", [0, 65_536])
def test_a_datagram_size_that_no_datagram_has(size: int) -> None:
    with pytest.raises(ValueError, match="pass 1 to 65535"):
        Congestion(size)


def test_slow_start_grows_by_what_is_acknowledged() -> None:
    congestion = Congestion(DATAGRAM)
    feed(congestion, 5_000, 0)
    assert (congestion.window, congestion.threshold) == (17_000, UNLIMITED)


def test_the_window_has_a_least_and_a_largest_size() -> None:
    congestion = Congestion(DATAGRAM)
    for pn in range(20):
        congestion.on_lost(pn, pn + 1)
    assert (congestion.window, congestion.reductions) == (2 * DATAGRAM, 20)
    congestion = Congestion(DATAGRAM)
    feed(congestion, 2**40, 0)
    assert congestion.window == congestion.maximum == 100_000 * DATAGRAM


def test_without_need_there_is_no_growth() -> None:
    congestion = Congestion(DATAGRAM)
    congestion.on_app_limited(0)
    feed(congestion, 12_000, 1)
    assert (congestion.window, congestion.app_limited) == (12_000, True)
    congestion.on_filled(2)
    feed(congestion, 12_000, 3)
    assert congestion.window == 24_000


def test_time_without_need_does_not_count_for_cubic() -> None:
    busy, idle = grown(1000), grown(1000)
    for congestion in (busy, idle):
        congestion.on_lost(5, 10)
        feed(congestion, DATAGRAM, 0)
    idle.on_app_limited(1 * SECOND)
    idle.on_filled(61 * SECOND)
    feed(busy, 700 * DATAGRAM, 2 * SECOND)
    feed(idle, 700 * DATAGRAM, 62 * SECOND)
    assert idle.window == busy.window


# ---- CUBIC ----


def test_a_loss_takes_three_tenths_and_the_curve_comes_back() -> None:
    # W_max is 1000 datagrams, so K is the cube root of 1000 * 0.3 / 0.4 = 750: 9.0856 seconds.
    congestion = grown(1000)
    congestion.on_lost(5, 10)
    assert congestion.window == congestion.threshold == 700 * DATAGRAM
    for step in range(901):
        feed(congestion, congestion.window // 10, step * 10_000, rtt=10_000)
    assert 990 * DATAGRAM < congestion.window < 1000 * DATAGRAM
    for step in range(901, 918):
        feed(congestion, congestion.window // 10, step * 10_000, rtt=10_000)
    assert congestion.window == pytest.approx(1000 * DATAGRAM, rel=1e-4)


def test_one_reduction_a_round_trip() -> None:
    congestion = grown(100)
    congestion.on_lost(50, 120)
    assert congestion.recovery_until == 120
    for pn in (51, 60, 119):
        congestion.on_lost(pn, 150)
    assert (congestion.window, congestion.reductions) == (70 * DATAGRAM, 1)
    congestion.on_lost(120, 150)
    assert congestion.window == pytest.approx(49 * DATAGRAM, abs=1)
    assert congestion.reductions == 2


def test_fast_convergence_aims_lower() -> None:
    # Lost at 1000, then at 700, which is below: the next maximum is 700 * 1.7 / 2 = 595, and not 700.
    congestion = grown(1000)
    congestion.on_lost(5, 10)
    congestion.on_lost(10, 20)
    assert congestion.window == 490 * DATAGRAM
    # K is the cube root of (595 - 490) / 0.4, 6.4035 seconds. There the curve is flat at its maximum.
    for step in range(641):
        feed(congestion, congestion.window // 10, step * 10_000, rtt=0)
    assert 590 * DATAGRAM < congestion.window < 600 * DATAGRAM


def test_a_short_round_trip_grows_as_reno() -> None:
    # Of 20 datagrams 14 remain; at a round trip of 1 ms CUBIC's curve is far below Reno's: 9/17 datagram a round trip.
    congestion = grown(20)
    congestion.on_lost(5, 10)
    for trip in range(5):
        feed(congestion, congestion.window, trip * 1_000, rtt=1_000)
    assert congestion.window == pytest.approx((14 + 5 * 9 / 17) * DATAGRAM, rel=1e-3)
    # From the window before the loss on it is a whole datagram.
    for trip in range(5, 40):
        feed(congestion, congestion.window, trip * 1_000, rtt=1_000)
    before = congestion.window
    feed(congestion, congestion.window, 40_000, rtt=1_000)
    assert congestion.window - before == pytest.approx(DATAGRAM, abs=2)


@given(
    st.integers(12, 5_000),
    st.integers(100, 300_000),
    st.lists(st.tuples(st.sampled_from(["ack", "ack", "ack", "ack", "lose"]), st.floats(0, 1.5)), max_size=60),
)
def test_any_history_agrees_with_the_formulas(start: int, rtt: int, events: list[tuple[str, float]]) -> None:
    congestion, oracle = grown(start), Cubic(float(start))
    congestion.on_lost(0, 1)
    oracle.lose()
    now, pn = 0, 1
    for event, amount in events:
        now += rtt
        if event == "lose":
            congestion.on_lost(pn, pn + 1)
            oracle.lose()
            pn += 1
        else:
            size = int(amount * congestion.window)
            feed(congestion, size, now, rtt)
            if size:
                oracle.acknowledge(size / DATAGRAM, rtt / 1e6, now / 1e6)
        assert congestion.window == pytest.approx(oracle.cwnd * DATAGRAM, abs=2)


def test_persistent_congestion_begins_again() -> None:
    congestion = grown(100)
    congestion.on_lost(5, 10)
    congestion.on_persistent()
    assert (congestion.window, congestion.threshold) == (2 * DATAGRAM, 70 * DATAGRAM)
    feed(congestion, 68 * DATAGRAM, 0)
    assert congestion.window == 70 * DATAGRAM, "slow start up to the threshold"
    # The curve begins at its plateau: after a second 0.4 * 1.1^3 above it, while Reno's share adds one for a window.
    feed(congestion, DATAGRAM, 0)
    for step in range(1, 11):
        feed(congestion, congestion.window, step * 100_000, rtt=RTT)
    assert 70 * DATAGRAM < congestion.window < 82 * DATAGRAM


# ---- Losses that were none ----


def test_a_reduction_is_taken_back_when_all_its_losses_came_late() -> None:
    congestion = grown(100)
    for pn in (5, 6, 9):
        congestion.on_lost(pn, 10)
    congestion.on_spurious(5)
    congestion.on_spurious(9)
    assert (congestion.window, congestion.undone) == (70 * DATAGRAM, 0)
    congestion.on_spurious(6)
    assert (congestion.window, congestion.undone) == (100 * DATAGRAM, 1)
    assert congestion.threshold == UNLIMITED, "slow start goes on"
    congestion.on_lost(7, 12)
    assert congestion.window == 70 * DATAGRAM, "another loss of the same round trip counts now"


def test_a_loss_of_an_earlier_period_takes_nothing_back() -> None:
    congestion = grown(100)
    congestion.on_lost(5, 10)
    congestion.on_lost(10, 20)
    congestion.on_spurious(5)
    assert congestion.window == pytest.approx(49 * DATAGRAM, abs=1)
    assert congestion.undone == 0
    congestion.on_spurious(10)
    assert (congestion.window, congestion.undone) == (70 * DATAGRAM, 1)


def test_a_window_that_has_grown_beyond_stays() -> None:
    congestion = grown(10)
    congestion.on_lost(0, 1)
    for step in range(200):
        feed(congestion, congestion.window, step * RTT)
    window = congestion.window
    assert window > 10 * DATAGRAM
    congestion.on_spurious(0)
    assert congestion.window == window


def test_persistent_congestion_is_not_taken_back() -> None:
    congestion = grown(100)
    congestion.on_lost(5, 10)
    congestion.on_persistent()
    congestion.on_spurious(5)
    assert congestion.window == 2 * DATAGRAM


# ---- Losses without congestion ----


def test_a_rare_loss_is_spared_while_round_trips_are_short() -> None:
    congestion = grown(1000)
    congestion.on_rtt(40_000)
    congestion.on_lost(5, 10)
    assert (congestion.window, congestion.threshold, congestion.spared) == (1000 * DATAGRAM, UNLIMITED, 1)
    assert (congestion.reductions, congestion.recovery_until) == (0, 0), "the window grows on"


@pytest.mark.parametrize(("rtt", "spared"), [(44_900, 1), (45_100, 0)], ids=["less than an eighth", "more"])
def test_a_loss_behind_a_queue_is_congestion(rtt: int, spared: int) -> None:
    congestion = grown(1000)
    congestion.on_rtt(40_000)
    for _ in range(2):
        congestion.on_rtt(2 * rtt)
        congestion.on_rtt(rtt)
        feed(congestion, 0, 0)
    congestion.on_rtt(2 * rtt)
    congestion.on_lost(5, 10)
    assert (congestion.spared, congestion.reductions) == (spared, 1 - spared)


def test_two_rounds_decide() -> None:
    for rounds, spared in ((1, 1), (2, 0)):
        congestion = grown(1000)
        congestion.on_rtt(40_000)
        for _ in range(rounds):
            feed(congestion, 0, 0)
            congestion.on_rtt(80_000)
        congestion.on_lost(5, 10)
        assert congestion.spared == spared, "in the first of them the queue has just begun"


def test_a_small_window_spares_nothing() -> None:
    for datagrams, spared in ((99, 0), (100, 1)):
        congestion = grown(datagrams)
        congestion.on_rtt(40_000)
        congestion.on_lost(5, 10)
        assert congestion.spared == spared


def test_without_a_round_trip_nothing_is_spared() -> None:
    congestion = grown(1000)
    congestion.on_lost(5, 10)
    assert (congestion.spared, congestion.reductions) == (0, 1)


def test_one_loss_is_spared_for_a_thousand_datagrams() -> None:
    congestion = grown(100_000)
    congestion.on_rtt(40_000)
    losses = itertools.count()
    for datagrams, spared in ((0, 8), (999, 8), (2, 9), (999, 9), (2, 10), (100_000, 18)):
        feed(congestion, datagrams * DATAGRAM, 0)
        before = congestion.reductions
        while congestion.reductions == before:
            lost = next(losses)
            congestion.on_lost(lost, lost + 1)
        assert congestion.spared == spared


def test_a_new_path_spares_two_losses() -> None:
    congestion = grown(100)
    congestion.on_rtt(40_000)
    for pn in range(3):
        congestion.on_lost(pn, pn + 1)
    assert (congestion.spared, congestion.reductions) == (2, 1)


def test_a_burst_of_losses_is_congestion() -> None:
    congestion = grown(1000)
    congestion.on_rtt(40_000)
    feed(congestion, 100_000 * DATAGRAM, 0)
    window = congestion.window
    for pn in range(8):
        congestion.on_lost(pn, 1000)
    assert congestion.window == window
    for pn in range(8, 50):
        congestion.on_lost(pn, 1000)
    assert congestion.window == pytest.approx(0.7 * window, abs=1)
    assert (congestion.spared, congestion.reductions) == (8, 1)
    # Those that were spared are no part of what may be taken back.
    for pn in range(8):
        congestion.on_spurious(pn)
    assert congestion.undone == 0
    for pn in range(8, 50):
        congestion.on_spurious(pn)
    assert (congestion.undone, congestion.window) == (1, window)


def test_a_mark_is_never_spared() -> None:
    congestion = grown(1000)
    congestion.on_rtt(40_000)
    congestion.on_marked(5, 10)
    assert (congestion.window, congestion.spared) == (700 * DATAGRAM, 0)


def test_another_path_begins_without_what_was_saved_up() -> None:
    congestion = grown(1000)
    congestion.on_rtt(40_000)
    feed(congestion, 100_000 * DATAGRAM, 0)
    congestion.reset()
    feed(congestion, 900 * DATAGRAM, 0)
    congestion.on_lost(0, 1)
    assert (congestion.spared, congestion.reductions) == (0, 1), "nor is its round trip known"
    congestion.on_rtt(40_000)
    for pn in range(1, 6):
        congestion.on_lost(pn, pn + 1)
    assert congestion.spared == 2


# ---- HyStart++ ----


class Rounds:
    """Rounds of 10 packets, with a sample each, that grow the window by 10 datagrams in slow start."""

    def __init__(self) -> None:
        self.congestion = Congestion(DATAGRAM)
        self.next_pn = 10
        self.growth = 0

    def play(self, rtt: int, samples: int = 10, count: int = 1) -> float:
        """Datagrams by which the window grew in the last round."""
        before = 0
        for _ in range(count):
            before = self.congestion.window
            first = self.next_pn - 10
            self.next_pn += 10
            for packet in range(10):
                if packet < samples:
                    self.congestion.on_rtt(rtt)
                self.congestion.on_acked(DATAGRAM, first + packet, self.next_pn, rtt, 0)
        return (self.congestion.window - before) / DATAGRAM


def test_slow_start_goes_on_while_round_trips_stay() -> None:
    rounds = Rounds()
    assert rounds.play(40_000, count=50) == 10
    assert rounds.play(44_900) == 10, "an eighth of 40 ms is 5 ms"
    assert rounds.congestion.threshold == UNLIMITED


def test_longer_round_trips_end_slow_start_after_five_gentle_rounds() -> None:
    rounds = Rounds()
    rounds.play(40_000, count=3)
    assert rounds.play(45_100) == 10 - 3 * 0.75, "the eighth sample decides: three packets count a quarter"
    assert rounds.play(45_100, count=3) == 2.5
    assert rounds.congestion.threshold == UNLIMITED
    rounds.play(45_100)
    assert rounds.congestion.threshold <= rounds.congestion.window < rounds.congestion.threshold + 2 * DATAGRAM
    assert rounds.congestion.reductions == 0


def test_a_shorter_round_trip_resumes_slow_start() -> None:
    rounds = Rounds()
    rounds.play(40_000, count=3)
    rounds.play(46_000, count=2)
    assert rounds.play(45_000) > 2.5
    assert rounds.play(45_000) == 10
    rounds.play(45_000, count=10)
    assert rounds.congestion.threshold == UNLIMITED


@pytest.mark.parametrize(
    ("base", "slower", "ends"),
    [(100, 4_050, False), (100, 4_150, True), (400_000, 415_000, False), (400_000, 416_500, True)],
    ids=["less than 4 ms", "more than 4 ms", "less than 16 ms", "more than 16 ms"],
)
def test_the_threshold_is_bounded(base: int, slower: int, ends: bool) -> None:
    rounds = Rounds()
    rounds.play(base, count=3)
    rounds.play(slower, count=6)
    assert (rounds.congestion.threshold != UNLIMITED) == ends


def test_fewer_than_eight_samples_decide_nothing() -> None:
    rounds = Rounds()
    rounds.play(40_000, count=3)
    assert rounds.play(90_000, samples=7, count=20) == 10


def test_after_a_loss_round_trips_end_nothing() -> None:
    rounds = Rounds()
    rounds.play(40_000, count=3)
    rounds.congestion.on_lost(rounds.next_pn, rounds.next_pn + 1)
    rounds.congestion.on_persistent()
    threshold = rounds.congestion.threshold
    rounds.play(90_000, count=2)
    assert rounds.congestion.threshold == threshold


# ---- The path ----


def test_another_datagram_size_leaves_the_window() -> None:
    congestion = grown(1000)
    congestion.on_lost(5, 10)
    congestion.set_datagram_size(2 * DATAGRAM)
    assert (congestion.window, congestion.maximum) == (700 * DATAGRAM, 200_000 * DATAGRAM)
    for pn in range(10, 40):
        congestion.on_lost(pn, pn + 1)
    assert congestion.window == 4 * DATAGRAM


def test_another_path_begins_as_new() -> None:
    congestion = grown(100)
    congestion.on_lost(5, 10)
    congestion.reset()
    assert (congestion.window, congestion.threshold, congestion.recovery_until) == (12_000, UNLIMITED, 0)


# ---- The pacer ----

BATCH = 65_340


def test_below_a_millisecond_nothing_is_paced() -> None:
    pacer = Pacer(BATCH)
    assert pacer.allowed(12_000, 999, 5) == UNLIMITED
    pacer.on_sent(10**9)
    assert pacer.allowed(12_000, 999, 5) == UNLIMITED
    assert pacer.next_time() == 5


def test_on_the_way_to_a_peer_on_this_computer_nothing_is_paced() -> None:
    pacer = Pacer(BATCH)
    pacer.is_needless = True
    assert pacer.allowed(12_000, 10**6, 5) == UNLIMITED
    pacer.on_sent(10**9)
    assert pacer.allowed(12_000, 10**6, 5) == UNLIMITED
    pacer.is_needless = False
    assert pacer.allowed(12_000, 10**6, 5) == BATCH
    pacer.on_sent(10**9)
    assert pacer.allowed(12_000, 10**6, 5) == 0


def test_batches_are_whole_and_the_rate_is_a_quarter_more_than_the_window() -> None:
    # 8 MB in 10 ms, and a quarter more, are 1000 bytes a microsecond; two milliseconds of them are the most at once.
    pacer = Pacer(BATCH)
    assert pacer.allowed(8_000_000, 10_000, 10**6) == 2_000_000
    pacer.on_sent(2_000_000 - 10)
    assert pacer.allowed(8_000_000, 10_000, 10**6) == BATCH, "with 10 bytes left a batch still goes whole"
    pacer.on_sent(BATCH)
    assert pacer.allowed(8_000_000, 10_000, 10**6) == 0
    assert pacer.next_time() == 10**6 + 66
    assert pacer.allowed(8_000_000, 10_000, 10**6 + 65) == 0
    assert pacer.allowed(8_000_000, 10_000, 10**6 + 66) == BATCH
    assert pacer.next_time() == 10**6 + 66


def test_a_slow_path_gets_a_batch_at_least() -> None:
    pacer = Pacer(BATCH)
    assert pacer.allowed(12_000, 100_000, 10) == BATCH
    pacer.on_sent(12_000)
    assert pacer.allowed(12_000, 100_000, 10**9) == BATCH, "waiting saves up no more than that"


@given(
    st.integers(2_400, 10**8), st.integers(1_000, 500_000), st.lists(st.integers(0, 5_000), min_size=20, max_size=100)
)
def test_in_the_long_run_the_rate_is_kept(window: int, rtt: int, waits: list[int]) -> None:
    pacer = Pacer(BATCH)
    rate = 1.25 * window / rtt
    now = sent = 0
    for wait in waits:
        now += wait
        while pacer.allowed(window, rtt, now):
            pacer.on_sent(BATCH)
            sent += BATCH
        assert pacer.next_time() > now
        assert pacer.allowed(window, rtt, pacer.next_time()) > 0
        now = pacer.next_time()
        pacer.on_sent(BATCH)
        sent += BATCH
        assert sent <= rate * (now + 2_000) + 3 * BATCH


def test_a_pacer_without_a_quantum() -> None:
    with pytest.raises(ValueError, match="pass the bytes of one batch"):
        Pacer(0)
