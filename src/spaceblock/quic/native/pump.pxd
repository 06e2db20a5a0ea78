"""One socket's datagrams, moved between the kernel and the engines behind it without the GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from spaceblock.quic.native.engine cimport PacketEngine
from spaceblock.quic.native.udp cimport Received, ReceiveBatch, SendBatch, sockaddr_storage, socklen_t

cdef struct Route:
    uint64_t cid  # as it lies in memory
    void *engine  # NULL: the place is free

cdef class Routes:
    # Engines by connection ID; whoever adds one keeps it alive.
    cdef Route *places
    cdef size_t capacity  # a power of two, at least twice as many as there are routes
    cdef size_t count
    cdef void *find(self, uint64_t cid) noexcept nogil
    cdef int put(self, uint64_t cid, void *engine) except -1
    cdef void drop(self, uint64_t cid) noexcept nogil
    cdef size_t place_of(self, uint64_t cid) noexcept nogil
    cdef int grow(self) except -1

cdef class Pump:
    cdef object sock
    cdef int fd
    cdef readonly ReceiveBatch incoming
    cdef readonly SendBatch outgoing
    cdef Routes routes
    cdef dict owners  # connection ID to its engine, which it keeps alive
    cdef list others  # what belongs to no engine
    cdef void *first_touched  # engines that got something since the last report
    cdef PacketEngine held  # whose train a full socket did not take, and lies in outgoing
    cdef size_t held_size, held_segment
    cdef sockaddr_storage held_peer  # to where that train goes, wherever the peer is by then
    cdef socklen_t held_peer_size

    cdef int rounds(self, int64_t now) except -1 nogil
    cdef int take(self, const Received *received, int64_t now) except -1 nogil
    cdef int hand_on(
        self, void *engine, const Received *received, size_t start, size_t size, int64_t now
    ) except -1 nogil
    cdef int leave(self, const Received *received, size_t start, size_t size) except -1
    cdef int flush(self, PacketEngine engine, int64_t now) except -1 nogil
    cdef bint flush_held(self) noexcept nogil
