"""Key updates of whole connections, with aioquic on one side or on none: by either side, and before a hand-over."""

from __future__ import annotations

import random

import pytest
from hosts import Host, Path

from spaceblock.errors import LocalProtocolError
from spaceblock.quic import TransportOptions
from spaceblock.quic.handshake.engine import Engine
from spaceblock.quic.native.engine_shell import NativeEngine

ONE_SIDE = {"client": ("client",), "server": ("server",)}
who = pytest.mark.parametrize("natives", ONE_SIDE.values(), ids=ONE_SIDE)
SUITES = ("AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
FAULTS = [{}, {"loss": 0.05, "reordering": 0.2}]
faulty = pytest.mark.parametrize("faults", FAULTS, ids=["clean", "bad"])


def write(host: Host, size: int) -> tuple[int, bytes]:
    stream_id = host.engine.open_stream(True)
    data = random.Random(stream_id).randbytes(size)
    host.engine.send_stream_data(stream_id, data, True)
    return stream_id, data


def exchange(path: Path, size: int) -> None:
    """A stream each way, to the end."""
    of_client, sent_by_client = write(path.client, size)
    of_server, sent_by_server = write(path.server, size)
    path.run(lambda: of_client in path.server.ended and of_server in path.client.ended)
    assert path.server.received[of_client] == sent_by_client
    assert path.client.received[of_server] == sent_by_server
    path.settle()


def hand_over(path: Path, natives: tuple[str, ...]) -> None:
    for host in (path.client, path.server):
        if host.name in natives:
            host.hand_over()


def foreign(path: Path) -> Engine:
    """The side that is still aioquic's."""
    (engine,) = (host.engine for host in (path.client, path.server) if isinstance(host.engine, Engine))
    return engine


def native(path: Path) -> NativeEngine:
    (engine,) = (host.engine for host in (path.client, path.server) if isinstance(host.engine, NativeEngine))
    return engine


@who
@faulty
@pytest.mark.parametrize("suite", SUITES)
def test_aioquic_asks_for_updates(natives: tuple[str, ...], faults: dict[str, float], suite: str) -> None:
    path = Path(seed=5, cipher_suites=(suite,), **faults)
    path.confirm()
    hand_over(path, natives)
    exchange(path, 1_000)
    for count in range(1, 8):
        foreign(path).request_key_update()
        exchange(path, 30_000)
        assert native(path).packets.phases.count == count
    assert native(path).ended() is None
    assert foreign(path).ended() is None


@who
@faulty
@pytest.mark.parametrize("suite", SUITES)
def test_the_native_engine_updates_by_itself(natives: tuple[str, ...], faults: dict[str, float], suite: str) -> None:
    path = Path(seed=6, cipher_suites=(suite,), key_update_packets=40, **faults)
    path.confirm()
    hand_over(path, natives)
    for _ in range(5):
        exchange(path, 200_000)
    assert native(path).packets.phases.count > 5
    assert native(path).ended() is None
    assert foreign(path).ended() is None


@faulty
def test_both_native(faults: dict[str, float]) -> None:
    path = Path(seed=7, key_update_packets=10, **faults)
    path.confirm()
    hand_over(path, ("client", "server"))
    for _ in range(5):
        exchange(path, 200_000)
    counts = [host.native.packets.phases.count for host in (path.client, path.server)]
    assert min(counts) > 5
    assert abs(counts[0] - counts[1]) <= 1


@who
@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_hand_over_after_updates(natives: tuple[str, ...], updates: int) -> None:
    path = Path()
    path.confirm()
    for _ in range(updates):
        assert isinstance(path.client.engine, Engine)
        path.client.engine.request_key_update()
        exchange(path, 2_000)
    hand_over(path, natives)
    (host,) = (host for host in (path.client, path.server) if host.name in natives)
    assert host.state is not None
    assert host.state.key_phase == updates % 2
    exchange(path, 50_000)
    foreign(path).request_key_update()
    exchange(path, 50_000)
    assert native(path).packets.phases.count == 1
    assert native(path).packets.failed == 0


def test_the_limit_of_a_key_is_the_end_where_it_cannot_be_updated() -> None:
    """A peer that acknowledges nothing of the present phase."""
    path = Path(key_update_packets=1)
    path.confirm()
    hand_over(path, ("client",))
    exchange(path, 1_000)
    path.client.native.packets.packets_max = path.client.native.packets.recovery.next_number()
    write(path.client, 10_000)
    path.run(lambda: path.server.engine.ended() is not None)
    reason = path.server.engine.ended()
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.is_application) == (0x0F, True, False)


def test_a_peer_that_updates_twice_at_once() -> None:
    path = Path()
    path.confirm()
    hand_over(path, ("server",))
    exchange(path, 1_000)
    # The client updates twice, and knows nothing of what the server has to say to the first.
    for _ in range(2):
        foreign(path).request_key_update()
        foreign(path).ping()
        for datagram in path.client.send(path.now):
            path.server.take(datagram, path.now)
    reason = path.server.engine.ended()
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.is_application) == (0x0E, False, False)


@pytest.mark.parametrize("packets", [0, 2**22 + 1])
def test_intervals_that_are_not_possible(packets: int) -> None:
    with pytest.raises(LocalProtocolError, match="key update"):
        TransportOptions(key_update_packets=packets)
