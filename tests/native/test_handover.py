"""A connection that changes its engine: nothing is lost and nothing comes twice, whatever was under way."""

from __future__ import annotations

import random
from functools import partial

import pytest
from hosts import Host, Path, is_short

from spaceblock.quic.handshake.engine import Engine
from spaceblock.quic.native.engine_shell import NativeEngine

NATIVE = {"both": ("client", "server"), "client": ("client",), "server": ("server",)}
who = pytest.mark.parametrize("natives", NATIVE.values(), ids=NATIVE)


def data_of(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def write(host: Host, size: int, *, fin: bool = True, unidirectional: bool = True) -> tuple[int, bytes]:
    stream_id = host.engine.open_stream(unidirectional)
    data = data_of(size, stream_id)
    host.engine.send_stream_data(stream_id, data, fin)
    return stream_id, data


def hand_over(path: Path, natives: tuple[str, ...]) -> None:
    for host in (path.client, path.server):
        if host.name in natives:
            host.hand_over()


def all_arrived(path: Path, of_client: dict[int, bytes], of_server: dict[int, bytes]) -> None:
    path.run(lambda: path.server.ended >= set(of_client) and path.client.ended >= set(of_server))
    path.settle()
    assert {stream_id: path.server.received[stream_id] for stream_id in of_client} == of_client
    assert {stream_id: path.client.received[stream_id] for stream_id in of_server} == of_server
    for host, sent in ((path.client, of_client), (path.server, of_server)):
        assert [host.engine.backlog(stream_id) for stream_id in sent] == [0] * len(sent)
        assert host.engine.ended() is None


@who
def test_right_after_the_handshake(natives: tuple[str, ...]) -> None:
    path = Path()
    path.confirm()
    hand_over(path, natives)
    all_arrived(path, dict([write(path.client, 300_000)]), dict([write(path.server, 300_000)]))


@who
@pytest.mark.parametrize("taken", range(0, 40, 3))
@pytest.mark.parametrize("faults", [{}, {"loss": 0.1, "reordering": 0.3}], ids=["clean", "bad"])
def test_with_streams_under_way_both_ways(natives: tuple[str, ...], taken: int, faults: dict[str, float]) -> None:
    """Each side changes after its next ``taken`` datagrams, so with all kinds of things lost, early or in flight."""
    path = Path(seed=taken, **faults)
    path.run(lambda: path.client.established and path.server.established)
    of_client = dict([write(path.client, 100_000), write(path.client, 30_000, unidirectional=False)])
    of_client.update([write(path.client, 0), write(path.client, 5)])
    of_server = dict([write(path.server, 100_000), write(path.server, 1)])

    def done() -> bool:
        for host in (path.client, path.server):
            is_due = host.confirmed and host.taken >= taken and host.name in natives
            if is_due and isinstance(host.engine, Engine):
                host.hand_over()
        return path.server.ended >= set(of_client) and path.client.ended >= set(of_server)

    path.run(done)
    more_of_client = dict([write(path.client, 100_000)])
    all_arrived(path, of_client | more_of_client, of_server)


def test_what_the_server_says_first_is_said_again_when_it_is_lost() -> None:
    """HANDSHAKE_DONE and the NEW_CONNECTION_ID frames."""
    path = Path()
    path.lose = lambda host, datagram: host is path.server and is_short(datagram)
    path.run(lambda: path.server.confirmed)
    path.flush()
    path.server.hand_over()
    state = path.server.state
    assert state is not None
    lost = [frame for packet in state.sent for frame in packet.frames] + state.unsent_frames
    assert b"\x1e" in lost
    assert sum(frame[0] == 0x18 for frame in lost) == 7
    path.lose = lambda host, datagram: False
    path.run(lambda: path.client.confirmed)
    path.settle()
    path.client.hand_over()
    assert path.client.state is not None
    assert len(path.client.state.spare_peer_ids) == 7


def test_bytes_that_came_early() -> None:
    path = Path()
    path.confirm()
    path.settle()
    kept: list[bytes] = []

    def lose(host: Host, datagram: bytes) -> bool:
        kept.append(datagram)
        return host is path.client and len(kept) == 1

    path.lose = lose
    of_client = dict([write(path.client, 8_000)])
    path.flush()
    path.run(lambda: path.server.engine.highest_offset(2) is not None and path.server.taken > 4)
    path.server.hand_over()
    assert path.server.state is not None
    receiving = path.server.state.streams[0].receiving
    assert receiving is not None
    assert (receiving.arrived, len(receiving.early)) == (0, 1)
    all_arrived(path, of_client, {})


def test_an_end_that_was_not_sent() -> None:
    path = Path()
    path.confirm()
    stream_id, data = write(path.client, 1_000, fin=False)
    path.settle()
    path.client.engine.send_stream_data(stream_id, b"", True)
    path.client.hand_over()
    all_arrived(path, {stream_id: data}, {})


def test_an_end_that_was_lost() -> None:
    path = Path()
    path.confirm()
    stream_id, data = write(path.client, 1_000, fin=False)
    path.settle()
    path.lose = lambda host, datagram: True
    path.client.engine.send_stream_data(stream_id, b"", True)
    path.flush()
    path.lose = lambda host, datagram: False
    path.client.hand_over()
    all_arrived(path, {stream_id: data}, {})


def test_an_end_that_was_acknowledged_before_the_bytes_that_lead_to_it() -> None:
    path = Path()
    path.confirm()
    path.settle()
    sent = 0

    def lose(host: Host, datagram: bytes) -> bool:
        nonlocal sent
        sent += host is path.client
        return host is path.client and (sent == 1 or sent > 3)

    path.lose = lose
    of_client = dict([write(path.client, 3_000)])
    stream_id = next(iter(of_client))
    path.flush()
    before = path.client.taken
    path.run(lambda: path.client.taken > before)
    path.lose = lambda host, datagram: False
    path.client.hand_over()
    assert path.client.state is not None
    sending = path.client.state.streams[0].sending
    assert sending is not None
    assert sending.fin_acknowledged
    assert sending.acknowledged == 0
    all_arrived(path, of_client, {})
    path.settle()
    assert path.client.engine.sender_finished(stream_id)


@pytest.mark.parametrize("natives", [("client",), ()], ids=["before", "after"])
def test_a_reset_that_was_lost(natives: tuple[str, ...]) -> None:
    path = Path()
    path.confirm()
    stream_id, _ = write(path.client, 1_000, fin=False)
    path.settle()
    hand_over(path, natives)
    path.lose = lambda host, datagram: True
    path.client.engine.abandon_sending(stream_id, 7)
    path.flush()
    path.lose = lambda host, datagram: False
    if not natives:
        path.client.hand_over()
    path.run(lambda: path.server.resets == {stream_id: 7})
    path.settle()
    assert path.client.engine.sender_finished(stream_id)


def test_streams_beyond_the_peers_limit() -> None:
    path = Path(max_streams_uni=3)
    path.confirm()
    sent = dict(write(path.client, 100) for _ in range(10))
    dropped = [write(path.client, 100)[0] for _ in range(2)]
    for stream_id in dropped:
        path.client.engine.abandon_sending(stream_id, 9)
    path.client.hand_over()
    # More credit for the connection wakes nobody who may not be named.
    path.server.engine.grant_connection(1 << 30)
    all_arrived(path, sent, {})
    path.run(lambda: path.server.resets == dict.fromkeys(dropped, 9))


@who
def test_streams_go_on_and_on(natives: tuple[str, ...]) -> None:
    """The peer's limit of streams is raised as they end, before the hand-over and after it."""
    path = Path(max_streams_uni=4, max_streams_bidi=4)
    path.confirm()
    before = dict(write(path.client, 10, unidirectional=bool(i % 3)) for i in range(12))
    path.run(lambda: len(path.server.ended) >= 6)
    for host in (path.client, path.server):
        for stream_id in host.ended:
            if stream_id & 2 == 0 and not host.engine.sender_finished(stream_id):
                host.engine.send_stream_data(stream_id, b"", True)
    hand_over(path, natives)
    answered = {stream_id for stream_id in path.server.ended if stream_id & 2 == 0}

    def answer() -> None:
        for stream_id in path.server.ended - answered:
            if stream_id & 2 == 0:
                path.server.engine.send_stream_data(stream_id, b"", True)
                answered.add(stream_id)
        for stream_id in answered:
            path.server.engine.sender_finished(stream_id)

    def done() -> bool:
        answer()
        return path.server.ended >= set(before)

    path.run(done)
    after = dict(write(path.client, 10) for i in range(50))
    all_arrived(path, before | after, {})


def test_an_acknowledgement_that_was_due() -> None:
    path = Path()
    path.confirm()
    path.settle()
    write(path.client, 100)
    path.flush()
    path.run(lambda: path.server.ended == {2})
    path.server.hand_over()
    asked = path.now
    path.run(lambda: path.client.engine.backlog(2) == 0)
    assert path.now - asked < 0.015


def test_packets_that_were_taken_are_not_taken_again() -> None:
    path = Path()
    path.confirm()
    path.settle()
    copies: list[bytes] = []

    def copy(host: Host, datagram: bytes) -> bool:
        if host is path.client:
            copies.append(datagram)
        return False

    path.lose = copy
    write(path.client, 20_000)
    path.run(lambda: path.server.ended == {2})
    path.settle()
    path.server.hand_over()
    opened = path.server.native.packets.opened
    for datagram in copies:
        path.server.take(datagram, path.now)
    assert path.server.native.packets.opened == opened
    assert path.server.native.packets.failed == 0


def has_ended(host: Host) -> bool:
    return host.engine.ended() is not None


def is_over(path: Path) -> bool:
    return path.client.engine.terminated and path.server.engine.terminated


def test_the_close_reaches_the_other_engine() -> None:
    for natives in NATIVE.values():
        path = Path()
        path.confirm()
        hand_over(path, natives)
        path.client.engine.close(error_code=5, reason_phrase="é" * 2_000 if "client" in natives else "over")
        path.run(partial(has_ended, path.server))
        reason = path.server.engine.ended()
        assert reason is not None
        assert (reason.code, reason.by_peer, reason.is_application) == (5, True, True)
        assert reason.reason == ("é" * 256 if "client" in natives else "over")
        path.run(partial(is_over, path))


@who
def test_a_silent_connection_times_out(natives: tuple[str, ...]) -> None:
    path = Path(idle_timeout=5.0)
    path.confirm()
    hand_over(path, natives)
    path.settle()
    start = path.now
    path.run(partial(is_over, path))
    assert path.client.engine.timed_out
    assert path.server.engine.timed_out
    assert 3 < path.now - start < 6


def test_each_engine_says_what_it_is() -> None:
    path = Path()
    path.confirm()
    certificate = path.server.engine.peer_certificate
    hand_over(path, ("server",))
    assert isinstance(path.server.engine, NativeEngine)
    assert path.server.engine.peer_certificate == certificate
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert 0.015 < path.server.engine.smoothed_rtt < 0.03
