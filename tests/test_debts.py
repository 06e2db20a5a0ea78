"""What is received and not durable stays bounded."""

from __future__ import annotations

import pytest

from spaceblock.limits import SLOT_SIZE
from spaceblock.storage.debts import Debts

LIMIT = 100


def nothing() -> int:
    return 0


def full(debts: Debts) -> bool:
    return debts.too_high


def test_at_half_of_a_small_limit_nothing_more_is_read_until_something_is_durable() -> None:
    debts = Debts(LIMIT, nothing)
    woken: list[int] = []
    debts.received(0, 49, 49)
    assert not full(debts)
    debts.received(0, 60, 11)
    assert full(debts)
    debts.wait(lambda: woken.append(1))
    debts.durable(0, 5)
    assert (full(debts), woken) == (True, [])
    debts.durable(0, 30)
    assert (full(debts), woken) == (False, [1])


def test_what_is_settled_owes_nothing_whatever_was_durable() -> None:
    debts = Debts(LIMIT, nothing)
    debts.received(0, 1_000_060, 60)
    debts.durable(0, 1_000_020)
    debts.settled(0)
    debts.settled(0)
    debts.durable(0, 1_000_060)
    debts.received(1, 49, 49)
    assert not full(debts)


def test_many_items_share_the_limit() -> None:
    debts = Debts(LIMIT, nothing)
    for item in range(10):
        debts.received(item, 5, 5)
    assert full(debts)
    debts.settled(3)
    assert not full(debts)


@pytest.mark.parametrize("count", [1, 24, 25])
def test_marks_are_wanted_after_a_quarter(count: int) -> None:
    debts = Debts(LIMIT, nothing, iter([0.0, 10.0, 10.0]).__next__)
    debts.received(0, count, count)
    wanted = [debts.wants_marks]
    debts.marked()
    assert [*wanted, debts.wants_marks] == [count >= LIMIT // 4, False]


@pytest.mark.parametrize("count", [25, 49, 50])
def test_marks_are_wanted_after_half_when_the_last_were_a_moment_ago(count: int) -> None:
    now = 5.0
    debts = Debts(LIMIT, nothing, lambda: now)
    debts.received(0, 30, 30)
    now = 6.0
    debts.marked()
    debts.received(0, 30 + count, count)
    now += 0.04
    wanted = debts.wants_marks
    now += 0.02
    assert (wanted, debts.wants_marks) == (count >= LIMIT // 2, True)


@pytest.mark.parametrize("buffers", [0, 1, 5, 15])
def test_what_there_is_room_for_is_counted(buffers: int) -> None:
    limit = 32 * SLOT_SIZE
    debts = Debts(limit, lambda: buffers * SLOT_SIZE)
    debts.received(0, 1, 1)
    owed = 1
    while not full(debts):
        debts.received(0, owed + SLOT_SIZE, SLOT_SIZE)
        owed += SLOT_SIZE
    assert limit // 2 <= owed
    assert owed - SLOT_SIZE + (buffers + 1) * SLOT_SIZE <= limit


def test_no_room_is_kept_ready_that_could_bring_more_than_the_limit() -> None:
    buffers = 0
    debts = Debts(4 * SLOT_SIZE, lambda: buffers * SLOT_SIZE)
    debts.received(0, SLOT_SIZE, SLOT_SIZE)
    while debts.room_left >= SLOT_SIZE:
        buffers += 1
    assert buffers == 3


def test_who_does_not_wait_any_more_is_not_woken() -> None:
    debts = Debts(LIMIT, nothing)
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    debts.received(0, 50, 50)
    debts.wait(wake)
    debts.wait(wake)
    debts.forget(wake)
    debts.settled(0)
    assert woken == []
