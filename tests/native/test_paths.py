"""A peer whose address changes: by itself, by a box in between, or by somebody who is not the peer; in virtual time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hosts import LATENCY, Host, Path, is_short

from spaceblock.core import encode_uint_var as varint
from spaceblock.quic.handover import ConnectionId
from spaceblock.quic.native.ids import IDS_MAX
from spaceblock.quic.native.paths import ANSWERS_MAX, DATAGRAM_SIZE, PATHS_MAX

SIZE = 400_000
OTHER_PORT = ("client", 99)
OTHER_HOST = ("elsewhere", 1)
NO_VIABLE_PATH = 0x10


class Street(Path):
    """Remembers what the server was sent from each address, and what it sent there."""

    def __init__(self, **arguments: Any) -> None:
        self.came: dict[Any, int] = {}
        self.went: dict[Any, int] = {}
        self.worst: dict[Any, float] = {}
        """How many times as much went to an address as had come from there, at the worst moment before it answered."""

        super().__init__(**arguments)

    def _carry(self, host: Host, datagram: bytes, address: Any) -> None:
        if host is self.server:
            self.went[address] = self.went.get(address, 0) + len(datagram)
            engine = self.server.engine
            if not engine.path_is_valid or address != engine.get_peer_address():
                ratio = self.went[address] / max(1, self.came.get(address, 0))
                self.worst[address] = max(ratio, self.worst.get(address, 0.0))
        super()._carry(host, datagram, address)

    def deliver(self, host: Host, datagram: bytes, source: Any) -> None:
        if host is self.server:
            self.came[source] = self.came.get(source, 0) + len(datagram)
        super().deliver(host, datagram, source)


def street(*, client: bool = True, **arguments: Any) -> Street:
    """A native server, and a client on either engine, with nothing under way."""
    path = Street(**arguments)
    path.confirm()
    path.server.hand_over()
    if client:
        path.client.hand_over()
    path.settle()
    path.worst.clear()
    path.went.clear()
    path.came.clear()
    return path


def write(host: Host, size: int = SIZE) -> int:
    stream_id = host.engine.open_stream(True)
    host.engine.send_stream_data(stream_id, bytes(size), True)
    return stream_id


def move(path: Street, address: Any) -> None:
    path.client.address = address


def half_of(host: Host, stream_id: int) -> Callable[[], bool]:
    return lambda: len(host.received.get(stream_id, b"")) > SIZE // 2


def has_ended(host: Host, stream_id: int) -> Callable[[], bool]:
    return lambda: host.ended == {stream_id}


client_engine = pytest.mark.parametrize("client", [True, False], ids=["native", "aioquic"])
where = pytest.mark.parametrize("address", [OTHER_PORT, OTHER_HOST], ids=["port", "host"])


@client_engine
@where
@pytest.mark.parametrize("upload", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("faults", [{}, {"loss": 0.05, "reordering": 0.3}], ids=["clean", "bad"])
def test_a_client_that_moves_while_bytes_do(client: bool, address: Any, upload: bool, faults: dict[str, float]) -> None:
    for seed in range(4):
        path = street(client=client, seed=seed, **faults)
        sender, receiver = (path.client, path.server) if upload else (path.server, path.client)
        stream_id = write(sender)
        path.run(half_of(receiver, stream_id))
        move(path, address)
        # It keeps its NAT's new place open, or it would never be found.
        path.client.engine.ping()
        path.run(has_ended(receiver, stream_id))
        path.settle()
        assert len(receiver.received[stream_id]) == SIZE
        assert path.server.engine.get_peer_address() == address
        assert not path.server.native.packets.is_confined
        assert path.server.engine.ended() is None
        assert path.worst[address] <= 3


@where
def test_windows_and_round_trips_are_those_of_the_new_path(address: Any) -> None:
    path = street()
    stream_id = write(path.server)
    path.run(half_of(path.client, stream_id))
    recovery = path.server.native.packets.recovery
    path.settle()
    before = recovery.congestion.window
    assert before > 20_000
    move(path, address)
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == address)
    assert path.server.native.packets.is_confined
    assert recovery.congestion.window == before
    path.run(lambda: not path.server.native.packets.is_confined)
    if address == OTHER_PORT:
        assert recovery.congestion.window == before
        assert recovery.min_rtt > 0
    else:
        assert recovery.congestion.window == 10 * DATAGRAM_SIZE
        assert recovery.min_rtt == 0


def test_no_more_than_three_times_goes_to_an_address_that_does_not_answer() -> None:
    """Somebody brings the client's packets from elsewhere, before the client's own arrive, and takes nothing back."""
    path = street()
    stream_id = write(path.server)
    path.run(half_of(path.client, stream_id))
    asked: list[bytes] = []

    def lose(host: Host, datagram: bytes) -> bool:
        if host is path.client:
            asked.append(datagram)
            path.inject(path.server, datagram, OTHER_HOST)
        return True

    path.lose = lose
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    start = path.now
    path.run(lambda: path.server.engine.get_peer_address() != OTHER_HOST)
    # Three probe time-outs of a path of which nothing is known.
    assert 2.9 < path.now - start < 3.3
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert 0 < path.worst[OTHER_HOST] <= 3
    path.lose = lambda host, datagram: False
    path.run(lambda: path.client.ended == {stream_id})
    assert not path.server.native.packets.is_confined


def test_somebody_who_is_faster_than_the_client() -> None:
    """Copies arrive before the originals (section 9.3.3): the client is asked as well, and so gets its own back."""
    path = street(datagram_size=1_452)
    stream_id = write(path.client)
    fast = [20]

    def overtake(host: Host, datagram: bytes) -> bool:
        if host is path.client and is_short(datagram) and fast[0]:
            fast[0] -= 1
            path.inject(path.server, datagram, OTHER_HOST, LATENCY / 4)
        return False

    path.run(half_of(path.server, stream_id))
    path.lose = overtake
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    path.run(lambda: path.server.ended == {stream_id})
    path.settle()
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert path.worst[OTHER_HOST] <= 3
    assert not path.server.native.packets.is_confined


def test_a_client_that_says_little_is_asked_where_it_is() -> None:
    path = street()

    def overtake(host: Host, datagram: bytes) -> bool:
        if host is path.client and len(datagram) < 100:
            path.inject(path.server, datagram, OTHER_HOST, LATENCY / 4)
        return False

    path.lose = overtake
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    path.lose = lambda host, datagram: False
    start = path.now
    path.run(lambda: path.server.engine.get_peer_address() == ("client", 1))
    # It answers at once, long before the other address is given up.
    assert path.now - start < 3 * LATENCY
    path.settle()
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert path.server.engine.path_is_valid


def test_what_is_sent_to_validate_an_address_counts_as_well() -> None:
    path = street()
    write(path.server)
    path.lose = lambda host, datagram: True
    probe(path, b"\x01", OTHER_HOST)
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    path.flush()
    room = path.server.native.packets.path_room
    assert path.went[OTHER_HOST] == 3 * DATAGRAM_SIZE - room
    # What came before it was followed, and was noticed later, counts too.
    path.server.native._paths.visited(OTHER_HOST, 100, path.server.native.host_cid, True, path.now)
    assert path.server.native.packets.path_room == room + 300


def test_a_new_path_is_used_as_soon_as_it_is_validated() -> None:
    """Though all that the window allows is in flight, and lost, on the old one."""
    path = street()
    stream_id = write(path.server)
    path.run(half_of(path.client, stream_id))
    move(path, OTHER_PORT)
    path.client.engine.ping()
    path.run(lambda: not path.server.engine.path_is_valid)
    path.run(lambda: path.server.engine.path_is_valid)
    before = path.went[OTHER_PORT]
    path.flush()
    assert path.went[OTHER_PORT] > before


def test_packets_that_were_seen_do_not_move_anybody() -> None:
    path = street()
    copies: list[bytes] = []

    def copy(host: Host, datagram: bytes) -> bool:
        if host is path.client:
            copies.append(datagram)
        return False

    path.lose = copy
    stream_id = write(path.client)
    path.run(lambda: path.server.ended == {stream_id})
    path.settle()
    for number, datagram in enumerate(copies):
        path.inject(path.server, datagram, ("elsewhere", number))
        path.inject(path.server, datagram[:-1] + bytes([datagram[-1] ^ 1]), ("elsewhere", number))
    path.settle()
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert not any(host == "elsewhere" for host, _ in path.went)


def test_an_old_packet_that_comes_late_does_not_move_the_client_back() -> None:
    path = street()
    held: list[bytes] = []

    def hold(host: Host, datagram: bytes) -> bool:
        if host is path.client and not held:
            held.append(datagram)
            return True
        return False

    path.lose = hold
    path.client.engine.ping()
    path.flush()
    move(path, OTHER_HOST)
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    opened = path.server.native.packets.opened
    path.inject(path.server, held[0], ("client", 1))
    path.settle()
    assert path.server.native.packets.opened > opened
    assert path.server.engine.get_peer_address() == OTHER_HOST


def test_a_move_counts_that_only_a_newer_probe_has_overtaken() -> None:
    """RFC 9000, section 9.3: what counts is the highest number among packets that are not probing."""
    path = street()
    client = path.client.native
    ping = client.packets.path_packet(b"\x01", DATAGRAM_SIZE, client._ids.current.cid, int(path.now * 1e6))
    probe(path, b"\x1aquestion", ("client", 1))
    path.inject(path.server, ping, OTHER_HOST)
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)


def test_the_id_that_a_packet_carried_is_that_of_one_that_opened() -> None:
    path = street()
    server = path.server.native
    ping = path.client.native.packets.path_packet(b"\x01", 0, server.host_cid, 0)
    garbage = b"\x40" + bytes(len(ping) - 1)
    assert server.packets.receive(bytearray(garbage + ping), len(ping), 0) == 1
    assert server.packets.used_cid == server.host_cid


# ---- Probing ----


def probe(path: Street, frames: bytes, source: Any, cid: bytes | None = None, size: int = DATAGRAM_SIZE) -> None:
    """The client sends a packet with ``frames`` from ``source``."""
    client = path.client.native
    cid = client._ids.current.cid if cid is None else cid
    path.inject(path.server, client.packets.path_packet(frames, size, cid, int(path.now * 1e6)), source)


def taken_at(path: Street, address: Any) -> list[tuple[Any, ...]]:
    """The frames in what went to an address where nobody is."""
    client = path.client.native.packets
    client.rare.clear()
    for datagram, to in path.strayed:
        if to == address:
            client.receive(bytearray(datagram), len(datagram), int(path.now * 1e6))
    frames = [frame for frame in client.rare if frame[0] < 1 << 62]
    client.rare.clear()
    return frames


def test_a_probe_is_answered_where_it_came_from_and_moves_nobody() -> None:
    path = street()
    probe(path, b"\x1aquestion", OTHER_HOST)
    path.settle()
    assert path.server.engine.get_peer_address() == ("client", 1)
    [(datagram, address)] = path.strayed
    assert (len(datagram), address) == (DATAGRAM_SIZE, OTHER_HOST)
    assert taken_at(path, OTHER_HOST) == [(0x1B, b"question")]
    assert path.worst[OTHER_HOST] <= 3


def test_a_small_probe_gets_a_small_answer() -> None:
    path = street()
    probe(path, b"\x1aquestion", OTHER_HOST, size=0)
    path.settle()
    assert taken_at(path, OTHER_HOST) == [(0x1B, b"question")]
    assert path.worst[OTHER_HOST] <= 3


def test_every_kind_of_probing_frame_and_none_other() -> None:
    padding = bytes(50)
    new_id = b"\x18" + varint(3) + b"\x00\x08" + bytes(8) + bytes(16)
    for frames in (padding, b"\x1aquestion" + padding, b"\x1bananswer", padding + b"\x1aquestion\x1aanother."):
        path = street()
        probe(path, frames, OTHER_HOST)
        path.settle()
        assert path.server.engine.get_peer_address() == ("client", 1), frames
    for frames in (b"\x01", b"\x1aquestion\x01", padding + b"\x10\x01", b"\x1bananswer" + padding + b"\x01"):
        path = street()
        probe(path, frames, OTHER_HOST)
        path.run(lambda path=path: path.server.engine.get_peer_address() == OTHER_HOST)  # type: ignore[misc]
    path = street()
    known = path.server.native._ids._spare[3]
    same = new_id[:4] + known.cid + known.token
    probe(path, same, OTHER_HOST)
    path.settle()
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert path.server.engine.ended() is None


def test_many_questions_get_one_datagram() -> None:
    path = street()
    path.client.native.packets.send_control(b"".join(b"\x1a%08d" % i for i in range(100)))
    path.flush()
    sent: list[int] = []
    taken: list[tuple[Any, ...]] = []

    def watch(host: Host, datagram: bytes) -> bool:
        if host is path.server:
            sent.append(len(datagram))
            path.client.native.packets.receive(bytearray(datagram), len(datagram), int(path.now * 1e6))
            taken.extend(path.client.native.packets.rare)
            path.client.native.packets.rare.clear()
        return False

    path.lose = watch
    path.run(lambda: len(sent) == 2)  # the answers, and the acknowledgement
    assert sorted(sent)[0] < sorted(sent)[1] == DATAGRAM_SIZE
    assert taken == [(0x1B, b"%08d" % i) for i in range(100 - ANSWERS_MAX, 100)]


def test_an_answer_is_not_repeated() -> None:
    path = street()
    lost: list[int] = []

    def lose(host: Host, datagram: bytes) -> bool:
        if host is path.server and len(datagram) == DATAGRAM_SIZE:
            lost.append(len(datagram))
            return True
        return False

    path.lose = lose
    probe(path, b"\x1aquestion", ("client", 1))
    path.settle()
    path.settle()
    assert lost == [DATAGRAM_SIZE]


def test_only_so_many_addresses_are_remembered() -> None:
    path = street()
    server = path.server.native
    theirs = next(iter(path.client.native._ids._spare.values())).cid
    for number in range(40):
        probe(path, b"\x1aquestion", ("elsewhere", number), theirs)
        path.settle()
        assert len(server._paths._others) <= PATHS_MAX
        assert len(server._ids._lent) <= PATHS_MAX
        assert len(server._ids._lent) + len(server._ids._spare) == IDS_MAX - 1
    assert {address for _, address in path.strayed} == {("elsewhere", number) for number in range(40)}
    # Each had an ID of its own, and what is not remembered any more was retired.
    assert len(path.client.retired) == 40 - PATHS_MAX


# ---- Connection IDs ----


def test_another_id_of_ours_is_answered_with_another_of_theirs() -> None:
    path = street()
    server = path.server.native
    before = server._ids.current
    fresh = path.client.native._ids.lend()
    assert fresh is not None
    path.client.native._ids.use(fresh)
    move(path, OTHER_HOST)
    path.client.engine.ping()
    path.settle()
    assert server._ids.current != before
    assert server.packets.used_cid == fresh.cid
    # The one that was used on the path that is gone was retired, and replaced.
    assert path.client.retired == [before.cid]
    assert server._ids._lent == {}
    assert len(server._ids._spare) == IDS_MAX - 1
    stream_id = write(path.client)
    path.run(lambda: path.server.ended == {stream_id})


def test_the_same_id_of_ours_is_answered_with_the_same_of_theirs() -> None:
    """The client may not know that its address changed, and the IDs that it left here are few."""
    path = street()
    before = path.server.native._ids.current
    for number in range(2 * IDS_MAX):
        move(path, ("elsewhere", number))
        path.client.engine.ping()
        path.settle()
        assert path.server.engine.get_peer_address() == ("elsewhere", number)
    assert path.server.native._ids.current == before
    assert path.client.retired == []


def test_without_another_id_a_client_that_hides_is_not_followed() -> None:
    path = street()
    server = path.server.native
    for spare in list(server._ids._spare.values()):
        lent = server._ids.lend()
        assert lent == spare
    fresh = path.client.native._ids.lend()
    assert fresh is not None
    path.client.native._ids.use(fresh)
    move(path, OTHER_HOST)
    path.client.engine.ping()
    path.flush()
    path.run(lambda: not path._queue)
    assert path.server.engine.get_peer_address() == ("client", 1)
    assert OTHER_HOST not in path.went
    # As soon as there is one again, it is.
    server._ids._spare[77] = server._ids._lent.pop(1)
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)


def test_a_client_without_ids_moves_as_well() -> None:
    path = street()
    server = path.server.native
    server._ids.current = ConnectionId(b"", 0, b"")
    server._ids._spare.clear()
    server.packets.set_peer_cid(b"")
    fresh = path.client.native._ids.lend()
    assert fresh is not None
    path.client.native._ids.use(fresh)
    move(path, OTHER_HOST)
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    assert path.went == {}
    path.flush()
    assert path.went[OTHER_HOST] > 0


def test_ids_that_the_client_retires_while_a_path_uses_them() -> None:
    path = street()
    server = path.server.native
    theirs = next(iter(path.client.native._ids._spare.values())).cid
    probe(path, b"\x1aquestion", OTHER_HOST, theirs)
    path.settle()
    [lent] = server._ids._lent
    server._ids.take(IDS_MAX, IDS_MAX, os.urandom(8), bytes(16))
    assert server._ids._lent == {}
    assert server._ids.current.sequence == IDS_MAX
    # Nothing is left to answer that path with.
    probe(path, b"\x1aquestion", OTHER_HOST, theirs)
    path.settle()
    assert lent < IDS_MAX
    assert len(path.strayed) == 1


# ---- Validation ----


def test_a_challenge_that_was_small_is_followed_by_a_large_one() -> None:
    """What a few small packets allow is no room for 1200 bytes; that these fit has to be shown still (8.2.1)."""
    path = street()
    sizes: list[int] = []

    def watch(host: Host, datagram: bytes) -> bool:
        if host is path.server:
            sizes.append(len(datagram))
        return False

    path.lose = watch
    move(path, OTHER_HOST)
    path.client.engine.ping()
    path.settle()
    assert sizes[0] < 100
    assert DATAGRAM_SIZE in sizes
    assert path.server.native._paths.timer() is None
    assert path.worst[OTHER_HOST] <= 3


def test_a_challenge_that_is_lost_is_sent_again() -> None:
    path = street()
    lost: list[bytes] = []

    def lose(host: Host, datagram: bytes) -> bool:
        if host is path.server and len(lost) < 2:
            lost.append(datagram)
            return True
        return False

    path.lose = lose
    move(path, OTHER_PORT)
    path.client.engine.ping()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_PORT)
    path.run(lambda: not path.server.native.packets.is_confined)
    assert len(lost) == 2


def test_an_answer_to_nothing_is_ignored() -> None:
    path = street()
    move(path, OTHER_HOST)
    path.client.native.packets.send_control(b"\x1bananswer")
    path.flush()
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    path.server.native._paths.answered(b"ananswer", path.now)
    assert path.server.native.packets.is_confined


def test_who_says_little_from_elsewhere_hears_that_it_arrived() -> None:
    """A client whose window is full of what was lost may not even answer a challenge before it is acknowledged."""
    path = street()
    probe(path, b"\x01", OTHER_HOST, size=0)
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    path.flush()
    packets = path.server.native.packets
    assert packets.is_confined
    assert not packets.ack_due
    assert path.worst[OTHER_HOST] <= 3
    probe(path, b"\x01", OTHER_HOST, size=0)
    path.run(lambda: packets.ack_due or packets.path_room > 87)
    packets.path_room, packets.ack_due = 30, True
    assert packets.build(int(path.now * 1e6)) == 0  # it has no room for that
    assert packets.ack_due


def test_nothing_is_busy_while_there_is_no_room() -> None:
    path = street()
    stream_id = write(path.server)
    path.run(half_of(path.client, stream_id))
    path.lose = lambda host, datagram: True
    probe(path, b"\x01", OTHER_HOST, size=0)
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    timer = path.server.engine.get_timer()
    assert timer is not None
    steps = 0
    while path.server.engine.get_peer_address() == OTHER_HOST:
        path.flush()
        timer = path.server.engine.get_timer()
        assert timer is not None
        path.now = max(path.now, timer) + 1e-6
        path.server.engine.handle_timer(path.now)
        steps += 1
        assert steps < 50
    assert path.worst[OTHER_HOST] <= 3


def test_a_client_takes_nothing_from_elsewhere() -> None:
    path = street()
    path.server.engine.ping()
    datagrams: list[bytes] = []

    def take(host: Host, datagram: bytes) -> bool:
        datagrams.append(datagram)
        return True

    path.lose = take
    path.flush()
    opened = path.client.native.packets.opened
    for datagram in datagrams:
        path.inject(path.client, datagram, ("another server", 2))
    path.run(lambda: not path._queue)
    assert path.client.native.packets.opened == opened
    for datagram in datagrams:
        path.inject(path.client, datagram, ("server", 2))
    path.run(lambda: path.client.native.packets.opened > opened)


def test_a_peer_that_was_never_anywhere() -> None:
    """The handshake's engine followed it to an address that did not answer by then, and never will."""
    for returns in (True, False):
        path = Street()
        path.confirm()
        path.settle()
        move(path, OTHER_HOST)
        path.lose = lambda host, datagram: host.name == "server"
        path.client.engine.ping()
        path.run(lambda path=path: path.server.engine.get_peer_address() == OTHER_HOST)  # type: ignore[misc]
        path.server.hand_over()
        state = path.server.state
        assert state is not None
        assert state.path_room is not None
        assert state.validated_address == ("client", 1)
        server = path.server.native
        if not returns:
            server._paths._fallback = None
        path.run(lambda server=server: server.path_is_valid or server.terminated)  # type: ignore[misc]
        reason = server.ended()
        if returns:
            assert reason is None
            assert server.get_peer_address() == ("client", 1)
        else:
            assert reason is not None
            assert (reason.code, reason.by_peer, reason.is_application) == (NO_VIABLE_PATH, False, False)
            assert path.server.send(path.now) == []


# ---- The end ----


def test_the_close_follows_the_client() -> None:
    path = street()
    move(path, OTHER_PORT)
    path.client.engine.ping()
    path.settle()
    path.server.engine.close(5, reason_phrase="over")
    path.run(lambda: path.client.engine.ended() is not None)
    reason = path.client.engine.ended()
    assert reason is not None
    assert reason.code == 5


def test_a_close_is_answered_once_and_that_is_heard() -> None:
    path = street()
    path.client.engine.close(5)
    path.run(lambda: path.server.engine.ended() is not None)
    packets = path.client.native.packets
    heard = [packets.heard_close]
    late = bytearray(path.server.native.packets.path_packet(b"\x01", 0, path.client.native.host_cid, 0))
    assert packets.receive(late, len(late), 0) == 1
    heard.append(packets.heard_close)
    ((answer, _),) = path.server.engine.datagrams_to_send(path.now)
    assert path.server.engine.datagrams_to_send(path.now) == []
    assert packets.receive(bytearray(answer), len(answer), 0) == 1
    heard.append(packets.heard_close)
    assert heard == [False, False, True], "something late is not a close"
    path.client.native.take_news(path.now)
    assert path.client.engine.terminated
    assert not path.server.engine.closing, "who was closed answers nothing more"


def test_a_close_to_where_the_client_may_not_be_has_to_fit() -> None:
    path = street()
    path.lose = lambda host, datagram: True
    probe(path, b"\x01", OTHER_HOST, size=0)
    path.run(lambda: path.server.engine.get_peer_address() == OTHER_HOST)
    assert not path.server.engine.path_is_valid
    path.server.engine.close(5, reason_phrase="x" * 400)
    path.flush()
    assert path.worst.get(OTHER_HOST, 0) <= 3


def test_after_the_close_nothing_is_looked_into() -> None:
    path = street()
    opened = path.server.native.packets.opened
    write(path.client, 1_000)
    path.flush()
    path.server.engine.close(5)
    path.run(lambda: path.client.engine.ended() is not None)
    assert path.server.native.packets.opened == opened
    assert path.server.received == {}
    # Only from where the client is anything is worth an answer.
    packets = path.server.native.packets
    datagram = bytearray(path.client.native.packets.path_packet(b"\x01", 0, path.server.native.host_cid, 0))
    assert packets.receive(datagram, len(datagram), 0) == 1
    assert packets.receive(datagram, len(datagram), 0, elsewhere=OTHER_HOST) == 0
