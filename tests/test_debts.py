"""What is received and not durable stays bounded."""

from __future__ import annotations

import pytest

from spaceblock.storage.debts import Debts

LIMIT = 100


def full(debts: Debts) -> bool:
    return debts.too_high


def test_at_half_of_a_small_limit_nothing_more_is_read_until_something_is_durable() -> None:
    debts = Debts(LIMIT)
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
    debts = Debts(LIMIT)
    debts.received(0, 1_000_060, 60)
    debts.durable(0, 1_000_020)
    debts.settled(0)
    debts.settled(0)
    debts.durable(0, 1_000_060)
    debts.received(1, 49, 49)
    assert not full(debts)


def test_many_items_share_the_limit() -> None:
    debts = Debts(LIMIT)
    for item in range(10):
        debts.received(item, 5, 5)
    assert full(debts)
    debts.settled(3)
    assert not full(debts)


@pytest.mark.parametrize("count", [1, 24, 25])
def test_marks_are_wanted_after_a_quarter(count: int) -> None:
    debts = Debts(LIMIT)
    debts.received(0, count, count)
    wanted = [debts.wants_marks]
    debts.marked()
    assert [*wanted, debts.wants_marks] == [count >= LIMIT // 4, False]


def test_who_does_not_wait_any_more_is_not_woken() -> None:
    debts = Debts(LIMIT)
    woken: list[int] = []

    def wake() -> None:
        woken.append(1)

    debts.received(0, 50, 50)
    debts.wait(wake)
    debts.wait(wake)
    debts.forget(wake)
    debts.settled(0)
    assert woken == []
