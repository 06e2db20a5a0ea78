"""The core against its twin, layer by layer: slicing, framing, deframing, reading a file, and the hasher beside them.

One group of rows for each task. A table of 1024 pieces is filled in one call, so divide by 1024 for the time of one.
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from spaceblock import _fastblock, _fastdeframer, _pyblock, _pydeframer

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from pytest_benchmark.fixture import BenchmarkFixture

    from spaceblock.core import Deframer

PIECES = 1024
BLOCK_SIZE = 128 * 1024
MESSAGE = 1_048_576
FEED = 1400
"""Bytes of stream data that one datagram brings, about."""


@pytest.fixture(params=[_pyblock, _fastblock], ids=["twin", "core"])
def core(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture(params=[_pydeframer.Deframer, _fastdeframer.Deframer], ids=["twin", "core"])
def deframer(request: pytest.FixtureRequest) -> Deframer:
    made: Deframer = request.param(0, MESSAGE)
    return made


@pytest.mark.benchmark(group="slice 1024 pieces")
def test_slice(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    table = array.array("Q", bytes(16 * PIECES))
    assert benchmark(core.slice_range, table, 0, PIECES * BLOCK_SIZE, BLOCK_SIZE) == PIECES


@pytest.mark.benchmark(group="frame 1024 headers")
def test_frame(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    out, table = bytearray(32 * PIECES), array.array("Q", bytes(32 * PIECES))
    assert benchmark(core.frame_blocks, out, table, 5, 0, PIECES * BLOCK_SIZE, BLOCK_SIZE)[0] == PIECES


@pytest.mark.benchmark(group="frame 8 headers")
def test_frame_few(benchmark: BenchmarkFixture, core: ModuleType) -> None:
    out, table = bytearray(32 * 8), array.array("Q", bytes(32 * 8))
    assert benchmark(core.frame_blocks, out, table, 5, 0, 8 * BLOCK_SIZE, BLOCK_SIZE)[0] == 8


@pytest.mark.benchmark(group="deframe 1 MiB, fed 1400 bytes at a time (749 feeds)")
def test_deframe_by_datagrams(benchmark: BenchmarkFixture, deframer: Deframer) -> None:
    stream = framed(MESSAGE)
    feeds = [stream[at : at + FEED] for at in range(0, len(stream), FEED)]
    benchmark(deframe, deframer, feeds, bytearray(MESSAGE))


@pytest.mark.benchmark(group="deframe one block of 64 bytes")
def test_deframe_small_block(benchmark: BenchmarkFixture, deframer: Deframer) -> None:
    benchmark(deframe, deframer, [framed(64)], bytearray(64))


@pytest.mark.benchmark(group="read 1 MiB from a file into a slot")
def test_fill(benchmark: BenchmarkFixture, core: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MESSAGE))
    slot, table = bytearray(MESSAGE + 65_536), array.array("Q", bytes(32 * 64))
    with path.open("rb", buffering=0) as file:
        pieces, _, offset, short = benchmark(core.fill_blocks, file.fileno(), slot, table, 5, 0, MESSAGE, BLOCK_SIZE)
    assert (pieces, offset, short) == (8, MESSAGE, False)


@pytest.mark.benchmark(group="hash 1 MiB")
@pytest.mark.parametrize("size", [MESSAGE, FEED])
def test_hash(benchmark: BenchmarkFixture, size: int) -> None:
    parts = [memoryview(bytes(MESSAGE))[at : at + size] for at in range(0, MESSAGE, size)]

    def update() -> bytes:
        hasher = blake3()
        for part in parts:
            hasher.update(part)
        return hasher.digest()

    assert len(benchmark(update)) == 32


def framed(size: int) -> bytes:
    fields = _pyblock.encode_uint_var(5) + _pyblock.encode_uint_var(0)
    head = _pyblock.encode_uint_var(_pyblock.BLOCK_TYPE) + _pyblock.encode_uint_var(len(fields) + size)
    return head + fields + bytes(size)


def deframe(deframer: Deframer, feeds: list[bytes], room: bytearray) -> None:
    feed = deframer.feed
    deframer.withdraw()
    deframer.provide(room)
    for data in feeds:
        feed(data)
    assert len(deframer.landed()) == 1
