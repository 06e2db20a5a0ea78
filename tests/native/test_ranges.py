"""Received packet numbers against a model of sets, and ACK frames against aioquic's own reading and writing of them."""

from __future__ import annotations

import array

import pytest
from aioquic.buffer import (  # type: ignore[attr-defined]  # it does not list what it re-exports
    Buffer,
    BufferReadError,
    encode_uint_var,
)
from aioquic.quic.packet import pull_ack_frame, push_ack_frame
from aioquic.quic.rangeset import RangeSet
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spaceblock.errors import RemoteProtocolError
from spaceblock.quic.handshake.private_names import OLD_SERIES
from spaceblock.quic.native import ranges
from spaceblock.quic.native.ranges import (
    ACK_FRAME_MAX,
    ACK_RANGES_MAX,
    DUPLICATE_WINDOW,
    IN_ORDER,
    OUT_OF_ORDER,
    RANGES_MAX,
    REPEATED,
    PacketRanges,
    read_ack,
)

TOP = 2**62 - 1


def received(*numbers: int) -> PacketRanges:
    packets = PacketRanges()
    for pn in numbers:
        packets.add(pn, 0)
    return packets


def frame(largest: int, delay: int, first: int, *pairs: tuple[int, int], more: int | None = None) -> bytes:
    """An ACK frame from the numbers it consists of."""
    count = len(pairs) if more is None else more
    numbers = [2, largest, delay, count, first, *(number for pair in pairs for number in pair)]
    return b"".join(map(encode_uint_var, numbers))


def spans_of(numbers: set[int]) -> list[tuple[int, int]]:
    """Half-open ranges, newest first."""
    found: list[tuple[int, int]] = []
    for pn in sorted(numbers, reverse=True):
        if found and found[-1][0] == pn + 1:
            found[-1] = (pn, found[-1][1])
        else:
            found.append((pn, pn + 1))
    return found


# Ranges as the gap below and the length of each, from the newest down.
span_lists = st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), min_size=1, max_size=RANGES_MAX).map(
    lambda pairs: spans_of(
        {
            sum(gap + size for gap, size in pairs) - sum(gap + size for gap, size in pairs[:i]) - step
            for i, (_, size) in enumerate(pairs)
            for step in range(size)
        }
    )
)


# ---- What was received ----


def test_packets_in_order() -> None:
    packets = PacketRanges()
    assert (packets.largest, packets.count, packets.spans()) == (-1, 0, [])
    assert [packets.add(pn, 10 + pn) for pn in range(5)] == [IN_ORDER] * 5
    assert (packets.largest, packets.largest_time, packets.spans()) == (4, 14, [(0, 5)])


def test_a_gap_and_what_fills_it_is_out_of_order() -> None:
    packets = received(0, 1, 2)
    assert packets.add(5, 100) == OUT_OF_ORDER
    assert packets.spans() == [(5, 6), (0, 3)]
    assert packets.add(4, 200) == OUT_OF_ORDER
    assert packets.spans() == [(4, 6), (0, 3)]
    assert packets.add(3, 300) == OUT_OF_ORDER
    assert packets.spans() == [(0, 6)]
    assert packets.largest_time == 100
    assert packets.add(6, 400) == IN_ORDER


def test_the_first_packet_may_have_any_number() -> None:
    packets = PacketRanges()
    assert packets.add(1000, 0) == IN_ORDER
    assert packets.spans() == [(1000, 1001)]
    assert packets.add(999, 0) == OUT_OF_ORDER


def test_what_the_handshake_received_is_taken_over_by_the_range() -> None:
    packets = PacketRanges()
    packets.add_span(2, 3, 0)
    packets.add_span(5, 9, 7)
    assert (packets.spans(), packets.largest_time) == ([(5, 9), (2, 3)], 7)
    assert packets.add(6, 8) == REPEATED
    with pytest.raises(ValueError, match="below 2\\^62"):
        packets.add_span(0, TOP + 2, 0)


@given(st.permutations(range(12)))
def test_every_order_ends_in_one_range(order: list[int]) -> None:
    packets = received(*order)
    assert packets.spans() == [(0, 12)]
    assert [packets.add(pn, 0) for pn in order] == [REPEATED] * 12


def test_duplicates_are_told_up_to_the_edge_of_the_window() -> None:
    packets = received(0, 2, DUPLICATE_WINDOW)
    assert packets.floor == 1
    assert packets.add(0, 0) == REPEATED
    assert packets.add(1, 0) == OUT_OF_ORDER
    assert packets.add(2, 0) == REPEATED
    assert packets.add(DUPLICATE_WINDOW + 4, 0) == OUT_OF_ORDER
    assert packets.floor == 5
    assert packets.add(4, 0) == REPEATED
    assert packets.add(5, 0) == OUT_OF_ORDER
    assert packets.add(5, 0) == REPEATED


@pytest.mark.parametrize(
    "step", [1, 63, 64, 65, DUPLICATE_WINDOW - 1, DUPLICATE_WINDOW, DUPLICATE_WINDOW + 1, TOP - 70]
)
def test_a_jump_leaves_nothing_of_the_numbers_that_had_the_same_place(step: int) -> None:
    packets = received(*range(70))
    largest = 69 + step
    packets.add(largest, 0)
    for pn in range(max(70, packets.floor), min(largest, packets.floor + 300)):
        assert packets.add(pn, 0) == OUT_OF_ORDER
    assert packets.add(largest, 0) == REPEATED


def test_numbers_end_below_2_to_the_62() -> None:
    packets = received(TOP)
    assert packets.spans() == [(TOP, TOP + 1)]
    assert packets.add(TOP + 1, 0) == REPEATED
    with pytest.raises(OverflowError):
        packets.add(-1, 0)


def test_the_oldest_range_makes_room_and_is_never_taken_again() -> None:
    packets = received(*range(0, 2 * RANGES_MAX, 2))
    assert packets.count == RANGES_MAX
    packets.add(2 * RANGES_MAX, 0)
    assert (packets.count, packets.floor) == (RANGES_MAX, 1)
    assert packets.spans()[-1] == (2, 3)
    assert packets.add(0, 0) == REPEATED


def test_a_late_packet_that_would_be_one_range_too_many_is_refused() -> None:
    packets = received(*range(100, 100 + 2 * RANGES_MAX, 2))
    assert packets.add(50, 0) == REPEATED
    assert packets.add(99, 0) == OUT_OF_ORDER, "it joins the oldest range"
    assert packets.add(101, 0) == OUT_OF_ORDER, "two ranges become one"
    assert packets.add(50, 0) == OUT_OF_ORDER, "and now there is room"


def test_what_the_peer_knows_is_forgotten() -> None:
    packets = received(0, 1, 4, 5, 6, 9)
    packets.forget_below(5)
    assert packets.spans() == [(9, 10), (5, 7)]
    assert packets.add(2, 0) == REPEATED
    packets.forget_below(3)
    assert (packets.floor, packets.spans()) == (5, [(9, 10), (5, 7)])
    packets.forget_below(TOP)
    assert packets.spans() == [(9, 10)], "the largest stays"
    assert packets.add(10, 0) == IN_ORDER
    assert packets.spans() == [(9, 11)]


def test_nothing_is_forgotten_before_the_first_packet() -> None:
    packets = PacketRanges()
    packets.forget_below(7)
    assert packets.add(0, 0) == IN_ORDER


class Reception(RuleBasedStateMachine):
    """Any order of additions and forgetting, against sets."""

    def __init__(self) -> None:
        super().__init__()
        self.packets = PacketRanges()
        self.seen: set[int] = set()
        self.told: set[int] = set()
        self.largest = -1
        self.floor = 0

    def expect(self, pn: int) -> int:
        if pn < self.floor or pn in self.seen:
            return REPEATED
        spans = spans_of(self.told | {pn})
        if len(spans) > RANGES_MAX:
            if spans[-1][0] == pn:
                return REPEATED
            self.told -= set(range(*spans[-1]))
            self.floor = max(self.floor, spans[-1][1])
        order = IN_ORDER if self.largest < 0 or pn == self.largest + 1 else OUT_OF_ORDER
        self.seen.add(pn)
        self.told.add(pn)
        self.largest = max(self.largest, pn)
        self.floor = max(self.floor, self.largest - DUPLICATE_WINDOW + 1)
        return order

    def take(self, pn: int) -> None:
        expected = self.expect(pn)
        assert self.packets.add(pn, 0) == expected

    @rule(count=st.integers(1, 20))
    def next_ones(self, count: int) -> None:
        for _ in range(count):
            self.take(self.largest + 1)

    @rule(count=st.integers(1, 40))
    def every_other(self, count: int) -> None:
        for _ in range(count):
            self.take(self.largest + 2)

    @rule(step=st.integers(1, 200))
    def jump(self, step: int) -> None:
        self.take(self.largest + step)

    @rule(step=st.integers(DUPLICATE_WINDOW - 100, DUPLICATE_WINDOW + 100))
    def leap(self, step: int) -> None:
        self.take(self.largest + step)

    @rule(back=st.integers(0, 200))
    def late(self, back: int) -> None:
        self.take(max(0, self.largest - back))

    @rule(above=st.integers(-3, 3))
    def at_the_floor(self, above: int) -> None:
        self.take(max(0, self.floor + above))

    @rule(back=st.integers(-5, 150))
    def forget(self, back: int) -> None:
        pn = max(0, self.largest - back)
        self.packets.forget_below(pn)
        if self.largest >= 0:
            pn = min(pn, self.largest)
            self.floor = max(self.floor, pn)
            self.told = {number for number in self.told if number >= pn}

    @invariant()
    def same(self) -> None:
        assert self.packets.spans() == spans_of(self.told)
        assert (self.packets.largest, self.packets.floor) == (self.largest, self.floor)
        if self.largest >= 0:
            assert read_ack(self.packets.ack_frame(0))[2] == spans_of(self.told)


TestReception = Reception.TestCase
TestReception.settings = settings(max_examples=40, stateful_step_count=40)


# ---- ACK frames ----


def test_an_ack_frame_byte_by_byte() -> None:
    packets = received(0, 1, 2, 5, 6, 100)
    # Type 2, largest 100, delay 300 in two bytes, two more ranges, one packet; gap 92 and two packets; gap 1 and three.
    assert packets.ack_frame(300) == bytes([2, 0x40, 100, 0x41, 0x2C, 2, 0, 0x40, 92, 1, 1, 2])


def test_nothing_received_writes_nothing() -> None:
    assert PacketRanges().ack_frame(0) == b""


@pytest.mark.skipif(OLD_SERIES, reason="the codec of aioquic 1.3 takes other arguments")
@given(span_lists, st.integers(0, 2**40))
def test_what_is_written_reads_the_same_here_and_in_aioquic(spans: list[tuple[int, int]], delay: int) -> None:
    packets = received(*(pn for start, stop in reversed(spans) for pn in range(start, stop)))
    written = packets.ack_frame(delay)
    assert read_ack(written) == (len(written), delay, spans, None)
    theirs = RangeSet([range(start, stop) for start, stop in spans])
    assert pull_ack_frame(Buffer(data=written[1:])) == (theirs, delay)
    buffer = Buffer(capacity=2000)
    push_ack_frame(buffer, theirs, delay, 2000)
    assert b"\x02" + buffer.data == written


@given(span_lists, st.integers(0, 200))
def test_little_room_keeps_the_newest_ranges(spans: list[tuple[int, int]], room: int) -> None:
    packets = received(*(pn for start, stop in reversed(spans) for pn in range(start, stop)))
    part = packets.ack_frame(0, room)
    if not part:
        assert room < 9
        return
    used, _, kept, _ = read_ack(part)
    assert used == len(part) <= room
    assert kept == spans[: len(kept)]
    if kept == spans:
        assert part == packets.ack_frame(0)
    else:
        start, stop = spans[len(kept)]
        following = encode_uint_var(kept[-1][0] - stop - 1) + encode_uint_var(stop - start - 1)
        assert len(part) + len(following) > room, "one more would not have fitted"


def test_the_longest_frame_has_room() -> None:
    # Ranges and gaps of 2^31 packets would take 8 bytes each; ranges that long arrive nowhere, gaps may.
    packets = received(*range(TOP - RANGES_MAX * 2**31, TOP, 2**31))
    assert packets.count == RANGES_MAX
    assert len(packets.ack_frame(TOP)) == 19 + 63 * 9
    for ecn in (1, 2, 3):
        packets.count_marks(ecn, TOP)
    assert len(packets.ack_frame(TOP)) == 19 + 63 * 9 + 3 * 8
    assert ACK_FRAME_MAX == 18 + 8 + 63 * 16 + 3 * 8


def test_counts_of_ecn_marks_are_read() -> None:
    data = b"\x03" + frame(9, 1, 3)[1:] + bytes([4, 5, 6])
    assert read_ack(data) == (len(data), 1, [(6, 10)], (4, 5, 6))


def test_what_follows_the_frame_is_left() -> None:
    data = frame(9, 1, 3, (0, 0))
    assert read_ack(data + b"\x01\x00") == (len(data), 1, [(6, 10), (4, 5)], None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x00\x00\x00\x00",
        b"\x04\x00\x00\x00\x00",
        frame(5, 0, 6),
        frame(5, 0, 4, (0, 0)),
        frame(5, 0, 5, (0, 0)),
        frame(9, 0, 0, (7, 1)),
        frame(9, 0, 0, (8, 0)),
        frame(9, 0, 0, (TOP, 0)),
        frame(9, 0, 0, (0, TOP)),
        frame(9, 0, TOP),
        frame(9, 0, 0, more=TOP),
        frame(TOP, 0, 0, (0, 0), more=2),
        b"\x03" + frame(9, 1, 3)[1:] + bytes([4, 5]),
    ],
    ids=lambda data: data.hex() or "empty",
)
def test_malformed_frames(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_ack(data)


def test_the_smallest_packet_is_number_0() -> None:
    assert read_ack(frame(9, 0, 0, (7, 0)))[2] == [(9, 10), (0, 1)]
    assert read_ack(frame(9, 0, 9))[2] == [(0, 10)]
    assert read_ack(frame(TOP, 0, TOP))[2] == [(0, TOP + 1)]


def test_a_cut_frame_is_malformed_wherever_it_is_cut() -> None:
    data = frame(2**40, 70000, 3, (5, 2**31), (100, 70))
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            read_ack(data[:size])
    assert len(read_ack(data)[2]) == 3


@pytest.mark.parametrize("extra", [0, 1, 3000])
def test_more_ranges_than_are_kept_are_checked_all_the_same(extra: int) -> None:
    count = ACK_RANGES_MAX + extra
    good = frame(2 * count - 2, 0, 0, *[(0, 0)] * (count - 1))
    used, _, spans, _ = read_ack(good)
    assert used == len(good)
    assert spans == [(pn, pn + 1) for pn in range(2 * count - 2, 2 * extra - 1, -2)]
    with pytest.raises(RemoteProtocolError):
        read_ack(frame(2 * count - 2, 0, 0, *[(0, 0)] * (count - 2), (1, 0)))


numbers = st.one_of(st.integers(0, 12), st.integers(0, 300), st.integers(0, TOP))
almost_frames = st.lists(numbers, min_size=0, max_size=14).map(
    lambda each: b"\x02" + b"".join(map(encode_uint_var, each))
)


@pytest.mark.skipif(OLD_SERIES, reason="aioquic 1.3 reads ranges below zero")
@given(st.one_of(almost_frames, st.binary(max_size=60).map(lambda data: b"\x02" + data)))
@settings(max_examples=1000)
def test_anything_reads_as_aioquic_reads_it(data: bytes) -> None:
    theirs: tuple[RangeSet, int] | None
    try:
        theirs = pull_ack_frame(Buffer(data=data[1:]))
    except (BufferReadError, ValueError):
        theirs = None
    # An array has not a byte to spare behind its data, so that a checked build sees every one read too many.
    exact = array.array("B", data)
    if theirs is None:
        with pytest.raises(RemoteProtocolError):
            read_ack(exact)
        return
    used, delay, spans, _ = read_ack(exact)
    assert (RangeSet([range(start, stop) for start, stop in spans]), delay) == theirs
    assert read_ack(data[:used]) == read_ack(data + b"\xff" * 20)


def test_a_closed_buffer_is_refused_and_none_is_held() -> None:
    data = bytearray(frame(9, 0, 0))
    read_ack(data)
    data.append(0)
    with pytest.raises(TypeError):
        read_ack("text")  # type: ignore[arg-type]


def test_the_constants_are_numbers() -> None:
    assert (REPEATED, IN_ORDER, OUT_OF_ORDER) == (0, 1, 2)
    assert all(isinstance(getattr(ranges, name), int) for name in ("RANGES_MAX", "ACK_RANGES_MAX", "DUPLICATE_WINDOW"))
