"""Whether a path carries ECN marks, and what the peer's counts say of it (RFC 9000, section 13.4)."""

from libc.stdint cimport uint64_t

from spaceblock.quic.native.ranges cimport AckFrame

cpdef enum:  # the two bits of the IP header (RFC 3168, section 5)
    ECT_1 = 1
    ECT_0 = 2
    CE = 3

cpdef enum:  # PathEcn.state (RFC 9000, appendix A.4)
    ECN_OFF = 0  # nothing is marked: nobody said that marks can be set
    ECN_WAITING = 1  # no acknowledgement has come yet
    ECN_TESTING = 2  # the first few packets are marked
    ECN_UNKNOWN = 3  # they are sent, and none of them is acknowledged
    ECN_CAPABLE = 4
    ECN_FAILED = 5  # the path or the peer does not play along: nothing is marked any more

cdef class PathEcn:
    cdef readonly int state
    cdef readonly uint64_t sent  # packets with ECT(0), on all paths
    cdef readonly uint64_t ect0, ce  # the peer's counts, which never fall
    cdef uint64_t test_start, test_sent, test_lost  # the first packet number of this test, and its packets

    cpdef void enable(self) noexcept nogil  # whoever sends can set marks
    cdef bint marks(self) noexcept nogil  # whether the next batch is to have ECT(0)
    cdef void on_sent(self) noexcept nogil  # a packet with ECT(0)
    cdef void on_lost(self, uint64_t pn) noexcept nogil  # one of those
    # An ACK frame that newly acknowledges so many packets with ECT(0) of this path; is_newest: its largest number is
    # larger than that of any before. Whether the path says that it is congested.
    cdef bint on_ack(self, const AckFrame *frame, uint64_t marked, bint is_newest) noexcept nogil
    cdef void test_again(self, uint64_t next_pn) noexcept nogil  # another path, or one that may have changed
