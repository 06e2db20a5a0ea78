"""ECN: what is marked, which counts are believed, and what a path does with the marks (RFC 9000, section 13.4)."""

from __future__ import annotations

import random

import pytest
from link import MS, Link, Pair

from spaceblock.quic.native.ecn import (
    CE,
    ECN_CAPABLE,
    ECN_FAILED,
    ECN_OFF,
    ECN_TESTING,
    ECN_UNKNOWN,
    ECN_WAITING,
    ECT_0,
    ECT_1,
)
from spaceblock.quic.native.ranges import PacketRanges, read_ack
from spaceblock.quic.native.recovery import Recovery

DATA = random.Random(1).randbytes(600_000)
SIZE = 1_200
TRIAL = 10


def on_trial(count: int = TRIAL) -> tuple[Recovery, list[int]]:
    """A path of 50 ms that carried an acknowledgement already, and so many packets that are marked."""
    recovery = Recovery(bytes(16))
    recovery.ecn.enable()
    first = recovery.send(0, SIZE)
    assert first is not None
    recovery.acknowledge([(first, first + 1)], 50 * MS)
    sent = []
    for _ in range(count):
        assert recovery.mark_batch() == ECT_0
        pn = recovery.send(50 * MS, SIZE)
        assert pn is not None
        sent.append(pn)
    return recovery, sent


def acknowledge(recovery: Recovery, pns: list[int], counts: tuple[int, int, int] | None, at: int = 100) -> None:
    spans: list[tuple[int, int]] = []
    for pn in sorted(pns, reverse=True):
        if spans and spans[-1][0] == pn + 1:
            spans[-1] = (pn, spans[-1][1])
        else:
            spans.append((pn, pn + 1))
    recovery.acknowledge(spans, at * MS, 0, counts)


def moved(link: Link) -> Pair:
    """What a transfer from a to b over a link leaves behind, when both sides can mark."""
    pair = Pair(link)
    for side in (pair.a, pair.b):
        side.engine.recovery.ecn.enable()
    stream = pair.a.open(2)
    for at in range(0, len(DATA), 60_000):
        stream.write(DATA[at : at + 60_000])
    pair.a.write(stream, b"", fin=True)
    pair.run()
    assert pair.b.received == {2: DATA}
    assert pair.b.ended == {2}
    return pair


# ---- What is marked ----


def test_nothing_is_marked_where_nobody_can() -> None:
    recovery = Recovery(bytes(16))
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_OFF, 0)
    recovery.send(0, SIZE)
    recovery.acknowledge([(0, 1)], 50 * MS)
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_OFF, 0)


def test_marks_wait_for_the_first_acknowledgement() -> None:
    """The peer may be on the handshake's engine until then, which counts nothing."""
    recovery = Recovery(bytes(16))
    recovery.ecn.enable()
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_WAITING, 0)
    recovery.send(0, SIZE)
    recovery.acknowledge([(0, 1)], 50 * MS)
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_TESTING, ECT_0)


def test_a_few_packets_are_marked_until_one_of_them_is_acknowledged() -> None:
    recovery, sent = on_trial()
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_UNKNOWN, 0)
    acknowledge(recovery, sent[:1], (1, 0, 0))
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_CAPABLE, ECT_0)


# ---- Which counts are believed ----


@pytest.mark.parametrize(
    "counts",
    [None, (0, 0, 0), (1, 0, 0), (2, 1, 0), (11, 0, 0), (2**62 - 1, 0, 0), (2, 0, 2**62 - 1), (10, 0, 1)],
    ids=["none", "cleared", "one-cleared", "ect1", "more-than-sent", "most", "most-ce", "sum"],
)
def test_counts_that_do_not_fit_end_it(counts: tuple[int, int, int] | None) -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent[:2], counts)
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_FAILED, 0)
    assert recovery.congestion.reductions == 0


@pytest.mark.parametrize("counts", [(1, 0, 0), (0, 0, 2)])
def test_counts_never_fall(counts: tuple[int, int, int]) -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent[:2], (1, 0, 1))
    assert recovery.ecn.state == ECN_CAPABLE
    acknowledge(recovery, sent[2:3], counts)
    assert recovery.ecn.state == ECN_FAILED


def test_an_acknowledgement_that_was_overtaken_is_not_judged() -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent[5:7], (7, 0, 0))
    acknowledge(recovery, sent[:3], (3, 0, 0))
    assert recovery.ecn.state == ECN_CAPABLE
    assert recovery.ecn.ect0 == 7


def test_a_path_on_which_all_marked_packets_are_lost_is_given_up() -> None:
    recovery, sent = on_trial()
    recovery.mark_batch()
    late = [recovery.send(60 * MS, SIZE) for _ in range(3)]
    acknowledge(recovery, [pn for pn in late if pn is not None], None, 110)
    assert recovery.lost_total >= len(sent) - 3
    recovery.on_timer(recovery.timeout())
    assert recovery.ecn.state == ECN_FAILED


def test_what_is_sent_into_silence_is_not_marked() -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent, (TRIAL, 0, 0))
    recovery.send(100 * MS, SIZE)
    recovery.on_timer(recovery.timeout())
    assert recovery.mark_batch() == ECT_0
    recovery.on_timer(recovery.timeout())
    assert recovery.mark_batch() == 0
    assert recovery.ecn.state == ECN_TESTING


def test_another_path_is_tested_anew() -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent[:1], None)
    assert recovery.ecn.state == ECN_FAILED
    recovery.reset_path()
    assert (recovery.ecn.state, recovery.mark_batch()) == (ECN_TESTING, ECT_0)
    pn = recovery.send(100 * MS, SIZE)
    assert pn is not None
    # What was sent on the old path proves nothing, and nothing against it.
    acknowledge(recovery, [*sent[1:], pn], (1, 0, 0), 150)
    assert recovery.ecn.state == ECN_CAPABLE


# ---- Congestion ----


def test_a_mark_is_a_congestion_event_that_is_not_taken_back() -> None:
    recovery, sent = on_trial()
    window = recovery.congestion.window
    acknowledge(recovery, sent[:4], (3, 0, 1))
    assert recovery.congestion.reductions == 1
    assert recovery.congestion.window < window
    acknowledge(recovery, sent[4:6], (4, 0, 2))
    assert recovery.congestion.reductions == 1  # of the same round trip
    pn = [recovery.send(110 * MS, SIZE) for _ in range(2)]
    acknowledge(recovery, [each for each in pn if each is not None], (5, 0, 3), 160)
    assert recovery.congestion.reductions == 2


def test_losses_that_were_none_do_not_take_back_what_a_mark_did() -> None:
    recovery, sent = on_trial()
    acknowledge(recovery, sent[4:8], (4, 0, 0))
    assert recovery.congestion.reductions == 1
    assert recovery.lost_total == 4
    acknowledge(recovery, sent[8:], (4, 0, 2), 101)
    acknowledge(recovery, sent[:4], (8, 0, 2), 102)
    assert recovery.late_total == 4
    assert recovery.congestion.undone == 0


# ---- What is received ----


def test_acknowledgements_count_what_came_marked() -> None:
    packets = PacketRanges()
    packets.add(0, 0)
    assert read_ack(packets.ack_frame(0))[3] is None
    packets.count_marks(ECT_0, 70)
    packets.count_marks(ECT_1, 2)
    packets.count_marks(CE, 20_000)
    packets.count_marks(0, 9)
    frame = packets.ack_frame(0)
    assert read_ack(frame) == (len(frame), 0, [(0, 1)], (70, 2, 20_000))
    assert packets.ack_frame(0, len(frame) - 1) == b""


def test_a_packet_that_comes_twice_counts_once() -> None:
    pair = Pair(Link(duplication=1.0))
    for side in (pair.a, pair.b):
        side.engine.recovery.ecn.enable()
    for _ in range(5):
        pair.a.engine.send_control(b"\x01")
        pair.run()
    assert pair.a.engine.recovery.ecn.state == ECN_CAPABLE
    assert 0 < pair.b.engine.received.ect0 <= pair.a.engine.recovery.ecn.sent


# ---- Whole transfers ----


def test_a_path_that_carries_marks_is_found_capable() -> None:
    pair = moved(Link())
    assert pair.a.engine.recovery.ecn.state == ECN_CAPABLE
    assert pair.b.engine.received.ect0 == pair.a.engine.recovery.ecn.sent > 100
    assert pair.a.engine.recovery.ecn.ect0 <= pair.b.engine.received.ect0
    assert pair.a.engine.recovery.congestion.reductions == 0


def test_a_congested_path_slows_the_sender_without_a_loss() -> None:
    rng = random.Random(2)
    pair = moved(Link(mark=lambda ecn: CE if ecn == ECT_0 and rng.random() < 0.01 else ecn))
    recovery = pair.a.engine.recovery
    assert recovery.ecn.state == ECN_CAPABLE
    assert recovery.ecn.ce > 0
    assert recovery.congestion.reductions > 0
    assert recovery.lost_total == 0


@pytest.mark.parametrize("faults", [{"loss": 0.05}, {"duplication": 0.3}, {"reordering": 0.3}])
def test_losses_and_disorder_do_not_look_like_a_fault_of_the_path(faults: dict[str, float]) -> None:
    pair = moved(Link(seed=3, **faults))  # type: ignore[arg-type]
    assert pair.a.engine.recovery.ecn.state == ECN_CAPABLE


@pytest.mark.parametrize("ecn", [0, ECT_1])
def test_a_path_that_changes_marks_is_left_without(ecn: int) -> None:
    pair = moved(Link(mark=lambda _: ecn))
    assert pair.a.engine.recovery.ecn.state == ECN_FAILED
    assert pair.a.engine.recovery.ecn.sent <= 2 * TRIAL
    assert pair.a.engine.recovery.congestion.reductions == 0


def test_a_path_that_drops_what_is_marked_is_left_without() -> None:
    link = Link(drop=lambda datagram: getattr(datagram, "ecn", 0) != 0)
    pair = moved(link)
    assert pair.a.engine.recovery.ecn.state == ECN_FAILED
    assert pair.a.engine.recovery.ecn.ect0 == 0


def test_a_path_that_begins_to_drop_what_is_marked_is_left_without() -> None:
    link = Link()
    link.drop = lambda datagram: link.sent > 200 and getattr(datagram, "ecn", 0) != 0
    pair = moved(link)
    assert pair.a.engine.recovery.ecn.state == ECN_FAILED
    assert pair.a.engine.recovery.ecn.ect0 > 0
