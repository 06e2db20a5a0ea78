"""Credit that the engine grants: when, how much, told again when lost, and to whom (RFC 9000, section 4)."""

from __future__ import annotations

import random

import pytest
from link import MS, SIZE, Link, Pair

from framing import block
from spaceblock import core
from spaceblock.quic.native.credit import NEAR_WINDOW_MIN, WINDOWS_MAX
from spaceblock.quic.native.streams import ReceiveStream, SendStream

KIB = 1024
WINDOW = 100 * KIB


def pair_with(link: Link | None = None, buffer: int = 1 << 22, window: int = WINDOW, size: int = SIZE) -> Pair:
    """A pair whose receiving side leaves its credit to the engine: a connection's window is four of a stream."""
    pair = Pair(link, size, window)
    pair.b.consumes = False
    pair.b.engine.credit.set_windows(4 * window, window, window, buffer)
    for side in (pair.a, pair.b):
        side.engine.set_credit(4 * window, 0, 4 * window, 0)
    return pair


def opened(pair: Pair, data: bytes, stream_id: int = 2) -> tuple[SendStream, ReceiveStream]:
    sender = pair.a.open(stream_id)
    pair.a.write(sender, data)
    pair.run()
    return sender, pair.b.engine.receive_streams[stream_id]


def test_a_stream_is_granted_a_window_beyond_what_was_consumed() -> None:
    pair = pair_with()
    sender, receiver = opened(pair, bytes(3 * WINDOW))
    assert sender.sent == WINDOW
    assert pair.b.engine.grant_stream(receiver, WINDOW)
    pair.run()
    assert (receiver.limit, sender.sent) == (2 * WINDOW, 2 * WINDOW)


def test_less_than_a_quarter_of_a_window_is_saved_up() -> None:
    pair = pair_with()
    _, receiver = opened(pair, bytes(WINDOW))
    assert not pair.b.engine.grant_stream(receiver, WINDOW // 4 - 1)
    assert not pair.b.engine.grant_connection(WINDOW - 1)
    assert not pair.b.engine.wants_to_send()
    assert pair.b.engine.grant_stream(receiver, WINDOW // 4)
    assert pair.b.engine.grant_connection(1)
    pair.run()
    assert pair.a.engine.max_data == 5 * WINDOW


def test_no_limit_ever_goes_back() -> None:
    pair = pair_with()
    _, receiver = opened(pair, bytes(WINDOW))
    assert pair.b.engine.grant_stream(receiver, WINDOW)
    assert not pair.b.engine.grant_stream(receiver, WINDOW // 2)
    pair.b.engine.credit.set_windows(WINDOW, WINDOW // 4, WINDOW // 4, 1 << 22)
    assert not pair.b.engine.grant_connection(2 * WINDOW)
    assert (receiver.limit, pair.b.engine.credit.limit) == (2 * WINDOW, 4 * WINDOW)


def test_a_stream_that_ended_needs_no_more() -> None:
    pair = pair_with()
    sender = pair.a.open(2)
    pair.a.write(sender, bytes(WINDOW), fin=True)
    pair.run()
    receiver = ReceiveStream(6, WINDOW)
    receiver.receive_frame(0, b"all", True)
    pair.b.engine.add_receive_stream(receiver)
    assert not pair.b.engine.grant_stream(receiver, 3 * WINDOW)


def test_credit_that_was_lost_is_told_again_at_its_present_height() -> None:
    losing = False
    pair = pair_with(Link(drop=lambda datagram: losing))
    sender, receiver = opened(pair, bytes(4 * WINDOW))
    losing = True
    assert pair.b.engine.grant_stream(receiver, WINDOW // 2)
    assert pair.b.engine.grant_connection(WINDOW)
    assert pair.b.engine.build(pair.now)
    losing = False
    assert pair.b.engine.grant_stream(receiver, WINDOW)
    pair.run()
    assert sender.sent == 2 * WINDOW
    assert pair.a.engine.max_data == 5 * WINDOW


@pytest.mark.parametrize("size", [SIZE, 9_000])
def test_more_limits_than_one_packet_holds(size: int) -> None:
    pair = pair_with(size=size)
    senders = [pair.a.open(stream_id) for stream_id in range(398)]
    for sender in senders:
        pair.a.write(sender, b"x")
    pair.run()
    for receiver in pair.b.engine.receive_streams.values():
        assert pair.b.engine.grant_stream(receiver, WINDOW)
    # Beside other frames, and bytes that lie in more places than one.
    for _ in range(100):
        pair.b.engine.send_control(b"\x07\x20" + bytes(0x20))
    data = random.Random(1).randbytes(20 * KIB)
    answer = pair.b.open(399)
    for at in range(0, len(data), KIB // 8):
        pair.b.write(answer, data[at : at + KIB // 8])
    pair.run()
    assert {sender.limit for sender in senders} == {2 * WINDOW}
    assert pair.a.received == {399: data}
    assert len(pair.a.rare) == 100


def test_forgetting_a_stream_whose_limit_waits() -> None:
    pair = pair_with()
    for stream_id in (2, 6, 10):
        opened(pair, bytes(KIB), stream_id)
    receivers = list(pair.b.engine.receive_streams.values())
    for receiver in receivers:
        pair.b.engine.grant_stream(receiver, WINDOW)
    pair.b.engine.remove_receive_stream(receivers[1])
    pair.b.engine.remove_receive_stream(receivers[1])
    pair.run()
    limits = {stream.stream_id: stream.limit for stream in pair.a.engine.send_streams.values()}
    assert limits == {2: 2 * WINDOW, 6: WINDOW, 10: 2 * WINDOW}


def test_a_window_grows_for_a_reader_that_uses_it_up_within_two_round_trips() -> None:
    pair = pair_with()
    sender, receiver = opened(pair, bytes(20 * WINDOW))
    while sender.sent < 20 * WINDOW:
        before = receiver.limit
        pair.b.engine.grant_connection(receiver.arrived - pair.b.engine.credit.consumed)
        pair.b.engine.grant_stream(receiver, receiver.arrived)
        pair.run()
        assert receiver.limit > before
    assert 2 * WINDOW < receiver.limit - receiver.arrived <= WINDOWS_MAX


def test_on_a_near_path_a_window_is_what_the_sockets_buffer_holds() -> None:
    pair = pair_with(Link(latency=MS // 10), buffer=WINDOW // 2, window=4 * NEAR_WINDOW_MIN)
    sender, receiver = opened(pair, bytes(4 * NEAR_WINDOW_MIN))
    pair.a.write(sender, bytes(4 * NEAR_WINDOW_MIN))
    pair.b.write(pair.b.open(3), b"a round trip to measure")
    pair.run()
    arrived = receiver.arrived
    assert pair.b.engine.grant_stream(receiver, arrived)
    assert receiver.limit - arrived == NEAR_WINDOW_MIN


@pytest.mark.parametrize("take", [0, 1, 2])
def test_what_an_intake_takes_is_credited_at_once(take: int) -> None:
    pair = pair_with()
    size = WINDOW // 4
    frames = b"".join(block(core, 0, i * size, bytes(size)) for i in range(3))
    sender, receiver = pair.a.open(2), ReceiveStream(2, WINDOW)
    pair.b.engine.add_receive_stream(receiver)
    if take == 0:
        pair.a.write(sender, frames)
        pair.run()
        assert (pair.b.engine.credit.consumed, receiver.limit) == (0, WINDOW)
        return
    memory = bytearray(3 * size)
    intake = core.Deframer(1 << 16, 1 << 24)
    intake.provide(memory if take == 2 else memoryview(memory)[:size])
    receiver.set_intake(intake)
    pair.a.write(sender, frames)
    pair.run()
    taken = receiver.taken
    assert pair.b.engine.credit.consumed == taken
    assert taken + WINDOW - WINDOW // 4 < receiver.limit <= taken + WINDOW
    if take == 1:
        assert taken < len(frames)
        intake.provide(memoryview(memory)[size:])
        assert intake.ready()
        pair.b.engine.pull(receiver)
    assert pair.b.engine.credit.consumed == len(frames)
