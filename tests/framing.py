"""Reads the core's tables, frames messages by hand, and collects what a Deframer finds."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any, TypeAlias

from spaceblock import _pyblock
from spaceblock.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from spaceblock.core import Deframer

TOP = 2**62 - 1
CONTENT = bytes(range(256)) * 4 * 300

Found: TypeAlias = tuple[str, Any]
AnyDeframer: TypeAlias = "Deframer | _pyblock.Deframer"


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
    target = bytearray()
    try:
        for part in parts:
            position = 0
            while position < len(part):
                position = deframer.feed(part, position)
                if deframer.event == deframer.MESSAGE:
                    found.append(("message", (deframer.message_type, deframer.payload)))
                elif deframer.event == deframer.BLOCK:
                    target = bytearray(deframer.length)
                    deframer.set_target(target, 0)
                elif deframer.event == deframer.BLOCK_END:
                    found.append(("block", (deframer.item, deframer.offset, bytes(target))))
                else:
                    assert position == len(part)
    except RemoteProtocolError as error:
        found.append(("error", str(error)))
    return found


def singly(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 1] for at in range(len(data)))
