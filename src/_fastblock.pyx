# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""The compiled core: varints, slicing, framing and deframing of blocks, positioned reads and writes.

Its specification by example is ``spaceblock/_pyblock.py``, its contract ``spaceblock/_fastblock.pyi``. The rules here:

- A number from outside is range-checked where it enters, and compared by subtraction before it becomes an address.
- A ``Py_buffer`` is held for as long as a pointer into it lives, and released on every way out.
- Leaf functions take pointer and length, need no GIL and cannot fail; only the ``def`` functions raise.
- Tables are native 64-bit words in the caller's buffer, copied bytewise because nobody promises their alignment.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.number cimport PyNumber_Index
from cpython.pycapsule cimport PyCapsule_New
from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from os import strerror

from spaceblock.errors import RemoteProtocolError

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
    _BLOCK_TYPE = 0x20
    _HEADER_ROOM = 32
    _MESSAGE_DATA_MAX = 1_048_576
    # Item and offset, at eight bytes each: what a Block's length may count beyond its data.
    _BLOCK_FIELDS_MAX = 16
    # Some systems refuse to move more than 2 GiB in one call.
    _WRITE_STEP = 1 << 30
    _ROW = 32
    _PAIR = 16
    # Rooms that a Deframer holds at once, and blocks that land in them before somebody must look.
    _ROOMS_MAX = 8
    _LANDED_MAX = 64

cdef uint64_t _VAR_MAX = (<uint64_t>1 << 62) - 1

UINT_VAR_MAX = 2**62 - 1
BLOCK_TYPE = _BLOCK_TYPE
HEADER_ROOM = _HEADER_ROOM
MESSAGE_DATA_MAX = _MESSAGE_DATA_MAX


# ---- Varints (RFC 9000, section 16) ----


def encode_uint_var(value):
    cdef uint8_t[8] out
    cdef uint64_t number = bounded(value, "value", 0, _VAR_MAX)
    return PyBytes_FromStringAndSize(<char *>out, <Py_ssize_t>put_var(out, number))


def decode_uint_var(data, pos=0):
    cdef Py_buffer view
    cdef uint64_t value = 0
    cdef uint64_t start = bounded(pos, "pos", 0, _VAR_MAX)
    cdef size_t size, used = 0
    acquire(data, &view, False)
    size = <size_t>view.len
    if start < size:
        used = get_var(<const uint8_t *>view.buf + start, size - <size_t>start, &value)
    PyBuffer_Release(&view)
    if used == 0:
        raise ValueError(f"the varint at {start} is cut off after {size} bytes; pass all of its bytes")
    return value, start + used


def write_uint_var(out, pos, value):
    cdef Py_buffer view
    cdef uint64_t number = bounded(value, "value", 0, _VAR_MAX)
    cdef uint64_t start = bounded(pos, "pos", 0, _VAR_MAX)
    cdef size_t size, need = var_size(number)
    cdef bint fits
    acquire(out, &view, True)
    size = <size_t>view.len
    fits = start <= size and need <= size - start
    if fits:
        put_var(<uint8_t *>view.buf + start, number)
    PyBuffer_Release(&view)
    if not fits:
        raise ValueError(f"no room for {need} bytes at {start} in a buffer of {size}; pass a larger one")
    return start + need


cdef inline size_t var_size(uint64_t value) noexcept nogil:
    if value < 0x40:
        return 1
    if value < 0x4000:
        return 2
    return 4 if value < 0x40000000 else 8


cdef inline size_t put_var(uint8_t *out, uint64_t value) noexcept nogil:
    # out has room for var_size(value) bytes, and value <= 2^62-1.
    cdef size_t size = var_size(value)
    cdef size_t at = size
    cdef unsigned int prefix = 0 if size == 1 else 1 if size == 2 else 2 if size == 4 else 3
    while at:
        at -= 1
        out[at] = <uint8_t>(value & 0xff)
        value >>= 8
    out[0] = <uint8_t>(out[0] | prefix << 6)
    return size


cdef inline size_t get_var(const uint8_t *data, size_t size, uint64_t *value) noexcept nogil:
    # The bytes used, or 0 when they are not all there.
    cdef size_t need, at
    cdef uint64_t number
    if size == 0:
        return 0
    need = <size_t>1 << (data[0] >> 6)
    if need > size:
        return 0
    number = data[0] & 0x3f
    for at in range(1, need):
        number = number << 8 | data[at]
    value[0] = number
    return need


# ---- Slicing and framing ----


def slice_range(table, start, stop, block_size, limit=_MESSAGE_DATA_MAX):
    cdef Py_buffer view
    cdef uint64_t last = bounded(stop, "stop", 0, _VAR_MAX)
    cdef uint64_t at = bounded(start, "start", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, _VAR_MAX)
    cdef uint64_t most = bounded(limit, "limit", 1, _VAR_MAX)
    cdef size_t pieces
    acquire(table, &view, True)
    with nogil:
        pieces = slice_into(<uint8_t *>view.buf, <size_t>view.len // _PAIR, at, last, block, most)
    PyBuffer_Release(&view)
    return pieces


def frame_blocks(out, table, item, start, stop, block_size):
    cdef Py_buffer room, rows
    cdef uint64_t index = bounded(item, "item", 0, _VAR_MAX)
    cdef uint64_t last = bounded(stop, "stop", 0, _VAR_MAX)
    cdef uint64_t at = bounded(start, "start", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, _VAR_MAX)
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
    cdef size_t fields = var_size(item) + var_size(offset)
    return 1 + var_size(fields + length) + fields


cdef inline size_t put_header(uint8_t *out, uint64_t item, uint64_t offset, uint64_t length) noexcept nogil:
    # out has room for header_size(item, offset, length) bytes.
    cdef size_t at = 1
    out[0] = _BLOCK_TYPE
    at += put_var(out + at, var_size(item) + var_size(offset) + length)
    at += put_var(out + at, item)
    return at + put_var(out + at, offset)


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
    cdef int handle = fd
    cdef uint64_t index = bounded(item, "item", 0, _VAR_MAX)
    cdef uint64_t last = bounded(stop, "stop", 0, _VAR_MAX)
    cdef uint64_t at = bounded(offset, "offset", 0, last)
    cdef uint64_t block = bounded(block_size, "block_size", 1, _VAR_MAX)
    cdef uint64_t first = bounded(used, "used", 0, _VAR_MAX)
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
    cdef int handle = fd
    cdef uint64_t at = bounded(offset, "offset", 0, _VAR_MAX)
    acquire(data, &view, False)
    try:
        if <uint64_t>view.len > _VAR_MAX - at:
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


# ---- Deframing ----

cdef enum State:
    HEAD
    PAYLOAD
    # A Block's data is due: into the target when there is one.
    DATA
    BROKEN

cdef enum Fault:
    INCOMPLETE = 0
    TOO_LONG = -1
    UNEXPECTED = -2
    BLOCK_TOO_LONG = -3
    EMPTY = -4
    BEYOND = -5
    NO_MEMORY = -6

cdef struct Head:
    uint64_t type
    # Bytes that follow the head: a payload, or a Block's data.
    uint64_t length
    uint64_t item
    uint64_t offset


cdef struct Room:
    uint8_t *data
    size_t size
    # Bytes given to blocks.
    size_t used
    # Whether only blocks of one item go there, and these in the order of their offsets.
    bint bound
    uint64_t item
    uint64_t offset

cdef struct Landed:
    uint64_t item
    uint64_t offset
    uint64_t length
    uint64_t room
    size_t start

# What another compiled module feeds without the GIL, given as a capsule of this name: take(owner, data, size) says how
# many bytes it took, fewer than size when it waits for a call from Python.
cdef struct Intake:
    void *owner
    size_t (*take)(void *owner, const uint8_t *data, size_t size) noexcept nogil


cdef const char *INTAKE = "spaceblock.intake"


@cython.final
cdef class Deframer:
    NEED_DATA = 0
    MESSAGE = 1
    BLOCK = 2
    BLOCK_END = 3

    cdef readonly int event
    cdef readonly uint64_t message_type
    cdef readonly uint64_t item
    cdef readonly uint64_t offset
    cdef readonly uint64_t length

    cdef uint64_t message_limit
    cdef uint64_t block_limit
    cdef State state
    cdef int fault
    # A head that arrived in parts; the longest has four varints, 32 bytes.
    cdef uint8_t[_HEADER_ROOM] stash
    cdef size_t stashed
    # Bytes of the payload or data that have arrived.
    cdef uint64_t received
    # The payload as it comes, and whether it is complete and not yet in `complete`.
    cdef uint8_t *partial
    cdef size_t partial_room
    cdef bint fresh
    cdef bytes complete
    cdef Py_buffer target
    cdef bint has_target
    # Where the data under way goes: into target, or into the room in use. NULL while it has no place.
    cdef uint8_t *place
    # Rooms [room, rooms_made), each at its number modulo ROOMS_MAX; views below `room` may still be held.
    cdef Room[_ROOMS_MAX] rooms
    cdef Py_buffer[_ROOMS_MAX] views
    cdef readonly uint64_t room
    cdef uint64_t rooms_made
    cdef uint64_t rooms_held
    # One more than are listed at once: the last place is never filled.
    cdef Landed[_LANDED_MAX + 1] arrived
    cdef size_t landings
    cdef Intake intake

    def __init__(self, message_limit, block_limit):
        self.message_limit = bounded(message_limit, "message_limit", 0, _VAR_MAX)
        self.block_limit = bounded(block_limit, "block_limit", 0, _VAR_MAX)
        self.complete = b""

    def __dealloc__(self):
        self.drop_target()
        self.drop_rooms(self.rooms_made)
        free(self.partial)

    @property
    def at_boundary(self):
        return self.state == HEAD and self.stashed == 0

    @property
    def in_block(self):
        return self.state == DATA

    @property
    def payload(self):
        self.keep_payload()
        return self.complete

    @property
    def capsule(self):
        self.intake.owner = <void *>self
        self.intake.take = take_for
        return PyCapsule_New(&self.intake, INTAKE, NULL)

    def feed(self, data, pos=0):
        cdef Py_buffer view
        cdef uint64_t start
        acquire(data, &view, False)
        try:
            start = bounded(pos, "pos", 0, <uint64_t>view.len)
            self.check()
            self.proceed()
            if self.state == DATA and not self.find_place():
                raise ValueError("a block's data has no target; call set_target() before the next feed()")
            self.event = 0
            start += self.run(<const uint8_t *>view.buf + start, <size_t>(<uint64_t>view.len - start))
        finally:
            PyBuffer_Release(&view)
        self.check()
        return start

    def check(self):
        if self.state == BROKEN:
            raise self.broken()

    def proceed(self):
        self.keep_payload()
        if self.event == 1 or self.event == 3:
            self.event = 0

    def ready(self):
        if self.event == 1 or self.state == BROKEN or (self.state == DATA and not self.find_place()):
            return False
        if self.event == 2:
            self.event = 0
        return True

    def set_target(self, target, start):
        cdef Py_buffer view
        cdef uint64_t at = bounded(start, "start", 0, _VAR_MAX)
        acquire(target, &view, True)
        # Acquiring may run Python code, so the state is looked at only now.
        try:
            if self.state != DATA or self.place != NULL:
                raise ValueError("no block waits for a target; call set_target() once after the event BLOCK")
            if at > <size_t>view.len or self.length > <size_t>view.len - at:
                raise ValueError(
                    f"{self.length} bytes do not fit at {at} in a buffer of {view.len}; pass a larger target"
                )
        except BaseException:
            PyBuffer_Release(&view)
            raise
        self.target = view
        self.place = <uint8_t *>view.buf + at
        self.has_target = True

    def provide(self, memory, start=0, item=None, offset=0):
        cdef Py_buffer view
        cdef Room *room
        cdef uint64_t at = bounded(start, "start", 0, _VAR_MAX)
        cdef uint64_t of_item = 0 if item is None else bounded(item, "item", 0, _VAR_MAX)
        cdef uint64_t from_offset = bounded(offset, "offset", 0, _VAR_MAX)
        self.drop_rooms(self.room)
        acquire(memory, &view, True)
        if at > <size_t>view.len or self.rooms_made - self.rooms_held == _ROOMS_MAX:
            PyBuffer_Release(&view)
            raise ValueError(f"room at {start} of a buffer, or more than {_ROOMS_MAX} rooms; provide fewer, within it")
        room = &self.rooms[self.rooms_made % _ROOMS_MAX]
        room.data = <uint8_t *>view.buf + at
        room.size = <size_t>view.len - <size_t>at
        room.used = 0
        room.bound = item is not None
        room.item = of_item
        room.offset = from_offset
        self.views[self.rooms_made % _ROOMS_MAX] = view
        self.rooms_made += 1
        return self.rooms_made - 1

    def landed(self):
        cdef size_t i
        cdef Landed *each
        cdef list found = []
        for i in range(self.landings):
            each = &self.arrived[i]
            found.append((each.item, each.offset, each.length, each.room, each.start))
        # The record of the block under way, if there is one, is the next.
        self.arrived[0] = self.arrived[self.landings]
        self.landings = 0
        return found

    def withdraw(self):
        if self.place == NULL or self.has_target:
            self.room = self.rooms_made
        return self.room

    @property
    def free(self):
        cdef uint64_t number
        cdef Room *room
        cdef uint64_t total = 0
        for number in range(self.room, self.rooms_made):
            room = &self.rooms[number % _ROOMS_MAX]
            if not room.bound:
                total += room.size - room.used
        return total

    def release(self):
        self.drop_target()
        self.place = NULL
        self.room = self.rooms_made
        self.drop_rooms(self.room)

    cdef int keep_payload(self) except -1:
        # The next message overwrites it where it lies.
        if self.fresh:
            self.complete = PyBytes_FromStringAndSize(<const char *>self.partial, <Py_ssize_t>self.received)
            self.fresh = False
        return 0

    cdef int drop_target(self) except -1:
        if self.has_target:
            self.has_target = False
            self.place = NULL
            PyBuffer_Release(&self.target)
        return 0

    cdef int drop_rooms(self, uint64_t below) except -1:
        while self.rooms_held < below:
            self.rooms_held += 1
            PyBuffer_Release(&self.views[(self.rooms_held - 1) % _ROOMS_MAX])
        return 0

    cdef size_t run(self, const uint8_t *data, size_t size) noexcept nogil:
        # Takes what it can up to the next event; a message without a payload is complete without another byte.
        cdef size_t used = 0
        while self.event == 0 and self.state != BROKEN:
            if self.state == HEAD:
                if used == size:
                    break
                used += self.take_head(data + used, size - used)
                if self.state == DATA and not self.find_place():
                    self.event = 2
            elif self.state == DATA and not self.find_place():
                self.event = 2
            elif used == size and self.received < self.length:
                break
            else:
                used += self.take_bytes(data + used, size - used)
        if self.event == 3:
            with gil:
                self.drop_target()
        return used

    cdef size_t take_head(self, const uint8_t *data, size_t size) noexcept nogil:
        # Leaves the bytes of a head that is not all there in the stash; they are fewer than its 32.
        cdef Head head
        cdef size_t known = self.stashed
        cdef size_t taken = size
        cdef int used
        if known == 0:
            used = parse_head(data, size, self.message_limit, self.block_limit, &head)
            if used == INCOMPLETE and size:
                memcpy(self.stash, data, size)
        else:
            taken = min(size, <size_t>_HEADER_ROOM - known)
            if taken:
                memcpy(self.stash + known, data, taken)
            used = parse_head(self.stash, known + taken, self.message_limit, self.block_limit, &head)
        if used == INCOMPLETE:
            self.stashed = known + taken
            return taken
        self.message_type = head.type
        self.length = head.length
        self.item = head.item
        self.offset = head.offset
        self.stashed = 0
        if used < 0:
            self.state = BROKEN
            self.fault = used
            return taken
        self.received = 0
        if head.type == _BLOCK_TYPE:
            self.state = DATA
        else:
            self.state = PAYLOAD
            self.make_room_for_payload()
        return <size_t>used - known

    cdef void make_room_for_payload(self) noexcept nogil:
        # At most message_limit bytes, which parse_head() has checked.
        cdef uint8_t *larger
        if self.length > self.partial_room:
            larger = <uint8_t *>realloc(self.partial, <size_t>self.length)
            if larger == NULL:
                self.state = BROKEN
                self.fault = NO_MEMORY
                return
            self.partial = larger
            self.partial_room = <size_t>self.length

    cdef bint find_place(self) noexcept nogil:
        # Whether the data of the block under way has a place; rooms that it does not fit are left behind.
        cdef Room *room
        cdef Landed *landed
        if self.place != NULL:
            return True
        if self.landings == _LANDED_MAX or self.received:
            return False
        while self.room < self.rooms_made:
            room = &self.rooms[self.room % _ROOMS_MAX]
            if self.length <= room.size - room.used and (
                not room.bound or (room.item == self.item and room.offset == self.offset)
            ):
                landed = &self.arrived[self.landings]
                landed.item = self.item
                landed.offset = self.offset
                landed.length = self.length
                landed.room = self.room
                landed.start = room.used
                self.place = room.data + room.used
                room.used += <size_t>self.length
                room.offset += self.length
                return True
            self.room += 1
        return False

    cdef size_t take_bytes(self, const uint8_t *data, size_t size) noexcept nogil:
        # Part or all of a payload or of a block's data, whose place was checked when it was found or set.
        cdef uint64_t missing = self.length - self.received
        cdef size_t take = size if size < missing else <size_t>missing
        if take:
            memcpy((self.place if self.state == DATA else self.partial) + self.received, data, take)
        self.received += take
        if self.received < self.length:
            return take
        if self.state == PAYLOAD:
            self.fresh = True
            self.event = 1
        elif self.has_target:
            self.event = 3
        else:
            self.landings += 1
        self.place = NULL
        self.state = HEAD
        return take

    cdef object broken(self):
        if self.fault == NO_MEMORY:
            return MemoryError()
        if self.fault == TOO_LONG:
            what = f"a message of type {self.message_type:#x} with {self.length} bytes"
            what += f", where {self.message_limit} are allowed"
        elif self.fault == UNEXPECTED:
            what = "a block on a stream that carries none"
        elif self.fault == BLOCK_TOO_LONG:
            what = f"a block of {self.length} bytes, where {self.block_limit} are allowed"
        elif self.fault == EMPTY:
            what = "a block without data"
        else:
            what = f"a block of {self.length} bytes at offset {self.offset}, which ends beyond 2^62-1"
        return RemoteProtocolError(f"the peer sent {what}; check that both sides run the same release of Spaceblock")


cdef size_t take_for(void *owner, const uint8_t *data, size_t size) noexcept nogil:
    return (<Deframer>owner).run(data, size)


cdef int parse_head(
    const uint8_t *data, size_t size, uint64_t message_limit, uint64_t block_limit, Head *head
) noexcept nogil:
    # The bytes used, or a Fault; every limit is checked as soon as its number is there.
    cdef size_t at, used
    cdef uint64_t fields
    head.length = head.item = head.offset = 0
    at = get_var(data, size, &head.type)
    if at == 0:
        return INCOMPLETE
    if head.type == _BLOCK_TYPE and block_limit == 0:
        return UNEXPECTED
    used = get_var(data + at, size - at, &head.length)
    if used == 0:
        return INCOMPLETE
    at += used
    if head.type != _BLOCK_TYPE:
        return TOO_LONG if head.length > message_limit else <int>at
    if head.length > block_limit + _BLOCK_FIELDS_MAX:
        return BLOCK_TOO_LONG
    used = get_var(data + at, size - at, &head.item)
    if used == 0:
        return INCOMPLETE
    at += used
    fields = used
    used = get_var(data + at, size - at, &head.offset)
    if used == 0:
        return INCOMPLETE
    at += used
    fields += used
    if head.length <= fields:
        return EMPTY
    head.length -= fields
    if head.length > block_limit:
        return BLOCK_TOO_LONG
    if head.length > _VAR_MAX - head.offset:
        return BEYOND
    return <int>at


# ---- What enters from Python ----


cdef int acquire(object data, Py_buffer *view, bint writable) except -1:
    # The caller releases the view. NumPy answers with ValueError where others raise BufferError.
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}")
    try:
        PyObject_GetBuffer(data, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    except ValueError as error:
        raise BufferError(str(error)) from None
    return 0


cdef uint64_t bounded(object value, str name, uint64_t low, uint64_t high) except? 0xdead:
    cdef uint64_t number = 0
    cdef bint inside
    try:
        number = PyNumber_Index(value)
        inside = low <= number <= high
    except OverflowError:
        inside = False
    if not inside:
        raise ValueError(f"{name} is {value}, outside {low} to {high}; pass a number within")
    return number
