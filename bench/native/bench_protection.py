"""What protecting a packet costs: 1400 bytes of payload, sealed from two parts and opened, and header masks in batches.

Each call crosses from Python once for every packet, which costs about 600 ns in every row, more than the work itself.
Take the row of 0 bytes off for the time of 1400 bytes. In the engine nothing crosses.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from spaceblock.quic.native import protection
from spaceblock.quic.native.keys import Suite
from spaceblock.quic.native.protection import HeaderKey, PacketKey

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

HEADER = bytes(13)
HEAD = 20
TAG = 16
BATCH = 44
"""Packets of 1452 bytes that fill a send buffer, about."""

CASES = [
    (suite, backend)
    for suite in Suite
    for backend in protection.backends()
    if (suite, backend) != (Suite.CHACHA20_POLY1305, "ipsec-mb")
]
packet_keys = pytest.mark.parametrize(("suite", "backend"), CASES, ids=[f"{s.name}-{b}" for s, b in CASES])
sizes = pytest.mark.parametrize("size", [0, 1400])


@pytest.mark.benchmark(group="seal a packet, in one part")
@sizes
@packet_keys
def test_seal(benchmark: BenchmarkFixture, suite: Suite, backend: str, size: int) -> None:
    key = PacketKey(suite, bytes(suite.key_size), bytes(12), backend)
    out, data = bytearray(2000), os.urandom(size)
    assert benchmark(key.seal_into, out, 0, 1, HEADER, b"", data) == size + TAG


@pytest.mark.benchmark(group="seal a packet of 20 + 1380 bytes")
@packet_keys
def test_seal_two_parts(benchmark: BenchmarkFixture, suite: Suite, backend: str) -> None:
    key = PacketKey(suite, bytes(suite.key_size), bytes(12), backend)
    out, data = bytearray(2000), os.urandom(1380)
    assert benchmark(key.seal_into, out, 0, 1, HEADER, bytes(HEAD), data) == HEAD + 1380 + TAG


@pytest.mark.benchmark(group="open a packet")
@sizes
@packet_keys
def test_open(benchmark: BenchmarkFixture, suite: Suite, backend: str, size: int) -> None:
    key = PacketKey(suite, bytes(suite.key_size), bytes(12), backend)
    out, sealed = bytearray(2000), key.seal_packet(1, HEADER, os.urandom(size))
    assert benchmark(key.open_into, out, 0, 1, HEADER, sealed) == size


@pytest.mark.benchmark(group="header masks")
@pytest.mark.parametrize("count", [1, BATCH])
@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.name)
def test_masks(benchmark: BenchmarkFixture, suite: Suite, count: int) -> None:
    key = HeaderKey(suite, bytes(suite.key_size))
    assert len(benchmark(key.mask_all, os.urandom(16 * count))) == 16 * count
