"""What a batch of 45 datagrams of 1452 bytes costs between two sockets of this machine, with and without its help.

Each round sends one batch and receives it, in one process, so that the time is that of both sides and of the kernel;
45 x 1452 bytes in 10 µs would be 6.5 GB/s.
"""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native.udp import ReceiveBatch, SendBatch, prepare_socket

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SEGMENT = 1452
TOTAL = 45 * SEGMENT
BUFFER = 4 * 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has trains and coalescing")


@linux
@pytest.mark.benchmark(group="send and receive 45 datagrams")
@pytest.mark.parametrize("gro", [False, True], ids=["no-gro", "gro"])
@pytest.mark.parametrize("gso", [False, True], ids=["no-gso", "gso"])
def test_batch(benchmark: BenchmarkFixture, gso: bool, gro: bool) -> None:
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        prepare_socket(sender, gro=False, receive_buffer=BUFFER, send_buffer=BUFFER)
        prepare_socket(receiver, gro=gro, receive_buffer=BUFFER, send_buffer=BUFFER)
        send, receive = SendBatch(gso=gso), ReceiveBatch(count=1 if gso and gro else 45, room=65_536)

        def move() -> int:
            send.send(sender, SEGMENT, TOTAL)
            return receive.receive_from(receiver)

        assert benchmark(move) == receive.count
        assert send.gso == gso


@pytest.mark.benchmark(group="receive nothing")
def test_receive_nothing(benchmark: BenchmarkFixture) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("127.0.0.1", 0))
        assert benchmark(ReceiveBatch().receive_from, receiver) == 0
