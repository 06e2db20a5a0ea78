"""A ring hands round a bounded number of buffers and wakes who waits for one."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from spaceblock.limits import RING_SLOTS, SLOT_SIZE
from spaceblock.storage.ring import Ring


def nobody() -> None:
    raise AssertionError("nobody waits here")


def take(ring: Ring) -> memoryview:
    slot = ring.take(nobody)
    assert slot is not None
    return slot


def test_a_ring_gives_out_so_many_buffers_of_one_size_and_no_more() -> None:
    ring = Ring(3, 10)
    slots = [take(ring) for _ in range(3)]
    assert [len(slot) for slot in slots] == [10, 10, 10]
    assert ring.take(lambda: None) is None


def test_a_buffer_given_back_is_used_again_rather_than_another_made() -> None:
    ring = Ring(3, 10)
    slot = take(ring)
    slot[0] = 7
    ring.give(slot)
    assert take(ring) is slot


def test_a_ring_holds_what_its_limits_say_by_default() -> None:
    ring = Ring()
    slots = [take(ring) for _ in range(RING_SLOTS)]
    assert {len(slot) for slot in slots} == {SLOT_SIZE}
    assert ring.take(lambda: None) is None


def test_who_waits_is_called_once_as_soon_as_there_is_a_buffer() -> None:
    ring, calls = Ring(1, 10), []
    slot = take(ring)
    assert ring.take(lambda: calls.append("free")) is None
    assert calls == []
    ring.give(slot)
    ring.give(take(ring))
    assert calls == ["free"]


def test_who_asks_again_waits_only_once() -> None:
    ring, calls = Ring(1, 10), []

    def when_free() -> None:
        calls.append("free")

    slot = take(ring)
    assert ring.take(when_free) is None
    assert ring.take(when_free) is None
    ring.give(slot)
    assert calls == ["free"]


def test_they_are_served_in_the_order_in_which_they_came() -> None:
    ring = Ring(1, 10)
    served: list[str] = []
    held: list[memoryview] = []

    def client(name: str) -> None:
        slot = ring.take(lambda: client(name))
        if slot is not None:
            served.append(name)
            held.append(slot)

    for name in ("first", "second", "third"):
        client(name)
    while len(served) < 3:
        ring.give(held.pop())
    assert served == ["first", "second", "third"]


def test_who_needs_no_buffer_any_more_does_not_keep_it_from_the_next() -> None:
    ring = Ring(1, 10)
    slot = take(ring)
    taken: list[memoryview | None] = []
    assert ring.take(lambda: None) is None
    assert ring.take(lambda: taken.append(ring.take(nobody))) is None
    ring.give(slot)
    assert taken == [slot]


def test_who_was_forgotten_is_not_called() -> None:
    ring = Ring(1, 10)
    slot = take(ring)
    assert ring.take(nobody) is None
    ring.forget(nobody)
    ring.forget(nobody)
    ring.give(slot)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells what a process holds")
def test_a_buffer_takes_memory_only_where_it_is_written_to() -> None:
    before = resident()
    ring = Ring()
    slots = [take(ring) for _ in range(RING_SLOTS)]
    assert resident() - before < SLOT_SIZE
    assert not any(slot[0] or slot[-1] for slot in slots)


def resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
