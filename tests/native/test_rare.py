"""The frames that come now and then, each from a peer on aioquic's engine or made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hosts import Host, Path

from spaceblock.core import encode_uint_var as varint
from spaceblock.errors import LocalProtocolError
from spaceblock.quic import TransportOptions
from spaceblock.quic.handover import ConnectionId
from spaceblock.quic.handshake.engine import Engine
from spaceblock.quic.native.engine_shell import WAITING_MAX, NativeEngine
from spaceblock.quic.native.ids import GAPS_MAX, IDS_MAX, RETIRED_MAX
from spaceblock.quic.native.rare import STREAMS_MAX

FLOW_CONTROL = 0x03
STREAM_LIMIT = 0x04
STREAM_STATE = 0x05
FINAL_SIZE = 0x06
FRAME_ENCODING = 0x07
ID_LIMIT = 0x09
PROTOCOL_VIOLATION = 0x0A


def both(**options: Any) -> Path:
    """Both sides native, and nothing under way."""
    path = Path(**options)
    path.confirm()
    path.client.hand_over()
    path.server.hand_over()
    path.settle()
    return path


def say(path: Path, *frames: bytes, host: Host | None = None) -> int | None:
    """The client says something to the server, or the other way round; the error with which that is answered."""
    speaker = host or path.client
    listener = path.server if speaker is path.client else path.client
    for frame in frames:
        speaker.native.packets.send_control(frame)
    path.settle()
    reason = listener.engine.ended()
    return None if reason is None or reason.by_peer else reason.code


def open_one(path: Path, size: int = 10, *, unidirectional: bool = True) -> int:
    """A stream of the client that the server knows."""
    stream_id = path.client.engine.open_stream(unidirectional)
    path.client.engine.send_stream_data(stream_id, bytes(size))
    path.settle()
    assert len(path.server.received[stream_id]) == size
    return stream_id


# ---- Resets and stops ----


def test_a_reset() -> None:
    path = both()
    stream_id = open_one(path)
    path.client.engine.abandon_sending(stream_id, 5)
    assert not path.client.engine.sender_finished(stream_id)
    path.settle()
    assert path.server.resets == {stream_id: 5}
    assert path.client.engine.sender_finished(stream_id)
    assert path.client.engine.backlog(stream_id) == 0


def test_a_reset_that_is_lost_again_and_again() -> None:
    path = both()
    stream_id = open_one(path)
    path.client.engine.abandon_sending(stream_id, 5)
    dropped = 0

    def lose(host: Host, datagram: bytes) -> bool:
        nonlocal dropped
        dropped += host is path.client
        return host is path.client and dropped <= 4

    path.lose = lose
    path.run(lambda: bool(path.server.resets) and path.client.engine.sender_finished(stream_id))


def test_a_reset_of_a_stream_that_was_never_seen() -> None:
    path = both()
    assert say(path, b"\x04" + varint(6) + varint(5) + varint(0)) is None
    assert path.server.resets == {6: 5}


def test_resets_that_break_rules() -> None:
    for size, code in ((9, FINAL_SIZE), (1 << 40, FLOW_CONTROL), (10, None), (100, None)):
        path = both()
        stream_id = open_one(path)
        assert say(path, b"\x04" + varint(stream_id) + varint(5) + varint(size)) == code
    # The client does not send on the server's stream.
    assert say(both(), b"\x04" + varint(3) + b"\x05\x00") == STREAM_STATE


def test_a_stop_is_answered_with_a_reset() -> None:
    path = both()
    stream_id = open_one(path)
    path.server.engine.abandon_receiving(stream_id, 7)
    path.settle()
    assert path.client.stops == {stream_id: 7}
    assert path.server.resets == {stream_id: 7}
    assert path.client.engine.sender_finished(stream_id)


def test_a_stop_beats_an_end_that_was_not_acknowledged() -> None:
    path = both()
    stream_id = open_one(path)
    path.lose = lambda host, datagram: host is path.client
    path.client.engine.send_stream_data(stream_id, bytes(10), True)
    path.flush()
    path.server.engine.abandon_receiving(stream_id, 7)
    path.run(lambda: path.client.stops == {stream_id: 7})
    # What was written will not arrive, and nobody may take it for acknowledged.
    assert not path.client.engine.sender_finished(stream_id)
    path.lose = lambda host, datagram: False
    path.run(lambda: path.server.resets == {stream_id: 7})


def test_a_stop_after_all_was_acknowledged_is_no_news() -> None:
    path = both()
    stream_id = open_one(path)
    path.client.engine.send_stream_data(stream_id, b"", True)
    path.settle()
    assert say(path, b"\x05" + varint(stream_id) + b"\x07", host=path.server) is None
    assert path.client.engine.sender_finished(stream_id)
    assert path.server.resets == {}


def test_stops_that_break_rules() -> None:
    assert say(both(), b"\x05\x02\x07") == STREAM_STATE
    assert say(both(), b"\x05\x03\x07") == STREAM_STATE
    assert say(both(), b"\x05\x01\x07") == STREAM_STATE
    path = both()
    assert say(path, b"\x05\x00\x07") is None
    assert path.server.stops == {0: 7}
    assert path.client.resets == {}


# ---- Credit and limits ----


def test_credit_for_streams_that_cannot_have_any() -> None:
    assert say(both(), b"\x11\x02\x07") == STREAM_STATE
    assert say(both(), b"\x11\x03\x07") == STREAM_STATE
    path = both()
    assert say(path, b"\x11\x00" + varint(1 << 30)) is None
    assert path.server.native.packets.send_streams[0].limit == 1 << 30


def test_frames_that_only_say_who_waits() -> None:
    path = both()
    assert say(path, b"\x14\x05", b"\x15\x02\x05", b"\x16\x05", b"\x17\x05") is None
    assert 2 in path.server.native.packets.receive_streams
    assert say(both(), b"\x15\x03\x05") == STREAM_STATE


@pytest.mark.parametrize("kind", [0x12, 0x13, 0x16, 0x17])
def test_more_streams_than_can_be_numbered(kind: int) -> None:
    assert say(both(), bytes([kind]) + varint(STREAMS_MAX)) is None
    assert say(both(), bytes([kind]) + varint(STREAMS_MAX + 1)) == FRAME_ENCODING


@pytest.mark.parametrize("unidirectional", [True, False])
def test_streams_wait_for_the_peers_limit(unidirectional: bool) -> None:
    path = both(max_streams_uni=2, max_streams_bidi=2)
    client = path.client.engine
    streams = [client.open_stream(unidirectional) for _ in range(4)]
    for stream_id in streams:
        client.send_stream_data(stream_id, b"here", True)
    client.abandon_sending(streams[3], 9)
    client.abandon_receiving(streams[3], 8)
    # More credit for the connection wakes nobody who may not be named.
    assert say(path, b"\x10" + varint(1 << 40), host=path.server) is None
    assert set(path.server.received) >= set(streams[:2])
    assert path.server.engine.ended() is None
    if not unidirectional:
        assert path.server.ended == set(streams[:2])
        assert say(path, b"\x12\x04", host=path.server) is None
        # The server keeps to what it really allowed.
        reason = path.server.engine.ended()
        assert reason is not None
        assert reason.code == STREAM_LIMIT
    else:
        path.settle()
        assert path.server.ended == set(streams[:3])
        assert path.server.resets == {streams[3]: 9}


def test_a_stream_beyond_the_limit() -> None:
    path = both(max_streams_uni=3)
    assert say(path, b"\x0e" + varint(2 + 4 * 2) + b"\x00\x00") is None
    assert sorted(path.server.native.packets.receive_streams) == [2, 6, 10]
    assert say(path, b"\x0e" + varint(2 + 4 * 3) + b"\x00\x00") == STREAM_LIMIT


def test_data_on_streams_that_the_peer_may_not_send_on() -> None:
    assert say(both(), b"\x0e\x03\x00\x01x") == STREAM_STATE
    assert say(both(), b"\x0e\x01\x00\x01x") == STREAM_STATE


def test_credit_that_is_lost_is_told_again() -> None:
    path = both(stream_window=10_000)
    stream_id = path.client.engine.open_stream(True)
    path.client.engine.send_stream_data(stream_id, bytes(35_000), True)
    dropped = 0

    def lose(host: Host, datagram: bytes) -> bool:
        nonlocal dropped
        dropped += host is path.server
        return host is path.server and dropped % 3 != 0

    path.lose = lose
    path.run(lambda: path.server.ended == {stream_id})
    assert path.server.received[stream_id] == bytes(35_000)


# ---- Connection IDs ----


def new_id(sequence: int, retire_before: int = 0, cid: bytes = b"") -> bytes:
    cid = cid or b"another%d" % (sequence % 10)
    return b"\x18" + varint(sequence) + varint(retire_before) + bytes([len(cid)]) + cid + bytes(16)


def test_retired_ids_are_replaced() -> None:
    path = Path()
    path.confirm()
    path.settle()
    path.server.hand_over()
    for turn in range(1, 20):
        assert isinstance(path.client.engine, Engine)
        path.client.engine.change_connection_id()
        path.settle()
        assert (len(path.server.issued), len(path.server.retired)) == (IDS_MAX - 1 + turn, turn)
    assert set(path.server.retired) < {path.server.native.host_cid, *path.server.issued}
    path.client.engine.send_stream_data(path.client.engine.open_stream(True), b"still here", True)
    path.settle()
    assert path.server.received == {2: b"still here"}


def test_a_packet_for_an_id_that_was_retired_is_ignored() -> None:
    path = both()
    assert path.client.state is not None
    assert say(path, b"\x19" + varint(path.client.state.peer_id.sequence)) is None
    opened = path.server.native.packets.opened
    path.client.engine.ping()
    path.settle()
    assert path.server.native.packets.opened == opened


def test_an_id_that_was_never_issued() -> None:
    assert say(both(), b"\x19\x08") == PROTOCOL_VIOLATION


def test_the_peer_wants_others_to_be_used() -> None:
    path = both()
    client, server = path.client.native, path.server.native
    fresh = ConnectionId(b"fresh-01", IDS_MAX, bytes(16))
    # A spare one makes room for it.
    assert client._ids._local.pop(IDS_MAX - 1).cid != client.host_cid
    client._ids._local[fresh.sequence] = fresh
    client._ids._next_sequence += 1
    client.packets.set_local_cids([known.cid for known in client._ids._local.values()])
    assert say(path, new_id(fresh.sequence, fresh.sequence, fresh.cid)) is None
    # All that came before were retired, and replaced.
    assert len(path.client.retired) == len(path.client.issued) - (IDS_MAX - 1) == IDS_MAX - 1
    opened = client.packets.opened
    server.ping()
    path.settle()
    assert client.packets.opened > opened
    # An old one that comes late is retired at once, and not used.
    assert say(path, new_id(1)) is None
    assert len(path.client.retired) == IDS_MAX - 1


def test_malformed_ids() -> None:
    assert say(both(), b"\x18\x08\x00\x00" + bytes(16)) == FRAME_ENCODING
    assert say(both(), b"\x18\x08\x00\x15" + bytes(21) + bytes(16)) == FRAME_ENCODING
    assert say(both(), new_id(8, 9)) == FRAME_ENCODING
    assert say(both(), new_id(3)) == PROTOCOL_VIOLATION


def test_the_same_id_twice() -> None:
    path = both()
    state = path.server.state
    assert state is not None
    spare = state.spare_peer_ids[0]
    frame = b"\x18" + varint(spare.sequence) + b"\x00" + bytes([len(spare.cid)]) + spare.cid + spare.token
    assert say(path, frame, frame) is None


def test_more_ids_than_are_kept() -> None:
    path = both()
    assert path.server.state is not None
    assert 1 + len(path.server.state.spare_peer_ids) == IDS_MAX
    assert say(path, new_id(8)) == ID_LIMIT


def test_ids_that_are_retired_faster_than_that_is_acknowledged() -> None:
    path = both()
    path.lose = lambda host, datagram: host is path.server
    for turn in range(RETIRED_MAX + 2):
        path.client.native.packets.send_control(new_id(IDS_MAX + turn, IDS_MAX + turn, b"fresh-%02d" % turn))
        path.client.native.packets.recovery.on_timer(path.client.native.packets.recovery.timeout())
        path.flush()
        path.run(lambda: not path._queue)
        if path.server.engine.ended() is not None:
            break
    reason = path.server.engine.ended()
    assert reason is not None
    assert reason.code == ID_LIMIT
    assert RETIRED_MAX - IDS_MAX <= turn <= RETIRED_MAX


def test_an_id_is_retired_until_the_peer_knows() -> None:
    path = both()
    assert path.server.state is not None
    retired = path.server.native._ids.lend()
    assert retired == path.server.state.spare_peer_ids[0]
    path.lose = lambda host, datagram: host is path.server
    path.server.native._ids.retire(retired)
    path.flush()
    path.lose = lambda host, datagram: False
    assert path.server.native._ids._retiring == {retired.sequence}
    path.run(lambda: not path.server.native._ids._retiring)
    # The peer has replaced it, and says the old one again, which changes nothing.
    frame = b"\x18" + varint(retired.sequence) + b"\x00" + bytes([len(retired.cid)]) + retired.cid + retired.token
    assert say(path, frame) is None
    assert retired.sequence not in path.server.native._ids._spare
    assert len(path.server.native._ids._spare) == IDS_MAX - 1


def test_ids_that_are_not_numbered_one_by_one() -> None:
    server = both().server.native
    for turn in range(GAPS_MAX + 1):
        assert server.packets.violation is None
        used = server._ids.lend()
        assert used is not None
        server._ids.retire(used)
        server._ids.retire_arrived(used.sequence)
        server._ids.take(1_000 + 2 * turn, 0, b"fresh-%02d" % turn, bytes(16))
    assert server.packets.violation is not None
    assert server.packets.violation[0] == PROTOCOL_VIOLATION


def test_ids_of_a_peer_that_has_none() -> None:
    path = both()
    ids = path.server.native._ids
    ids.current = ConnectionId(b"", 0, b"")
    assert ids.lend() is ids.current
    ids.retire(ids.current)
    assert not ids._retiring
    assert say(path, new_id(IDS_MAX)) == PROTOCOL_VIOLATION


def test_ids_that_contradict_each_other() -> None:
    state = both().server.state
    assert state is not None
    spare = state.spare_peer_ids[0]
    head = bytes([len(spare.cid)]) + spare.cid
    assert say(both(), b"\x18" + varint(spare.sequence) + b"\x00" + head + bytes(16)) == PROTOCOL_VIOLATION
    path = both()
    assert path.server.state is not None
    spare = path.server.state.spare_peer_ids[0]
    same_cid = b"\x18" + varint(IDS_MAX) + b"\x00" + bytes([len(spare.cid)]) + spare.cid + spare.token
    assert say(path, same_cid) == PROTOCOL_VIOLATION


# ---- The rest ----


def test_a_challenge_is_answered() -> None:
    path = both()
    assert say(path) is None
    path.client.native.packets.send_control(b"\x1aquestion")
    for datagram in path.client.send(path.now):
        path.server.take(datagram, path.now)
    for datagram in path.server.send(path.now):
        path.client.native.packets.receive(bytearray(datagram), len(datagram), int(path.now * 1e6))
    assert path.client.native.packets.rare == [(0x1B, b"question")]


def test_a_peer_that_only_asks_and_never_acknowledges() -> None:
    path = both()
    server = path.server.native
    path.lose = lambda host, datagram: host is path.server
    for i in range(1, 2 * WAITING_MAX):
        path.client.native.packets.send_control(b"\x19" + varint(i))
    client = path.client.native.packets
    for _ in range(1_000):
        # As a peer would do that heeds no window.
        client.recovery.on_timer(client.recovery.timeout())
        path.flush()
        path.run(lambda: not path._queue)
        if server.ended() is not None:
            break
    reason = server.ended()
    assert reason is not None
    assert reason.code == PROTOCOL_VIOLATION
    assert server.packets.waiting <= WAITING_MAX + 400


@pytest.mark.parametrize("frame", [b"\x1e", b"\x07\x03abc"])
def test_frames_that_only_a_server_sends(frame: bytes) -> None:
    assert say(both(), frame) == PROTOCOL_VIOLATION
    assert say(both(), frame, host=None) == PROTOCOL_VIOLATION
    path = both()
    assert say(path, frame, host=path.server) is None


def test_the_peer_closes() -> None:
    for frame, is_application in ((b"\x1c\x07\x02\x03abc", False), (b"\x1d\x07\x03abc", True)):
        path = both()
        stream_id = path.server.engine.open_stream(True)
        buffer = bytearray(10)
        path.server.native.send_stream_data(stream_id, buffer, release=lambda: None)
        path.client.native.packets.send_control(frame)
        path.settle()
        reason = path.server.engine.ended()
        assert reason is not None
        assert (reason.code, reason.reason, reason.by_peer) == (7, "abc", True)
        assert reason.is_application is is_application
        buffer.append(0)
        assert path.server.send(path.now) == []


def test_what_comes_after_the_end_is_ignored() -> None:
    path = both()
    assert isinstance(path.server.engine, NativeEngine)
    path.server.engine.close(3, reason_phrase="enough")
    path.server.take(b"\x40" + bytes(50), path.now)
    path.client.engine.send_stream_data(path.client.engine.open_stream(True), b"late", True)
    path.settle()
    assert path.server.received == {}


# ---- Connection IDs in the course of time ----


def numbers(path: Path) -> tuple[int, int]:
    """Of the peer's ID that each side uses."""
    return path.client.native._ids.current.sequence, path.server.native._ids.current.sequence


def test_ids_are_exchanged_while_bytes_move() -> None:
    path = both(id_lifetime=2.0)
    data = bytes(range(256)) * 100
    stream_id = path.client.engine.open_stream(True)
    seen = [numbers(path)]
    for piece in range(20):
        path.client.engine.send_stream_data(stream_id, data, piece == 19)
        path.settle()
        seen.append(numbers(path))
    assert path.server.received[stream_id] == 20 * data
    # In twenty seconds, each time once the two are over.
    assert [seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]] == [10, 10]
    for host, other in ((path.client, path.server), (path.server, path.client)):
        assert len(host.retired) == 10
        assert host.native._ids.current.cid not in other.retired
        assert len(host.native._ids.tokens) == 1, "what is retired resets nothing any more"


def test_ids_stay_while_nothing_comes() -> None:
    path = both(id_lifetime=2.0)
    before = numbers(path)
    for _ in range(10):
        path.settle()
    assert numbers(path) == before


def test_an_id_stays_where_the_peer_left_no_other() -> None:
    path = both(id_lifetime=2.0)
    path.server.native._ids._spare.clear()
    before = numbers(path)
    for _ in range(5):
        open_one(path)
    assert numbers(path)[1] == before[1]
    assert numbers(path)[0] > before[0]


def test_where_the_peer_forbids_it_a_client_does_not_move() -> None:
    for forbidden in (False, True):
        path = Path()
        path.confirm()
        assert isinstance(path.client.engine, Engine)
        path.client.engine._may_move = not forbidden
        assert path.client.engine.may_move is not forbidden
        path.client.hand_over()
        assert path.client.native.may_move is not forbidden
        path.server.hand_over()
        assert not path.server.native.may_move


@pytest.mark.parametrize("lifetime", [0.0, -1.0, float("nan")])
def test_a_lifetime_that_no_id_has(lifetime: float) -> None:
    with pytest.raises(LocalProtocolError, match="choose more than 0"):
        TransportOptions(id_lifetime=lifetime)
