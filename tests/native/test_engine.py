"""Two packet engines in virtual time: what streams carry arrives whatever the link does, and no peer can break one."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link import SIZE, Link, Pair, unseal, varint

from spaceblock.quic.native.engine import RARE_FRAMES_WAITING
from spaceblock.quic.native.recovery import NEVER, SENT_MAX
from spaceblock.quic.native.streams import GAPS_MAX, ReceiveStream, SendStream

TOP = 2**62 - 1
PROTOCOL_VIOLATION = 0x0A
FRAME_ENCODING = 0x07


def data_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# ---- Transfers ----


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"loss": 0.01},
        {"loss": 0.2},
        {"duplication": 0.3},
        {"reordering": 0.3},
        {"loss": 0.1, "duplication": 0.1, "reordering": 0.3},
    ],
    ids=lambda faults: "+".join(faults) or "clean",
)
@pytest.mark.parametrize("size", [SIZE, 1_452, 9_000, 65_507])
def test_streams_arrive_both_ways(faults: dict[str, float], size: int) -> None:
    pair = Pair(Link(seed=size, **faults), size=size)  # type: ignore[arg-type]
    sent: list[dict[int, bytes]] = [{}, {}]
    for which, side in enumerate((pair.a, pair.b)):
        for i, length in enumerate((0, 1, 50_000, 300_000, 777_777)):
            stream_id = 4 * i + 2 + which
            sent[which][stream_id] = data_of(length, stream_id)
            stream = side.open(stream_id)
            for at in range(0, length, 40_000):
                stream.write(sent[which][stream_id][at : at + 40_000])
            side.write(stream, b"", fin=True)
    pair.run()
    assert (pair.b.received, pair.a.received) == tuple(sent)
    assert (pair.b.ended, pair.a.ended) == (set(sent[0]), set(sent[1]))
    for side in (pair.a, pair.b):
        assert all(stream.finished for stream in side.engine.send_streams.values())
        assert side.engine.recovery.bytes_in_flight == 0
        assert side.engine.violation is None
        assert side.engine.failed == 0


def test_datagrams_are_full_as_long_as_there_is_data() -> None:
    pair = Pair()
    pair.a.write(pair.a.open(2), data_of(100_000))
    first = pair.a.build(pair.now)
    assert {len(datagram) for datagram in first} == {SIZE}
    assert len(first) == pair.a.engine.recovery.congestion.window // SIZE


def test_streams_take_turns() -> None:
    pair = Pair()
    streams = [pair.a.open(2 + 4 * i) for i in range(3)]
    for stream in streams:
        pair.a.write(stream, data_of(500_000), fin=True)
    halves: list[list[int]] = []
    pair.after = lambda: halves.append([stream.sent for stream in streams])
    pair.run()
    middle = halves[len(halves) // 2]
    assert min(middle) > 0


def test_a_probe_brings_back_the_last_packet() -> None:
    pair = Pair()
    pair.a.write(pair.a.open(2), b"all there is", fin=True)
    lost = pair.a.build(pair.now)
    assert len(lost) == 1
    pair.run()
    assert (pair.b.received, pair.b.ended) == ({2: b"all there is"}, {2})
    assert pair.a.engine.recovery.bytes_in_flight == 0


def test_probes_go_on_until_somebody_answers() -> None:
    pair = Pair()
    dropped: list[bytes] = []

    def drop(datagram: bytes) -> bool:
        dropped.append(datagram)
        return len(dropped) <= 9

    pair.link.drop = drop
    pair.a.write(pair.a.open(2), b"x", fin=True)
    pair.run()
    assert pair.b.ended == {2}
    assert len(dropped) >= 10


def test_a_control_frame_that_is_lost_is_sent_again() -> None:
    pair = Pair()
    pair.a.engine.send_control(b"\x1b" + b"pathpath")
    pair.a.engine.send_control(b"\x12" + varint(77), token="streams")
    assert len(pair.a.build(pair.now)) == 1
    for _ in range(5):
        pair.a.engine.send_control(b"\x01")
        for datagram in pair.a.build(pair.now):
            pair.link.send(pair.b, datagram, pair.now)
    pair.run()
    assert pair.b.rare == [(0x1B, b"pathpath")]
    assert pair.a.engine.lost == ["streams"]


def test_a_control_frame_that_arrives_is_told_of() -> None:
    pair = Pair()
    pair.a.engine.send_control(b"\x12" + varint(77), token="streams")
    pair.run()
    assert pair.b.rare == [(0x12, 77)]
    assert (pair.a.engine.lost, pair.a.engine.delivered) == ([], ["streams"])


@pytest.mark.parametrize("size", [SIZE, 65_507])
def test_many_control_frames_at_once(size: int) -> None:
    pair = Pair(size=size)
    stream = pair.a.open(2)
    pair.a.write(stream, data_of(200_000), fin=True)
    for i in range(3_000):
        pair.a.engine.send_control(b"\x12" + varint(i))
    assert pair.a.engine.waiting == 3_000
    pair.run()
    assert pair.b.rare == [(0x12, i) for i in range(3_000)]
    assert pair.b.received == {2: data_of(200_000)}


def test_acknowledgements_are_not_acknowledged() -> None:
    pair = Pair()
    pair.a.write(pair.a.open(2), b"once", fin=True)
    for datagram in pair.a.build(pair.now):
        pair.b.receive(datagram, pair.now)
    pair.b.engine.send_control(b"\x01")
    pair.run()
    # The data's answer with the PING and the reader's credit, the answer to that, and nothing more.
    assert pair.link.sent <= 4
    assert pair.a.due() == pair.b.due() == NEVER


def test_an_acknowledgement_that_finds_no_room_is_due_still() -> None:
    pair = Pair()
    engine = pair.b.engine
    engine.send_control(b"\x01")
    assert len(pair.b.build(pair.now)) == 1
    engine.recovery.start_at(engine.recovery.oldest + SENT_MAX)
    pair.b.receive(pair.seal(b"\x01", 0), pair.now)
    assert pair.b.build(pair.now) == []
    pair.b.receive(pair.seal(b"\x02\x00\x00\x00\x00", 1), pair.now)  # of what holds all the room
    assert len(pair.b.build(pair.now)) == 1


def test_a_window_of_packets_beyond_one_that_is_lost() -> None:
    """More packets than there may be gaps."""
    pair = Pair(window=1 << 24)
    stream = pair.a.open(2)
    pair.a.write(stream, data_of(9_000_000), fin=True)
    seen = 0

    def drop(datagram: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen == 4_000

    pair.link.drop = drop
    pair.run()
    assert pair.b.engine.violation is None
    assert pair.b.received[2] == data_of(9_000_000)
    assert GAPS_MAX * SIZE < 9_000_000


# ---- Credit ----


def test_a_sender_stops_at_the_streams_credit_and_goes_on_with_more() -> None:
    pair = Pair(window=10_000)
    pair.b.consumes = False
    stream = pair.a.open(2)
    pair.a.write(stream, data_of(25_000), fin=True)
    pair.run()
    assert (stream.sent, len(pair.b.received[2])) == (10_000, 10_000)
    pair.b.consumes = True
    pair.b.grant(pair.b.engine.receive_streams[2])
    pair.run()
    assert (pair.b.received[2], pair.b.ended) == (data_of(25_000), {2})


def test_a_sender_stops_at_the_connections_credit() -> None:
    pair = Pair()
    pair.a.engine.set_credit(30_000, 0, 1 << 20, 0)
    pair.b.engine.set_credit(1 << 20, 0, 30_000, 0)
    pair.b.consumes = False
    streams = [pair.a.open(2 + 4 * i) for i in range(4)]
    for stream in streams:
        pair.a.write(stream, data_of(20_000), fin=True)
    pair.run()
    assert (sum(stream.sent for stream in streams), pair.a.engine.data_sent) == (30_000, 30_000)
    assert pair.b.engine.credit.received == 30_000
    pair.b.engine.credit.limit = 100_000
    pair.b.engine.send_control(b"\x10" + varint(100_000))
    pair.run()
    assert pair.b.received == {stream.stream_id: data_of(20_000) for stream in streams}
    assert pair.b.engine.credit.received == 80_000


def test_credit_is_not_used_twice_by_what_is_sent_again() -> None:
    pair = Pair(Link(seed=5, loss=0.2), window=50_000)
    pair.b.consumes = False
    stream = pair.a.open(2)
    pair.a.write(stream, data_of(50_000), fin=True)
    pair.run()
    assert (pair.a.engine.data_sent, pair.b.engine.credit.received) == (50_000, 50_000)
    assert pair.b.ended == {2}


def test_smaller_credit_is_no_news() -> None:
    pair = Pair(window=10_000)
    stream = pair.b.open(3)
    hostile(pair, b"\x10" + varint(5) + b"\x11\x03" + varint(5))
    assert (pair.b.engine.max_data, stream.limit) == (10_000, 10_000)
    hostile(pair, b"\x10" + varint(20_000) + b"\x11\x03" + varint(30_000), pn=1)
    assert (pair.b.engine.max_data, stream.limit) == (20_000, 30_000)


# ---- What a hostile peer sends ----


def hostile(pair: Pair, payload: bytes, pn: int = 0, **options: Any) -> Any:
    """One packet with that payload for ``b``; returns the violation."""
    assert pair.b.receive(pair.seal(payload, pn, **options), pair.now) == 1
    return pair.b.engine.violation


def code_of(payload: bytes, pair: Pair | None = None, **options: Any) -> int | None:
    violation = hostile(pair or Pair(), payload, **options)
    return None if violation is None else int(violation[0])


def test_a_packet_without_frames() -> None:
    # The shortest packet that can be sampled has a number of 4 bytes.
    assert code_of(b"") == PROTOCOL_VIOLATION


@pytest.mark.parametrize("first", [0x48, 0x50, 0x58])
def test_reserved_bits(first: int) -> None:
    assert code_of(b"\x01", first=first) == PROTOCOL_VIOLATION


@pytest.mark.parametrize("kind", [0x1F, 0x20, 0x30, 0x31, 0x3F, 0x40, 0x4000, TOP])
def test_unknown_frames(kind: int) -> None:
    assert code_of(varint(kind) + bytes(30)) == FRAME_ENCODING


@pytest.mark.parametrize("kind", [0x00, 0x01])
def test_harmless_frames(kind: int) -> None:
    assert code_of(varint(kind) * 500) is None


def test_acknowledgements_of_what_was_not_sent() -> None:
    assert code_of(b"\x02\x00\x00\x00\x00") == PROTOCOL_VIOLATION
    assert code_of(b"\x02" + varint(TOP) + b"\x00\x00\x00") == PROTOCOL_VIOLATION
    pair = Pair()
    pair.b.engine.send_control(b"\x01")
    pair.b.build(pair.now)
    assert code_of(b"\x02\x00\x00\x00\x00", pair) is None
    assert code_of(b"\x02\x01\x00\x00\x00", pair, pn=1) == PROTOCOL_VIOLATION


def test_an_acknowledgement_below_packet_0() -> None:
    assert code_of(b"\x02\x00\x00\x00\x01") == FRAME_ENCODING
    assert code_of(b"\x02\x05\x00\x01\x00\x05\x00") == FRAME_ENCODING


FRAMES = [
    b"\x02\x00\x00\x00\x00",
    b"\x03\x00\x00\x00\x00\x01\x02\x03",
    b"\x04\x02\x05\x00",
    b"\x05\x01\x05",
    b"\x06\x00\x03abc",
    b"\x07\x03abc",
    b"\x0e\x02\x05\x03abc",
    b"\x0f\x02\x05\x03abc",
    b"\x10" + varint(TOP),
    b"\x11\x01" + varint(TOP),
    b"\x12" + varint(1 << 20),
    b"\x13" + varint(1 << 20),
    b"\x14\x05",
    b"\x15\x02\x05",
    b"\x16\x05",
    b"\x17\x05",
    b"\x18\x01\x00\x08" + bytes(8) + bytes(16),
    b"\x19\x00",
    b"\x1a" + bytes(8),
    b"\x1b" + bytes(8),
    b"\x1c\x07\x02\x03abc",
    b"\x1d\x07\x03abc",
    b"\x1e",
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: f"{frame[0]:#04x}")
def test_frames_cut_at_every_byte(frame: bytes) -> None:
    pair = Pair()
    pair.b.engine.send_control(b"\x01")
    pair.b.build(pair.now)
    assert code_of(frame + b"\x01", pair) is None
    for size in range(1, len(frame)):
        assert code_of(frame[:size]) == FRAME_ENCODING


def test_rare_frames_are_taken_apart() -> None:
    pair = Pair()
    hostile(pair, b"\x00".join(FRAMES[2:6] + FRAMES[10:]))
    assert pair.b.rare == [
        (0x04, 2, 5, 0),
        (0x05, 1, 5),
        (0x06, 0, 3, b"abc"),
        (0x07, 3, b"abc"),
        (0x12, 1 << 20),
        (0x13, 1 << 20),
        (0x14, 5),
        (0x15, 2, 5),
        (0x16, 5),
        (0x17, 5),
        (0x18, 1, 0, b"\x08" + bytes(8) + bytes(16)),
        (0x19, 0),
        (0x1A, bytes(8), None),
        (0x1B, bytes(8)),
        (0x1C, 7, 2, 3, b"abc"),
        (0x1D, 7, 3, b"abc"),
        (0x1E,),
    ]


def test_only_so_many_rare_frames_wait_for_python() -> None:
    pair = Pair()
    engine = pair.b.engine
    each = 8  # as many in a packet as may come for ever
    for pn in range(RARE_FRAMES_WAITING // each):
        engine.receive(bytearray(pair.seal(b"\x17\x00" * each, pn)), 1_200, pair.now)
    assert (len(engine.rare), engine.violation) == (RARE_FRAMES_WAITING, None)
    engine.receive(bytearray(pair.seal(b"\x17\x00", RARE_FRAMES_WAITING)), 1_200, pair.now)
    assert engine.violation is not None
    assert engine.violation[0] == PROTOCOL_VIOLATION


def test_lengths_beyond_the_packet() -> None:
    for length in (4, 64, 1 << 14, 1 << 32, TOP):
        assert code_of(b"\x0a\x02" + varint(length) + b"abc") == FRAME_ENCODING
        assert code_of(b"\x06\x00" + varint(length) + b"abc") == FRAME_ENCODING
        assert code_of(b"\x1d\x00" + varint(length) + b"abc") == FRAME_ENCODING
    assert code_of(b"\x18\x01\x00\xff" + bytes(100)) == FRAME_ENCODING


def test_data_beyond_any_offset() -> None:
    assert code_of(b"\x0c\x02" + varint(TOP) + b"x") == FRAME_ENCODING
    assert code_of(b"\x0c\x02" + varint(TOP - 5) + b"123456") == FRAME_ENCODING
    assert code_of(b"\x0c\x02" + varint(TOP - 6) + b"123456") == 0x03


def test_data_beyond_the_credit() -> None:
    window = 2_000
    assert code_of(b"\x0c\x02" + varint(window - 3) + b"abc", Pair(window=window)) is None
    assert code_of(b"\x0c\x02" + varint(window - 2) + b"abc", Pair(window=window)) == 0x03
    # The connection's: bytes that are missing count, and none counts twice.
    pair = Pair(window=window)
    pair.b.consumes = False
    assert code_of(b"\x0c\x02" + varint(window - 13) + b"abc", pair) is None
    assert code_of(b"\x0c\x02" + varint(window - 13) + b"abc", pair, pn=1) is None
    assert code_of(b"\x08\x06" + bytes(10), pair, pn=2) is None
    assert code_of(b"\x0c\x06\x05" + bytes(6), pair, pn=3) == 0x03


def test_final_sizes() -> None:
    assert code_of(b"\x0f\x02\x05\x03abc" + b"\x0f\x02\x05\x02ab") == 0x06
    assert code_of(b"\x0f\x02\x05\x03abc" + b"\x0e\x02\x08\x01x") == 0x06
    assert code_of(b"\x0f\x02\x05\x03abc" * 3) is None


def test_too_many_gaps() -> None:
    pair = Pair()
    pair.b.consumes = False
    frames = [b"\x0e\x02" + varint(1 + 2 * i) + b"\x01x" for i in range(GAPS_MAX + 1)]
    for pn, at in enumerate(range(0, len(frames), 100)):
        violation = code_of(b"".join(frames[at : at + 100]), pair, pn=pn)
    assert violation == PROTOCOL_VIOLATION


def test_streams_that_may_not_be() -> None:
    assert code_of(b"\x0a" + varint(400) + b"\x00") == 0x04


def test_the_first_violation_counts_and_ends_all() -> None:
    pair = Pair()
    first = hostile(pair, b"\x3f" + b"\x0a\x02\x01x")
    assert first[0] == FRAME_ENCODING
    assert pair.b.receive(pair.seal(b"\x0a\x02\x01x", 1), pair.now) == 0
    pair.b.engine.violate(0x01, 0, "later")
    assert pair.b.engine.violation == first
    assert pair.b.received == {}


def test_a_packet_of_another_key_phase_is_dropped() -> None:
    pair = Pair()
    assert pair.b.receive(pair.seal(b"\x0a\x02\x01x", 0, first=0x44), pair.now) == 0
    assert (pair.b.engine.failed, pair.b.engine.violation, pair.b.received) == (1, None, {})
    assert pair.b.receive(pair.seal(b"\x0a\x02\x01x", 0), pair.now) == 1


def test_packets_for_others_are_ignored() -> None:
    pair = Pair()
    pair.b.cid = b"somebody"
    assert pair.b.receive(pair.seal(b"\x01", 0), pair.now) == 0
    assert (pair.b.engine.failed, pair.b.engine.opened, pair.b.engine.ack_due) == (0, 0, False)


def test_a_packet_counts_once() -> None:
    pair = Pair()
    datagram = pair.seal(b"\x0a\x02\x01x", 0)
    assert pair.b.receive(datagram, pair.now) == 1
    assert pair.b.receive(datagram, pair.now) == 0
    assert pair.b.receive(datagram * 3, pair.now, segment=len(datagram)) == 0
    assert (pair.b.received, pair.b.engine.failed) == ({2: b"x"}, 0)


@pytest.mark.parametrize("pn_size", [1, 2, 3, 4])
def test_short_packet_numbers(pn_size: int) -> None:
    """RFC 9000, appendix A."""
    pair = Pair()
    for pn in (0, 1, 100, 127, 250, 256, 300, 255):
        assert pair.b.receive(pair.seal(b"\x01\x00\x00\x00", pn, pn_size=pn_size), pair.now) == 1
    assert pair.b.engine.received.largest == 300


def test_packet_numbers_far_away() -> None:
    pair = Pair()
    step = 1 << 30
    for pn in range(0, 1 << 36, step):
        assert pair.b.receive(pair.seal(b"\x01", pn), pair.now) == 1
    assert pair.b.engine.received.largest == (1 << 36) - step


def test_many_datagrams_in_one_buffer() -> None:
    pair = Pair()
    # Offsets in two bytes, so that all but the last datagram have one size.
    packets = [pair.seal(b"\x0e\x02" + (0x4000 + 2 * i).to_bytes(2, "big") + b"\x02ab", i) for i in range(100)]
    buffer = b"".join(packets) + pair.seal(b"\x0f\x02" + varint(200) + b"\x00", 100)
    assert pair.b.receive(buffer, pair.now, segment=len(packets[0])) == 101
    assert (pair.b.received, pair.b.ended) == ({2: b"ab" * 100}, {2})


@given(st.binary(min_size=1, max_size=300), st.integers(1, 300))
def test_any_datagrams(data: bytes, segment: int) -> None:
    pair = Pair()
    assert pair.b.receive(data, pair.now, segment) == 0
    assert pair.b.receive(b"\x40" + pair.b.cid + data, pair.now, segment) == 0
    assert pair.b.engine.violation is None


@given(st.lists(st.binary(max_size=60) | st.sampled_from(FRAMES), max_size=10), st.integers(0, 2))
def test_any_frames(frames: list[bytes], sent: int) -> None:
    pair = Pair()
    for _ in range(sent):
        pair.b.engine.send_control(b"\x01")
        pair.b.build(pair.now)
    pair.b.write(pair.b.open(1), b"something", fin=True)
    for pn in range(4):
        if pair.b.engine.violation is None:
            pair.b.receive(pair.seal(b"".join(frames), pn), pair.now)
        pair.b.build(pair.now)


def test_cut_packets_do_not_open() -> None:
    pair = Pair()
    datagram = pair.seal(b"\x0a\x02\x20" + bytes(32), 0)
    for size in range(1, len(datagram)):
        assert pair.b.receive(datagram[:size], pair.now) == 0
    for at in range(len(datagram)):
        flipped = bytearray(datagram)
        flipped[at] ^= 1
        assert pair.b.receive(bytes(flipped), pair.now) == 0
    assert pair.b.receive(datagram, pair.now) == 1


# ---- Small things ----


def test_the_last_packet() -> None:
    pair = Pair()
    packet = pair.a.engine.close_packet(b"\x1d\x05\x03bye", pair.now)
    assert unseal(packet, b"a") == (0, b"\x1d\x05\x03bye")
    assert pair.b.receive(packet, pair.now) == 1
    assert pair.b.rare == [(0x1D, 5, 3, b"bye")]
    assert not pair.b.engine.ack_due
    assert pair.a.engine.recovery.bytes_in_flight == 0
    with pytest.raises(ValueError, match="1024"):
        pair.a.engine.close_packet(bytes(1_025), pair.now)


def test_limits_of_arguments() -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="1024"):
        pair.a.engine.send_control(bytes(1_025))
    with pytest.raises(ValueError, match="20 bytes"):
        pair.a.engine.set_peer_cid(bytes(21))
    for size in (1_199, 65_508):
        with pytest.raises(ValueError, match="1200 to 65507"):
            Pair(size=size)


def test_a_reset_is_charged_to_the_connection() -> None:
    pair = Pair(window=1_000)
    stream = ReceiveStream(2, 900)
    pair.b.engine.add_receive_stream(stream)
    assert not pair.b.engine.count_reset(stream, 901)
    assert pair.b.engine.count_reset(stream, 900)
    assert pair.b.engine.credit.received == 900
    other = ReceiveStream(6, 900)
    assert not pair.b.engine.count_reset(other, 101)


def test_a_stream_given_up_while_it_waits_for_its_turn() -> None:
    pair = Pair(Link(seed=6, loss=0.1))
    streams: list[SendStream] = [pair.a.open(2 + 4 * i) for i in range(10)]
    for stream in streams:
        pair.a.write(stream, os.urandom(100_000), fin=True)
    rounds = 0

    def give_up() -> None:
        nonlocal rounds
        rounds += 1
        if rounds in (2, 5, 9):
            stream = streams[rounds]
            stream.give_up()
            pair.a.engine.remove_send_stream(stream)

    pair.after = give_up
    pair.run()
    assert pair.b.ended == {2 + 4 * i for i in range(10) if i not in (2, 5, 9)}
