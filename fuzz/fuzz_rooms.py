# Invariant: whatever is done with a Deframer in whatever order (feeding, giving rooms and belts, taking them away,
# asking), the compiled one and its twin answer the same, write the same bytes to the same places, pass on the same
# blocks and refuse the same.
"""All calls of a Deframer, against its twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Any

import spaceblock.core
from framing import AnyDeframer, block, message
from spaceblock import _pyblock, _pydeframer
from spaceblock.errors import RemoteProtocolError

from .choices import Choices, large, piece

LIMITS = (0, 1, 5, 64, 300, 4_096)
SIZES = (0, 1, 10, 100, 300, 1_000)
STEPS_MAX = 300
PARTICULARS = re.compile("0x[0-9a-f]+|[0-9]+")
SIZE_MAX = 1_500


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    limits = LIMITS[choices.below(len(LIMITS))], LIMITS[choices.below(len(LIMITS))]
    steps = choices.rest()
    ours = _Driven(spaceblock.core.Deframer(*limits), Choices(steps))
    twin = _Driven(_pydeframer.Deframer(*limits), Choices(steps))
    happened = set[Hashable]()
    for _ in range(STEPS_MAX):
        if not twin.choices:
            break
        outcome = twin.step()
        assert ours.step() == outcome
        assert ours.state() == twin.state()
        happened.add(PARTICULARS.sub("", outcome[1]) if isinstance(outcome[1], str) else twin.deframer.event)
    assert ours.memory() == twin.memory()
    return frozenset(map(str, happened))


def seeds() -> dict[str, bytes]:
    limits = bytes([4, 5])
    data = b"data" * 20
    one = block(_pyblock, 3, 4_096, data)
    two = block(_pyblock, 3, 4_096 + len(data), data)
    other = message(_pyblock, 0x24, b"payload")

    def feed(stream: bytes) -> bytes:
        return b"\0" + piece(stream) + b"\0\0\0"

    def provide(size: int, item: int | None = None, offset: int = 0) -> bytes:
        bound = b"\0" if item is None else b"\1" + large(item) + large(offset)
        return bytes([1, size]) + large(0) + bound

    def convey(limit: int, grid: int, pieces: int, start: int | None = None, fails_at: int = 0) -> bytes:
        where = b"\0" if start is None else b"\1" + large(start)
        sizes = bytes([5] * pieces)
        return bytes([8, pieces]) + sizes + large(3) + large(limit) + large(grid) + where + bytes([fails_at])

    def belted(steps: bytes) -> bytes:
        return limits + provide(5) + feed(one) + b"\2" + steps

    more = [block(_pyblock, 3, 4_096 + len(data) * at, data) for at in range(2, 6)]
    return {
        "belt": belted(convey(1 << 20, 1 << 20, 2) + feed(two + more[0]) + b"\2\2\13"),
        "belt-on-grid": belted(convey(1 << 20, 4_400, 2) + feed(two) + b"\2" + feed(more[0] + more[1])),
        "belt-extended": belted(convey(4_200, 1 << 20, 3) + feed(two) + b"\11" + large(9_000) + b"\6"),
        "belt-in-place": belted(convey(4_500, 1 << 20, 1, 4_000) + feed(two) + b"\2\4"),
        "belt-that-fails": belted(convey(9_000, 1 << 20, 3, None, 1) + feed(two) + b"\13\2\13"),
        "belt-too-full": belted(convey(9_000, 1 << 20, 1) + feed(two + more[0]) + b"\12\6"),
        "late-room": limits + feed(one[:20]) + provide(3) + feed(one[20:]) + feed(other),
        "room": limits + provide(5) + feed(one + two + other) + b"\2",
        "bound-room": limits + provide(5, 3, 4_096) + feed(one + two) + b"\2" + feed(other) + b"\5\6\7",
        "room-that-is-too-small": limits + provide(2) + provide(5) + feed(one + two) + b"\2",
        "withdrawn": limits + provide(5) + feed(one[:30]) + b"\3" + feed(one[30:] + two) + b"\2\3",
        "released": limits + provide(5) + feed(one[:30]) + b"\4" + provide(3) + feed(one[30:]) + b"\2",
        "too-many-rooms": limits + provide(1) * 9 + feed(one),
        "lost": limits + feed(bytes.fromhex("06ffffffffffffffff")) + b"\5\6\7" + feed(other),
    }


class _Driven:
    """One of the two, which is told what to do by the same choices as the other."""

    def __init__(self, deframer: AnyDeframer, choices: Choices) -> None:
        self.deframer = deframer
        self.choices = choices
        self._data = b""
        self._pos = 0
        self._memory: list[bytearray] = []
        self._lost = False
        self._kept: list[tuple[int, bytes]] = []
        self._fails_at = -1

    def step(self) -> tuple[str, Any]:
        """Do one thing: its name, and what came of it."""
        deframer = self.deframer
        acts: list[Callable[[], Any]] = [
            self._feed,
            self._provide,
            deframer.landed,
            deframer.withdraw,
            deframer.release,
            deframer.proceed,
            deframer.ready,
            deframer.check,
            self._convey,
            self._extend,
            deframer.settle,
            deframer.halt,
        ]
        act = acts[self.choices.below(len(acts))]
        try:
            return act.__name__, act()
        except RemoteProtocolError as error:
            self._lost = True
            return act.__name__, str(error)
        except ValueError:  # for the first of its faults that is looked at
            return act.__name__, "ValueError"

    def state(self) -> tuple[Any, ...]:
        """Everything that a deframer tells; what a stream that is lost was about is nobody's business."""
        deframer = self.deframer
        told: tuple[Any, ...] = (tuple(self._kept), repr(deframer.belt_error), deframer.has_settled)
        told += (deframer.at_boundary, deframer.in_block, deframer.free, deframer.room, self._pos)
        if self._lost:
            return told[:-1]
        found = (deframer.event, deframer.payload)
        head = (deframer.message_type, deframer.item, deframer.offset, deframer.length) if deframer.event else ()
        return *told, *found, *head

    def memory(self) -> list[bytes]:
        """All rooms; none is held any more."""
        self.deframer.release()
        for each in self._memory:
            each.append(0)
        return [bytes(each) for each in self._memory]

    def _feed(self) -> int:
        if self._pos == len(self._data):
            self._data, self._pos = self.choices.piece(), 0
        before = self._pos
        self._pos = self.deframer.feed(self._data, self._pos)
        return self._pos - before

    def _provide(self) -> int:
        memory = self._new_memory()
        start = self.choices.large()
        if not self.choices.byte() & 1:
            return self.deframer.provide(memory, start)
        return self.deframer.provide(memory, start, self.choices.large(), self.choices.large())

    def _convey(self) -> bool:
        memories = [self._new_memory() for _ in range(self.choices.below(6))]
        item, limit, grid = self.choices.large(), self.choices.large(), self.choices.large()
        start = self.choices.large() if self.choices.byte() & 1 else None
        put_up = self.deframer.convey(item, limit, grid, self._keep, memories, start)
        if put_up:
            self._fails_at = self.choices.below(8)
        return put_up

    def _keep(self, offset: int, data: memoryview) -> None:
        self._fails_at -= 1
        if not self._fails_at:
            raise OSError("no space")
        self._kept.append((offset, bytes(data)))

    def _extend(self) -> None:
        self.deframer.extend(self.choices.large())

    def _new_memory(self) -> bytearray:
        self._memory.append(bytearray(SIZES[self.choices.below(len(SIZES))]))
        return self._memory[-1]
