"""Receiving into callers' buffers: one for each item, filled in place."""

from __future__ import annotations

import array

import numpy as np
import pytest

from spaceblock.blocks import Partial, SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import BufferUnfit
from spaceblock.storage.sinks import BufferSink
from support import BLOCK, UUID, manifest_of, requests_of


def fill(sink: BufferSink, item: int, offset: int, data: bytes) -> None:
    """Put bytes where a transfer would."""
    memory = sink.memory(item, offset, len(data))
    assert memory is not None
    with memory:
        memory[:] = data


def test_bytes_land_in_the_buffer_itself() -> None:
    first, second = bytearray(5), bytearray(3)
    sink = BufferSink([first, second])
    assert sink.prepare(requests_of(5, 3), None) == set()
    for item in (0, 1):
        sink.begin(item)
    fill(sink, 0, 0, b"he")
    fill(sink, 1, 0, b"you")
    fill(sink, 0, 2, b"llo")
    for item in (0, 1):
        sink.finish(item)
    assert sink.place([0, 1]) == ["", ""]
    sink.close()
    assert first == b"hello"
    assert second == b"you"
    assert not sink.durable


def test_names_do_not_matter_to_a_buffer() -> None:
    sink = BufferSink([bytearray(1)])
    assert sink.prepare(requests_of(1), manifest_of("../whatever")) == set()
    sink.close()


def test_byte_zero_of_a_buffer_is_the_start_of_the_range() -> None:
    buffer = bytearray(4)
    sink = BufferSink([buffer])
    sink.prepare(SpaceblockRequests(UUID, BLOCK, (SpaceblockRequest(100, Partial(96, 100)),)), None)
    fill(sink, 0, 98, b"cd")
    fill(sink, 0, 96, b"ab")
    sink.close()
    assert buffer == b"abcd"


@pytest.mark.parametrize(
    "buffer", [array.array("i", [0, 0]), np.zeros(2, "float32"), np.zeros((2, 2), ">i2"), memoryview(bytearray(8))]
)
def test_any_writable_contiguous_buffer_will_do(buffer: bytearray) -> None:
    sink = BufferSink([buffer])
    sink.prepare(requests_of(8), None)
    fill(sink, 0, 0, b"12345678")
    sink.close()
    assert memoryview(buffer).tobytes() == b"12345678"


def test_an_empty_buffer_takes_an_empty_item() -> None:
    sink = BufferSink([bytearray(), np.zeros((0, 3))])
    assert sink.prepare(requests_of(0, 0), None) == set()
    sink.close()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_is_one_buffer_for_each_item(count: int) -> None:
    sink = BufferSink([bytearray(5) for _ in range(count)])
    with pytest.raises(BufferUnfit, match=f"{count} buffers were given for 2 items"):
        sink.prepare(requests_of(5, 5), None)
    sink.close()


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_buffer_is_exactly_as_long_as_its_item(size: int) -> None:
    sink = BufferSink([bytearray(5), bytearray(size)])
    with pytest.raises(BufferUnfit, match=f"the buffer for item 1 has {size} bytes and the item 5") as caught:
        sink.prepare(requests_of(5, 5), None)
    assert caught.value.item == 1
    assert isinstance(caught.value, ValueError)
    sink.close()


def test_an_item_of_unknown_size_does_not_fit_any_buffer() -> None:
    sink = BufferSink([bytearray(5)])
    with pytest.raises(BufferUnfit, match="not known yet: receive it into a folder"):
        sink.prepare(requests_of(None), None)
    sink.close()


def read_only_array() -> bytes:
    values = np.zeros(3)
    values.flags.writeable = False
    return values  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("buffer", "reason"),
    [
        (b"read-only", "is read-only"),
        (memoryview(b"read-only"), "is read-only"),
        (read_only_array(), "is read-only"),
        (np.zeros(4)[::2], "not C-contiguous"),
        (np.zeros(3, "M8[s]"), r"cannot fill into\[1\]"),
        ("text", r"into\[1\] is a str"),
        (None, r"into\[1\] is a NoneType"),
    ],
    ids=["bytes", "view", "array", "strided", "times", "str", "None"],
)
def test_a_buffer_that_cannot_be_filled_is_refused_and_the_others_are_released(buffer: object, reason: str) -> None:
    good = bytearray(5)
    with pytest.raises(BufferUnfit, match=reason):
        BufferSink([good, buffer])
    good.append(1)


def test_buffers_are_held_until_the_sink_is_closed() -> None:
    buffer = bytearray(5)
    sink = BufferSink([buffer])
    with pytest.raises(BufferError):
        buffer.append(1)
    sink.close()
    buffer.append(1)
    sink.close()


def test_dropping_an_item_leaves_its_buffer_alone() -> None:
    buffer = bytearray(b"abc")
    sink = BufferSink([buffer])
    sink.prepare(requests_of(3), None)
    sink.discard(0)
    sink.close()
    assert buffer == b"abc"
