"""How much may be in flight, and how fast it may leave: CUBIC (RFC 9438) with HyStart++ (RFC 9406), and a pacer."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

cdef class Congestion:
    # Windows and sizes are bytes, times microseconds. Not safe for concurrent use.
    cdef readonly uint64_t window  # bytes that may be in flight
    cdef readonly uint64_t threshold  # ssthresh; 2^64-1 until the first loss or HyStart++ ends slow start
    cdef readonly uint64_t datagram_size  # RFC 9002's max_datagram_size
    cdef readonly uint64_t maximum  # the window never grows beyond
    cdef readonly bint app_limited  # the sender had less to send than it might: no growth
    cdef readonly uint64_t recovery_until  # packets below were sent before the last reduction: no growth, no reduction
    cdef readonly uint64_t reductions  # congestion events that counted
    cdef readonly uint64_t undone  # ... of which taken back
    cdef readonly uint64_t spared  # losses that were taken for the path's noise

    # One call for an ACK frame that acknowledges something new: size is the bytes in flight that it newly acknowledges
    # of packets from recovery_until on, largest the largest number acknowledged so far.
    cpdef void on_acked(
        self, uint64_t size, uint64_t largest, uint64_t next_pn, int64_t smoothed_rtt, int64_t now
    ) noexcept nogil
    cpdef void on_rtt(self, int64_t rtt) noexcept nogil  # a sample, before on_acked()
    cpdef void on_lost(self, uint64_t pn, uint64_t next_pn) noexcept nogil  # each lost packet, ascending
    cpdef void on_marked(self, uint64_t pn, uint64_t next_pn) noexcept nogil  # CE in an ACK whose newest is pn
    cpdef void on_spurious(self, uint64_t pn) noexcept nogil  # a packet of on_lost() was acknowledged after all
    cpdef void on_persistent(self) noexcept nogil  # persistent congestion (RFC 9002, section 7.6)
    cpdef void on_app_limited(self, int64_t now) noexcept nogil  # nothing left to send, though the window has room
    cpdef void on_filled(self, int64_t now) noexcept nogil  # the window or the pacer stopped the sender
    cpdef void set_datagram_size(self, uint64_t size) noexcept nogil  # after path MTU discovery; the window stays
    cpdef void reset(self) noexcept nogil  # another path: as new (RFC 9000, section 9.4)

    # CUBIC, in datagrams and seconds; exact is the window in bytes with its fraction.
    cdef double exact, w_max, w_est, cwnd_prior, k
    cdef int64_t epoch  # when this stage of congestion avoidance began, -1 for none
    cdef int64_t limited_since  # when app_limited became true
    # Rounds, which go on after HyStart++, and their smallest round trips; INT64_MAX where there is none yet.
    cdef uint64_t round_stop
    cdef int64_t last_round_min, round_min, baseline
    cdef int samples, conservative_rounds
    cdef bint conservative
    # For what is spared: how many losses may be, the least round trip, and that of the last round that had one.
    cdef double spares
    cdef int64_t least_rtt, recent_rtt
    # What the last reduction replaced, and how many of its packets are still believed lost (-1: no way back).
    cdef int64_t episode_lost
    cdef uint64_t episode_start, episode_first
    cdef double saved_exact, saved_w_max, saved_w_est, saved_cwnd_prior, saved_k
    cdef uint64_t saved_threshold
    cdef int64_t saved_epoch

    cdef bint may_spare(self) noexcept nogil
    cdef void begin_recovery(self, uint64_t pn, uint64_t next_pn) noexcept nogil
    cdef void grow(self, uint64_t size, int64_t smoothed_rtt, int64_t now) noexcept nogil
    cdef void end_round(self) noexcept nogil
    cdef void reduce(self) noexcept nogil
    cdef void undo(self) noexcept nogil
    cdef void set_window(self, double value) noexcept nogil

cdef class Pacer:
    # A token bucket in bytes (RFC 9002, section 7.7). A batch may overdraw it, so batches are always whole.
    cdef readonly uint64_t quantum  # bytes of one GSO batch
    cdef public bint is_needless  # the peer is on this computer: there is no queue on the way but its socket's
    cdef double tokens, rate  # rate: bytes a microsecond, of the last question; 0 where there is no pacing
    cdef int64_t filled_at

    # Bytes that may be sent now: 0, or at least a quantum; 2^64-1 without pacing. Ask once a batch.
    cpdef uint64_t allowed(self, uint64_t window, int64_t smoothed_rtt, int64_t now) noexcept nogil
    cpdef void on_sent(self, uint64_t size) noexcept nogil
    cpdef void set_quantum(self, uint64_t quantum) noexcept nogil
    cpdef int64_t next_time(self) noexcept nogil  # when allowed() is no longer 0, if nothing is sent before then
