"""Wrong tickets are counted by address, forgotten after a while, and never without bound."""

from __future__ import annotations

import pytest

from spaceblock.limits import GUESSERS_MAX, WRONG_TICKETS, WRONG_TICKETS_ALL, WRONG_TICKETS_SECONDS
from spaceblock.trust.guesses import Guesses


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_is_refused_after_so_many_and_listened_to_again_later() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(WRONG_TICKETS):
        assert not guesses.refuses("192.0.2.1")
        guesses.wrong("192.0.2.1")
    assert guesses.refuses("192.0.2.1")
    assert not guesses.refuses("192.0.2.2")
    clock.now += WRONG_TICKETS_SECONDS
    assert not guesses.refuses("192.0.2.1")
    guesses.wrong("192.0.2.1")
    assert not guesses.refuses("192.0.2.1"), "counting begins anew"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("no address", "no address", True),
    ],
)
def test_what_one_guesser_is_taken_to_have(one: str, other: str, same: bool) -> None:
    guesses = Guesses()
    for _ in range(WRONG_TICKETS):
        guesses.wrong(one)
    assert guesses.refuses(other) is same


def test_many_wrong_tickets_from_everywhere_are_noticed() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for number in range(WRONG_TICKETS_ALL):
        assert not guesses.many
        guesses.wrong(f"192.0.2.{number % 256}")
    assert guesses.many
    clock.now += WRONG_TICKETS_SECONDS
    assert not guesses.many


def test_only_so_many_addresses_are_remembered() -> None:
    guesses = Guesses()
    for _ in range(WRONG_TICKETS):
        guesses.wrong("192.0.2.1")
    for number in range(GUESSERS_MAX):
        guesses.wrong(f"10.0.{number // 256}.{number % 256}")
    assert len(guesses) == GUESSERS_MAX
    assert not guesses.refuses("192.0.2.1")
