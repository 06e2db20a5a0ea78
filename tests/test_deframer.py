"""Deframing: the same events whether a stream comes whole, byte by byte or with more behind; no length is trusted."""

from __future__ import annotations

import gc
import itertools
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spaceblock.core
from framing import CONTENT, TOP, Found, block, collect, message, singly
from spaceblock import _pyblock, _pydeframer
from spaceblock.errors import RemoteProtocolError

if TYPE_CHECKING:
    from types import ModuleType


def test_deframe_a_message_then_a_block(core: ModuleType) -> None:
    deframer = core.Deframer(100, 1000)
    stream = message(core, 0x24, b"payload") + block(core, 3, 4096, b"data")
    assert deframer.at_boundary
    assert deframer.event == deframer.NEED_DATA

    position = deframer.feed(stream)
    assert deframer.event == deframer.MESSAGE
    assert (deframer.message_type, deframer.payload) == (0x24, b"payload")
    assert deframer.at_boundary

    position = deframer.feed(stream, position)
    assert deframer.event == deframer.BLOCK
    assert (deframer.item, deframer.offset, deframer.length) == (3, 4096, 4)
    assert not deframer.at_boundary
    room = bytearray(b"-" * 10)
    assert deframer.provide(room, 3) == 0

    position = deframer.feed(stream, position)
    assert deframer.event == deframer.NEED_DATA
    assert deframer.landed() == [(3, 4096, 4, 0, 0)]
    assert position == len(stream)
    assert deframer.at_boundary
    assert room == b"---data---"

    assert deframer.feed(b"") == 0
    assert deframer.landed() == []


def sample(core: ModuleType) -> tuple[bytes, list[Found]]:
    data = CONTENT[:20_000]
    stream = (
        message(core, 0, b"")
        + message(core, 0x11, b"short")
        + block(core, 0, 0, b"x")
        + message(core, 2**40, data[:5000])
        + block(core, TOP, TOP - 20_000, data)
        + message(core, 0x24, b"")
    )
    return stream, [
        ("message", (0, b"")),
        ("message", (0x11, b"short")),
        ("block", (0, 0, b"x")),
        ("message", (2**40, data[:5000])),
        ("block", (TOP, TOP - 20_000, data)),
        ("message", (0x24, b"")),
    ]


def test_deframe_whole_byte_by_byte_and_with_trailing_data(core: ModuleType) -> None:
    stream, expected = sample(core)
    whole = core.Deframer(5000, 20_000)
    assert collect(whole, [stream]) == expected
    assert whole.at_boundary
    single = core.Deframer(5000, 20_000)
    assert collect(single, singly(stream)) == expected
    assert single.at_boundary
    trailing = core.Deframer(5000, 20_000)
    assert collect(trailing, [stream + b"\x24"]) == expected
    assert not trailing.at_boundary


def test_a_stream_may_end_only_between_messages(core: ModuleType) -> None:
    stream = block(core, 300, 70_000, b"data") + message(core, 0x24, b"payload")
    boundaries = {0, len(block(core, 300, 70_000, b"data")), len(stream)}
    for cut in range(len(stream) + 1):
        deframer = core.Deframer(100, 100)
        collect(deframer, [stream[:cut]])
        assert deframer.at_boundary == (cut in boundaries)


def test_a_payload_that_comes_apart_from_its_head(core: ModuleType) -> None:
    for payload in (b"x", b"payload"):
        deframer = core.Deframer(10, 0)
        stream = message(core, 6, payload)
        assert collect(deframer, [stream[:2], stream[2:]]) == [("message", (6, payload))]


def test_a_payload_outlives_the_data_it_came_in(core: ModuleType) -> None:
    deframer = core.Deframer(10, 0)
    data = bytearray(b"\x06\x02ab")
    deframer.feed(data)
    data[2:] = b"??"
    assert deframer.payload == b"ab"
    assert type(deframer.payload) is bytes


HOSTILE = [
    ("a payload over the limit", "06 4065", "message of type 0x6 with 101 bytes, where 100 are allowed"),
    ("the longest length there is", "06 ffffffffffffffff", "4611686018427387903 bytes"),
    ("a block over the limit", "20 5000 00 00", "block of 4096 bytes, where 1000 are allowed"),
    ("a block just over the limit", "20 43eb 00 00", "block of 1001 bytes, where 1000 are allowed"),
    ("the longest block there is", "20 ffffffffffffffff", "where 1000 are allowed"),
    ("a block without data", "20 02 00 00", "without data"),
    ("a block shorter than its fields", "20 00 00 00", "without data"),
    ("a block shorter than its long fields", "20 0f c000000000000001 c000000000000001", "without data"),
    ("a block that ends beyond the last offset", "20 0b 00 fffffffffffffffe 0000", "ends beyond"),
]


@pytest.mark.parametrize(("stream", "reason"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_head_is_refused_whole_and_byte_by_byte(core: ModuleType, stream: str, reason: str) -> None:
    data = bytes.fromhex(stream)
    for parts in ([data], singly(data), [data[:1], data[1:]], [data + bytes(100)]):
        deframer = core.Deframer(100, 1000)
        ((kind, text),) = collect(deframer, parts)
        assert kind == "error"
        assert reason in text
        assert not deframer.at_boundary
        with pytest.raises(RemoteProtocolError, match="the peer sent"):
            deframer.feed(b"\x06\x00")


def test_what_the_limits_just_allow(core: ModuleType) -> None:
    deframer = core.Deframer(100, 1000)
    stream = message(core, 6, bytes(100)) + block(core, TOP, TOP - 1000, bytes(1000))
    found = [("message", (6, bytes(100))), ("block", (TOP, TOP - 1000, bytes(1000)))]
    assert collect(deframer, [stream]) == found


def test_longer_varints_than_needed_are_read(core: ModuleType) -> None:
    stream = bytes.fromhex("c000000000000020 c000000000000011 c000000000000001 c000000000000002 ff")
    assert collect(core.Deframer(0, 1), [stream]) == [("block", (1, 2, b"\xff"))]
    assert collect(core.Deframer(0, 1), singly(stream)) == [("block", (1, 2, b"\xff"))]


def test_block_where_none_may_come(core: ModuleType) -> None:
    ((kind, text),) = collect(core.Deframer(100, 0), [b"\x20"])
    assert kind == "error"
    assert text.startswith("the peer sent a block on a stream that carries none; ")


def test_an_announced_length_reserves_nothing_beyond_the_limit(core: ModuleType) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            core.Deframer(65_536, 2**20).feed(bytes.fromhex("06 ffffffffffffffff"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_feeding_a_block_without_room(core: ModuleType) -> None:
    deframer = core.Deframer(0, 100)
    stream = block(core, 0, 0, b"data")
    position = deframer.feed(stream)
    assert not deframer.ready()
    with pytest.raises(ValueError, match="provide"):
        deframer.feed(stream, position)
    assert deframer.event == deframer.BLOCK
    room = bytearray(4)
    deframer.provide(room)
    assert deframer.ready()
    assert deframer.feed(stream, position) == len(stream)
    assert room == b"data"


def test_blocks_fill_the_room_that_was_given_before(core: ModuleType) -> None:
    deframer = core.Deframer(100, 100)
    room = bytearray(10)
    deframer.provide(room, 1)
    assert deframer.free == 9
    stream = block(core, 5, 70, b"data") + block(core, 6, 0, b"more")
    assert deframer.feed(stream) == len(stream)
    assert deframer.event == deframer.NEED_DATA
    assert deframer.landed() == [(5, 70, 4, 0, 0), (6, 0, 4, 0, 4)]
    assert deframer.free == 1
    assert room == b"\0datamore\0"


def test_room_that_a_block_does_not_fit_is_left_behind(core: ModuleType) -> None:
    deframer = core.Deframer(100, 100)
    assert [deframer.provide(bytearray(size)) for size in (3, 4)] == [0, 1]
    deframer.feed(block(core, 0, 0, b"data"))
    assert deframer.landed() == [(0, 0, 4, 1, 0)]
    assert deframer.room == 1
    stream = block(core, 0, 4, b"x")
    assert deframer.feed(stream) == len(stream) - 1
    assert deframer.event == deframer.BLOCK
    assert deframer.room == 2


@pytest.mark.parametrize(("item", "offset"), [(2, 50), (3, 49), (3, 51)])
def test_room_of_one_item_takes_no_other_block(core: ModuleType, item: int, offset: int) -> None:
    deframer = core.Deframer(100, 100)
    room = bytearray(100)
    deframer.provide(room, 0, 3, 50)
    stream = block(core, 3, 50, b"data") + block(core, 3, 54, b"more")
    assert deframer.feed(stream) == len(stream)
    assert deframer.free == 0  # for any item
    assert room[:8] == b"datamore"

    deframer = core.Deframer(100, 100)
    deframer.provide(bytearray(100), 0, 3, 50)
    deframer.feed(block(core, item, offset, b"data"))
    assert deframer.event == deframer.BLOCK
    assert deframer.room == 1


def test_only_so_many_blocks_land_before_somebody_looks(core: ModuleType) -> None:
    deframer = core.Deframer(100, 100)
    deframer.provide(bytearray(1_000))
    stream = b"".join(block(core, 0, at, b"x") for at in range(520))
    position = deframer.feed(stream)
    assert deframer.event == deframer.BLOCK
    assert not deframer.ready()
    assert len(deframer.landed()) == 512
    assert deframer.ready()
    assert deframer.feed(stream, position) == len(stream)
    assert [offset for _, offset, *_ in deframer.landed()] == list(range(512, 520))


END = 0x24


def end(core: ModuleType, *numbers: int, rest: bytes = b"") -> bytes:
    """A message of the type that ends items."""
    payload: bytes = b"".join(map(core.encode_uint_var, numbers)) + rest
    return bytes([END]) + bytes(core.encode_uint_var(len(payload))) + payload


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_ends_are_listed_in_their_turn(core: ModuleType, step: int) -> None:
    deframer = core.Deframer(100, 100, END)
    deframer.provide(bytearray(100))
    stream = block(core, 7, 0, b"one") + end(core, 7, 3) + end(core, 8, 0) + block(core, 9, 0, b"two") + end(core, 9, 3)
    for start in range(0, len(stream), step):
        deframer.feed(stream[start : start + step])
        assert deframer.event == deframer.NEED_DATA
    assert deframer.at_boundary
    noted = [(item, offset, length) for item, offset, length, _, _ in deframer.landed()]
    assert noted == [(7, 0, 3), (7, 3, 0), (8, 0, 0), (9, 0, 3), (9, 3, 0)]


def test_what_is_no_end_is_a_message(core: ModuleType) -> None:
    deframer = core.Deframer(100, 100, END)
    for stream in (end(core), end(core, 1), end(core, 1, 2, 3), end(core, 1, rest=b"\x40"), b"\x25\x01x"):
        assert deframer.feed(stream) == len(stream)
        assert deframer.event == deframer.MESSAGE
        assert deframer.payload == stream[2:]
    assert deframer.landed() == []


def test_more_ends_than_are_listed_at_once_are_messages(core: ModuleType) -> None:
    deframer = core.Deframer(100, 100, END)
    stream = b"".join(end(core, item, 0) for item in range(600))
    position = deframer.feed(stream)
    assert deframer.event == deframer.MESSAGE
    assert deframer.payload == end(core, 512, 0)[2:]
    assert [item for item, *_ in deframer.landed()] == list(range(512))
    assert deframer.feed(stream, position) == len(stream)
    assert [item for item, *_ in deframer.landed()] == list(range(513, 600))


@pytest.mark.parametrize("start", [-1, 5, TOP])
def test_room_outside_its_buffer(core: ModuleType, start: int) -> None:
    with pytest.raises(ValueError, match=r"start is|room at"):
        core.Deframer(0, 100).provide(bytearray(4), start)


class Kept:
    """What a belt has passed on."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.blocks: list[tuple[int, bytes]] = []
        self.views: list[memoryview] = []
        self._fail_at = fail_at

    def __call__(self, offset: int, data: memoryview) -> None:
        assert data.readonly
        if offset == self._fail_at:
            raise OSError(28, "no space")
        self.blocks.append((offset, bytes(data)))
        self.views.append(data)


def belted(core: ModuleType, kept: Kept, *, limit: int = 100, grid: int = 1_000, pieces: int = 2) -> Any:
    """A deframer with a belt of pieces of 10 bytes for item 3, of which 4 bytes at 50 have landed in a room."""
    deframer = core.Deframer(100, 100, END)
    deframer.provide(bytearray(4))
    deframer.feed(block(core, 3, 50, b"room"))
    assert deframer.convey(3, limit, grid, kept, [bytearray(10) for _ in range(pieces)])
    return deframer


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_a_belt_passes_blocks_on_and_lists_them_as_one(core: ModuleType, step: int) -> None:
    kept = Kept()
    deframer = belted(core, kept)
    assert deframer.landed() == [(3, 50, 4, 0, 0)]
    parts = [b"one", b"two and 3", b"four", b"five5"]
    offset = 54
    for part in parts:
        stream = block(core, 3, offset, part)
        for start in range(0, len(stream), step):
            assert deframer.feed(stream[start : start + step]) == len(stream[start : start + step])
        offset += len(part)
        deframer.settle()
    assert deframer.has_settled
    deframer.feed(end(core, 3, offset))
    assert [data for _, data in kept.blocks] == parts
    assert [at for at, _ in kept.blocks] == [54, 57, 66, 70]
    assert deframer.landed() == [(3, 54, 21, -1, 4), (3, 75, 0, deframer.room, 0)]
    assert deframer.landed() == []
    assert deframer.halt()


def test_a_belt_waits_for_what_landed_before_it(core: ModuleType) -> None:
    kept = Kept()
    deframer = belted(core, kept)
    deframer.feed(block(core, 3, 54, b"belt"))
    deframer.settle()
    assert kept.blocks == []
    assert not deframer.has_settled
    assert not deframer.halt()
    assert deframer.landed() == [(3, 50, 4, 0, 0)]
    assert deframer.landed() == [(3, 54, 4, -1, 1)]
    assert kept.blocks == [(54, b"belt")]


def test_a_belt_goes_on_from_a_block_that_is_under_way(core: ModuleType) -> None:
    kept = Kept()
    deframer = core.Deframer(100, 100)
    deframer.provide(bytearray(4))
    first = block(core, 3, 50, b"room")
    deframer.feed(first[:-2])
    assert deframer.convey(3, 100, 1_000, kept, [bytearray(10)])
    deframer.feed(first[-2:] + block(core, 3, 54, b"belt"))
    assert deframer.landed() == [(3, 50, 4, 0, 0)]
    assert deframer.landed() == [(3, 54, 4, -1, 1)]


def test_a_full_belt_takes_more_once_it_is_settled(core: ModuleType) -> None:
    kept = Kept()
    deframer = belted(core, kept)
    deframer.landed()
    stream = block(core, 3, 54, b"one") + block(core, 3, 57, b"two") + block(core, 3, 60, b"three")
    position = deframer.feed(stream)
    assert deframer.event == deframer.BLOCK
    assert not deframer.ready()
    deframer.settle()
    assert deframer.ready()
    assert deframer.feed(stream, position) == len(stream)
    assert deframer.landed() == [(3, 54, 11, -1, 3)]
    assert kept.blocks == [(54, b"one"), (57, b"two"), (60, b"three")]


@pytest.mark.parametrize("bound", ["limit", "grid", "piece"])
def test_a_belt_takes_nothing_beyond_its_bounds(core: ModuleType, bound: str) -> None:
    limit, grid = (60, 1_000) if bound == "limit" else (100, 60) if bound == "grid" else (100, 1_000)
    deframer = belted(core, Kept(), limit=limit, grid=grid)
    assert deframer.free == limit - 54
    deframer.provide(bytearray(100))
    stream = block(core, 3, 54, b"eleven byte" if bound == "piece" else b"seventy")
    deframer.landed()
    position = deframer.feed(stream)
    assert deframer.event == deframer.BLOCK
    assert not deframer.ready()
    deframer.extend(61)
    if bound == "limit":
        assert deframer.ready()
        deframer.feed(stream, position)
        assert deframer.landed() == [(3, 54, 7, -1, 1)]
        return
    assert not deframer.ready()
    assert deframer.halt()
    assert deframer.ready()
    deframer.feed(stream, position)
    assert [room for *_, room, _ in deframer.landed()] == [1]


def test_blocks_that_do_not_go_on_there_go_to_rooms(core: ModuleType) -> None:
    kept = Kept()
    deframer = belted(core, kept)
    deframer.landed()
    deframer.provide(bytearray(100))
    deframer.feed(block(core, 4, 54, b"other") + block(core, 3, 55, b"later") + block(core, 3, 54, b"next"))
    assert deframer.landed() == [(4, 54, 5, 1, 0), (3, 55, 5, 1, 5)]
    assert deframer.landed() == [(3, 54, 4, -1, 1)]
    assert kept.blocks == [(54, b"next")]


def test_a_belt_in_place(core: ModuleType) -> None:
    kept = Kept()
    memory = bytearray(b"-" * 20)
    deframer = core.Deframer(100, 100)
    deframer.provide(memory, 0, 3, 50)
    deframer.feed(block(core, 3, 50, b"room"))
    assert deframer.convey(3, 64, 1_000, kept, [memoryview(memory)[4:]], 54)
    assert deframer.free == 0
    deframer.feed(block(core, 3, 54, b"one") + block(core, 3, 57, b"two") + block(core, 3, 60, b"four"))
    assert deframer.landed() == [(3, 50, 4, 0, 0)]
    assert deframer.landed() == [(3, 54, 10, -1, 3)]
    assert memory == b"roomonetwofour------"
    deframer.extend(70)  # its end stays where it is
    deframer.feed(block(core, 4, 64, b"x"))
    assert deframer.event == deframer.BLOCK
    deframer.release()
    memory.append(0)


def test_a_belt_whose_keeper_fails_passes_nothing_on_any_more(core: ModuleType) -> None:
    kept = Kept(fail_at=57)
    deframer = belted(core, kept)
    deframer.landed()
    deframer.feed(block(core, 3, 54, b"one") + block(core, 3, 57, b"two"))
    assert deframer.landed() == [(3, 54, 6, -1, 2)]
    assert isinstance(deframer.belt_error, OSError)
    deframer.feed(block(core, 3, 60, b"three"))
    assert deframer.landed() == [(3, 60, 5, -1, 1)]
    assert kept.blocks == [(54, b"one")]
    assert deframer.halt()
    assert deframer.belt_error is None


def test_what_a_keeper_raised_is_there_until_the_block_is_listed(core: ModuleType) -> None:
    deframer = belted(core, Kept(fail_at=54))
    deframer.landed()
    deframer.feed(block(core, 3, 54, b"one"))
    assert not deframer.halt()
    assert isinstance(deframer.belt_error, OSError)
    assert deframer.landed() == [(3, 54, 3, -1, 1)]
    assert deframer.halt()


def test_a_belt_is_not_taken_down_under_a_block(core: ModuleType) -> None:
    kept = Kept()
    pieces = [bytearray(10)]
    deframer = belted(core, kept)
    deframer.landed()
    assert deframer.halt()
    assert deframer.convey(3, 100, 1_000, kept, pieces)
    stream = block(core, 3, 54, b"data")
    deframer.feed(stream[:-1])
    assert not deframer.halt()
    with pytest.raises(BufferError):
        pieces[0].append(0)
    deframer.feed(stream[-1:])
    deframer.provide(bytearray(10))
    deframer.feed(block(core, 3, 58, b"room"))  # no more for the belt
    assert deframer.halt()
    pieces[0].append(0)
    assert deframer.landed() == [(3, 54, 4, -1, 1), (3, 58, 4, 1, 0)]


def test_release_drops_what_a_belt_carries(core: ModuleType) -> None:
    kept = Kept()
    pieces = [bytearray(10), bytearray(10)]
    deframer = belted(core, kept)
    deframer.landed()
    assert deframer.halt()
    assert deframer.convey(3, 100, 1_000, kept, pieces)
    deframer.feed(block(core, 3, 54, b"data") + block(core, 3, 58, b"under way")[:-1])
    deframer.release()
    for piece in pieces:
        piece.append(0)
    assert deframer.landed() == []
    assert kept.blocks == []


def test_what_a_belt_passed_on_cannot_be_used_later(core: ModuleType) -> None:
    kept = Kept()
    deframer = belted(core, kept)
    deframer.landed()
    deframer.feed(block(core, 3, 54, b"data"))
    deframer.settle()
    with pytest.raises(ValueError, match="released"):
        bytes(kept.views[0])


def test_belts_that_cannot_be(core: ModuleType) -> None:
    kept = Kept()
    deframer = core.Deframer(100, 100)
    memory = bytearray(10)
    assert not deframer.convey(3, 100, 1_000, kept, [memory])  # nothing came yet
    deframer.provide(bytearray(4))
    deframer.feed(block(core, 3, 50, b"data"))
    assert not deframer.convey(4, 100, 1_000, kept, [memory])
    assert not deframer.convey(3, 53, 1_000, kept, [memory])
    assert not deframer.convey(3, 100, 1_000, kept, [memory], 55)
    assert not deframer.convey(3, 65, 1_000, kept, [memory], 54)  # beyond its memory
    for memories, start in (([], None), ([memory] * 5, None), ([memory] * 2, 54)):
        with pytest.raises(ValueError, match="a second belt, or one of"):
            deframer.convey(3, 60, 1_000, kept, memories, start)
    with pytest.raises(BufferError):
        deframer.convey(3, 60, 1_000, kept, [memory, b"read only"])
    with pytest.raises(ValueError, match="grid is 0"):
        deframer.convey(3, 60, 0, kept, [memory])
    memory.append(0)  # none of them holds it
    assert deframer.convey(3, 100, 1_000, kept, [memory])
    with pytest.raises(ValueError, match="a second belt"):
        deframer.convey(3, 100, 1_000, kept, [memory])


def test_no_more_than_eight_rooms(core: ModuleType) -> None:
    deframer = core.Deframer(0, 100)
    assert [deframer.provide(bytearray(1)) for _ in range(8)] == list(range(8))
    with pytest.raises(ValueError, match="more than 8 rooms"):
        deframer.provide(bytearray(1))
    assert deframer.withdraw() == 8
    assert deframer.provide(bytearray(1)) == 8


def test_room_is_held_until_the_next_after_it_was_left(core: ModuleType) -> None:
    deframer = core.Deframer(0, 100)
    room = bytearray(4)
    deframer.provide(room)
    stream = block(core, 0, 0, b"data")
    deframer.feed(stream[:-1])
    assert deframer.withdraw() == 0  # a block is under way in it
    with pytest.raises(BufferError):
        room.append(0)
    deframer.feed(stream[-1:])
    assert deframer.withdraw() == 1
    deframer.provide(bytearray(4))
    room.append(0)


def test_release_lets_the_rooms_go_and_the_stream_no_further(core: ModuleType) -> None:
    deframer = core.Deframer(0, 100)
    stream = block(core, 0, 0, b"data")
    room = bytearray(4)
    deframer.provide(room)
    deframer.feed(stream[:-2])
    deframer.release()
    deframer.release()
    room.append(0)
    assert room == b"da\0\0\0"
    assert deframer.in_block
    deframer.provide(bytearray(4))
    with pytest.raises(ValueError, match="provide"):
        deframer.feed(stream, len(stream) - 2)


def test_a_dropped_deframer_lets_its_rooms_go(core: ModuleType) -> None:
    deframer = core.Deframer(0, 100)
    room = bytearray(4)
    deframer.provide(room)
    deframer.feed(block(core, 0, 0, b"data")[:-1])
    del deframer
    room.append(0)


def test_a_deframer_is_free_for_whoever_feeds_it_while_garbage_is_collected(core: ModuleType) -> None:
    """A finalizer may wait for a lock that whoever feeds it holds, and that one for the deframer."""
    deframer = core.Deframer(0, 1)
    deframer.provide(bytearray(301))
    deframer.feed(b"".join(block(core, 0, offset, b"x") for offset in range(300)))
    thresholds = gc.get_threshold()
    free: list[int] = []

    def finalize(phase: str, info: dict[str, int]) -> None:
        free.append(deframer.free)

    def list_them() -> None:
        gc.callbacks.append(finalize)
        gc.set_threshold(10)
        try:
            assert len(deframer.landed()) == 300
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(finalize)

    thread = threading.Thread(target=list_them, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for itself"
    assert set(free) <= {1}


@pytest.mark.parametrize("pos", [-1, 5, TOP, 2**64])
def test_feed_from_an_impossible_position(core: ModuleType, pos: int) -> None:
    with pytest.raises(ValueError, match="pos is"):
        core.Deframer(10, 10).feed(bytes(4), pos)


@pytest.mark.parametrize("limits", [(-1, 0), (0, -1), (TOP + 1, 0), (0, 2**64)])
def test_deframer_with_impossible_limits(core: ModuleType, limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="_limit is"):
        core.Deframer(*limits)


def parts_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


MESSAGES = st.lists(
    st.tuples(st.integers(0, TOP).filter(lambda kind: kind != 0x20), st.binary(max_size=200)).map(
        lambda m: message(_pyblock, *m)
    )
    | st.tuples(st.integers(0, TOP), st.integers(0, TOP - 300), st.binary(min_size=1, max_size=300)).map(
        lambda b: block(_pyblock, *b)
    ),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_of_a_stream_is_the_whole(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(messages)
    whole = collect(_pydeframer.Deframer(200, 300), [stream])
    assert len(whole) == len(messages)
    for kind in (_pydeframer.Deframer, spaceblock.core.Deframer):
        deframer = kind(200, 300)
        assert collect(deframer, parts_of(stream, cuts)) == whole
        assert deframer.at_boundary


@given(
    st.binary(max_size=120) | st.binary(max_size=40).map(lambda tail: b"\x20\x10" + tail),
    st.lists(st.integers(0, 200), max_size=8),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_garbage_is_taken_like_the_twin_takes_it(data: bytes, cuts: list[int], payload: int, length: int) -> None:
    twin, deframer = _pydeframer.Deframer(payload, length), spaceblock.core.Deframer(payload, length)
    assert collect(twin, [data]) == collect(deframer, parts_of(data, cuts))
    assert twin.at_boundary == deframer.at_boundary
