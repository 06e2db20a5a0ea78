"""The core that writes in plain Python: the specification by example, the oracle of the tests, and the fallback.

Names, signatures, results and exceptions are those of ``_fastblock``; ``_fastblock.pyi`` documents them. Numbers from
outside are checked where they enter; a memoryview is released on every way out, so that the caller may resize again.
"""

from __future__ import annotations

import errno
import operator
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

UINT_VAR_MAX: Final = 2**62 - 1
BLOCK_TYPE: Final = 0x20
HEADER_ROOM: Final = 32
MESSAGE_DATA_MAX: Final = 1_048_576

_WRITE_STEP = 1 << 30
_PAIR = struct.Struct("=QQ")
_ROW = struct.Struct("=QQQQ")


def encode_uint_var(value: int) -> bytes:
    value = bounded(value, "value")
    size = _var_size(value)
    return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")


def decode_uint_var(data: ReadableBuffer, pos: int = 0) -> tuple[int, int]:
    pos = bounded(pos, "pos")
    with bytes_of(data) as view:
        size = len(view)
        if pos < size:
            need = 1 << (view[pos] >> 6)
            if need <= size - pos:
                value = int.from_bytes(view[pos : pos + need], "big")
                return value & ((1 << (8 * need - 2)) - 1), pos + need
    raise ValueError(f"the varint at {pos} is cut off after {size} bytes; pass all of its bytes")


def write_uint_var(out: WriteableBuffer, pos: int, value: int) -> int:
    encoded = encode_uint_var(value)
    pos, need = bounded(pos, "pos"), len(encoded)
    with bytes_of(out, writable=True) as view:
        if pos > len(view) or need > len(view) - pos:
            raise ValueError(f"no room for {need} bytes at {pos} in a buffer of {len(view)}; pass a larger one")
        view[pos : pos + need] = encoded
    return pos + need


def slice_range(table: WriteableBuffer, start: int, stop: int, block_size: int, limit: int = MESSAGE_DATA_MAX) -> int:
    stop = bounded(stop, "stop")
    at = bounded(start, "start", high=stop)
    block_size = bounded(block_size, "block_size", 1)
    limit = bounded(limit, "limit", 1)
    pieces = 0
    with bytes_of(table, writable=True) as view:
        while at < stop and pieces < len(view) // _PAIR.size:
            length = _piece_size(at, stop, block_size, limit)
            _PAIR.pack_into(view, pieces * _PAIR.size, at, length)
            at += length
            pieces += 1
    return pieces


def frame_blocks(
    out: WriteableBuffer, table: WriteableBuffer, item: int, start: int, stop: int, block_size: int
) -> tuple[int, int, int]:
    item = bounded(item, "item")
    stop = bounded(stop, "stop")
    at = bounded(start, "start", high=stop)
    block_size = bounded(block_size, "block_size", 1)
    pieces = used = 0
    with bytes_of(out, writable=True) as room, bytes_of(table, writable=True) as rows:
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
    item = bounded(item, "item")
    stop = bounded(stop, "stop")
    at = bounded(offset, "offset", high=stop)
    block_size = bounded(block_size, "block_size", 1)
    used = bounded(used, "used")
    pieces, short = 0, False
    with bytes_of(slot, writable=True) as room, bytes_of(table, writable=True) as rows:
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
    offset = bounded(offset, "offset")
    with bytes_of(data) as view:
        if len(view) > UINT_VAR_MAX - offset:
            raise ValueError(f"{len(view)} bytes at offset {offset} end beyond 2^62-1; write less")
        done = 0
        while done < len(view):
            count = _write_at(fd, view[done : done + _WRITE_STEP], offset + done)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += count


@contextmanager
def bytes_of(data: ReadableBuffer, *, writable: bool = False) -> Iterator[memoryview]:
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


def bounded(value: int, name: str, low: int = 0, high: int = UINT_VAR_MAX) -> int:
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
