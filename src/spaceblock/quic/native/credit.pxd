"""What this side allows the peer to send (RFC 9000, section 4)."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from spaceblock.quic.native.budget cimport Budget
from spaceblock.quic.native.streams cimport ReceiveStream, StreamTable

cdef class Credit:
    cdef public uint64_t limit  # of the connection: bytes of all streams that the peer may have sent in all
    cdef readonly uint64_t received  # of these, sent: the highest offsets of all streams together
    cdef readonly uint64_t consumed  # of these, handed on or given up
    cdef uint64_t connection_window
    cdef uint64_t stream_window
    cdef uint64_t control_window
    cdef uint64_t receive_buffer
    cdef Budget budget  # of all connections that share the buffer; None: nobody else does
    cdef public bint is_local  # the peer is on this machine, however long round trips are
    cdef size_t data_streams  # unidirectional ones
    cdef StreamTable streams  # by stream ID
    cdef bint connection_due  # its limit is to be told
    cdef void *first_due  # ReceiveStreams whose limits are to be told
    cdef bint count(self, uint64_t fresh) noexcept nogil
    cdef bint consume(self, uint64_t count) noexcept nogil
    cdef bint grant(
        self, ReceiveStream stream, uint64_t consumed, int64_t now, int64_t min_rtt, int64_t rtt
    ) noexcept nogil
    cdef bint shares(self, ReceiveStream stream, int64_t min_rtt) noexcept nogil
    cdef void leave_budget(self) noexcept
    cdef uint64_t window_of(self, ReceiveStream stream, int64_t min_rtt) noexcept nogil
    cdef void tune(self, ReceiveStream stream, uint64_t consumed, int64_t now, int64_t rtt) noexcept nogil
    cdef bint is_due(self) noexcept nogil
    cdef void tell(self, void *stream) noexcept nogil
    cdef void tell_again(self) noexcept nogil
    cdef size_t write(self, uint8_t *out, size_t room) noexcept nogil
