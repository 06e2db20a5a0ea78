# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""The compiled core that reads: a stream's messages, and the data of its blocks straight to where it belongs.

Its specification by example is ``spaceblock/_pydeframer.py``, its contract ``spaceblock/_fastdeframer.pyi``; the rules
are those of ``_fastblock.pyx``. What takes bytes needs no GIL, so that the QUIC engine can feed it packet by packet.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from spaceblock._fastblock cimport _BLOCK_TYPE, _HEADER_ROOM, acquire, bounded
from spaceblock.varint cimport VARINT_MAX, read_varint

from spaceblock.errors import RemoteProtocolError

cdef enum:
    # Item and offset, at eight bytes each: what a Block's length may count beyond its data.
    _BLOCK_FIELDS_MAX = 16
    # Rooms that a Deframer holds at once, and blocks and ends that are noted before somebody must look.
    _ROOMS_MAX = 8
    _LANDED_MAX = 512
    # Pieces of memory that a belt has at most.
    _PIECES_MAX = 4

cdef enum State:
    HEAD
    PAYLOAD
    # A Block's data is due.
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
    # In the room; of what lies on the belt, its piece, and of what was settled, the number of blocks.
    size_t start

# In place of a room's number.
cdef uint64_t _ON_BELT = 2**64 - 1
cdef uint64_t _SETTLED = 2**64 - 2

# What another compiled module feeds without the GIL, given as a capsule of this name: take() is given runs of bytes
# that follow each other, and says how many bytes it took, fewer than all when it waits for a call from Python.
cdef struct Intake:
    void *owner
    size_t (*take)(void *owner, const uint8_t *const *runs, const size_t *sizes, size_t count) noexcept nogil
    # Something lies on the belt, which is in the cache if settle() is called now.
    bint laden


cdef const char *INTAKE = "spaceblock.intake"


@cython.final
cdef class Deframer:
    NEED_DATA = 0
    MESSAGE = 1
    BLOCK = 2

    cdef readonly int event
    cdef readonly uint64_t message_type
    cdef readonly uint64_t item
    cdef readonly uint64_t offset
    cdef readonly uint64_t length

    cdef uint64_t message_limit
    cdef uint64_t block_limit
    # The type of the message that ends an item, 0 for none.
    cdef uint64_t end_type
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
    # Where the data under way goes, in the room in use. NULL while it has no place.
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
    # The belt takes blocks of one item that go on from each other, and settle() gives them to `keep`. Its memory is
    # held as long as there is one; it may run no more and be laden still.
    cdef object keep
    cdef readonly object belt_error
    cdef bint belt_runs
    cdef uint64_t belt_item
    cdef uint64_t belt_offset
    cdef uint64_t belt_limit
    cdef uint64_t belt_grid
    # Either blocks lie in the first piece, in place, the item's byte `belt_start` at its first, or each in one of them.
    cdef bint belt_in_place
    cdef uint64_t belt_start
    cdef Py_buffer[_PIECES_MAX] pieces
    cdef size_t pieces_made
    # Blocks that have a place on the belt and are not settled, and by bits the pieces that they are in.
    cdef size_t belt_load
    cdef uint64_t pieces_used
    # The block under way is on the belt.
    cdef bint is_on_belt
    # Where the last block that found a place ends.
    cdef uint64_t last_item
    cdef uint64_t last_stop
    # Held for every access: what feeds it may be another thread than the one that gives it rooms. No object that may
    # have others collected is made with it: their finalizers may wait for what that thread holds.
    cdef cython.pythread_type_lock lock

    def __init__(self, message_limit, block_limit, end_type=0):
        self.message_limit = bounded(message_limit, "message_limit", 0, VARINT_MAX)
        self.block_limit = bounded(block_limit, "block_limit", 0, VARINT_MAX)
        self.end_type = bounded(end_type, "end_type", 0, VARINT_MAX)
        self.complete = b""
        self.last_item = VARINT_MAX + 1

    def __dealloc__(self):
        self.drop_belt()
        self.drop_rooms(self.rooms_made)
        free(self.partial)

    @property
    def at_boundary(self):
        with self.lock:
            return self.state == HEAD and self.stashed == 0

    @property
    def in_block(self):
        return self.state == DATA

    @property
    def has_settled(self):
        with self.lock:
            return self.landings > 0 and self.arrived[0].room == _SETTLED

    @property
    def payload(self):
        with self.lock:
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
        cdef bint fits
        acquire(data, &view, False)
        try:
            start = bounded(pos, "pos", 0, <uint64_t>view.len)
            self.check()
            self.proceed()
            with self.lock:
                fits = self.state != DATA or self.find_place()
                if fits:
                    self.event = 0
                    start += self.run(<const uint8_t *>view.buf + start, <size_t>(<uint64_t>view.len - start))
            if not fits:
                raise ValueError("a block's data has no room; call provide() before the next feed()")
        finally:
            PyBuffer_Release(&view)
        self.check()
        return start

    def check(self):
        if self.state == BROKEN:
            raise self.broken()

    def proceed(self):
        with self.lock:
            self.keep_payload()
            if self.event == 1:
                self.event = 0

    def ready(self):
        with self.lock:
            if self.event == 1 or self.state == BROKEN or (self.state == DATA and not self.find_place()):
                return False
            if self.event == 2:
                self.event = 0
            return True

    def provide(self, memory, start=0, item=None, offset=0):
        cdef Py_buffer view
        cdef Room *room
        cdef uint64_t at = bounded(start, "start", 0, VARINT_MAX)
        cdef uint64_t of_item = 0 if item is None else bounded(item, "item", 0, VARINT_MAX)
        cdef uint64_t from_offset = bounded(offset, "offset", 0, VARINT_MAX)
        self.drop_rooms(self.room)
        acquire(memory, &view, True)
        if at > <size_t>view.len or self.rooms_made - self.rooms_held == _ROOMS_MAX:
            PyBuffer_Release(&view)
            raise ValueError(f"room at {start} of a buffer, or more than {_ROOMS_MAX} rooms; provide fewer, within it")
        with self.lock:
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
        cdef Landed[_LANDED_MAX] found
        cdef Landed *each
        cdef size_t i, count = 0
        cdef int64_t room
        self.settle()
        with self.lock:
            while count < self.landings and self.arrived[count].room != _ON_BELT:
                count += 1
            memcpy(found, self.arrived, count * sizeof(Landed))
            self.forget_landed(0, count)
        listed = []
        for i in range(count):
            each = &found[i]
            room = -1 if each.room == _SETTLED else <int64_t>each.room
            listed.append((each.item, each.offset, each.length, room, each.start))
        return listed

    def convey(self, item, limit, grid, keep, memories, start=None):
        cdef uint64_t of_item = bounded(item, "item", 0, VARINT_MAX)
        cdef uint64_t to_limit = bounded(limit, "limit", 0, VARINT_MAX)
        cdef uint64_t of_grid = bounded(grid, "grid", 1, VARINT_MAX)
        cdef bint in_place = start is not None
        cdef uint64_t from_start = bounded(start, "start", 0, VARINT_MAX) if in_place else 0
        cdef size_t count = len(memories)
        if self.keep is not None or not 0 < count <= (1 if in_place else _PIECES_MAX):
            raise ValueError(f"a second belt, or one of {count} pieces; halt() the first, and give 1 to {_PIECES_MAX}")
        try:
            for memory in memories:
                acquire(memory, &self.pieces[self.pieces_made], True)
                self.pieces_made += 1
            with self.lock:
                self.belt_runs = self.last_item == of_item and from_start <= self.last_stop <= to_limit
                if self.belt_runs and in_place and to_limit - from_start > <size_t>self.pieces[0].len:
                    self.belt_runs = False
                if self.belt_runs:
                    self.belt_item = of_item
                    self.belt_offset = self.last_stop
                    self.belt_limit = to_limit
                    self.belt_grid = of_grid
                    self.belt_in_place = in_place
                    self.belt_start = from_start
                    self.keep = keep
        finally:
            if not self.belt_runs:
                self.drop_belt()
        return self.belt_runs

    def extend(self, limit):
        cdef uint64_t to_limit = bounded(limit, "limit", 0, VARINT_MAX)
        with self.lock:
            if not self.belt_in_place:
                self.belt_limit = max(self.belt_limit, to_limit)

    def settle(self):
        cdef Landed block
        cdef size_t at
        with self.lock:
            self.intake.laden = False
        while True:
            with self.lock:
                at = 1 if self.landings and self.arrived[0].room == _SETTLED else 0
                if at >= self.landings or self.arrived[at].room != _ON_BELT:
                    return
                block = self.arrived[at]
            if self.belt_error is None:
                try:
                    self.keep_block(&block)
                except Exception as error:
                    self.belt_error = error
            with self.lock:
                self.note_settled(at, &block)

    def halt(self):
        self.settle()
        with self.lock:
            self.belt_runs = False
            if self.belt_load:
                return False
        if self.belt_error is not None and self.has_settled:
            return False
        self.drop_belt()
        return True

    def withdraw(self):
        with self.lock:
            if self.place == NULL:
                self.room = self.rooms_made
            return self.room

    @property
    def free(self):
        cdef uint64_t number
        cdef Room *room
        cdef uint64_t total = 0
        with self.lock:
            for number in range(self.room, self.rooms_made):
                room = &self.rooms[number % _ROOMS_MAX]
                if not room.bound:
                    total += room.size - room.used
            if self.belt_runs and not self.belt_in_place:
                total += self.belt_limit - self.belt_offset
        return total

    def release(self):
        cdef size_t at = 0
        with self.lock:
            self.place = NULL
            self.room = self.rooms_made
            while at < self.landings:
                if self.arrived[at].room == _ON_BELT:
                    self.forget_landed(at, 1)
                else:
                    at += 1
            self.belt_runs = False
        self.drop_rooms(self.room)
        self.drop_belt()

    cdef int keep_payload(self) except -1:
        # The next message overwrites it where it lies.
        if self.fresh:
            self.complete = PyBytes_FromStringAndSize(<const char *>self.partial, <Py_ssize_t>self.received)
            self.fresh = False
        return 0

    cdef int drop_rooms(self, uint64_t below) except -1:
        while self.rooms_held < below:
            self.rooms_held += 1
            PyBuffer_Release(&self.views[(self.rooms_held - 1) % _ROOMS_MAX])
        return 0

    cdef int drop_belt(self) except -1:
        # Nothing lies on it that somebody wants.
        self.keep = self.belt_error = None
        self.belt_load = self.pieces_used = 0
        while self.pieces_made:
            self.pieces_made -= 1
            PyBuffer_Release(&self.pieces[self.pieces_made])
        return 0

    cdef int keep_block(self, const Landed *block) except -1:
        cdef char *place = <char *>self.place_on_belt(block.offset, block.start)
        cdef object data = PyMemoryView_FromMemory(place, <Py_ssize_t>block.length, PyBUF_READ)
        try:
            self.keep(block.offset, data)
        finally:
            data.release()  # whoever has it still must not use it: the memory is used again
        return 0

    cdef uint8_t *place_on_belt(self, uint64_t offset, size_t piece) noexcept nogil:
        if self.belt_in_place:
            return <uint8_t *>self.pieces[0].buf + <size_t>(offset - self.belt_start)
        return <uint8_t *>self.pieces[piece].buf

    cdef void note_settled(self, size_t at, const Landed *block) noexcept nogil:
        # All that was settled and not listed yet is one run, as its blocks go on from each other.
        cdef Landed *run = &self.arrived[0]
        self.belt_load -= 1
        self.pieces_used &= ~(<uint64_t>1 << block.start)
        if at == 1 and run.item == block.item and block.offset - run.offset == run.length:
            run.length += block.length
            run.start += 1
            self.forget_landed(1, 1)
        else:
            self.arrived[at].room = _SETTLED
            self.arrived[at].start = 1

    cdef void forget_landed(self, size_t at, size_t count) noexcept nogil:
        # The record of the block under way, if there is one, is the one behind all others.
        memmove(&self.arrived[at], &self.arrived[at + count], (self.landings + 1 - at - count) * sizeof(Landed))
        self.landings -= count

    cdef size_t take(self, const uint8_t *const *runs, const size_t *sizes, size_t count) noexcept nogil:
        # The lock costs as much as a packet's bytes do, so it is taken once for all of them.
        cdef size_t i, done, taken = 0
        with self.lock:
            for i in range(count):
                done = self.run(runs[i], sizes[i])
                taken += done
                if done < sizes[i]:
                    break
        return taken

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
        cdef Landed *landed = &self.arrived[self.landings]
        if self.place != NULL:
            return True
        if self.landings == _LANDED_MAX or self.received:
            return False
        if self.belt_runs and self.item == self.belt_item and self.offset == self.belt_offset:
            return self.find_place_on_belt(landed)
        while self.room < self.rooms_made:
            room = &self.rooms[self.room % _ROOMS_MAX]
            if self.length <= room.size - room.used and (
                not room.bound or (room.item == self.item and room.offset == self.offset)
            ):
                self.note_place(landed, self.room, room.used)
                self.place = room.data + room.used
                room.used += <size_t>self.length
                room.offset += self.length
                self.is_on_belt = False
                return True
            self.room += 1
        return False

    cdef bint find_place_on_belt(self, Landed *landed) noexcept nogil:
        cdef size_t piece = 0
        if self.length > self.belt_limit - self.belt_offset:
            return False
        if self.length > self.belt_grid - self.offset % self.belt_grid:
            return False
        if not self.belt_in_place:
            while piece < self.pieces_made and self.pieces_used >> piece & 1:
                piece += 1
            if piece == self.pieces_made or self.length > <size_t>self.pieces[piece].len:
                return False
            self.pieces_used |= <uint64_t>1 << piece
        self.note_place(landed, _ON_BELT, piece)
        self.place = self.place_on_belt(self.offset, piece)
        self.belt_offset += self.length
        self.belt_load += 1
        self.is_on_belt = True
        return True

    cdef void note_place(self, Landed *landed, uint64_t room, size_t start) noexcept nogil:
        landed.item = self.last_item = self.item
        landed.offset = self.offset
        landed.length = self.length
        landed.room = room
        landed.start = start
        self.last_stop = self.offset + self.length

    cdef size_t take_bytes(self, const uint8_t *data, size_t size) noexcept nogil:
        # Part or all of a payload or of a block's data, whose place was checked when it was found.
        cdef uint64_t missing = self.length - self.received
        cdef size_t take = size if size < missing else <size_t>missing
        if take:
            memcpy((self.place if self.state == DATA else self.partial) + self.received, data, take)
        self.received += take
        if self.received < self.length:
            return take
        if self.state == PAYLOAD:
            if not self.note_end():
                self.fresh = True
                self.event = 1
        else:
            self.landings += 1
            self.intake.laden |= self.is_on_belt
        self.place = NULL
        self.state = HEAD
        return take

    cdef bint note_end(self) noexcept nogil:
        # Whether the payload is an item's end that could be noted among what landed; if not, it is an event.
        cdef const uint8_t *at = self.partial
        cdef const uint8_t *end = self.partial + self.length
        cdef Landed *landed = &self.arrived[self.landings]
        if self.end_type == 0 or self.message_type != self.end_type or self.landings == _LANDED_MAX:
            return False
        if not read_varint(&at, end, &landed.item) or not read_varint(&at, end, &landed.offset) or at != end:
            return False
        landed.length = 0
        landed.room = self.room
        landed.start = 0
        self.landings += 1
        return True

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


cdef size_t take_for(void *owner, const uint8_t *const *runs, const size_t *sizes, size_t count) noexcept nogil:
    return (<Deframer>owner).take(runs, sizes, count)


cdef int parse_head(
    const uint8_t *data, size_t size, uint64_t message_limit, uint64_t block_limit, Head *head
) noexcept nogil:
    # The bytes used, or a Fault; every limit is checked as soon as its number is there.
    cdef const uint8_t *at = data
    cdef const uint8_t *end = data + size
    cdef const uint8_t *fields
    head.length = head.item = head.offset = 0
    if not read_varint(&at, end, &head.type):
        return INCOMPLETE
    if head.type == _BLOCK_TYPE and block_limit == 0:
        return UNEXPECTED
    if not read_varint(&at, end, &head.length):
        return INCOMPLETE
    if head.type != _BLOCK_TYPE:
        return TOO_LONG if head.length > message_limit else <int>(at - data)
    if head.length > block_limit + _BLOCK_FIELDS_MAX:
        return BLOCK_TOO_LONG
    fields = at
    if not read_varint(&at, end, &head.item) or not read_varint(&at, end, &head.offset):
        return INCOMPLETE
    if head.length <= <uint64_t>(at - fields):
        return EMPTY
    head.length -= <uint64_t>(at - fields)
    if head.length > block_limit:
        return BLOCK_TOO_LONG
    if head.length > VARINT_MAX - head.offset:
        return BEYOND
    return <int>(at - data)
