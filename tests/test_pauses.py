"""How long a side that lost its connection waits between attempts to make another one."""

from __future__ import annotations

from itertools import islice

import pytest

from spaceblock import peer


def test_pauses_double_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.peer.random.random", lambda: 0.5)
    assert list(islice(peer.pauses_between_attempts(), 8)) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_no_two_wait_for_the_same_time() -> None:
    mine, theirs = ([*islice(peer.pauses_between_attempts(), 20)] for _ in range(2))
    assert set(mine).isdisjoint(theirs)
    assert all(2.5 <= pause <= 7.5 for pause in mine[6:])
