"""The block grid and what a request says."""

from __future__ import annotations

import dataclasses

import pytest

from spaceblock.blocks import BlockSize, Full, Partial, Range, SpaceblockRequest, SpaceblockRequests

KIB, MIB, GIB = 2**10, 2**20, 2**30
TOP = 2**62 - 1


@pytest.mark.parametrize(
    ("size", "block_size"),
    [
        (0, 128 * KIB),
        (1, 128 * KIB),
        (128 * KIB * 1999, 128 * KIB),
        (128 * KIB * 1999 + 1, 256 * KIB),
        (256 * KIB * 1999, 256 * KIB),
        (GIB, MIB),
        (8 * MIB * 1999, 8 * MIB),
        (8 * MIB * 1999 + 1, 16 * MIB),
        (100 * GIB, 16 * MIB),
        (TOP, 16 * MIB),
    ],
)
def test_smallest_block_size_that_gives_fewer_than_2000_blocks(size: int, block_size: int) -> None:
    assert BlockSize.for_size(size) == block_size


@pytest.mark.parametrize("size", [2**power + change for power in range(35) for change in (-1, 0, 1)])
def test_block_size_is_a_power_of_two_within_bounds(size: int) -> None:
    block_size = BlockSize.for_size(size)
    assert BlockSize.MIN <= block_size <= BlockSize.MAX
    assert block_size.bit_count() == 1
    if block_size < BlockSize.MAX:
        assert BlockSize.count(size, block_size) < 2000
    if block_size > BlockSize.MIN:
        assert BlockSize.count(size, block_size // 2) >= 2000


@pytest.mark.parametrize("size", [-1, TOP + 1])
def test_no_block_size_for_an_impossible_size(size: int) -> None:
    with pytest.raises(ValueError, match="is no size"):
        BlockSize.for_size(size)


def test_count_of_blocks_includes_a_short_last_one() -> None:
    assert [BlockSize.count(size, 10) for size in (0, 1, 10, 11, 20)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("request_", "start", "stop", "length"),
    [
        (SpaceblockRequest(100), 0, 100, 100),
        (SpaceblockRequest(0), 0, 0, 0),
        (SpaceblockRequest(None), 0, None, None),
        (SpaceblockRequest(100, Partial(10, 30)), 10, 30, 20),
        (SpaceblockRequest(100, Partial(100, 100)), 100, 100, 0),
        (SpaceblockRequest(None, Partial(10, 30)), 10, 30, 20),
        (SpaceblockRequest(TOP, Partial(0, TOP)), 0, TOP, TOP),
    ],
)
def test_a_request_knows_its_bytes(
    request_: SpaceblockRequest, start: int, stop: int | None, length: int | None
) -> None:
    assert (request_.start, request_.stop, request_.length) == (start, stop, length)


@pytest.mark.parametrize(("start", "stop"), [(-1, 0), (2, 1), (0, TOP + 1), (TOP + 1, TOP + 1)])
def test_impossible_ranges(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="is no range"):
        Partial(start, stop)


@pytest.mark.parametrize("size", [-1, TOP + 1])
def test_impossible_sizes(size: int) -> None:
    with pytest.raises(ValueError, match="is no size"):
        SpaceblockRequest(size)


def test_a_range_lies_within_its_item() -> None:
    with pytest.raises(ValueError, match="behind the item's 100 bytes"):
        SpaceblockRequest(100, Partial(0, 101))


@pytest.mark.parametrize(("request_", "space"), [(SpaceblockRequest(100), 100), (SpaceblockRequest(None), 0)])
def test_a_request_without_holes_needs_as_much_room_as_it_has_bytes(request_: SpaceblockRequest, space: int) -> None:
    assert request_.space == space


def test_holes_need_no_room() -> None:
    assert SpaceblockRequest(100, data=7).space == 7
    assert SpaceblockRequest(100, Partial(10, 30), data=0).space == 0
    for size, part, data in [(100, Full(), 101), (100, Partial(10, 30), 21), (None, Full(), 1), (100, Full(), -1)]:
        with pytest.raises(ValueError, match="do not fit a range"):
            SpaceblockRequest(size, part, data=data)


def test_requests_are_values() -> None:
    items = (SpaceblockRequest(1), SpaceblockRequest(None, Full(), rereadable=False))
    requests = SpaceblockRequests(bytes(16), BlockSize.MIN, items)
    assert requests == SpaceblockRequests(bytes(16), BlockSize.MIN, items)
    assert len({requests, dataclasses.replace(requests)}) == 1
    assert isinstance(Full(), Range)
    assert isinstance(Partial(0, 1), Range)
    with pytest.raises(dataclasses.FrozenInstanceError):
        requests.block_size = 1  # type: ignore[misc]
