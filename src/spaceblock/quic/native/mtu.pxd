"""How large a datagram the path carries: found out by probes, and given up when large ones vanish (RFC 8899)."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

cpdef enum:
    DATAGRAM_BASE = 1200  # what every path of QUIC carries (RFC 9000, section 14.1)
    DATAGRAM_TOP = 65507  # a UDP datagram's payload over IPv4

cdef class PathMtu:
    # Sizes are bytes of a UDP payload, times microseconds. Not safe for concurrent use.
    cdef readonly size_t size  # of datagrams that are no probes
    cdef readonly size_t limit  # the most that is ever tried
    cdef readonly size_t failed  # the smallest size that did not get through: larger than size, at most limit + 1
    cdef readonly size_t probing  # size of the probe under way, 0 for none
    cdef readonly int black_holes  # how often large datagrams vanished
    cdef size_t wish  # tried before any other
    cdef size_t tried  # the size that the last probe had, or is to have
    cdef int tries  # probes of that size in a row that were lost
    cdef int doubts  # losses of datagrams of the present size, with none acknowledged since
    cdef bint is_settled  # nothing is left to try
    cdef int64_t resume_at  # when the search may go on, or begins anew
    cdef int64_t fell_at

    # Size of the probe to be sent now, 0 for none; no more than half of the window, which it has to wait for.
    cpdef size_t due(self, uint64_t window, int64_t now) noexcept nogil
    cpdef void on_probe_sent(self, size_t size) noexcept nogil
    # What became of a probe; True where the size has changed.
    cpdef bint on_probe_acked(self, size_t size) noexcept nogil
    cpdef void on_probe_lost(self, size_t size) noexcept nogil
    # The system does not send so large a datagram at all; True where the size has changed.
    cpdef bint on_refused(self, size_t size, int64_t now) noexcept nogil
    # Whether an ACK frame acknowledged, or had declared lost, datagrams of this size; True where it changed that.
    cpdef bint on_outcome(self, bint any_acked, bint any_lost, int64_t now) noexcept nogil
    # Datagrams of the present size vanish: back to the base; True where the size has changed.
    cpdef bint fall_back(self, int64_t now) noexcept nogil
    cpdef void reset(self, size_t size, size_t limit) noexcept nogil  # another path, or another limit

    cdef size_t choose(self, size_t room) noexcept nogil
