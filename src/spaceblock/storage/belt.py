"""The belt of a landing: the bytes of a large item, stored and hashed without a call of the landing for each block.

Where storing only computes or copies memory, as into a caller's buffer or a file in memory, the intake itself can have
it done for every block as it is complete, while its bytes are in the cache and before the event loop gets its turn. The
landing hears of all these blocks together, and decides how far they may go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..core import MESSAGE_DATA_MAX, Deframer
from ..limits import DATA_STREAMS_MAX
from ..protocol.receiver import Receiver
from .debts import Debts
from .ring import SPARE, Ring
from .sinks import Sink

_AHEAD = 6 * MESSAGE_DATA_MAX
"""Bytes that may come on a belt before the landing is asked: more than arrive in one turn of the event loop."""

_LEAST = 4 * MESSAGE_DATA_MAX
"""Bytes still to come of an item that are worth a belt."""

_PIECES = 3
"""Buffers of the ring for a belt: for the block under way, for one that is to be settled, and for one that was cut
short."""


class Supplies(Protocol):
    """What a belt needs of its transfer."""

    receiver: Receiver
    ring: Ring
    sink: Sink
    debts: Debts | None
    """What is received and not durable yet, where that is bounded."""


class Belt:
    """The belt of ``intake``, for one item at a time of the data stream ``key``.

    ``give_back`` is called with each buffer of the ring that it does not need any more.
    """

    def __init__(self, host: Supplies, key: int, intake: Deframer, give_back: Callable[[memoryview], None]) -> None:
        self._host = host
        self._key = key
        self._intake = intake
        self._give_back = give_back
        self._limit = 0
        self._pieces: list[memoryview] = []
        self._forgets = False
        self.item: int | None = None
        """Whose blocks it takes; None where there is no belt."""

    def put_up(self, item: int, offset: int, hasher: Any) -> None:
        """Take the blocks of ``item`` behind ``offset``, up to where all blocks were seen to, if that is worth it."""
        host, due = self._host, self._due(item, offset)
        if due < _LEAST:
            return
        self._forgets = False
        update, grid = hasher.update, host.receiver.block_size
        memory = host.sink.memory(item, offset, due)
        if memory is not None:
            self._limit = offset + due
            stands = self._intake.convey(item, self._limit, grid, lambda _, data: update(data), [memory], offset)
        elif host.sink.never_waits(item) and host.ring.free >= SPARE + _PIECES and self._is_far_from_limit:
            write = host.sink.write

            def keep(offset: int, data: memoryview) -> None:
                if not self._forgets:
                    write(item, offset, data)
                    update(data)

            self._limit = self._limit_from(item, offset, before=offset)
            stands = False
            try:
                while len(self._pieces) < _PIECES and (piece := host.ring.take(_nothing)) is not None:
                    self._pieces.append(piece)
                stands = self._intake.convey(item, self._limit, grid, keep, self._pieces)
            finally:
                if not stands:
                    self._let_go()
        else:
            return
        if stands:
            self.item = item

    def extend(self, item: int, offset: int, least: int = 0) -> bool:
        """Let more come, of what was seen to up to ``offset``, and ``least`` bytes in any case if so many are due.

        False where there is no belt for so many bytes of ``item``.
        """
        if self.item is None or self.item != item:
            return False
        if self._pieces and self._is_far_from_limit:
            self._limit = max(self._limit, self._limit_from(item, offset, self._limit, least))
            self._intake.extend(self._limit)
        return self._limit - offset >= least

    def take_down(self) -> None:
        """Unless a block is under way on it: then another time."""
        if self.item is not None and self._intake.halt():
            self.item = None
            self._let_go()

    def forget(self, item: int) -> None:
        """Store and hash no more of ``item``, whatever is under way: it has ended, or somebody else does that now."""
        if self.item == item:
            self._forgets = True
            self.take_down()

    @property
    def _is_far_from_limit(self) -> bool:
        """Whether all streams of the transfer may bring as much as comes on a belt before anybody is asked."""
        return self._host.receiver.left_of_limit >= DATA_STREAMS_MAX * _AHEAD

    def _due(self, item: int, offset: int) -> int:
        return self._host.receiver.due_in_order(self._key, item, offset)

    def _limit_from(self, item: int, offset: int, before: int, least: int = 0) -> int:
        """Up to where blocks may come that may do so up to ``before`` already."""
        limit, debts = offset + _AHEAD, self._host.debts
        if debts is not None:
            limit = min(limit, before + debts.room_left)
        return min(max(limit, offset + least), offset + self._due(item, offset))

    def _let_go(self) -> None:
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._give_back(piece)


def _nothing() -> None:
    return
