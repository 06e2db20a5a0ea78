"""A stream's two directions: every byte once and in order, whatever was lost, repeated or came early."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spaceblock.quic.native.streams import GAPS_MAX, ReceiveStream, SendStream, Spans

ALL = 2**62 - 1
SPOT = st.integers(0, 40)


# ---- Spans ----


@given(st.lists(st.tuples(st.booleans(), SPOT, SPOT)))
def test_spans_against_a_set(steps: list[tuple[bool, int, int]]) -> None:
    spans, model = Spans(), set[int]()
    for is_added, start, stop in steps:
        if is_added:
            spans.add(start, stop)
            model |= set(range(start, stop))
        else:
            spans.remove(start, stop)
            model -= set(range(start, stop))
        listed = list(spans)
        assert {spot for one in listed for spot in range(*one)} == model
        assert all(one[1] < other[0] for one, other in pairwise(listed))


def test_many_spans() -> None:
    spans = Spans()
    for spot in random.Random(1).sample(range(1_000), 1_000):
        spans.add(2 * spot, 2 * spot + 1)
    assert list(spans) == [(2 * spot, 2 * spot + 1) for spot in range(1_000)]
    spans.remove(1, 1_999)
    assert list(spans) == [(0, 1)]


def test_a_great_many_spans_are_found_at_once() -> None:
    """A peer decides how many there are, so no step may look at all of them."""
    spans = Spans()
    for spot in range(50_000):
        spans.add(3 * spot, 3 * spot + 2)
    for spot in range(50_000):
        spans.remove(3 * spot, 3 * spot + 1)
    assert list(spans) == [(3 * spot + 1, 3 * spot + 2) for spot in range(50_000)]


# ---- Sending ----


def test_a_peer_that_acknowledges_every_second_packet() -> None:
    pieces = 20_000
    stream = sender(bytes(2 * pieces))
    assert stream.send(2 * pieces, ALL) is not None
    for at in range(pieces):
        stream.acknowledge(2 * at + 1, 2 * at + 2)
    for at in range(pieces):
        stream.lose(2 * at, 2 * at + 1)
    for at in range(pieces):
        assert stream.send(100, ALL) == (2 * at, b"\0", False)
    stream.acknowledge(0, 2 * pieces)
    assert stream.backlog == 0


def sender(*writes: bytes | bytearray, fin: bool = False, limit: int = ALL) -> SendStream:
    stream = SendStream(0, limit)
    for data in writes:
        stream.write(data)
    if fin:
        stream.write(b"", True)
    return stream


def test_what_is_written_is_sent_in_order_and_by_the_room_there_is() -> None:
    stream = sender(b"abc", b"", b"defgh", b"ij", fin=True)
    assert stream.send(2, ALL) == (0, b"ab", False)
    assert stream.send(4, ALL) == (2, b"cdef", False)
    assert stream.send(100, ALL) == (6, b"ghij", True)
    assert stream.send(100, ALL) is None
    assert (stream.backlog, stream.finished) == (11, False)
    stream.acknowledge(0, 10, True)
    assert (stream.backlog, stream.finished) == (0, True)


def test_an_end_without_bytes_is_sent_by_itself_and_again_when_it_is_lost() -> None:
    stream = sender(b"abc")
    assert stream.send(100, ALL) == (0, b"abc", False)
    stream.write(b"", True)
    assert stream.send(100, 0) == (3, b"", True)
    stream.lose(3, 3, True)
    stream.lose(3, 3, True)
    assert stream.send(100, 0) == (3, b"", True)
    stream.acknowledge(3, 3, True)
    stream.lose(3, 3, True)
    assert stream.send(100, 0) is None
    assert not stream.finished
    stream.acknowledge(0, 3)
    assert stream.finished


def test_an_empty_stream_ends_without_any_credit() -> None:
    stream = sender(fin=True, limit=0)
    assert stream.send(100, 0) == (0, b"", True)


def test_credit_bounds_new_bytes_and_not_those_sent_again() -> None:
    stream = sender(b"0123456789", fin=True, limit=6)
    assert stream.send(100, 4) == (0, b"0123", False)
    assert stream.send(100, 0) is None
    assert stream.send(100, ALL) == (4, b"45", False)
    assert stream.send(100, ALL) is None
    stream.lose(1, 3)
    assert stream.send(100, 0) == (1, b"12", False)
    stream.limit = 100
    assert stream.send(100, ALL) == (6, b"6789", True)


def test_what_was_lost_goes_first_and_the_end_comes_with_the_last_byte() -> None:
    stream = sender(b"0123456789", fin=True)
    stream.send(100, ALL)
    stream.lose(6, 10, True)
    stream.lose(0, 2)
    assert stream.send(100, 0) == (0, b"01", False)
    assert stream.send(2, 0) == (6, b"67", False)
    assert stream.send(100, 0) == (8, b"89", True)


def test_bytes_that_are_acknowledged_meanwhile_are_not_sent_again() -> None:
    stream = sender(b"0123456789")
    for _ in range(5):
        stream.send(2, ALL)
    stream.lose(0, 8)
    stream.acknowledge(2, 4)
    assert stream.acknowledged == 0
    assert stream.send(100, 0) == (0, b"01", False)
    stream.acknowledge(4, 6)
    assert stream.send(100, 0) == (6, b"67", False)
    stream.lose(2, 6)
    assert stream.send(100, 0) is None
    stream.acknowledge(0, 2)
    assert stream.acknowledged == 6


def test_a_stream_that_the_peer_does_not_allow_yet_sends_nothing() -> None:
    stream = sender(b"abc", fin=True)
    stream.held = True
    assert stream.send(100, ALL) is None
    stream.held = False
    assert stream.send(100, ALL) == (0, b"abc", True)


def test_a_buffer_is_held_until_it_is_acknowledged_and_released_once() -> None:
    stream = SendStream(0, ALL)
    released: list[int] = []

    def releaser(which: int) -> Callable[[], None]:
        return lambda: released.append(which)

    buffers = [bytearray(bytes([i]) * 10) for i in range(3)]
    for i, buffer in enumerate(buffers):
        stream.write(buffer, i == 2, release=releaser(i))
    with pytest.raises(BufferError):
        buffers[0].append(0)
    stream.send(100, ALL)
    stream.acknowledge(10, 20)
    stream.acknowledge(10, 20)
    stream.acknowledge(0, 9)
    assert released == []
    stream.acknowledge(9, 10)
    assert released == [0, 1]
    buffers[0].append(0)
    buffers[1].append(0)
    with pytest.raises(BufferError):
        buffers[2].append(0)
    stream.acknowledge(0, 30, True)
    assert released == [0, 1, 2]
    buffers[2].append(0)


def test_a_buffer_may_be_written_as_another_is_released() -> None:
    stream = SendStream(0, ALL)
    arrived = b""
    left = list(range(100))

    def refill() -> None:
        if left:
            stream.write(bytes([left.pop(0)]) * 7, release=refill)

    for _ in range(5):
        refill()
    while (run := stream.send(11, ALL)) is not None:
        offset, data, _ = run
        arrived += data
        stream.acknowledge(offset, offset + len(data))
    assert arrived == b"".join(bytes([i]) * 7 for i in range(100))


def test_giving_up_releases_all_at_once_and_takes_nothing_more() -> None:
    stream = SendStream(0, ALL)
    released: list[str] = []
    buffer = bytearray(10)
    stream.write(buffer, release=lambda: released.append("first"))
    stream.send(5, ALL)
    stream.give_up()
    stream.give_up()
    assert (released, stream.backlog, stream.send(100, ALL)) == (["first"], 0, None)
    buffer.append(0)
    stream.write(b"more", True, release=lambda: released.append("second"))
    stream.acknowledge(0, 5)
    stream.lose(0, 5, True)
    assert (released, stream.backlog, stream.send(100, ALL)) == (["first", "second"], 0, None)


def test_a_buffer_without_bytes_is_released_at_once() -> None:
    released: list[bool] = []
    SendStream(0, ALL).write(b"", release=lambda: released.append(True))
    assert released == [True]


def test_a_stream_that_is_forgotten_lets_go_of_its_buffers() -> None:
    buffer = bytearray(10)
    sender(buffer)
    buffer.append(0)


def test_going_on_where_another_engine_stopped() -> None:
    stream = SendStream(0, ALL)
    stream.adopt(100, b"0123456789", 108, [(100, 102)], [(104, 106)], True, True)
    assert (stream.written, stream.sent, stream.acknowledged, stream.backlog) == (110, 108, 100, 11)
    stream.lose(102, 106)
    assert stream.send(100, 0) == (100, b"0123", False)
    assert stream.send(100, ALL) == (108, b"89", True)
    stream.acknowledge(100, 104)
    assert stream.acknowledged == 106


class Sending(RuleBasedStateMachine):
    """Writes, packets, acknowledgements and losses in any order; the model is the set of bytes that the peer has."""

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(2)
        self.stream = SendStream(0, 0)
        self.written = b""
        self.ended = False
        self.packets: list[tuple[int, bytes, bool]] = []
        self.arrived: dict[int, int] = {}
        self.end_arrived = False
        self.held = 0

    @rule(size=st.integers(0, 30), fin=st.integers(0, 9))
    def write(self, size: int, fin: int) -> None:
        if not self.ended:
            data = self.random.randbytes(size)
            self.held += 1
            self.ended = fin == 9
            self.written += data
            self.stream.write(bytearray(data), self.ended, self.release)

    def release(self) -> None:
        self.held -= 1

    @rule(more=st.integers(1, 40))
    def allow(self, more: int) -> None:
        self.stream.limit += more

    @rule(room=st.integers(1, 25), credit=st.integers(0, 40))
    def send(self, room: int, credit: int) -> None:
        before = self.stream.sent
        run = self.stream.send(room, credit)
        if run is not None:
            offset, data, fin = run
            assert data == self.written[offset : offset + len(data)]
            assert fin <= (self.ended and offset + len(data) == len(self.written))
            assert len(data) <= room
            assert self.stream.sent - before <= credit
            assert self.stream.sent <= self.stream.limit
            self.packets.append(run)

    @rule(which=st.integers(0, 100), is_lost=st.booleans(), is_kept=st.booleans())
    def settle(self, which: int, is_lost: bool, is_kept: bool) -> None:
        if self.packets:
            offset, data, fin = packet = self.packets.pop(which % len(self.packets))
            if is_lost:
                self.stream.lose(offset, offset + len(data), fin)
                if is_kept:  # it was late
                    self.packets.append(packet)
            else:
                self.stream.acknowledge(offset, offset + len(data), fin)
                self.arrived.update(enumerate(data, offset))
                self.end_arrived |= fin

    @invariant()
    def the_first_missing_byte(self) -> None:
        missing = next(i for i in range(len(self.written) + 1) if i not in self.arrived)
        assert self.stream.acknowledged == missing
        assert self.stream.finished == (self.end_arrived and missing == len(self.written))

    def teardown(self) -> None:
        self.stream.limit = ALL
        for _ in range(2):
            for offset, data, fin in self.packets:
                self.stream.lose(offset, offset + len(data), fin)
            self.packets.clear()
            while (run := self.stream.send(20, ALL)) is not None:
                self.packets.append(run)
        for offset, data, fin in self.packets:
            self.arrived.update(enumerate(data, offset))
            self.stream.acknowledge(offset, offset + len(data), fin)
        assert bytes(self.arrived[i] for i in range(len(self.written))) == self.written
        assert self.stream.finished == self.ended
        assert self.held == 0


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=100, stateful_step_count=40)


# ---- Receiving ----


def receiver(limit: int = ALL) -> ReceiveStream:
    return ReceiveStream(0, limit)


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizers' own memory has no such limit")
def test_what_there_is_no_memory_for_has_not_arrived() -> None:
    script = """
import os, resource
from spaceblock.quic.native.streams import ReceiveStream

stream = ReceiveStream(0, 2**40)
data = bytes(32 * 2**20)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**24, resource.RLIM_INFINITY))
try:
    stream.receive_frame(0, data)
except MemoryError:
    del data
    print(stream.take(), stream.pull(), stream.receive_frame(0, b"again"))
"""
    found = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)
    assert found.stdout == "(b'', False) (0, False) (b'again', False)\n"


def test_frames_in_order() -> None:
    stream = receiver()
    assert stream.receive_frame(0, b"abc") == (b"abc", False)
    assert stream.receive_frame(3, b"") == (b"", False)
    assert stream.receive_frame(3, b"de", True) == (b"de", True)
    assert (stream.arrived, stream.highest, stream.final_size, stream.finished) == (5, 5, 5, True)


def test_an_end_without_bytes() -> None:
    stream = receiver()
    assert stream.receive_frame(0, b"abc") == (b"abc", False)
    assert stream.receive_frame(3, b"", True) == (b"", True)


def test_an_end_that_comes_early() -> None:
    stream = receiver()
    assert stream.receive_frame(3, b"", True) == (b"", False)
    assert (stream.final_size, stream.finished) == (3, False)
    assert stream.receive_frame(0, b"abc") == (b"abc", True)


def test_what_comes_early_waits_for_the_gap() -> None:
    stream = receiver()
    assert stream.receive_frame(6, b"ghi", True) == (b"", False)
    assert stream.receive_frame(3, b"de") == (b"", False)
    assert stream.receive_frame(0, b"abc") == (b"abcde", False)
    assert stream.receive_frame(5, b"f") == (b"fghi", True)


def test_bytes_that_came_before_are_not_handed_on_again() -> None:
    stream = receiver()
    assert stream.receive_frame(0, b"abcd") == (b"abcd", False)
    assert stream.receive_frame(0, b"abcd") == (b"", False)
    assert stream.receive_frame(1, b"bc") == (b"", False)
    assert stream.receive_frame(2, b"cdef") == (b"ef", False)
    assert stream.receive_frame(8, b"ijkl") == (b"", False)
    assert stream.receive_frame(7, b"hij") == (b"", False)
    assert stream.receive_frame(9, b"jklmn") == (b"", False)
    assert stream.receive_frame(4, b"efgh") == (b"ghijklmn", False)


def test_a_final_size_does_not_change() -> None:
    wrong = pytest.raises(ValueError, match="final size")
    stream = receiver()
    stream.receive_frame(4, b"ef", True)
    for offset, data, fin in ((4, b"efg", False), (7, b"", True), (0, b"abc", True), (100, b"x", False)):
        with wrong:
            stream.receive_frame(offset, data, fin)
    assert stream.receive_frame(4, b"ef", True) == (b"", False)
    assert stream.receive_frame(0, b"abcd") == (b"abcdef", True)
    with wrong:
        stream.receive_frame(6, b"g")
    late = receiver()
    late.receive_frame(5, b"x")
    with wrong:
        late.receive_frame(0, b"abc", True)


def test_a_reset_names_the_final_size_too() -> None:
    stream = receiver()
    stream.receive_frame(0, b"abc")
    assert not stream.end(2)
    assert stream.end(10)
    assert (stream.finished, stream.final_size, stream.highest) == (True, 10, 10)
    ended = receiver()
    ended.receive_frame(5, b"x", True)
    assert not ended.end(7)
    assert ended.end(6)


def test_many_packets_beyond_one_gap_are_one_run() -> None:
    """One lost packet at the front of a whole window is what happens every day."""
    stream, data = receiver(), random.Random(3).randbytes(1_200 * 5_000)
    for offset in range(1_200, len(data), 1_200):
        assert stream.receive_frame(offset, data[offset : offset + 1_200]) == (b"", False)
    assert stream.receive_frame(0, data[:1_200]) == (data, False)


def test_too_many_gaps() -> None:
    stream = receiver()
    for gap in range(GAPS_MAX):
        stream.receive_frame(2 + 2 * gap, b"x")
    with pytest.raises(ValueError, match="gaps"):
        stream.receive_frame(2 + 2 * GAPS_MAX, b"x")


def test_early_bytes_far_into_a_stream() -> None:
    stream, data = receiver(), random.Random(4).randbytes(300_000)
    stream.receive_frame(0, bytes(1_000_003))
    assert stream.receive_frame(1_000_003 + 10, data[10:]) == (b"", False)
    assert stream.receive_frame(1_000_003, data[:10]) == (data, False)


@given(st.randoms(use_true_random=False), st.integers(1, 200_000))
def test_any_frames_in_any_order(rng: random.Random, size: int) -> None:
    data = rng.randbytes(size)
    stream = receiver()
    frames = [(0, size // 2), (size // 2, size)]
    for _ in range(rng.randrange(30)):
        start = rng.randrange(size)
        frames.append((start, rng.randrange(start, size) + 1))
    rng.shuffle(frames)
    arrived, ended = b"", False
    for start, stop in frames:
        more, ended = stream.receive_frame(start, data[start:stop], stop == size)
        arrived += more
        assert arrived == data[: len(arrived)]
    assert (arrived, ended) == (data, True)


def test_going_on_with_what_came_early() -> None:
    stream = receiver()
    stream.adopt(120, 120, 100, [(110, b"B" * 10), (105, b"A" * 3)])
    assert (stream.arrived, stream.highest, stream.final_size, stream.finished) == (100, 120, 120, False)
    assert stream.receive_frame(100, b"0" * 5) == (b"00000AAA", False)
    assert stream.receive_frame(108, b"--") == (b"--" + b"B" * 10, True)
