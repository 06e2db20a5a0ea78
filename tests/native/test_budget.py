"""Connections that share a socket's buffer: what is granted to all finds room there, and everybody has turns."""

from __future__ import annotations

import pytest
from link import Pair

from spaceblock.quic.native.budget import LAPSE, SHARE_MIN, Budget
from spaceblock.quic.native.credit import NEAR_SHARED
from spaceblock.quic.native.streams import ReceiveStream

BUFFER = 8 * SHARE_MIN
WINDOW = BUFFER


class Crowd:
    """So many connections of senders to one socket that holds :data:`BUFFER` bytes; nothing limits them but credit."""

    def __init__(self, count: int) -> None:
        self.budget = Budget(BUFFER)
        self.pairs = [Pair(window=SHARE_MIN) for _ in range(count)]
        for pair in self.pairs:
            pair.b.consumes = False
            credit = pair.b.engine.credit
            credit.set_windows(100 * WINDOW, WINDOW, WINDOW, BUFFER)
            credit.is_local = True
            for side in (pair.a, pair.b):
                side.engine.set_credit(100 * WINDOW, 0, 100 * WINDOW, 0)
            pair.b.engine.share_credit(self.budget)
            pair.a.write(pair.a.open(2), bytes(20 * WINDOW))
            pair.run()

    def stream(self, number: int) -> ReceiveStream:
        return self.pairs[number].b.engine.receive_streams[2]

    def consume(self, number: int) -> bool:
        """Read all that has arrived on a connection's stream, and let its sender go on; whether it may."""
        granted = self.pairs[number].b.engine.grant_stream(self.stream(number), self.stream(number).arrived)
        self.pairs[number].run()
        return granted

    def give_turns(self, now: int) -> list[int]:
        """Which connections have their turns now."""
        given = []
        while (turn := self.budget.turn(now)) is not None:
            engine, stream = turn
            engine.take_turn(stream, now)
            given.append(next(i for i, pair in enumerate(self.pairs) if pair.b.engine is engine))
        return given


HOLDERS = 5
"""Streams that together use the budget up: the first has half of it, and the others a share each."""


def use_up(crowd: Crowd, count: int = HOLDERS) -> None:
    """Pledge the budget to the first connections, whose senders are too slow to use it."""
    for number in range(count):
        pair = crowd.pairs[number]
        assert pair.b.engine.grant_stream(crowd.stream(number), crowd.stream(number).arrived)


def test_who_is_alone_begins_with_half_of_it() -> None:
    crowd = Crowd(1)
    assert crowd.stream(0).limit == crowd.stream(0).arrived == BUFFER // 2
    assert crowd.consume(0)
    assert crowd.stream(0).limit == BUFFER


def test_what_a_stream_has_at_once_doubles_while_it_uses_it() -> None:
    crowd = Crowd(2)
    limits = []
    use_up(crowd, 1)
    for _ in range(4):
        before = crowd.stream(1).arrived
        assert crowd.consume(1)
        limits.append(crowd.stream(1).limit - before)
    assert limits == sorted(limits)
    assert (limits[0], limits[-1]) == (SHARE_MIN, 4 * SHARE_MIN)
    assert crowd.budget.pledged <= BUFFER


def test_what_is_granted_and_has_not_arrived_finds_room_in_the_buffer() -> None:
    crowd = Crowd(20)
    use_up(crowd)
    assert crowd.budget.pledged == BUFFER
    assert not any(crowd.consume(number) for number in range(HOLDERS, 20))
    assert (crowd.budget.pledged, crowd.budget.waiting) == (BUFFER, 20 - HOLDERS)
    assert all(crowd.stream(number).limit == SHARE_MIN for number in range(HOLDERS, 20))


def test_who_waits_has_its_turn_in_order_as_soon_as_others_bytes_arrive() -> None:
    crowd = Crowd(8)
    use_up(crowd)
    assert not any(crowd.consume(number) for number in (7, 5, 6))
    assert crowd.give_turns(0) == []
    crowd.pairs[1].run()
    assert crowd.give_turns(0) == [7]
    crowd.pairs[2].run()
    crowd.pairs[3].run()
    assert crowd.give_turns(0) == [5, 6]
    for number in (5, 6, 7):
        crowd.pairs[number].run()
        assert crowd.stream(number).arrived == 2 * SHARE_MIN


def test_who_does_not_use_its_credit_holds_nobody_up_for_long() -> None:
    crowd = Crowd(HOLDERS + 1)
    use_up(crowd)
    assert not crowd.consume(HOLDERS)
    granted_at = min(pair.b.engine.idle_since for pair in crowd.pairs[:HOLDERS])
    assert crowd.give_turns(granted_at + LAPSE - 1) == []
    late = max(pair.b.engine.idle_since for pair in crowd.pairs) + LAPSE
    assert crowd.give_turns(late) == [HOLDERS]
    assert crowd.budget.holding == 1


@pytest.mark.parametrize("gone", [5, 6, 7])
def test_who_leaves_is_not_waited_for(gone: int) -> None:
    crowd = Crowd(8)
    use_up(crowd)
    assert not any(crowd.consume(number) for number in (5, 6, 7))
    crowd.pairs[gone].b.engine.remove_receive_stream(crowd.stream(gone))
    assert crowd.budget.waiting == 2
    crowd.pairs[2].b.engine.leave_credit()
    crowd.pairs[4].b.engine.leave_credit()
    assert crowd.budget.pledged == BUFFER - 2 * SHARE_MIN
    assert crowd.give_turns(0) == [number for number in (5, 6, 7) if number != gone]


def test_a_connection_from_afar_needs_no_turn() -> None:
    crowd = Crowd(HOLDERS + 1)
    use_up(crowd)
    far = crowd.pairs[HOLDERS].b.engine
    far.credit.is_local = False
    far.recovery.seed_rtt(NEAR_SHARED, NEAR_SHARED, 0, NEAR_SHARED, far.idle_since)
    assert crowd.consume(HOLDERS)
    assert crowd.budget.waiting == 0
