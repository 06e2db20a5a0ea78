"""The core that reads in plain Python: the specification by example, the oracle of the tests, and the fallback.

Names, signatures, results and exceptions are those of ``_fastdeframer``; ``_fastdeframer.pyi`` documents them.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from ._pyblock import BLOCK_TYPE, HEADER_ROOM, UINT_VAR_MAX, bounded, bytes_of, decode_uint_var
from .errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _typeshed import ReadableBuffer, WriteableBuffer

_BLOCK_FIELDS_MAX = 16
_ROOMS_MAX = 8
_LANDED_MAX = 512
_PIECES_MAX = 4
_ON_BELT = -2
_SETTLED = -1


@final
class Deframer:
    NEED_DATA: Final = 0
    MESSAGE: Final = 1
    BLOCK: Final = 2

    capsule = None

    def __init__(self, message_limit: int, block_limit: int, end_type: int = 0) -> None:
        self._message_limit = bounded(message_limit, "message_limit")
        self._block_limit = bounded(block_limit, "block_limit")
        self._end_type = bounded(end_type, "end_type")
        self.event = self.NEED_DATA
        self.message_type = 0
        self.payload = b""
        self.item = self.offset = self.length = 0
        self._head = b""
        self._expect_data: bool | None = None
        self._received = 0
        self._partial = bytearray()
        self._memory: memoryview | None = None
        self._rooms: deque[_Room] = deque()
        self.room = 0
        self._place = (0, 0, 0, 0, 0)
        self._belt: _Belt | None = None
        self.belt_error: Exception | None = None
        self._last = (-1, 0)
        self._landed: list[tuple[int, int, int, int, int]] = []
        self._fault = ""

    @property
    def at_boundary(self) -> bool:
        return not self._head and self._expect_data is None and not self._fault

    @property
    def in_block(self) -> bool:
        return bool(self._expect_data)

    def feed(self, data: ReadableBuffer, pos: int = 0) -> int:
        with bytes_of(data) as view:
            pos = bounded(pos, "pos", high=len(view))
            self.check()
            self.proceed()
            if self._expect_data and not self._find_place():
                raise ValueError("a block's data has no room; call provide() before the next feed()")
            self.event = self.NEED_DATA
            while self.event == self.NEED_DATA:
                if self._expect_data is None:
                    if pos == len(view):
                        break
                    pos = self._take_head(view, pos)
                elif self._expect_data and not self._find_place():
                    self.event = self.BLOCK
                elif pos == len(view) and self._received < self.length:
                    break
                else:
                    pos = self._take_bytes(view, pos)
            return pos

    def check(self) -> None:
        if self._fault:
            raise self._broken()

    def proceed(self) -> None:
        if self.event == self.MESSAGE:
            self.event = self.NEED_DATA

    def ready(self) -> bool:
        if self.event == self.MESSAGE or self._fault or (self._expect_data and not self._find_place()):
            return False
        if self.event == self.BLOCK:
            self.event = self.NEED_DATA
        return True

    def provide(self, memory: WriteableBuffer, start: int = 0, item: int | None = None, offset: int = 0) -> int:
        start, offset = bounded(start, "start"), bounded(offset, "offset")
        item = None if item is None else bounded(item, "item")
        with bytes_of(memory, writable=True) as view:
            if start > len(view) or len(self._rooms) == _ROOMS_MAX:
                raise ValueError(
                    f"room at {start} of a buffer, or more than {_ROOMS_MAX} rooms; provide fewer, within it"
                )
            self._rooms.append(_Room(view[start:], item, offset))
        return self.room + len(self._rooms) - 1

    def landed(self) -> list[tuple[int, int, int, int, int]]:
        self.settle()
        count = next((at for at, each in enumerate(self._landed) if each[3] == _ON_BELT), len(self._landed))
        found, self._landed = self._landed[:count], self._landed[count:]
        return found

    def convey(
        self,
        item: int,
        limit: int,
        grid: int,
        keep: Callable[[int, memoryview], object],
        memories: Sequence[WriteableBuffer],
        start: int | None = None,
    ) -> bool:
        item, limit, grid = bounded(item, "item"), bounded(limit, "limit"), bounded(grid, "grid", 1)
        start = None if start is None else bounded(start, "start")
        if self._belt is not None or not 0 < len(memories) <= (_PIECES_MAX if start is None else 1):
            raise ValueError(
                f"a second belt, or one of {len(memories)} pieces; halt() the first, and give 1 to {_PIECES_MAX}"
            )
        with ExitStack() as views:
            pieces = [views.enter_context(bytes_of(memory, writable=True))[:] for memory in memories]
        of_item, stop = self._last
        fits = of_item == item and (start or 0) <= stop <= limit
        if not fits or (start is not None and limit - start > len(pieces[0])):
            for piece in pieces:
                piece.release()
            return False
        self._belt = _Belt(item, stop, limit, grid, keep, pieces, start)
        return True

    def extend(self, limit: int) -> None:
        limit = bounded(limit, "limit")
        if self._belt is not None and self._belt.start is None:
            self._belt.limit = max(self._belt.limit, limit)

    def settle(self) -> None:
        while True:
            at = 1 if self.has_settled else 0
            if at >= len(self._landed) or self._landed[at][3] != _ON_BELT:
                return
            item, offset, length, _, piece = self._landed[at]
            belt = self._belt
            assert belt is not None
            if self.belt_error is None:
                try:
                    with belt.place(offset, length, piece).toreadonly() as data:
                        belt.keep(offset, data)
                except Exception as error:
                    self.belt_error = error
            belt.load -= 1
            belt.used.discard(piece)
            first, start, so_far, _, blocks = self._landed[0]
            if at and first == item and start + so_far == offset:
                self._landed[:2] = [(item, start, so_far + length, _SETTLED, blocks + 1)]
            else:
                self._landed[at] = (item, offset, length, _SETTLED, 1)

    def halt(self) -> bool:
        self.settle()
        if self._belt is not None:
            self._belt.runs = False
            if self._belt.load or (self.belt_error is not None and self.has_settled):
                return False
        self._drop_belt()
        return True

    @property
    def has_settled(self) -> bool:
        return bool(self._landed) and self._landed[0][3] == _SETTLED

    def withdraw(self) -> int:
        if self._memory is None:
            while self._rooms:
                self._leave_room()
        return self.room

    @property
    def free(self) -> int:
        belt = self._belt
        free = 0 if belt is None or not belt.runs or belt.start is not None else belt.limit - belt.offset
        return free + sum(len(room.memory) - room.used for room in self._rooms if room.item is None)

    def release(self) -> None:
        if self._memory is not None:
            self._memory.release()
            self._memory = None
        while self._rooms:
            self._leave_room()
        self._landed = [each for each in self._landed if each[3] != _ON_BELT]
        self._drop_belt()

    def _drop_belt(self) -> None:
        if self._belt is not None:
            for piece in self._belt.pieces:
                piece.release()
        self._belt = self.belt_error = None

    def _take_head(self, view: memoryview, pos: int) -> int:
        head = self._head + bytes(view[pos : pos + HEADER_ROOM - len(self._head)])
        used = self._parse_head(head)
        if self._fault:
            raise self._broken()
        if used is None:
            pos += len(head) - len(self._head)
            self._head = head
            return pos
        pos += used - len(self._head)
        self._head = b""
        self._received = 0
        self._expect_data = self.message_type == BLOCK_TYPE
        return pos

    def _find_place(self) -> bool:
        """Whether the data of the block under way has a place; rooms that it does not fit are left behind."""
        if self._memory is not None:
            return True
        if len(self._landed) == _LANDED_MAX or self._received:
            return False
        belt = self._belt
        if belt is not None and belt.runs and (belt.item, belt.offset) == (self.item, self.offset):
            piece = belt.take(self.length)
            if piece is not None:
                self._note_place(_ON_BELT, piece, belt.place(self.offset, self.length, piece))
            return piece is not None
        while self._rooms:
            room = self._rooms[0]
            start = room.used
            takes = room.item is None or (room.item, room.offset) == (self.item, self.offset)
            if takes and self.length <= len(room.memory) - start:
                room.used += self.length
                room.offset += self.length
                self._note_place(self.room, start, room.memory[start : start + self.length])
                return True
            self._leave_room()
        return False

    def _note_place(self, room: int, start: int, memory: memoryview) -> None:
        self._memory = memory
        self._place = (self.item, self.offset, self.length, room, start)
        self._last = (self.item, self.offset + self.length)

    def _leave_room(self) -> None:
        self._rooms.popleft().memory.release()
        self.room += 1

    def _parse_head(self, head: bytes) -> int | None:
        """The bytes used, or None while some are missing; every limit is checked as soon as its number is there."""
        fields: list[int] = []
        at = 0
        for _ in range(4):
            if not self._check(fields):
                return None
            if len(fields) == 2 and fields[0] != BLOCK_TYPE:
                break
            try:
                value, at = decode_uint_var(head, at)
            except ValueError:
                return None
            fields.append(value)
            if len(fields) == 2:
                length_stop = at
        self.message_type, self.length = fields[:2]
        self.item, self.offset = fields[2:] or (0, 0)
        if self.message_type == BLOCK_TYPE:
            self.length -= at - length_stop
            if self.length <= 0:
                self._fault = "a block without data"
            elif self.length > self._block_limit:
                self._fault = f"a block of {self.length} bytes, where {self._block_limit} are allowed"
            elif self.length > UINT_VAR_MAX - self.offset:
                self._fault = f"a block of {self.length} bytes at offset {self.offset}, which ends beyond 2^62-1"
        return at

    def _check(self, fields: list[int]) -> bool:
        if len(fields) == 1 and fields[0] == BLOCK_TYPE and not self._block_limit:
            self._fault = "a block on a stream that carries none"
        elif len(fields) == 2 and fields[0] == BLOCK_TYPE and fields[1] > self._block_limit + _BLOCK_FIELDS_MAX:
            self._fault = f"a block of {fields[1]} bytes, where {self._block_limit} are allowed"
        elif len(fields) == 2 and fields[0] != BLOCK_TYPE and fields[1] > self._message_limit:
            self._fault = (
                f"a message of type {fields[0]:#x} with {fields[1]} bytes, where {self._message_limit} are allowed"
            )
        return not self._fault

    def _take_bytes(self, view: memoryview, pos: int) -> int:
        part = view[pos : pos + self.length - self._received]
        if self._memory is not None:
            self._memory[self._received : self._received + len(part)] = part
        else:
            self._partial += part
        self._received += len(part)
        if self._received == self.length:
            if self._memory is None:
                payload = bytes(self._partial)
                self._partial.clear()
                if not self._note_end(payload):
                    self.event = self.MESSAGE
                    self.payload = payload
            else:
                self._memory.release()
                self._memory = None
                self._landed.append(self._place)
            self._expect_data = None
        return pos + len(part)

    def _note_end(self, payload: bytes) -> bool:
        """Whether the payload is an item's end that could be noted among what landed; if not, it is an event."""
        if not self._end_type or self.message_type != self._end_type or len(self._landed) == _LANDED_MAX:
            return False
        try:
            item, at = decode_uint_var(payload)
            size, at = decode_uint_var(payload, at)
        except ValueError:
            return False
        if at != len(payload):
            return False
        self._landed.append((item, size, 0, self.room, 0))
        return True

    def _broken(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"the peer sent {self._fault}; check that both sides run the same release of Spaceblock"
        )


@dataclass(slots=True)
class _Room:
    memory: memoryview
    item: int | None
    offset: int
    used: int = 0


@dataclass(slots=True)
class _Belt:
    item: int
    offset: int
    limit: int
    grid: int
    keep: Callable[[int, memoryview], object]
    pieces: list[memoryview]
    start: int | None
    runs: bool = True
    load: int = 0
    used: set[int] = field(default_factory=set)

    def take(self, length: int) -> int | None:
        """The piece for a block that goes on; None if it has no place."""
        if length > self.limit - self.offset or length > self.grid - self.offset % self.grid:
            return None
        piece = 0
        if self.start is None:
            free = [at for at in range(len(self.pieces)) if at not in self.used]
            if not free or length > len(self.pieces[free[0]]):
                return None
            piece = free[0]
            self.used.add(piece)
        self.offset += length
        self.load += 1
        return piece

    def place(self, offset: int, length: int, piece: int) -> memoryview:
        at = 0 if self.start is None else offset - self.start
        return self.pieces[piece][at : at + length]
