"""What a socket's receive buffer can still hold, given out to the streams of all its connections in turns."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from spaceblock.quic.native.streams cimport ReceiveStream

cdef class Budget:
    cdef readonly uint64_t size  # bytes that may be granted and not have arrived
    cdef readonly uint64_t pledged  # ... that are, and count
    cdef readonly size_t holding, waiting  # streams
    cdef set members  # PacketEngines, which keep the streams alive
    cdef void *first_holder
    cdef void *last_holder
    cdef void *first_waiting
    cdef void *last_waiting
    # Whether a stream's limit may rise to this now; if not, it waits for next_turn() from now on.
    cdef bint allows(self, ReceiveStream stream, uint64_t limit, int64_t now) noexcept nogil
    cdef void arrived(self, ReceiveStream stream, uint64_t fresh) noexcept nogil  # bytes that came for the first time
    cdef uint64_t window_of(self, ReceiveStream stream) noexcept nogil  # what it may have at once
    cdef void learn(self, ReceiveStream stream) noexcept nogil
    cdef void *next_turn(self, int64_t now) noexcept nogil  # the ReceiveStream that may be granted credit now, or NULL
    cdef void drop(self, ReceiveStream stream) noexcept nogil  # it needs nothing any more
    cdef int64_t next_lapse(self) noexcept nogil  # when the oldest pledge lapses; INT64_MAX without one
    cdef void lapse(self, int64_t now) noexcept nogil
    cdef void hold(self, ReceiveStream stream, uint64_t count, int64_t now) noexcept nogil
    cdef void let_go(self, ReceiveStream stream) noexcept nogil
    cdef void wait(self, ReceiveStream stream) noexcept nogil
