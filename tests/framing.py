"""Reads the core's tables, frames messages by hand, and collects what a Deframer finds."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any, TypeAlias

from spaceblock import _pydeframer
from spaceblock.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from spaceblock.core import Deframer

TOP = 2**62 - 1
CONTENT = bytes(range(256)) * 4 * 300

Found: TypeAlias = tuple[str, Any]
AnyDeframer: TypeAlias = "Deframer | _pydeframer.Deframer"


def pairs(table: array.array[int], count: int) -> list[tuple[int, int]]:
    return [(table[2 * row], table[2 * row + 1]) for row in range(count)]


def quads(table: array.array[int], count: int) -> list[tuple[int, int, int, int]]:
    return [(table[4 * row], table[4 * row + 1], table[4 * row + 2], table[4 * row + 3]) for row in range(count)]


def words(count: int) -> array.array[int]:
    return array.array("Q", bytes(8 * count))


def message(core: ModuleType, message_type: int, payload: bytes) -> bytes:
    encoded: bytes = core.encode_uint_var(message_type) + core.encode_uint_var(len(payload)) + payload
    return encoded


def block(core: ModuleType, item: int, offset: int, data: bytes) -> bytes:
    return message(core, core.BLOCK_TYPE, core.encode_uint_var(item) + core.encode_uint_var(offset) + data)


def collect(deframer: AnyDeframer, parts: Iterable[bytes]) -> list[Found]:
    """All messages and blocks in ``parts``, as they come, and the error that ended it, if one did."""
    found: list[Found] = []
    rooms = Rooms(deframer)
    try:
        for part in parts:
            position = 0
            while position < len(part):
                try:
                    position = deframer.feed(part, position)
                finally:
                    found += [("block", each) for each in rooms.landed()]
                if deframer.event == deframer.MESSAGE:
                    found.append(("message", (deframer.message_type, deframer.payload)))
                elif deframer.event == deframer.BLOCK:
                    rooms.provide()
                else:
                    assert position == len(part)
    except RemoteProtocolError as error:
        found.append(("error", str(error)))
    return found


class Rooms:
    """A room of its own for each block that waits for one."""

    def __init__(self, deframer: AnyDeframer) -> None:
        self._deframer = deframer
        self._memory: dict[int, bytearray] = {}

    def provide(self) -> None:
        memory = bytearray(self._deframer.length)
        self._memory[self._deframer.provide(memory)] = memory

    def landed(self) -> list[tuple[int, int, bytes]]:
        """Item, offset and data of the blocks that are complete."""
        return [(item, offset, bytes(self._memory.pop(room))) for item, offset, _, room, _ in self._deframer.landed()]


def singly(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))
