"""Batches of datagrams over real sockets of this machine: trains, coalescing, full buffers and every refusal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaceblock.quic.native.udp import Datagrams, ReceiveBatch, SendBatch, SocketFacts, prepare_socket
from spaceblock.quic.routes import Way, tell_ways

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENT = 1452
SEGMENTS_MAX = 64
BUFFER = 4 * 2**20
SO_NO_CHECK = 11
IPV6_MTU = 24
IPV6_V6ONLY_OFF = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has trains and coalescing")
gro = pytest.mark.parametrize("gro", [False, True], ids=["no-gro", "gro"])
gso = pytest.mark.parametrize("gso", [False, True], ids=["no-gso", "gso"])

FAMILIES = {
    "IPv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "IPv6": (socket.AF_INET6, "::1", "::1"),
    "IPv4 mapped": (socket.AF_INET6, "::", "127.0.0.1"),
}
families = pytest.mark.parametrize("name", FAMILIES)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class Pair:
    """Two UDP sockets and the address of each as the other must write it."""

    def __init__(self, stack: contextlib.ExitStack, name: str = "IPv4", *, gro: bool = True) -> None:
        family, host, written = FAMILIES[name]
        if family == socket.AF_INET6 and not has_ipv6():
            pytest.skip("this machine has no IPv6")
        self.sender, self.receiver = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2))
        for each in (self.sender, self.receiver):
            if family == socket.AF_INET6:
                each.setsockopt(*IPV6_V6ONLY_OFF)
            each.bind((host, 0))
        self.facts = prepare_socket(self.receiver, gro=gro, receive_buffer=BUFFER, send_buffer=BUFFER)
        prepare_socket(self.sender, gro=False, receive_buffer=BUFFER, send_buffer=BUFFER)
        self.target = (written, self.receiver.getsockname()[1])
        self.source = (written, self.sender.getsockname()[1])


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def everything(batch: ReceiveBatch, sock: socket.socket) -> list[Datagrams]:
    """All that waits in the socket, with the bytes copied out of the batch."""
    found = []
    while batch.receive_from(sock):
        found += [each._replace(data=memoryview(bytes(each.data))) for each in batch.buffers()]
    return found


def pieces(found: list[Datagrams]) -> list[bytes]:
    """The single datagrams that coalesced ones stand for."""
    assert not any(each.truncated for each in found)
    return [
        bytes(each.data[at : at + each.segment])
        for each in found
        for at in range(0, max(1, len(each.data)), max(1, each.segment))
    ]


def cut(data: bytes, segment: int) -> list[bytes]:
    return [data[at : at + segment] for at in range(0, len(data), segment)]


def fill(batch: SendBatch, size: int) -> bytes:
    data = os.urandom(size)
    batch.buffer[:size] = data
    return data


# ---- Trains ----


@gro
@gso
@families
def test_a_train_arrives_whole_and_in_order(stack: contextlib.ExitStack, name: str, gso: bool, gro: bool) -> None:
    pair = Pair(stack, name, gro=gro)
    batch = SendBatch(gso=gso)
    data = fill(batch, 45 * SEGMENT)
    assert batch.send(pair.sender, SEGMENT, len(data), pair.target)
    assert batch.sent == 0
    found = everything(ReceiveBatch(), pair.receiver)
    assert pieces(found) == cut(data, SEGMENT)
    assert {each.address[1] for each in found if each.address} == {pair.source[1]}
    if sys.platform == "linux":
        assert batch.gso == gso
        assert len(found) == (1 if gso and gro else 45)


@gro
@gso
@pytest.mark.parametrize(
    ("segment", "total"),
    [
        (1200, 1),
        (1200, 1199),
        (1200, 1200),
        (1200, 1201),
        (1200, 64 * 1000),
        (1452, 2 * 1452 + 1),
        (1, 200),
        (9000, 65_000),
    ],
)
def test_the_last_segment_may_be_short(
    stack: contextlib.ExitStack, segment: int, total: int, gso: bool, gro: bool
) -> None:
    pair = Pair(stack, gro=gro)
    batch = SendBatch(gso=gso)
    data = fill(batch, total)
    assert batch.send(pair.sender, segment, total, pair.target)
    assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, segment)


@gro
@gso
def test_a_batch_beyond_one_train_goes_as_several(stack: contextlib.ExitStack, gso: bool, gro: bool) -> None:
    pair = Pair(stack, gro=gro)
    batch = SendBatch(room=400_000, gso=gso)
    for segment, total in [
        (SEGMENT, 200_000),
        (100, 3 * SEGMENTS_MAX * 100 + 50),
        (65_507, 3 * 65_507),
        (40_000, 90_000),
    ]:
        data = fill(batch, total)
        assert batch.send(pair.sender, segment, total, pair.target)
        assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, segment)


@gro
@gso
@settings(max_examples=30)
@given(sizes=st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 30_000)), max_size=5))
def test_batches_of_mixed_sizes(sizes: list[tuple[int, int]], gso: bool, gro: bool) -> None:
    with contextlib.ExitStack() as stack:
        pair = Pair(stack, gro=gro)
        batch, receive = SendBatch(gso=gso), ReceiveBatch()
        expected = []
        for segment, total in sizes:
            # Few enough for the receiver's buffer, which counts small datagrams as large ones.
            total = min(total, 100 * segment)
            data = fill(batch, total)
            assert batch.send(pair.sender, segment, total, pair.target)
            expected += cut(data, segment)
        assert pieces(everything(receive, pair.receiver)) == expected


def test_nothing_to_send_and_nothing_to_receive(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    receive = ReceiveBatch()
    assert receive.buffers() == []
    assert SendBatch().send(pair.sender, 1200, 0, pair.target)
    assert receive.receive_from(pair.receiver) == 0
    assert receive.buffers() == []


def test_empty_datagrams_are_received(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    for data in (b"", b"one", b""):
        pair.sender.sendto(data, pair.receiver.getsockname())
    found = everything(ReceiveBatch(), pair.receiver)
    assert [(bytes(each.data), each.segment) for each in found] == [(b"", 0), (b"one", 3), (b"", 0)]


def test_a_connected_socket_needs_no_address(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    pair.sender.connect(pair.receiver.getsockname())
    batch = SendBatch()
    data = fill(batch, 10 * SEGMENT)
    assert batch.send(pair.sender, SEGMENT, len(data))
    assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, SEGMENT)


def test_more_datagrams_than_buffers(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    receive = ReceiveBatch(count=3)
    for number in range(8):
        pair.sender.sendto(bytes([number]) * (number + 1), pair.receiver.getsockname())
    counts, found = [], []
    while count := receive.receive_from(pair.receiver):
        counts.append(count)
        found += [bytes(each.data) for each in receive.buffers()]
    assert counts == [3, 3, 2]
    assert found == [bytes([number]) * (number + 1) for number in range(8)]


def test_a_receive_begins_afresh(stack: contextlib.ExitStack) -> None:
    # A long address, control data and flags of the last time leave no trace.
    six, four = Pair(stack, "IPv6"), Pair(stack)
    receive, batch = ReceiveBatch(count=1, room=2000), SendBatch()
    batch.ecn = 2
    data = fill(batch, 2000)
    batch.send(six.sender, 1000, 2000, six.target)
    assert pieces(everything(receive, six.receiver)) == cut(data, 1000)
    four.sender.sendto(b"short", four.receiver.getsockname())
    (found,) = everything(receive, four.receiver)
    assert (bytes(found.data), found.segment, found.ecn, found.truncated) == (b"short", 5, 0, False)
    assert found.address == four.source


@families
def test_addresses_are_those_of_the_socket_module(stack: contextlib.ExitStack, name: str) -> None:
    pair = Pair(stack, name)
    SendBatch().send(pair.sender, 1, 1, pair.target)
    pair.sender.sendto(b"x", ("::ffff:127.0.0.1" if name == "IPv4 mapped" else pair.target[0], pair.target[1]))
    (first, second) = everything(ReceiveBatch(), pair.receiver)
    assert first.address == second.address
    SendBatch().send(pair.sender, 1, 1, pair.target)
    assert pair.receiver.recvfrom(10)[1] == first.address


def test_a_sender_without_an_internet_address(stack: contextlib.ExitStack) -> None:
    left, right = (stack.enter_context(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    left.send(b"hello")
    (found,) = everything(ReceiveBatch(), right)
    assert (bytes(found.data), found.address) == (b"hello", None)


@linux
@gso
@pytest.mark.parametrize("name", ["IPv4", "IPv4 mapped"])
def test_a_sender_is_answered_from_where_its_datagrams_came_to(
    stack: contextlib.ExitStack, name: str, gso: bool
) -> None:
    family, _, _ = FAMILIES[name]
    if family == socket.AF_INET6 and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    everywhere = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    if family == socket.AF_INET6:
        everywhere.setsockopt(*IPV6_V6ONLY_OFF)
    everywhere.bind(("", 0))
    assert tell_ways(everywhere)
    caller = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    caller.bind(("127.0.0.1", 0))
    port = everywhere.getsockname()[1]
    caller.sendto(b"hello", ("127.0.0.2", port))
    (found,) = everything(ReceiveBatch(), everywhere)
    assert isinstance(found.address, Way)
    assert found.address.local[-4:] == bytes([127, 0, 0, 2])
    batch = SendBatch(gso=gso)
    batch.ecn = 2  # room for all control messages at once
    data = fill(batch, 2_000)
    batch.send(everywhere, 1_000, 2_000, found.address)
    assert [(bytes(each.data), each.address) for each in everything(ReceiveBatch(), caller)] == [
        (piece, ("127.0.0.2", port)) for piece in cut(data, 1_000)
    ]
    batch.send(everywhere, 1_000, 1_000, tuple(found.address))
    assert [each.address for each in everything(ReceiveBatch(), caller)] == [("127.0.0.1", port)]


@linux
def test_an_address_of_ours_that_is_gone_is_no_reason_against_trains(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack, "IPv6")
    way = Way(pair.target)
    way.local = socket.inet_pton(socket.AF_INET6, "2001:db8::99")
    batch = SendBatch()
    fill(batch, 2_000)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        batch.send(pair.sender, 1_000, 2_000, way)
    assert batch.gso
    assert everything(ReceiveBatch(), pair.receiver) == []


def test_an_address_of_ours_has_one_of_two_sizes(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    way = Way(pair.target)
    way.local = b"localhost"
    with pytest.raises(ValueError, match="pass 4 or 16"):
        SendBatch().send(pair.sender, 1, 1, way)


# ---- Full socket buffers ----


def test_a_full_socket_keeps_the_rest_for_later(stack: contextlib.ExitStack) -> None:
    # A local pair's queue fills up for certain, which that of a UDP socket on this machine does not.
    left, right = (stack.enter_context(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    left.setblocking(True)
    batch, receive = SendBatch(room=1_000_000, gso=False), ReceiveBatch()
    data = fill(batch, 400 * 1000 + 7)
    calls, found = 1, []
    while not batch.send(left, 1000, len(data)):
        assert 0 <= batch.sent < len(data)
        assert batch.sent % 1000 == 0
        found += pieces(everything(receive, right))
        calls += 1
    found += pieces(everything(receive, right))
    assert calls > 1
    assert batch.sent == 0
    assert found == cut(data, 1000)


def test_what_is_kept_can_be_dropped(stack: contextlib.ExitStack) -> None:
    left, right = (stack.enter_context(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    batch, receive = SendBatch(room=1_000_000, gso=False), ReceiveBatch()
    data = fill(batch, 900_000)
    assert not batch.send(left, 1000, len(data))
    sent = batch.sent
    assert sent > 0
    with pytest.raises(ValueError, match=f"of which {sent} are sent"):
        batch.send(left, 1000, sent - 1000)
    batch.drop()
    assert batch.sent == 0
    assert pieces(everything(receive, right)) == cut(data[:sent], 1000)
    batch.buffer[:3] = b"new"
    assert batch.send(left, 3, 3)
    assert pieces(everything(receive, right)) == [b"new"]


# ---- Refusals ----


@linux
def test_trains_end_where_the_kernel_refuses_them(stack: contextlib.ExitStack) -> None:
    # Without checksums there are no trains (EINVAL), as on a device without checksum offload (EIO).
    pair = Pair(stack)
    pair.sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    batch = SendBatch()
    data = fill(batch, 45 * SEGMENT)
    assert batch.send(pair.sender, SEGMENT, len(data), pair.target)
    assert not batch.gso
    assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, SEGMENT)

    pair.sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 0)
    batch.gso = True
    assert batch.send(pair.sender, SEGMENT, len(data), pair.target)
    assert batch.gso
    assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, SEGMENT)


@linux
def test_segments_beyond_the_paths_mtu_are_no_reason_against_trains(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack, "IPv6")
    pair.sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, 1280)
    batch = SendBatch()
    data = fill(batch, 10 * SEGMENT)
    with pytest.raises(OSError) as raised:
        batch.send(pair.sender, SEGMENT, len(data), pair.target)
    assert raised.value.errno == errno.EMSGSIZE
    assert batch.gso
    assert batch.sent == 0
    assert batch.send(pair.sender, 1200, len(data), pair.target)
    assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, 1200)


@gso
def test_a_datagram_that_is_too_large_is_refused(stack: contextlib.ExitStack, gso: bool) -> None:
    pair = Pair(stack)
    batch = SendBatch(room=70_000, gso=gso)
    with pytest.raises(OSError) as raised:
        batch.send(pair.sender, 65_520, 65_520, pair.target)
    assert raised.value.errno == errno.EMSGSIZE
    assert batch.gso == gso
    assert everything(ReceiveBatch(), pair.receiver) == []


@gso
def test_what_icmp_reports_breaks_neither_direction(stack: contextlib.ExitStack, gso: bool) -> None:
    # Nobody listens at first: each datagram leaves an error behind, which the next call of either kind meets.
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    sock.connect(address)
    batch, receive = SendBatch(gso=gso), ReceiveBatch()
    data = fill(batch, 45 * SEGMENT)
    sock.send(b"lost")
    assert batch.send(sock, SEGMENT, len(data))
    assert batch.soft_errors >= 1
    assert batch.gso == gso
    assert receive.receive_from(sock) == 0
    assert receive.soft_errors == 1

    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.send(b"lost")
    peer.bind(address)
    peer.connect(sock.getsockname())
    peer.send(b"hello")
    assert [bytes(each.data) for each in everything(receive, sock)] == [b"hello"]
    assert receive.soft_errors == 2
    assert batch.send(sock, SEGMENT, len(data))
    assert pieces(everything(receive, peer)) == cut(data, SEGMENT)


def test_an_error_that_stays_is_raised(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    batch = SendBatch()
    for address in [("255.255.255.255", 9), ("127.0.0.1", 0)]:
        with pytest.raises(OSError) as raised:
            batch.send(pair.sender, 100, 1000, address)
        assert raised.value.errno in (errno.EACCES, errno.EINVAL, errno.EADDRNOTAVAIL)
        assert batch.sent == 0
    fd = os.open(os.devnull, os.O_RDWR)
    stack.callback(os.close, fd)
    with pytest.raises(OSError) as raised:
        batch.send(fd, 1, 1)  # type: ignore[arg-type]
    assert raised.value.errno == errno.ENOTSOCK
    with pytest.raises(OSError) as raised:
        ReceiveBatch().receive_from(fd)  # type: ignore[arg-type]
    assert raised.value.errno == errno.ENOTSOCK


# ---- Buffers that are too small ----


@gso
def test_truncated_datagrams_are_marked(stack: contextlib.ExitStack, gso: bool) -> None:
    pair = Pair(stack, gro=gso)
    batch, receive = SendBatch(gso=gso), ReceiveBatch(count=4, room=1000)
    fill(batch, 4000)
    batch.send(pair.sender, 1001, 2002, pair.target)
    batch.send(pair.sender, 1000, 1000, pair.target)
    found = everything(receive, pair.receiver)
    assert [each.truncated for each in found] == ([True, False] if gso and pair.facts.gro else [True, True, False])
    assert [len(each.data) for each in found] == [1000] * len(found)


@pytest.mark.parametrize(("count", "room"), [(0, 1000), (65, 1000), (-1, 1000), (1, 0), (1, 2**20 + 1), (1, -1)])
def test_impossible_batches_are_refused(count: int, room: int) -> None:
    with pytest.raises(ValueError, match=f"{count} buffers of {room} bytes"):
        ReceiveBatch(count, room)
    if count == 1:
        with pytest.raises(ValueError, match=f"a batch of {room} bytes"):
            SendBatch(room)


def test_sizes_outside_the_batch_are_refused(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    batch = SendBatch(room=5000)
    for segment, total in [(0, 100), (-1, 100), (100, -1), (100, 5001), (1, 2**62)]:
        with pytest.raises(ValueError, match="pass the sizes of what was written there"):
            batch.send(pair.sender, segment, total, pair.target)
    assert batch.send(pair.sender, 2**62, 100, pair.target)
    with pytest.raises(BufferError):
        batch.buffer.obj.append(0)  # type: ignore[attr-defined]


def test_received_bytes_are_read_only(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    receive = ReceiveBatch()
    pair.sender.sendto(b"data", pair.receiver.getsockname())
    assert receive.receive_from(pair.receiver) == 1
    (found,) = receive.buffers()
    del receive
    assert found.data.readonly
    assert bytes(found.data) == b"data"


@pytest.mark.parametrize("host", ["localhost", "1.2.3", "", "1.2.3.4.5", "::1", "fe80::1%lo", "::ffff:127.0.0.1"])
def test_addresses_that_are_not_numeric_are_refused(stack: contextlib.ExitStack, host: str) -> None:
    pair = Pair(stack)
    with pytest.raises(ValueError, match="is no numeric address for this socket"):
        SendBatch().send(pair.sender, 1, 1, (host, 9))
    six = Pair(stack, "IPv6")
    if ":" not in host or "%" in host:
        with pytest.raises(ValueError, match="is no numeric address for this socket"):
            SendBatch().send(six.sender, 1, 1, (host, 9))


@pytest.mark.parametrize("make", [ReceiveBatch, SendBatch])
def test_batches_are_not_pickled(make: Any) -> None:
    with pytest.raises(TypeError, match="cannot"):
        pickle.dumps(make())


# ---- ECN ----


@linux
@gro
@gso
@families
@pytest.mark.parametrize("connected", [False, True], ids=["unconnected", "connected"])
def test_ecn_bits_travel(stack: contextlib.ExitStack, name: str, gso: bool, gro: bool, connected: bool) -> None:
    pair = Pair(stack, name, gro=gro)
    if connected:
        pair.sender.connect(("::ffff:127.0.0.1" if name == "IPv4 mapped" else pair.target[0], pair.target[1]))
    target = None if connected else pair.target
    batch, receive = SendBatch(gso=gso), ReceiveBatch()
    for ecn in (0, 1, 2, 3, 0):
        batch.ecn = ecn
        assert batch.ecn == ecn
        data = fill(batch, 3 * SEGMENT)
        assert batch.send(pair.sender, SEGMENT, len(data), target)
        found = everything(receive, pair.receiver)
        assert pieces(found) == cut(data, SEGMENT)
        assert {each.ecn for each in found} == {ecn}


@pytest.mark.parametrize("ecn", [-1, 4, 256])
def test_ecn_is_two_bits(ecn: int) -> None:
    with pytest.raises(ValueError, match=f"ecn is {ecn}"):
        SendBatch().ecn = ecn


# ---- Sockets ----


@families
def test_what_a_prepared_socket_says(stack: contextlib.ExitStack, name: str) -> None:
    pair = Pair(stack, name)
    assert isinstance(pair.facts, SocketFacts)
    assert pair.facts.send_buffer > 0
    assert pair.facts.receive_buffer > 0
    if sys.platform == "linux":
        assert pair.facts.gso
        assert pair.facts.gro
        doubled = [
            pair.receiver.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        ]
        assert doubled == [2 * pair.facts.receive_buffer, 2 * pair.facts.send_buffer]
    again = prepare_socket(pair.receiver, gro=False, receive_buffer=1, send_buffer=1)
    assert again == pair.facts._replace(gro=False)


def test_a_prepared_socket_still_sends_datagrams_whole(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack, gro=False)
    pair.sender.sendto(bytes(5000), pair.receiver.getsockname())
    assert len(pair.receiver.recv(10_000)) == 5000


def test_a_socket_of_another_kind_can_do_nothing(stack: contextlib.ExitStack) -> None:
    left, _ = (stack.enter_context(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    facts = prepare_socket(left, gro=True, receive_buffer=2**40, send_buffer=0)
    assert (facts.gso, facts.gro) == (False, False)
    assert facts.receive_buffer > 0


async def test_a_transports_socket_serves_as_well(stack: contextlib.ExitStack) -> None:
    pair = Pair(stack)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    try:
        sock = transport.get_extra_info("socket")
        facts = prepare_socket(sock, gro=True, receive_buffer=100_000, send_buffer=100_000)
        assert facts.receive_buffer >= 100_000
        batch = SendBatch()
        data = fill(batch, 2000)
        assert batch.send(sock, 1000, 2000, pair.target)
        assert pieces(everything(ReceiveBatch(), pair.receiver)) == cut(data, 1000)
    finally:
        transport.close()
