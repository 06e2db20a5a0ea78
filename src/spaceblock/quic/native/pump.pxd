"""One socket's datagrams, moved between the kernel and the engines behind it without the GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from spaceblock.quic.native.budget cimport Budget
from spaceblock.quic.native.engine cimport PacketEngine
from spaceblock.quic.native.lock cimport Lock
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
    cdef set engines  # all that have or had a route, until they are forgotten
    cdef list others  # what belongs to no engine
    cdef bint has_others
    cdef size_t others_size  # what they cost
    cdef void *first_touched  # engines that got something since the last report
    cdef readonly Budget budget  # for the credit of all its engines
    cdef size_t held_size  # bytes of the train that a full socket did not take, and lies in outgoing
    cdef size_t held_segment
    cdef sockaddr_storage held_peer  # to where that train goes, wherever the peer is by then
    cdef socklen_t held_peer_size
    # The thread, and what passes between it and the event loop.
    cdef readonly Lock lock
    cdef bint is_stopping
    cdef int bell  # an eventfd that wakes the event loop
    cdef int alarm  # one that wakes the thread
    cdef bint rung  # the bell was, and nobody has come yet
    cdef bint is_attended  # by the event loop, now
    cdef uint64_t turns  # times that it has attended
    cdef void *first_put_off  # engines that send later: when their pace allows, or the socket
    cdef object failure  # what ended the thread

    cdef int serve_until_stopped(self) except -1 nogil
    cdef int64_t pause(self, int64_t now) noexcept nogil
    cdef int send_put_off(self, int64_t now, bint has_room) except -1 nogil
    cdef int send_soon(self, void *engine, int64_t now) except -1 nogil
    cdef void put_off(self, void *engine, int64_t at) noexcept nogil
    cdef list laden(self)
    cdef object take_left(self)
    cdef list take_touched(self)
    cdef int rounds(self) except -1 nogil
    cdef bint round(self, bint is_last) except -1 nogil
    cdef int answer(self, bint is_last) except -1 nogil
    cdef void touch(self, void *engine) noexcept nogil
    cdef void give_turns(self, int64_t now) noexcept nogil
    cdef int take(self, const Received *received, int64_t now) except -1 nogil
    cdef int hand_on(
        self, void *engine, const Received *received, size_t start, size_t size, int64_t now
    ) except -1 nogil
    cdef int put_by(self, const Received *received, size_t start, size_t size) except -1
    cdef int flush(self, PacketEngine engine, int64_t now) except -1 nogil
    cdef int flush_trains(self, PacketEngine engine, int64_t now) except -1 nogil
    cdef bint flush_held(self) noexcept nogil
