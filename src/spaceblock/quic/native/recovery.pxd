"""What was sent and is not yet acknowledged: round trips, losses, probes and numbers (RFC 9002)."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from spaceblock.quic.native.congestion cimport Congestion, Pacer
from spaceblock.quic.native.ecn cimport PathEcn
from spaceblock.quic.native.ranges cimport AckFrame

cpdef enum:  # Sent.flags
    ACK_ELICITING = 0x01  # holds something beside ACK, PADDING and CONNECTION_CLOSE
    IN_FLIGHT = 0x02  # ack-eliciting or padded: counts towards the window
    HAS_STREAM = 0x04  # stream, offset and length are set
    FIN = 0x08  # the stream ends at offset + length
    HAS_CONTROL = 0x10  # control is set
    MTU_PROBE = 0x20  # its loss is no congestion, and is reported as any other
    MARKED = 0x40  # sent with ECT(0); set by on_sent()

cpdef enum:  # Sent.state
    PASSED = 0  # no packet, or nobody waits for its acknowledgement
    OUTSTANDING = 1
    ACKED = 2
    LOST = 3
    LATE = 4  # acknowledged after it had been declared lost

cpdef enum:  # on_ack() below 0: close with PROTOCOL_VIOLATION (RFC 9000, sections 13.1 and 21.4); nothing has changed
    ACK_OF_UNSENT = -1
    ACK_OF_SKIPPED = -2

cpdef enum:  # what on_timer() says
    TIMER_EARLY = 0  # nothing was due
    TIMER_LOSS = 1  # packets were declared lost: walk ``lost``
    TIMER_PROBE = 2  # send ``probes`` ack-eliciting packets now, whatever the window says

cpdef enum:
    SENT_MAX = 131072  # packets tracked at most; the power of two to which the ring grows
    SENT_RESERVE = 1024  # of these, kept back from allowance() for acknowledgements, probes and control
    LATE_MAX = 1024  # lost packets remembered at most, for one probe time-out, to notice that they were not lost
    PACKET_THRESHOLD = 3  # section 6.1.1
    PACKET_THRESHOLD_MAX = 256  # where it ends when reordering is taken for loss again and again
    TIME_THRESHOLD = 9  # section 6.1.2, in eighths of a round trip
    TIME_THRESHOLD_MAX = 16
    CALM = 16  # reductions without a loss that was none, after which the path counts as keeping the order again

cdef enum:
    GRANULARITY = 1_000  # RFC 9002, section 6.1.2, in microseconds
    PTO_DOUBT = 2  # probe time-outs in a row after which marks and large datagrams may be what is lost
    SKIPPED_MAX = 16  # numbers remembered that were deliberately skipped

cdef struct Sent:
    int64_t time  # when it was sent, microseconds
    uint64_t offset  # where its piece of the stream begins
    uint64_t acked  # for the engine: one behind the largest number its ACK frame told of, 0 without such a frame
    Sent *next  # in the list ``acked`` or ``lost``, which is ascending
    uint32_t length  # bytes of its piece of the stream
    uint32_t stream  # the engine's slot of the stream
    uint32_t control  # the engine's token for other frames
    uint16_t size  # bytes of the UDP payload
    uint8_t flags
    uint8_t state

cdef struct Late:
    Sent sent
    uint64_t pn
    int64_t lost_at
    bint by_time  # and not for what was acknowledged behind it

cdef class SentPackets:
    # A ring of records, the number's low bits being the place. Not safe for concurrent use.
    cdef readonly uint64_t oldest  # the oldest number tracked: of the oldest packet that waits for an acknowledgement
    cdef readonly uint64_t next_pn  # one behind the largest number sent; records are [oldest, next_pn)
    cdef readonly size_t capacity  # a power of two
    cdef Sent *ring
    # A blank record for number next_pn, which then is one more; NULL when SENT_MAX are tracked or memory is out.
    # Only here memory is allocated, and only here a pointer to a record becomes invalid.
    cdef Sent *push(self) noexcept nogil
    cdef Sent *get(self, uint64_t pn) noexcept nogil  # NULL outside [oldest, next_pn)
    cdef bint grow(self) noexcept nogil

cdef class Recovery:
    # One packet number space after the handshake was confirmed. Times are microseconds. Not safe for concurrent use.
    cdef readonly SentPackets sent
    cdef readonly Congestion congestion
    cdef readonly Pacer pacer
    cdef readonly PathEcn ecn

    # ---- Sending: ask allowance() once a batch; per packet next_number(), on_sent(), fill the record, seal ----

    # Bytes in flight that may be added now: the smaller of what window and pacer leave, at least a datagram for each
    # probe due, else 0 rather than less than a datagram. Says congestion.on_filled() when that stops the sender.
    cpdef uint64_t allowance(self, int64_t now) noexcept nogil
    cpdef uint64_t room(self) noexcept nogil  # bytes that the window has left, whatever the pacer says
    # When allowance() may have grown by waiting: the pacer's time; INT64_MAX while the window is full: wait for an ACK.
    cpdef int64_t send_time(self) noexcept nogil
    # The number of the next packet, which now and then steps over one (section 21.4). Changes nothing.
    cpdef uint64_t next_number(self) noexcept nogil
    # The ECN bits for packets of the next batch, all of them: 0 or ECT_0. On_sent() counts them from now on.
    cdef int choose_mark(self, bint is_possible) noexcept nogil
    # Records packet pn, of size bytes with its flags; numbers between are ones deliberately skipped. The caller fills
    # in the rest of the record, before the next call of on_sent(). NULL when no more can be tracked: do not send it.
    cdef Sent *on_sent(self, uint64_t pn, int64_t now, size_t size, int flags) noexcept nogil
    # The same at hand-over for a packet sent before, ascending; numbers between are settled, not skipped.
    cdef Sent *adopt(self, uint64_t pn, int64_t time, size_t size, int flags) noexcept nogil
    # At hand-over: numbers below pn that were not adopted are settled, and pn is the next. 0, or -1: no memory.
    cpdef int start_at(self, uint64_t pn) noexcept nogil
    # The sender stopped though allowance() left room: no data, or no credit from the peer.
    cpdef void on_app_limited(self, int64_t now) noexcept nogil

    # ---- What comes back: walk both lists before the next call of on_sent(), on_ack() or on_timer() ----

    cdef Sent *acked  # newly acknowledged (ACKED or LATE), ascending; ACK-only packets too
    cdef Sent *lost  # newly lost, ascending, in flight all of them
    # 0 and the two lists, or ACK_OF_UNSENT or ACK_OF_SKIPPED. Takes O(ranges + newly acknowledged + newly lost), plus
    # at most PACKET_THRESHOLD_MAX records; each range may search the late packets, a logarithm of LATE_MAX.
    cdef int on_ack(self, const AckFrame *frame, int64_t now) noexcept nogil
    cpdef int64_t timeout(self) noexcept nogil  # when on_timer() is due; INT64_MAX: not at all
    cpdef int on_timer(self, int64_t now) noexcept nogil
    # The oldest ack-eliciting packet outstanding, whose frames a probe repeats (they are not lost); NULL for none.
    cdef Sent *oldest_outstanding(self) noexcept nogil

    # ---- The path ----

    cdef readonly int64_t latest_rtt  # 0 before the first sample, like min_rtt
    cdef readonly int64_t min_rtt
    cdef readonly double smoothed_rtt
    cdef readonly double rtt_variation
    cdef readonly int64_t max_ack_delay  # the peer's, microseconds
    cdef readonly int ack_delay_exponent  # the peer's
    cpdef int64_t pto(self) noexcept nogil  # one probe time-out, without backoff (section 6.2.1)
    # At hand-over: what the handshake has measured.
    cpdef void seed_rtt(
        self, int64_t latest, int64_t smoothed, int64_t variation, int64_t minimum, int64_t now
    ) noexcept nogil
    # Other datagrams and batches from now on, in bytes, on the same path.
    cdef void resize(self, uint64_t datagram_size, uint64_t batch_size) noexcept nogil
    cpdef void reset_path(self) noexcept nogil  # another path: RTT, window and pacer as new (RFC 9000, section 9.4)

    # ---- State ----

    cdef readonly uint64_t bytes_in_flight
    cdef readonly int64_t largest_acked  # -1 for none
    cdef readonly int pto_count  # probe time-outs in a row
    cdef readonly int probes  # packets that may go beyond the window
    cdef readonly uint64_t lost_total, late_total  # packets declared lost, and of these acknowledged after all
    cdef readonly int64_t packet_threshold  # section 6.1.1: 3, more when reordering was taken for loss
    cdef readonly int time_threshold  # section 6.1.2, in eighths: 9, more when reordering was taken for loss
    cdef uint64_t calm_since  # reductions there had been when that last happened
    cdef bint has_sample, fresh_minimum  # an RTT is known; the next sample replaces min_rtt (section 5.2)
    cdef uint64_t path_start  # packets below were sent on another path
    cdef int mark  # of the packets that are being sent
    cdef int64_t first_sample_time  # packets sent until then tell nothing of persistent congestion
    cdef int64_t run_since  # when the first of the packets was sent that were lost with none acknowledged since; -1
    cdef uint64_t eliciting_in_flight  # packets
    cdef int64_t last_eliciting_time
    cdef int64_t loss_time  # when the oldest packet counts as lost; INT64_MAX: not yet known
    cdef int64_t wait_until  # what send_time() says
    cdef Late *late  # a ring of LATE_MAX, ascending, and ascending in time
    cdef size_t late_first, late_count
    cdef bint late_came  # some of them have
    cdef Sent *lost_tail
    cdef uint64_t[2] secret  # places the skipped numbers
    cdef uint64_t draws, skip_at
    cdef uint64_t[SKIPPED_MAX] skipped  # a ring, ascending
    cdef size_t skipped_count  # ever

    cdef Sent *track(self, int64_t time, size_t size, int flags) noexcept nogil
    cdef void place_skip(self) noexcept nogil
    cdef bint names_skipped(self, const AckFrame *frame) noexcept nogil
    cdef void take_acked(self, Sent *record) noexcept nogil
    cdef void pass_settled(self) noexcept nogil
    cdef void find_late(self, const AckFrame *frame, int64_t now) noexcept nogil
    cdef void forget_came(self) noexcept nogil
    cdef void on_late(self, Late *late, int64_t now) noexcept nogil
    cdef void forget_disorder(self) noexcept nogil
    cdef int64_t update_rtt(self, int64_t sample, uint64_t delay, int64_t now) noexcept nogil
    cdef void detect_lost(self, int64_t now) noexcept nogil
    cdef bint declare_lost(self, uint64_t pn, Sent *record, bint by_time, int64_t now) noexcept nogil
    cdef void remember(self, uint64_t pn, const Sent *record, bint by_time, int64_t now) noexcept nogil
