"""Reading again what moved before: a pursuit ends with the digest of everything, however the two sides of it meet."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from spaceblock.storage.rereading import PORTION, BlockHashing, MemoryBytes, Pursuit
from support import BLOCK, pattern


class Growing:
    """What moved so far of some bytes."""

    def __init__(self, data: bytes, start: int, frontier: int) -> None:
        self.data, self.start, self.frontier = data, start, frontier

    def read(self, offset: int, room: memoryview) -> int:
        found = self.data[offset - self.start : min(offset + len(room), self.frontier) - self.start]
        room[: len(found)] = found
        return len(found)

    def close(self) -> None:
        return


@settings(max_examples=60)
@given(
    st.integers(0, 5 * PORTION // 2),
    st.integers(0, 2 * PORTION),
    st.integers(0, 1000),
    st.lists(st.sampled_from(["move", "chase"]), max_size=12),
)
def test_any_order_of_moving_and_chasing_gives_one_digest(had: int, rest: int, start: int, order: list[str]) -> None:
    data = pattern(had + rest)
    source = Growing(data, start, start + had)
    pursuit = Pursuit(start, start + had)
    digests: list[bytes | None] = []
    caught_up = False
    moved = had
    for what in order:
        if what == "move" and moved < len(data):
            piece = data[moved : moved + 300_000]
            moved += len(piece)
            source.frontier += len(piece)
            pursuit.update(piece)
        elif what == "chase" and not caught_up:
            caught_up, digest = pursuit.chase(source)
            digests.append(digest)
    source.frontier = start + len(data)
    pursuit.update(data[moved:])
    digests.append(pursuit.end())
    while not caught_up:
        caught_up, digest = pursuit.chase(source)
        digests.append(digest)
    assert [digest for digest in digests if digest is not None] == [blake3(data).digest()], "told once"


def test_two_threads_agree_on_the_digest() -> None:
    data = pattern(40 * PORTION)
    source = Growing(data, 0, 20 * PORTION)
    pursuit = Pursuit(0, 20 * PORTION)
    found: list[bytes] = []

    def chase() -> None:
        while True:
            last, digest = pursuit.chase(source)
            if last:
                found.extend([digest] if digest is not None else [])
                return

    chaser = threading.Thread(target=chase)
    chaser.start()
    for offset in range(20 * PORTION, 40 * PORTION, 10_000):
        piece = data[offset : min(offset + 10_000, len(data))]
        source.frontier += len(piece)
        pursuit.update(piece)
    digest = pursuit.end()
    chaser.join()
    assert [digest, *found].count(blake3(data).digest()) == 1


def test_before_it_has_caught_up_a_mark_tells_what_was_known_before() -> None:
    pursuit = Pursuit(0, 3, (2, b"digest of two"))
    pursuit.update(b"de")
    assert pursuit.mark() == (2, b"digest of two")
    pursuit.chase(Growing(b"abcde", 0, 5))
    assert pursuit.mark() == (5, blake3(b"abcde").digest())


def test_less_than_there_should_be_is_noticed() -> None:
    with pytest.raises(EOFError):
        Pursuit(0, 10).chase(Growing(b"abc", 0, 3))


@pytest.mark.parametrize(("start", "stop"), [(0, 3 * BLOCK), (5, 2 * BLOCK + 1), (BLOCK, BLOCK + 1), (7, 7)])
def test_blocks_are_those_of_the_grid(start: int, stop: int) -> None:
    data = pattern(3 * BLOCK)
    hashing = BlockHashing(start, stop, BLOCK)
    while not hashing.chase(MemoryBytes(memoryview(data)))[0]:
        pass
    edges = [start, *range((start // BLOCK + 1) * BLOCK, stop, BLOCK), stop] if stop > start else []
    assert hashing.blocks == [blake3(data[one:other]).digest() for one, other in pairwise(edges)]
    assert hashing.digest() == blake3(data[start:stop]).digest()
