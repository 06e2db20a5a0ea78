# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Received packet numbers, and the ACK frames that tell of them (RFC 9000, sections 13.2 and 19.3).

- Ranges are half-open and kept newest first, with at least one number between two of them.
- What has left the list of ranges is below the floor and never accepted again, so nothing new goes unacknowledged.
- A number from the wire is checked by subtraction before it is used, and nothing is read beyond the size given.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memmove, memset

from spaceblock.errors import RemoteProtocolError

from spaceblock.varint cimport VARINT_MAX, read_varint, varint_size, write_varint


@cython.final
cdef class PacketRanges:
    def __cinit__(self):
        self.largest = -1

    cpdef int add(self, uint64_t pn, int64_t now) noexcept nogil:
        """RFC 9000, section 12.3: a packet is processed once; what is too old to tell counts as processed."""
        cdef bint first = self.largest < 0
        cdef uint64_t expected = <uint64_t>(self.largest + 1)
        if pn < self.floor or pn > VARINT_MAX:
            return REPEATED
        if pn < expected:
            return self.add_late(pn)
        if pn - expected >= DUPLICATE_WINDOW:
            memset(self.seen, 0, sizeof(self.seen))
        else:
            self.clear(expected, pn)
        self.mark(pn)
        self.largest = <int64_t>pn
        self.largest_time = now
        if pn >= DUPLICATE_WINDOW:
            self.floor = max(self.floor, pn - DUPLICATE_WINDOW + 1)
        if self.count and self.ranges[0].stop == pn:
            self.ranges[0].stop += 1
        else:
            self.insert(0, pn)
        return IN_ORDER if first or pn == expected else OUT_OF_ORDER

    cpdef void count_marks(self, int ecn, uint64_t packets) noexcept nogil:
        if ecn == 2:
            self.ect0 += packets
        elif ecn == 1:
            self.ect1 += packets
        elif ecn == 3:
            self.ce += packets

    cpdef void forget_below(self, uint64_t pn) noexcept nogil:
        cdef Range *last
        if self.largest < 0:
            return
        pn = min(pn, <uint64_t>self.largest)
        self.floor = max(self.floor, pn)
        while self.ranges[self.count - 1].stop <= pn:
            self.count -= 1
        last = &self.ranges[self.count - 1]
        last.start = max(last.start, pn)

    cdef size_t write_ack(self, uint8_t *out, size_t room, uint64_t delay) noexcept nogil:
        """RFC 9000, section 19.3.1. The count of further ranges is below 64, so it always takes one byte."""
        cdef Range *newest = self.ranges
        cdef uint64_t gap, length, smallest
        cdef size_t at, place, i
        cdef size_t counts = 0
        if self.ect0 or self.ect1 or self.ce:
            counts = varint_size(self.ect0) + varint_size(self.ect1) + varint_size(self.ce)
        if self.count == 0 or room < counts:
            return 0
        room -= counts
        delay = min(delay, VARINT_MAX)
        length = newest.stop - newest.start - 1
        if room < 2 + varint_size(newest.stop - 1) + varint_size(delay) + varint_size(length):
            return 0
        out[0] = 0x03 if counts else 0x02
        at = 1 + write_varint(out + 1, newest.stop - 1)
        at += write_varint(out + at, delay)
        place = at
        at += 1
        at += write_varint(out + at, length)
        smallest = newest.start
        i = 1
        while i < self.count:
            gap = smallest - self.ranges[i].stop - 1
            length = self.ranges[i].stop - self.ranges[i].start - 1
            if varint_size(gap) + varint_size(length) > room - at:
                break
            at += write_varint(out + at, gap)
            at += write_varint(out + at, length)
            smallest = self.ranges[i].start
            i += 1
        out[place] = <uint8_t>(i - 1)
        if counts:
            at += write_varint(out + at, self.ect0)
            at += write_varint(out + at, self.ect1)
            at += write_varint(out + at, self.ce)
        return at

    # ---- For Python ----

    def add_span(self, uint64_t start, uint64_t stop, int64_t now):
        cdef uint64_t pn
        if stop > VARINT_MAX + 1:
            raise ValueError(f"packet numbers up to {stop}; pass numbers below 2^62")
        with nogil:
            for pn in range(start, stop):
                self.add(pn, now)

    def spans(self):
        return [(self.ranges[i].start, self.ranges[i].stop) for i in range(self.count)]

    def ack_frame(self, uint64_t delay, size_t room=ACK_FRAME_MAX):
        cdef uint8_t[ACK_FRAME_MAX] out
        cdef size_t size = self.write_ack(out, min(room, <size_t>ACK_FRAME_MAX), delay)
        return PyBytes_FromStringAndSize(<const char *>out, <Py_ssize_t>size)

    # ---- Helpers ----

    cdef int add_late(self, uint64_t pn) noexcept nogil:
        # floor <= pn < largest. Few packets come late, and then few ranges late, so the search starts at the newest.
        cdef size_t i = 0
        cdef bint meets_newer, meets_older
        if self.seen[pn % DUPLICATE_WINDOW // 64] >> pn % 64 & 1:
            return REPEATED
        while i < self.count and self.ranges[i].start > pn:
            i += 1
        meets_newer = i > 0 and self.ranges[i - 1].start == pn + 1
        meets_older = i < self.count and self.ranges[i].stop == pn
        if meets_newer and meets_older:
            self.ranges[i - 1].start = self.ranges[i].start
            self.count -= 1
            memmove(&self.ranges[i], &self.ranges[i + 1], (self.count - i) * sizeof(Range))
        elif meets_newer:
            self.ranges[i - 1].start = pn
        elif meets_older:
            self.ranges[i].stop = pn + 1
        elif i == RANGES_MAX:
            return REPEATED
        else:
            self.insert(i, pn)
        self.mark(pn)
        return OUT_OF_ORDER

    cdef void insert(self, size_t place, uint64_t pn) noexcept nogil:
        # place <= count, and place < RANGES_MAX. The oldest range makes room for a newer one.
        if self.count == RANGES_MAX:
            self.count -= 1
            self.floor = max(self.floor, self.ranges[self.count].stop)
        memmove(&self.ranges[place + 1], &self.ranges[place], (self.count - place) * sizeof(Range))
        self.ranges[place].start = pn
        self.ranges[place].stop = pn + 1
        self.count += 1

    cdef void mark(self, uint64_t pn) noexcept nogil:
        self.seen[pn % DUPLICATE_WINDOW // 64] |= <uint64_t>1 << pn % 64

    cdef void clear(self, uint64_t start, uint64_t stop) noexcept nogil:
        # stop - start < DUPLICATE_WINDOW; by whole words where it can.
        while start < stop:
            if start % 64 == 0 and stop - start >= 64:
                self.seen[start % DUPLICATE_WINDOW // 64] = 0
                start += 64
            else:
                self.seen[start % DUPLICATE_WINDOW // 64] &= ~(<uint64_t>1 << start % 64)
                start += 1


cdef int parse_ack(const uint8_t *data, size_t size, AckFrame *out, size_t *used) noexcept nogil:
    """RFC 9000, section 19.3: a range that would begin below packet 0 is an error, wherever in the frame it stands."""
    cdef const uint8_t *at = data
    cdef const uint8_t *end = data + size
    cdef uint64_t kind, more, gap, length, largest
    if not read_varint(&at, end, &kind) or kind < 2 or kind > 3:
        return -1
    if not (read_varint(&at, end, &out.largest) and read_varint(&at, end, &out.delay)):
        return -1
    if not (read_varint(&at, end, &more) and read_varint(&at, end, &length)) or length > out.largest:
        return -1
    largest = out.largest
    out.ranges[0].start = largest - length
    out.ranges[0].stop = largest + 1
    out.count = 1
    while more:
        more -= 1
        # From here on ``largest`` is the smallest number of the range before, until the gap is known.
        largest -= length
        if not (read_varint(&at, end, &gap) and read_varint(&at, end, &length)):
            return -1
        if largest < 2 or gap > largest - 2 or length > largest - 2 - gap:
            return -1
        largest -= gap + 2
        if out.count < ACK_RANGES_MAX:
            out.ranges[out.count].start = largest - length
            out.ranges[out.count].stop = largest + 1
            out.count += 1
    out.has_ecn = kind == 3
    out.ect0 = out.ect1 = out.ce = 0
    if out.has_ecn:
        if not (read_varint(&at, end, &out.ect0) and read_varint(&at, end, &out.ect1)):
            return -1
        if not read_varint(&at, end, &out.ce):
            return -1
    used[0] = <size_t>(at - data)
    return 0


def read_ack(data):
    cdef Py_buffer view
    cdef AckFrame frame
    cdef size_t used = 0
    cdef int result
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        result = parse_ack(<const uint8_t *>view.buf, <size_t>view.len, &frame, &used)
    PyBuffer_Release(&view)
    if result < 0:
        raise RemoteProtocolError("the peer sent a malformed ACK frame; close the connection with FRAME_ENCODING_ERROR")
    spans = [(frame.ranges[i].start, frame.ranges[i].stop) for i in range(frame.count)]
    return used, frame.delay, spans, (frame.ect0, frame.ect1, frame.ce) if frame.has_ecn else None
