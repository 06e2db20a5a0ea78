# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""The compiled core that writes: varints, slicing and framing of blocks, positioned reads and writes of files.

Its specification by example is ``spaceblock/_pyblock.py``, its contract ``spaceblock/_fastblock.pyi``. The rules here:

- A number from outside is range-checked where it enters, and compared by subtraction before it becomes an address.
- A ``Py_buffer`` is held for as long as a pointer into it lives, and released on every way out.
- Leaf functions take pointer and length, need no GIL and cannot fail; only the ``def`` functions raise.
- Tables are native 64-bit words in the caller's buffer, copied bytewise because nobody promises their alignment.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_Index
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from spaceblock.varint cimport VARINT_MAX, read_varint, varint_size, write_varint

from os import strerror

cdef extern from *:
    """
    #include <stdint.h>
    #ifdef _WIN32
    #include <io.h>
    /* Windows has no positioned read: these move the position, so one descriptor serves one thread at a time. */
    static int64_t positioned_read(int fd, void *out, size_t size, int64_t offset) {
        if (_lseeki64(fd, offset, SEEK_SET) < 0) return -1;
        return _read(fd, out, (unsigned int)size);
    }
    static int64_t positioned_write(int fd, const void *data, size_t size, int64_t offset) {
        if (_lseeki64(fd, offset, SEEK_SET) < 0) return -1;
        return _write(fd, data, (unsigned int)size);
    }
    #else
    #include <unistd.h>
    static inline int64_t positioned_read(int fd, void *out, size_t size, int64_t offset) {
        return (int64_t)pread(fd, out, size, (off_t)offset);
    }
    static inline int64_t positioned_write(int fd, const void *data, size_t size, int64_t offset) {
        return (int64_t)pwrite(fd, data, size, (off_t)offset);
    }
    #endif
    """
    int64_t positioned_read(int fd, void *out, size_t size, int64_t offset) noexcept nogil
    int64_t positioned_write(int fd, const void *data, size_t size, int64_t offset) noexcept nogil

cdef enum:
    # Some systems refuse to move more than 2 GiB in one call.
    _WRITE_STEP = 1 << 30
    _ROW = 32
    _PAIR = 16

UINT_VAR_MAX = 2**62 - 1
BLOCK_TYPE = _BLOCK_TYPE
HEADER_ROOM = _HEADER_ROOM
MESSAGE_DATA_MAX = _MESSAGE_DATA_MAX


# ---- Varints (RFC 9000, section 16) ----


def encode_uint_var(value):
    cdef uint8_t[8] out
    cdef uint64_t number = bounded(value, "value", 0, VARINT_MAX)
    return PyBytes_FromStringAndSize(<char *>out, <Py_ssize_t>write_varint(out, number))


def decode_uint_var(data, pos=0):
    cdef Py_buffer view
    cdef uint64_t value = 0
    cdef uint64_t start = bounded(pos, "pos", 0, VARINT_MAX)
    cdef size_t size
    cdef const uint8_t *begin
    cdef const uint8_t *at
    cdef bint whole = False
    acquire(data, &view, False)
    size = <size_t>view.len
    begin = at = <const uint8_t *>view.buf
    if start < size:
        at += start
        whole = read_varint(&at, begin + size, &value)
    PyBuffer_Release(&view)
    if not whole:
        raise ValueError(f"the varint at {start} is cut off after {size} bytes; pass all of its bytes")
    return value, at - begin


def write_uint_var(out, pos, value):
    cdef Py_buffer view
    cdef uint64_t number = bounded(value, "value", 0, VARINT_MAX)
    cdef uint64_t start = bounded(pos, "pos", 0, VARINT_MAX)
    cdef size_t size, need = varint_size(number)
    cdef bint fits
    acquire(out, &view, True)
    size = <size_t>view.len
    fits = start <= size and need <= size - start
    if fits:
        write_varint(<uint8_t *>view.buf + start, number)
    PyBuffer_Release(&view)
    if not fits:
        raise ValueError(f"no room for {need} bytes at {start} in a buffer of {size}; pass a larger one")
    return start + need


# ---- Slicing and framing ----


def slice_range(table, start, stop, block_size, limit=_MESSAGE_DATA_MAX):
    cdef Py_buffer view
    cdef uint64_t last = bounded(stop, "stop", 0, VARINT_MAX)
    cdef uint64_t at = bounded(start, "start", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, VARINT_MAX)
    cdef uint64_t most = bounded(limit, "limit", 1, VARINT_MAX)
    cdef size_t pieces
    acquire(table, &view, True)
    with nogil:
        pieces = slice_into(<uint8_t *>view.buf, <size_t>view.len // _PAIR, at, last, block, most)
    PyBuffer_Release(&view)
    return pieces


def frame_blocks(out, table, item, start, stop, block_size):
    cdef Py_buffer room, rows
    cdef uint64_t index = bounded(item, "item", 0, VARINT_MAX)
    cdef uint64_t last = bounded(stop, "stop", 0, VARINT_MAX)
    cdef uint64_t at = bounded(start, "start", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, VARINT_MAX)
    cdef size_t pieces, used = 0
    acquire(out, &room, True)
    try:
        acquire(table, &rows, True)
        with nogil:
            pieces = frame_into(
                <uint8_t *>room.buf, <size_t>room.len, &used, <uint8_t *>rows.buf, <size_t>rows.len // _ROW,
                index, &at, last, block,
            )
        PyBuffer_Release(&rows)
    finally:
        PyBuffer_Release(&room)
    return pieces, used, at


cdef inline uint64_t piece_size(uint64_t at, uint64_t stop, uint64_t block, uint64_t most) noexcept nogil:
    # at < stop; the piece ends at the next multiple of block, at stop, or when it is full.
    return min(stop - at, block - at % block, most)


cdef size_t slice_into(
    uint8_t *table, size_t rows, uint64_t at, uint64_t stop, uint64_t block, uint64_t most
) noexcept nogil:
    cdef size_t row = 0
    cdef uint64_t[2] pair
    while row < rows and at < stop:
        pair[0] = at
        pair[1] = piece_size(at, stop, block, most)
        memcpy(table + row * _PAIR, pair, _PAIR)
        at += pair[1]
        row += 1
    return row


cdef inline size_t header_size(uint64_t item, uint64_t offset, uint64_t length) noexcept nogil:
    cdef size_t fields = varint_size(item) + varint_size(offset)
    return 1 + varint_size(fields + length) + fields


cdef inline size_t put_header(uint8_t *out, uint64_t item, uint64_t offset, uint64_t length) noexcept nogil:
    # out has room for header_size(item, offset, length) bytes.
    cdef size_t at = 1
    out[0] = _BLOCK_TYPE
    at += write_varint(out + at, varint_size(item) + varint_size(offset) + length)
    at += write_varint(out + at, item)
    return at + write_varint(out + at, offset)


cdef inline void put_row(
    uint8_t *table, size_t row, size_t start, size_t stop, uint64_t offset, uint64_t length
) noexcept nogil:
    cdef uint64_t[4] quad
    quad[0] = start
    quad[1] = stop
    quad[2] = offset
    quad[3] = length
    memcpy(table + row * _ROW, quad, _ROW)


cdef size_t frame_into(
    uint8_t *out, size_t size, size_t *used, uint8_t *table, size_t rows,
    uint64_t item, uint64_t *offset, uint64_t stop, uint64_t block,
) noexcept nogil:
    cdef size_t row = 0
    cdef size_t at = 0
    cdef size_t need
    cdef uint64_t length
    while row < rows and offset[0] < stop:
        length = piece_size(offset[0], stop, block, _MESSAGE_DATA_MAX)
        need = header_size(item, offset[0], length)
        if need > size - at:
            break
        put_header(out + at, item, offset[0], length)
        put_row(table, row, at, at + need, offset[0], length)
        at += need
        offset[0] += length
        row += 1
    used[0] = at
    return row


# ---- Files ----


def fill_blocks(fd, slot, table, item, offset, stop, block_size, used=0):
    cdef Py_buffer room, rows
    cdef int handle = PyNumber_Index(fd)
    cdef uint64_t index = bounded(item, "item", 0, VARINT_MAX)
    cdef uint64_t last = bounded(stop, "stop", 0, VARINT_MAX)
    cdef uint64_t at = bounded(offset, "offset", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, VARINT_MAX)
    cdef uint64_t first = bounded(used, "used", 0, VARINT_MAX)
    cdef size_t fill
    cdef size_t pieces = 0
    cdef bint ended = False
    acquire(slot, &room, True)
    try:
        acquire(table, &rows, True)
        try:
            if first > <size_t>room.len:
                raise ValueError(
                    f"used is {first}, beyond the slot's {room.len} bytes; pass what the last call returned"
                )
            fill = <size_t>first
            with nogil:
                fill_into(
                    handle, <uint8_t *>room.buf, <size_t>room.len, &fill, <uint8_t *>rows.buf, <size_t>rows.len // _ROW,
                    &pieces, index, &at, last, block, &ended,
                )
        finally:
            PyBuffer_Release(&rows)
    finally:
        PyBuffer_Release(&room)
    return pieces, fill, at, ended


def write_all(fd, data, offset):
    cdef Py_buffer view
    cdef int handle = PyNumber_Index(fd)
    cdef uint64_t at = bounded(offset, "offset", 0, VARINT_MAX)
    acquire(data, &view, False)
    try:
        if <uint64_t>view.len > VARINT_MAX - at:
            raise ValueError(f"{view.len} bytes at offset {at} end beyond 2^62-1; write less")
        with nogil:
            write_from(handle, <const uint8_t *>view.buf, <size_t>view.len, at)
    finally:
        PyBuffer_Release(&view)


cdef int fill_into(
    int fd, uint8_t *slot, size_t size, size_t *used, uint8_t *table, size_t rows, size_t *row,
    uint64_t item, uint64_t *offset, uint64_t stop, uint64_t block, bint *ended,
) except -1 nogil:
    cdef size_t header, start, got
    cdef uint64_t length, most
    while row[0] < rows and offset[0] < stop and size - used[0] > _HEADER_ROOM:
        most = min(<uint64_t>(size - used[0] - _HEADER_ROOM), <uint64_t>_MESSAGE_DATA_MAX)
        length = piece_size(offset[0], stop, block, most)
        # The header comes after the read, so that it never announces bytes that the file does not have.
        header = header_size(item, offset[0], length)
        start = used[0] + header
        got = read_into(fd, slot + start, <size_t>length, offset[0])
        ended[0] = got < length
        if got == 0:
            break
        if ended[0]:
            header = header_size(item, offset[0], got)
            memmove(slot + used[0] + header, slot + start, got)
            start = used[0] + header
        put_header(slot + used[0], item, offset[0], got)
        put_row(table, row[0], start, start + got, offset[0], got)
        used[0] = start + got
        offset[0] += got
        row[0] += 1
        if ended[0]:
            break
    return 0


cdef size_t read_into(int fd, uint8_t *out, size_t size, uint64_t offset) except? 0xdead nogil:
    # What was read, less than size only at the end of the file.
    cdef size_t done = 0
    cdef int64_t got
    while done < size:
        got = positioned_read(fd, out + done, size - done, <int64_t>(offset + done))
        if got == 0:
            break
        if got > 0:
            done += <size_t>got
        else:
            retry_or_raise(errno)
    return done


cdef int write_from(int fd, const uint8_t *data, size_t size, uint64_t offset) except -1 nogil:
    cdef size_t done = 0
    cdef int64_t put
    while done < size:
        put = positioned_write(fd, data + done, min(size - done, <size_t>_WRITE_STEP), <int64_t>(offset + done))
        if put > 0:
            done += <size_t>put
        else:
            retry_or_raise(errno if put < 0 else EIO)
    return 0


cdef int retry_or_raise(int code) except -1 with gil:
    # A signal's Python handler runs here and may raise; else the call is made again (PEP 475).
    if code == EINTR:
        PyErr_CheckSignals()
        return 0
    raise OSError(code, strerror(code))
