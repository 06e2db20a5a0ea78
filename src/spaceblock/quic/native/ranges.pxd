"""Received packet numbers and the ACK frames that tell of them (RFC 9000, sections 13.2 and 19.3)."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

cpdef enum:
    RANGES_MAX = 64  # ranges remembered of what was received, and at most in an ACK frame written
    ACK_RANGES_MAX = 256  # ranges kept of an ACK frame read; older ones behind them are checked, then dropped
    DUPLICATE_WINDOW = 32768  # packet numbers below the largest in which a duplicate is told from a late packet
    ACK_FRAME_MAX = 1058  # bytes of the longest ACK frame written: type, count, 6 numbers of 8 bytes, 63 pairs of them

cpdef enum:  # what add() says
    REPEATED = 0  # a duplicate, or too old to tell: drop the packet unread
    IN_ORDER = 1  # the next number
    OUT_OF_ORDER = 2  # opens a gap or comes late: acknowledge at once if it is ack-eliciting (section 13.2.1)

cdef enum:
    SEEN_WORDS = 512  # of 64 bits: DUPLICATE_WINDOW

cdef struct Range:
    uint64_t start  # half-open: the first packet number
    uint64_t stop  # one behind the last

cdef struct AckFrame:
    uint64_t largest  # ranges[0].stop - 1
    uint64_t delay  # as on the wire: microseconds, shifted right by the peer's ack_delay_exponent
    size_t count  # of ranges, 1 to ACK_RANGES_MAX
    Range[ACK_RANGES_MAX] ranges  # newest first, disjoint, with gaps between
    bint has_ecn  # the three counts were sent
    uint64_t ect0
    uint64_t ect1
    uint64_t ce

# Reads the ACK frame of type 2 or 3 whose type byte is data[0]. 0, and the bytes used; -1 for FRAME_ENCODING_ERROR, and
# then nothing in out or used is to be relied on. Never reads beyond size.
cdef int parse_ack(const uint8_t *data, size_t size, AckFrame *out, size_t *used) noexcept nogil

cdef class PacketRanges:
    # Not safe for concurrent use. Numbers are below 2^62.
    cdef readonly int64_t largest  # -1 before the first packet
    cdef readonly int64_t largest_time  # when that packet came: the base of the ACK delay
    cdef readonly uint64_t floor  # numbers below are too old to tell
    cdef readonly size_t count  # of ranges
    cdef Range[RANGES_MAX] ranges  # newest first, disjoint, with gaps between
    cdef uint64_t[SEEN_WORDS] seen  # bit pn % DUPLICATE_WINDOW: received
    cdef readonly uint64_t ect0, ect1, ce  # packets that came with each ECN mark

    # Takes a packet that was authenticated; REPEATED, IN_ORDER or OUT_OF_ORDER.
    cpdef int add(self, uint64_t pn, int64_t now) noexcept nogil

    # Counts packets that add() took, by the two ECN bits that they came with.
    cpdef void count_marks(self, int ecn, uint64_t packets) noexcept nogil

    # Forget numbers below pn: the peer knows that we have them (section 13.2.4). They are REPEATED from now on. The
    # largest number stays, since every ACK frame tells of it.
    cpdef void forget_below(self, uint64_t pn) noexcept nogil

    # Writes a whole ACK frame with as many ranges as fit, newest first, and with the counts once a mark was seen;
    # delay as in AckFrame.
    # The bytes written: 0 when nothing was received or not even the first range fits (ACK_FRAME_MAX is enough).
    cdef size_t write_ack(self, uint8_t *out, size_t room, uint64_t delay) noexcept nogil

    cdef int add_late(self, uint64_t pn) noexcept nogil
    cdef void insert(self, size_t place, uint64_t pn) noexcept nogil
    cdef void mark(self, uint64_t pn) noexcept nogil
    cdef void clear(self, uint64_t start, uint64_t stop) noexcept nogil
