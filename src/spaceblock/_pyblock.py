"""The core in plain Python: the specification by example, the oracle of the tests, and the fallback.

Names, signatures, results and exceptions are those of ``_fastblock``; ``_fastblock.pyi`` documents them. Numbers from
outside are checked where they enter; a memoryview is released on every way out, so that the caller may resize again.
"""

from __future__ import annotations

import operator
import os
import struct
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from .errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

UINT_VAR_MAX: Final = 2**62 - 1
BLOCK_TYPE: Final = 0x20
HEADER_ROOM: Final = 32
MESSAGE_DATA_MAX: Final = 1_048_576

_BLOCK_FIELDS_MAX = 16
_ROOMS_MAX = 8
_LANDED_MAX = 64
_WRITE_STEP = 1 << 30
_PAIR = struct.Struct("=QQ")
_ROW = struct.Struct("=QQQQ")


def encode_uint_var(value: int) -> bytes:
    value = _bounded(value, "value")
    size = _var_size(value)
    return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")


def decode_uint_var(data: ReadableBuffer, pos: int = 0) -> tuple[int, int]:
    pos = _bounded(pos, "pos")
    with _bytes_of(data) as view:
        size = len(view)
        if pos < size:
            need = 1 << (view[pos] >> 6)
            if need <= size - pos:
                value = int.from_bytes(view[pos : pos + need], "big")
                return value & ((1 << (8 * need - 2)) - 1), pos + need
    raise ValueError(f"the varint at {pos} is cut off after {size} bytes; pass all of its bytes")


def write_uint_var(out: WriteableBuffer, pos: int, value: int) -> int:
    encoded = encode_uint_var(value)
    pos, need = _bounded(pos, "pos"), len(encoded)
    with _bytes_of(out, writable=True) as view:
        if pos > len(view) or need > len(view) - pos:
            raise ValueError(f"no room for {need} bytes at {pos} in a buffer of {len(view)}; pass a larger one")
        view[pos : pos + need] = encoded
    return pos + need


def slice_range(table: WriteableBuffer, start: int, stop: int, block_size: int, limit: int = MESSAGE_DATA_MAX) -> int:
    stop = _bounded(stop, "stop")
    at = _bounded(start, "start", high=stop)
    block_size = _bounded(block_size, "block_size", 1)
    limit = _bounded(limit, "limit", 1)
    pieces = 0
    with _bytes_of(table, writable=True) as view:
        while at < stop and pieces < len(view) // _PAIR.size:
            length = _piece_size(at, stop, block_size, limit)
            _PAIR.pack_into(view, pieces * _PAIR.size, at, length)
            at += length
            pieces += 1
    return pieces


def frame_blocks(
    out: WriteableBuffer, table: WriteableBuffer, item: int, start: int, stop: int, block_size: int
) -> tuple[int, int, int]:
    item = _bounded(item, "item")
    stop = _bounded(stop, "stop")
    at = _bounded(start, "start", high=stop)
    block_size = _bounded(block_size, "block_size", 1)
    pieces = used = 0
    with _bytes_of(out, writable=True) as room, _bytes_of(table, writable=True) as rows:
        while at < stop and pieces < len(rows) // _ROW.size:
            length = _piece_size(at, stop, block_size, MESSAGE_DATA_MAX)
            header = _header(item, at, length)
            if len(header) > len(room) - used:
                break
            room[used : used + len(header)] = header
            _ROW.pack_into(rows, pieces * _ROW.size, used, used + len(header), at, length)
            used += len(header)
            at += length
            pieces += 1
    return pieces, used, at


def fill_blocks(
    fd: int,
    slot: WriteableBuffer,
    table: WriteableBuffer,
    item: int,
    offset: int,
    stop: int,
    block_size: int,
    used: int = 0,
) -> tuple[int, int, int, bool]:
    item = _bounded(item, "item")
    stop = _bounded(stop, "stop")
    at = _bounded(offset, "offset", high=stop)
    block_size = _bounded(block_size, "block_size", 1)
    used = _bounded(used, "used")
    pieces, short = 0, False
    with _bytes_of(slot, writable=True) as room, _bytes_of(table, writable=True) as rows:
        size = len(room)
        if used > size:
            raise ValueError(f"used is {used}, beyond the slot's {size} bytes; pass what the last call returned")
        while not short and at < stop and pieces < len(rows) // _ROW.size and size - used > HEADER_ROOM:
            length = _piece_size(at, stop, block_size, min(size - used - HEADER_ROOM, MESSAGE_DATA_MAX))
            start = used + len(_header(item, at, length))
            got = _read_into(fd, room[start : start + length], at)
            short = got < length
            if got == 0:
                break
            # The header comes after the read, so that it never announces bytes that the file does not have.
            header = _header(item, at, got)
            stop_at = used + len(header) + got
            room[used:stop_at] = header + bytes(room[start : start + got])
            _ROW.pack_into(rows, pieces * _ROW.size, stop_at - got, stop_at, at, got)
            used = stop_at
            at += got
            pieces += 1
    return pieces, used, at, short


def write_all(fd: int, data: ReadableBuffer, offset: int) -> None:
    offset = _bounded(offset, "offset")
    with _bytes_of(data) as view:
        if len(view) > UINT_VAR_MAX - offset:
            raise ValueError(f"{len(view)} bytes at offset {offset} end beyond 2^62-1; write less")
        done = 0
        while done < len(view):
            done += _write_at(fd, view[done : done + _WRITE_STEP], offset + done)


@final
class Deframer:
    NEED_DATA: Final = 0
    MESSAGE: Final = 1
    BLOCK: Final = 2
    BLOCK_END: Final = 3

    capsule = None

    def __init__(self, message_limit: int, block_limit: int) -> None:
        self._message_limit = _bounded(message_limit, "message_limit")
        self._block_limit = _bounded(block_limit, "block_limit")
        self.event = self.NEED_DATA
        self.message_type = 0
        self.payload = b""
        self.item = self.offset = self.length = 0
        self._head = b""
        self._expect_data: bool | None = None
        self._received = 0
        self._partial = bytearray()
        self._target: memoryview | None = None
        self._in_room = False
        self._rooms: deque[_Room] = deque()
        self.room = 0
        self._place = (0, 0, 0, 0, 0)
        self._landed: list[tuple[int, int, int, int, int]] = []
        self._fault = ""

    @property
    def at_boundary(self) -> bool:
        return not self._head and self._expect_data is None and not self._fault

    @property
    def in_block(self) -> bool:
        return bool(self._expect_data)

    def feed(self, data: ReadableBuffer, pos: int = 0) -> int:
        with _bytes_of(data) as view:
            pos = _bounded(pos, "pos", high=len(view))
            self.check()
            self.proceed()
            if self._expect_data and not self._find_place():
                raise ValueError("a block's data has no target; call set_target() before the next feed()")
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
        if self.event in (self.MESSAGE, self.BLOCK_END):
            self.event = self.NEED_DATA

    def ready(self) -> bool:
        if self.event == self.MESSAGE or self._fault or (self._expect_data and not self._find_place()):
            return False
        if self.event == self.BLOCK:
            self.event = self.NEED_DATA
        return True

    def set_target(self, target: WriteableBuffer, start: int) -> None:
        start = _bounded(start, "start")
        with _bytes_of(target, writable=True) as view:
            if not self._expect_data or self._target is not None:
                raise ValueError("no block waits for a target; call set_target() once after the event BLOCK")
            if start > len(view) or self.length > len(view) - start:
                raise ValueError(
                    f"{self.length} bytes do not fit at {start} in a buffer of {len(view)}; pass a larger target"
                )
            self._target = view[start : start + self.length]
            self._in_room = False

    def provide(self, memory: WriteableBuffer, start: int = 0, item: int | None = None, offset: int = 0) -> int:
        start, offset = _bounded(start, "start"), _bounded(offset, "offset")
        item = None if item is None else _bounded(item, "item")
        with _bytes_of(memory, writable=True) as view:
            if start > len(view) or len(self._rooms) == _ROOMS_MAX:
                raise ValueError(
                    f"room at {start} of a buffer, or more than {_ROOMS_MAX} rooms; provide fewer, within it"
                )
            self._rooms.append(_Room(view[start:], item, offset))
        return self.room + len(self._rooms) - 1

    def landed(self) -> list[tuple[int, int, int, int, int]]:
        found, self._landed = self._landed, []
        return found

    def withdraw(self) -> int:
        if self._target is None or not self._in_room:
            while self._rooms:
                self._leave_room()
        return self.room

    @property
    def free(self) -> int:
        return sum(len(room.memory) - room.used for room in self._rooms if room.item is None)

    def release(self) -> None:
        if self._target is not None:
            self._target.release()
            self._target = None
        while self._rooms:
            self._leave_room()

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
        if self._target is not None:
            return True
        if len(self._landed) == _LANDED_MAX or self._received:
            return False
        while self._rooms:
            room = self._rooms[0]
            start = room.used
            takes = room.item is None or (room.item, room.offset) == (self.item, self.offset)
            if takes and self.length <= len(room.memory) - start:
                room.used += self.length
                room.offset += self.length
                self._target = room.memory[start : start + self.length]
                self._in_room = True
                self._place = (self.item, self.offset, self.length, self.room, start)
                return True
            self._leave_room()
        return False

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
        if self._target is not None:
            self._target[self._received : self._received + len(part)] = part
        else:
            self._partial += part
        self._received += len(part)
        if self._received == self.length:
            if self._target is None:
                self.event = self.MESSAGE
                self.payload = bytes(self._partial)
                self._partial.clear()
            else:
                self._target.release()
                self._target = None
                if self._in_room:
                    self._landed.append(self._place)
                else:
                    self.event = self.BLOCK_END
            self._expect_data = None
        return pos + len(part)

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


@contextmanager
def _bytes_of(data: ReadableBuffer, *, writable: bool = False) -> Iterator[memoryview]:
    """A flat view of ``data``'s bytes; BufferError when it is scattered or, where it matters, read-only."""
    with memoryview(data) as whole:
        if not whole.c_contiguous:
            raise BufferError("the buffer is not contiguous; pass a contiguous one")
        if writable and whole.readonly:
            raise BufferError("the buffer is read-only; pass a writable one")
        if not whole.nbytes:
            yield memoryview(bytearray())
        else:
            with whole.cast("B") as flat:
                yield flat


def _bounded(value: int, name: str, low: int = 0, high: int = UINT_VAR_MAX) -> int:
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name} is {value}, outside {low} to {high}; pass a number within")
    return number


def _var_size(value: int) -> int:
    return 1 if value < 0x40 else 2 if value < 0x4000 else 4 if value < 0x4000_0000 else 8


def _piece_size(at: int, stop: int, block_size: int, most: int) -> int:
    """The piece at ``at`` ends at the next multiple of the block size, at ``stop``, or when it is full."""
    return min(stop - at, block_size - at % block_size, most)


def _header(item: int, offset: int, length: int) -> bytes:
    fields = encode_uint_var(item) + encode_uint_var(offset)
    return encode_uint_var(BLOCK_TYPE) + encode_uint_var(len(fields) + length) + fields


def _read_into(fd: int, room: memoryview, offset: int) -> int:
    """Fill ``room`` from the file; the bytes read, fewer only at the end of the file."""
    done = 0
    while done < len(room):
        if hasattr(os, "preadv"):
            got = os.preadv(fd, [room[done:]], offset + done)
        else:
            os.lseek(fd, offset + done, os.SEEK_SET)
            data = os.read(fd, len(room) - done)
            got = len(data)
            room[done : done + got] = data
        if got == 0:
            break
        done += got
    return done


def _write_at(fd: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)
