# cython: language_level=3, auto_pickle=False
"""The two directions of a stream, as the engine sees them.

Rules: offsets are the stream's. What is written stays where it is until it is acknowledged, and is sent again from
there; the owner of each piece is kept that long and told when it is over. What arrives in order is handed on once for
each receive batch, straight to an intake where there is one. Sizes and offsets were checked against the credit by the
caller. What moves bytes needs no GIL.
"""

from collections import deque

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cimport cython

GAPS_MAX = 1_000
"""Runs of bytes kept beyond a gap: more means a peer that splits its data to cost us time."""

cdef size_t _GAPS_MAX = GAPS_MAX
cdef uint64_t _RING_MIN = 65_536


@cython.final
cdef class StreamTable:
    """Streams by a number; whoever adds one keeps it alive."""

    def __dealloc__(self):
        free(self.keys)
        free(self.values)

    cdef void* find(self, uint64_t key) noexcept nogil:
        cdef size_t i
        if self.last < self.count and self.keys[self.last] == key:
            return self.values[self.last]
        for i in range(self.count):
            if self.keys[i] == key:
                self.last = i
                return self.values[i]
        return NULL

    cdef int add(self, uint64_t key, void* value) except -1:
        cdef size_t capacity
        cdef uint64_t* keys
        cdef void** values
        if self.count == self.capacity:
            capacity = max(<size_t>16, 2 * self.capacity)
            keys = <uint64_t*>realloc(self.keys, capacity * sizeof(uint64_t))
            if keys == NULL:
                raise MemoryError
            self.keys = keys
            values = <void**>realloc(self.values, capacity * sizeof(void*))
            if values == NULL:
                raise MemoryError
            self.values = values
            self.capacity = capacity
        self.keys[self.count] = key
        self.values[self.count] = value
        self.count += 1
        return 0

    cdef void remove(self, uint64_t key) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            if self.keys[i] == key:
                self.count -= 1
                self.keys[i] = self.keys[self.count]
                self.values[i] = self.values[self.count]
                return


@cython.final
cdef class Spans:
    """Disjoint ranges of offsets, kept in order: mostly a handful, thousands where a peer wants it so."""

    def __dealloc__(self):
        free(self.spans)

    cpdef int add(self, uint64_t start, uint64_t stop) except -1 nogil:
        """Join a range to the others."""
        cdef size_t i, j
        if start >= stop:
            return 0
        i = j = self.find(start)
        while j < self.count and self.spans[j].start <= stop:
            start = min(start, self.spans[j].start)
            stop = max(stop, self.spans[j].stop)
            j += 1
        if i == j:
            self._reserve()
            memmove(self.spans + i + 1, self.spans + i, (self.count - i) * sizeof(Span))
            self.count += 1
        elif j - i > 1:
            memmove(self.spans + i + 1, self.spans + j, (self.count - j) * sizeof(Span))
            self.count -= j - i - 1
        self.spans[i].start = start
        self.spans[i].stop = stop
        return 0

    cpdef int remove(self, uint64_t start, uint64_t stop) except -1 nogil:
        """Take a range away, whatever part of it is there."""
        cdef size_t i = self.find(start), j
        cdef uint64_t old_stop
        if start >= stop:
            return 0
        if i < self.count and self.spans[i].start < start:
            old_stop = self.spans[i].stop
            self.spans[i].stop = start
            i += 1
            if old_stop > stop:
                return self.add(stop, old_stop)
        j = i
        while j < self.count and self.spans[j].stop <= stop:
            j += 1
        if j < self.count and self.spans[j].start < stop:
            self.spans[j].start = stop
        if j > i:
            memmove(self.spans + i, self.spans + j, (self.count - j) * sizeof(Span))
            self.count -= j - i
        return 0

    cdef size_t find(self, uint64_t offset) noexcept nogil:
        """The first range that ends at ``offset`` or behind it."""
        cdef size_t low = 0, high = self.count, middle
        while low < high:
            middle = (low + high) // 2
            if self.spans[middle].stop < offset:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int _reserve(self) except -1 nogil:
        cdef size_t capacity
        cdef Span* spans
        if self.count < self.capacity:
            return 0
        capacity = max(<size_t>8, 2 * self.capacity)
        spans = <Span*>realloc(self.spans, capacity * sizeof(Span))
        if spans == NULL:
            raise MemoryError
        self.spans = spans
        self.capacity = capacity
        return 0

    def __iter__(self):
        return iter([(self.spans[i].start, self.spans[i].stop) for i in range(self.count)])


@cython.final
cdef class _Owner:
    """Holds a caller's buffer until its bytes are acknowledged."""
    cdef Py_buffer view
    cdef bint held
    cdef object release

    def __cinit__(self, data, release):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.held = True
        self.release = release

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef drop(self):
        if self.held:
            self.held = False
            PyBuffer_Release(&self.view)
        release, self.release = self.release, None
        if release is not None:
            release()


@cython.final
cdef class SendStream:
    """What this side sends: pieces of memory in the order of their offsets."""

    def __cinit__(self, uint64_t stream_id, uint64_t limit):
        self.stream_id = stream_id
        self.limit = limit
        self.awaited = -1
        self._lost = Spans()
        self._acknowledged = Spans()
        self._owners = deque()

    def __dealloc__(self):
        free(self._pieces)

    def write(self, data, bint fin=False, release=None):
        """Queue ``data`` without copying it; ``release()`` is called when it is acknowledged or given up."""
        cdef _Owner owner = _Owner(data, release)
        cdef size_t size = <size_t>owner.view.len
        if self.stopped or size == 0:
            owner.drop()
            size = 0
        else:
            self._add_piece(<const uint8_t*>owner.view.buf, size)
            self._owners.append(owner)
        self.written += size
        if fin and not self.stopped:
            self.fin_written = True
            self.fin_pending = True

    def adopt(
        self, uint64_t acknowledged, bytes data, uint64_t sent, lost, beyond, bint fin_written, bint fin_pending,
        bint fin_acknowledged=False,
    ):
        """Go on with a stream that another engine began: ``data`` is what is not acknowledged."""
        self.acknowledged = acknowledged
        self.written = acknowledged
        self.write(data)
        self.sent = sent
        self.fin_written = fin_written
        self.fin_pending = fin_pending
        self.fin_acknowledged = fin_acknowledged
        for start, stop in beyond:
            self._acknowledged.add(start, stop)
        for start, stop in lost:
            self._lost.add(start, stop)

    def send(self, size_t room, uint64_t credit):
        """Take what is to be sent next as ``(offset, bytes, fin)``, at most ``room`` bytes; None if there is nothing.

        ``credit`` is what is left of the connection's; bytes that are sent again use none.
        """
        cdef Run run
        cdef bytes data
        if not self.has_work(credit) or not self.next_run(room, credit, &run):
            return None
        data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>run.size)
        if run.size:
            self._copy(run.offset, run.size, <uint8_t*>PyBytes_AS_STRING(data))
        self.mark_sent(&run)
        return run.offset, data, run.fin

    def acknowledge(self, uint64_t start, uint64_t stop, bint fin=False):
        """The peer has these bytes."""
        self.on_acknowledged(start, stop - start, fin)
        self.release()

    def lose(self, uint64_t start, uint64_t stop, bint fin=False):
        """These bytes are to be sent again."""
        self.on_lost(start, stop - start, fin)

    def give_up(self):
        """Nothing is sent any more: the stream was reset, or the connection is over."""
        self.stopped = True
        self.fin_pending = False
        self._count = 0
        self.releasable = 0
        owners, self._owners = self._owners, deque()
        for owner in owners:
            (<_Owner>owner).drop()

    def release(self):
        """Let go of what was acknowledged."""
        cdef _Owner owner
        while self.releasable:
            self.releasable -= 1
            owner = self._owners.popleft()
            owner.drop()

    @property
    def backlog(self):
        """Bytes not yet acknowledged, an unacknowledged FIN counting as one."""
        return self._backlog()

    @property
    def finished(self):
        """All was acknowledged, FIN included."""
        return self.fin_acknowledged and self.acknowledged == self.written

    cdef uint64_t _backlog(self) noexcept nogil:
        if self.stopped:
            return 0
        return self.written - self.acknowledged + (self.fin_written and not self.fin_acknowledged)

    cdef bint is_awaited(self) noexcept nogil:
        """Whether Python has to be told that as much was acknowledged as it waits for, or everything."""
        return (self.awaited >= 0 and self._backlog() <= <uint64_t>self.awaited) or (
            self.fin_acknowledged and self.acknowledged == self.written
        )

    cdef int _add_piece(self, const uint8_t* data, size_t size) except -1:
        cdef Piece* pieces
        cdef size_t capacity
        if self._first + self._count == self._capacity:
            if self._first > self._capacity // 2:
                memmove(self._pieces, self._pieces + self._first, self._count * sizeof(Piece))
            else:
                capacity = max(<size_t>16, 2 * self._capacity)
                pieces = <Piece*>malloc(capacity * sizeof(Piece))
                if pieces == NULL:
                    raise MemoryError
                if self._count:
                    memcpy(pieces, self._pieces + self._first, self._count * sizeof(Piece))
                free(self._pieces)
                self._pieces = pieces
                self._capacity = capacity
            self._cursor = self._cursor - self._first if self._cursor > self._first else 0
            self._first = 0
        pieces = self._pieces + self._first + self._count
        pieces.data = data
        pieces.start = self.written
        pieces.stop = self.written + size
        self._count += 1
        return 0

    cdef bint has_work(self, uint64_t credit) noexcept nogil:
        """Whether there is anything that may be sent now, with ``credit`` bytes left of the connection's."""
        if self.stopped or self.held:
            return False
        if self._lost.count or (self.fin_pending and self.sent == self.written):
            return True
        return credit > 0 and self.sent < self.written and self.sent < self.limit

    cdef bint next_run(self, size_t room, uint64_t credit, Run* run) noexcept nogil:
        """What to send next, at most ``room`` bytes: what was lost first; False if there is nothing."""
        cdef uint64_t size
        if self.stopped or self.held:
            return False
        if self._lost.count:
            run.offset = self._lost.spans[0].start
            size = self._lost.spans[0].stop - run.offset
            run.is_new = False
        else:
            run.offset = self.sent
            size = self.written - self.sent
            run.is_new = True
            if self.sent >= self.limit:
                size = 0
            else:
                size = min(size, min(self.limit - self.sent, credit))
        run.size = <size_t>min(size, <uint64_t>room)
        run.fin = self.fin_pending and run.offset + run.size == self.written
        return run.size > 0 or run.fin

    cdef void mark_sent(self, const Run* run) noexcept nogil:
        """The run of :meth:`next_run`, or the front of it, is in a packet now."""
        if run.is_new:
            self.sent += run.size
        elif run.size == self._lost.spans[0].stop - self._lost.spans[0].start:
            self._lost.count -= 1
            memmove(self._lost.spans, self._lost.spans + 1, self._lost.count * sizeof(Span))
        else:
            self._lost.spans[0].start = self._lost.spans[0].start + run.size
        if run.fin:
            self.fin_pending = False

    cdef const uint8_t* bytes_at(self, uint64_t offset, size_t size, uint8_t* scratch) noexcept nogil:
        """The bytes from ``offset``: where they lie, or in ``scratch`` if they are spread over several pieces."""
        cdef size_t i = self._find(offset)
        if self._pieces[i].stop - offset >= size:
            return self._pieces[i].data + (offset - self._pieces[i].start)
        self._copy(offset, size, scratch)
        return scratch

    cdef void _copy(self, uint64_t offset, size_t size, uint8_t* scratch) noexcept nogil:
        cdef size_t i = self._find(offset)
        cdef size_t done = 0, part
        cdef uint64_t within
        while done < size:
            within = offset + done - self._pieces[i].start
            part = <size_t>min(<uint64_t>(size - done), self._pieces[i].stop - self._pieces[i].start - within)
            memcpy(scratch + done, self._pieces[i].data + within, part)
            done += part
            i += 1

    cdef size_t _find(self, uint64_t offset) noexcept nogil:
        cdef size_t low = self._first, high = self._first + self._count - 1, middle
        if low <= self._cursor <= high and self._pieces[self._cursor].start <= offset:
            if offset < self._pieces[self._cursor].stop:
                return self._cursor
            if self._cursor < high and offset < self._pieces[self._cursor + 1].stop:
                self._cursor += 1
                return self._cursor
        while low < high:
            middle = (low + high + 1) // 2
            if self._pieces[middle].start <= offset:
                low = middle
            else:
                high = middle - 1
        self._cursor = low
        return low

    cdef int on_acknowledged(self, uint64_t offset, uint64_t size, bint fin) except -1 nogil:
        """The peer has these bytes."""
        if self.stopped:
            return 0
        if fin:
            self.fin_acknowledged = True
            self.fin_pending = False
        if size == 0:
            return 0
        if self._lost.count:
            self._lost.remove(offset, offset + size)
        if offset > self.acknowledged:
            self._acknowledged.add(offset, offset + size)
            return 0
        self.acknowledged = max(self.acknowledged, offset + size)
        while self._acknowledged.count and self._acknowledged.spans[0].start <= self.acknowledged:
            self.acknowledged = max(self.acknowledged, self._acknowledged.spans[0].stop)
            self._acknowledged.remove(0, self.acknowledged)
        while self._count and self._pieces[self._first].stop <= self.acknowledged:
            self._first += 1
            self._count -= 1
            self.releasable += 1
        return 0

    cdef int on_lost(self, uint64_t offset, uint64_t size, bint fin) except -1 nogil:
        """These bytes are to be sent again, but for those that were acknowledged by another packet."""
        cdef size_t i
        if self.stopped:
            return 0
        if fin and not self.fin_acknowledged:
            self.fin_pending = True
        if offset + size <= self.acknowledged or size == 0:
            return 0
        self._lost.add(max(offset, self.acknowledged), offset + size)
        i = self._acknowledged.find(offset)
        while i < self._acknowledged.count and self._acknowledged.spans[i].start < offset + size:
            self._lost.remove(self._acknowledged.spans[i].start, self._acknowledged.spans[i].stop)
            i += 1
        return 0


@cython.final
cdef class ReceiveStream:
    """What the peer sends: in order as far as it goes, and what came too early."""

    def __cinit__(self, uint64_t stream_id, uint64_t limit, owner=None):
        self.stream_id = stream_id
        self.limit = limit
        self.final_size = -1
        self.owner = owner
        self._early = Spans()

    def __dealloc__(self):
        free(self._spans)
        free(self._sizes)
        free(self._ring)

    def set_intake(self, intake):
        """Have bytes go to ``intake`` as they arrive: an object with a ``capsule``; what waits goes by pull()."""
        self._intake = <Intake*>PyCapsule_GetPointer(intake.capsule, "spaceblock.intake")
        self.intake = intake
        self.credited = self.taken

    def clear_intake(self):
        """What comes and what waits is handed on by take() again."""
        self._intake = NULL
        self.intake = None

    def receive_frame(self, uint64_t offset, bytes data, bint fin=False):
        """Take in one STREAM frame and hand on what it brings in order; ValueError if it breaks a rule."""
        cdef int result = self.receive(offset, <const uint8_t*>PyBytes_AS_STRING(data), len(data), fin)
        if result > 1:
            raise ValueError("a stream's final size changed" if result == 2 else "a stream with too many gaps")
        self.drain()
        return self.take()

    cdef int receive(self, uint64_t offset, const uint8_t* data, size_t size, bint fin) except -1 nogil:
        """Take in one STREAM frame; ``data`` must stay valid until :meth:`drain`. Returns whether to call that.

        2 means that the final size changed (FINAL_SIZE_ERROR), 3 that there are too many gaps.
        """
        cdef uint64_t stop = offset + size
        cdef uint64_t skip
        cdef bint grown = False
        if self.final_size >= 0 and (stop > <uint64_t>self.final_size or (fin and stop != <uint64_t>self.final_size)):
            return 2
        if fin:
            if stop < self.highest:
                return 2
            grown = self.final_size < 0
            self.final_size = <int64_t>stop
        self.highest = max(self.highest, stop)
        if self.finished:
            return 0
        if stop <= self.arrived:
            self.ended |= grown and self.arrived == stop
            return self.ended
        if offset > self.arrived:
            if size:
                self._reserve(stop)
                self._early.add(offset, stop)
                if self._early.count > _GAPS_MAX:
                    return 3
                self._put(offset, data, size)
            return 0
        skip = self.arrived - offset
        if self._in_place == self.arrived:
            self._append(data + skip, size - <size_t>skip)
        else:
            self._reserve(stop)
            self._put(self.arrived, data + skip, size - skip)
        self.arrived = stop
        if self._early.count:
            self._take_early()
        self.ended |= self.final_size >= 0 and self.arrived == <uint64_t>self.final_size
        return 1

    cdef int drain(self) except -1 nogil:
        """Hand on what arrived in order, as far as the intake takes it; the packets' memory is not needed then."""
        cdef size_t i, part, done = 0, count = self._count
        cdef uint64_t at = self._in_place, stop = self.arrived
        cdef const uint8_t* run
        for i in range(count):
            at -= self._sizes[i]
        if self._intake != NULL and count and self.taken == at:
            done = self._intake.take(self._intake.owner, self._spans, self._sizes, count)
            self.taken += done
        # Where there is no memory for the rest, it has not arrived, and nothing refers to the packets any more.
        self._count = 0
        for i in range(count):
            if done < self._sizes[i]:
                self.arrived = self._in_place = at + done
                self._reserve(stop)
                self._put(at + done, self._spans[i] + done, self._sizes[i] - done)
                done = 0
            else:
                done -= self._sizes[i]
            at += self._sizes[i]
        self.arrived = self._in_place = stop
        while self._intake != NULL and self.taken < self.arrived:
            at = self.taken & (self._ring_size - 1)
            run = self._ring + at
            part = <size_t>min(self.arrived - self.taken, self._ring_size - at)
            done = self._intake.take(self._intake.owner, &run, &part, 1)
            self.taken += done
            if done < part:
                break
        return 0

    def pull(self):
        """Hand on to the intake what waits for it; returns what it took, and whether that was all there will be."""
        self.drain()
        return self.collect()

    def collect(self):
        """Bytes that the intake took since the last call, and whether they are the last."""
        cdef uint64_t count = self.taken - self._told
        cdef bint fin = self.final_size >= 0 and self.taken == <uint64_t>self.final_size
        self._told = self.taken
        self.ended = False
        if fin:
            self.finished = True
        return count, fin

    def take(self):
        """What arrived in order since the last call, as ``(bytes, fin)``."""
        cdef uint64_t size = self.arrived - self.taken, at, part
        cdef bytes result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        if size:
            at = self.taken & (self._ring_size - 1)
            part = min(size, self._ring_size - at)
            memcpy(PyBytes_AS_STRING(result), self._ring + at, <size_t>part)
            memcpy(PyBytes_AS_STRING(result) + part, self._ring, <size_t>(size - part))
            self.taken = self.arrived
        _, fin = self.collect()
        return result, fin

    def adopt(self, uint64_t highest, final_size, uint64_t arrived, early):
        """Go on with a stream of which ``arrived`` bytes were taken already and others, by offset, came too early."""
        self.arrived = self.taken = self._told = self._in_place = arrived
        self.highest = highest
        self.final_size = -1 if final_size is None else final_size
        self.finished = self.final_size >= 0 and arrived == <uint64_t>self.final_size
        for offset, data in early:
            self.receive(offset, <const uint8_t*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), False)
        self.drain()

    def end(self, int64_t final_size):
        """The peer reset the stream at ``final_size``; returns False where that contradicts what came before."""
        if <uint64_t>final_size < self.highest or (self.final_size >= 0 and self.final_size != final_size):
            return False
        self.final_size = final_size
        self.highest = <uint64_t>final_size
        self.finished = True
        return True

    cdef int _append(self, const uint8_t* data, size_t size) except -1 nogil:
        cdef size_t capacity
        cdef const uint8_t** spans
        cdef size_t* sizes
        if self._count == self._capacity:
            capacity = max(<size_t>64, 2 * self._capacity)
            spans = <const uint8_t**>realloc(self._spans, capacity * sizeof(uint8_t*))
            if spans == NULL:
                raise MemoryError
            self._spans = spans
            sizes = <size_t*>realloc(self._sizes, capacity * sizeof(size_t))
            if sizes == NULL:
                raise MemoryError
            self._sizes = sizes
            self._capacity = capacity
        self._spans[self._count] = data
        self._sizes[self._count] = size
        self._count += 1
        self._in_place += size
        return 0

    cdef int _take_early(self) except -1 nogil:
        """What the gap kept back is in order now."""
        while self._early.count and self._early.spans[0].start <= self.arrived:
            self.arrived = max(self.arrived, self._early.spans[0].stop)
            self._early.remove(0, self.arrived)
        return 0

    cdef int _reserve(self, uint64_t stop) except -1 nogil:
        """Have a ring for the bytes from the first that was not taken up to ``stop``."""
        cdef uint64_t size = max(_RING_MIN, self._ring_size), at, part
        cdef uint8_t* old = self._ring
        cdef uint64_t old_size = self._ring_size
        while size < stop - self.taken:
            size *= 2
        if size == old_size:
            return 0
        self._ring = <uint8_t*>malloc(<size_t>size)
        if self._ring == NULL:
            self._ring = old
            raise MemoryError
        self._ring_size = size
        at = self.taken
        # Whatever of it is not kept is copied for nothing, which is rare and harmless.
        while at < self.taken + old_size:
            part = min(old_size - (at & (old_size - 1)), self.taken + old_size - at)
            self._put(at, old + (at & (old_size - 1)), part)
            at += part
        free(old)
        return 0

    cdef void _put(self, uint64_t offset, const uint8_t* data, uint64_t size) noexcept nogil:
        cdef uint64_t at = offset & (self._ring_size - 1)
        cdef uint64_t part = min(size, self._ring_size - at)
        memcpy(self._ring + at, data, <size_t>part)
        memcpy(self._ring, data + part, <size_t>(size - part))
