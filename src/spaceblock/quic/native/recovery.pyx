# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, cdivision=True
"""What was sent and is not yet acknowledged: round trips, losses, probes and packet numbers (RFC 9002).

- Records lie in a ring whose oldest is always a packet in flight that is neither acknowledged nor lost. So of what lies
  below the largest number acknowledged, only as many records as the packet threshold are ever looked at twice.
- What is lost leaves the ring at once; a copy is remembered for one probe time-out, to notice that it was not lost.
- An acknowledgement is checked as a whole before anything changes.
- Packets are sent in the order of their numbers and times; the clock is the caller's and never goes back.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from spaceblock.errors import RemoteProtocolError

from spaceblock.quic.native.ecn cimport ECN_CAPABLE, ECT_0
from spaceblock.quic.native.ranges cimport ACK_RANGES_MAX

# RFC 9002, sections 6.2.2, 7.6.1 and 6.2.4, in microseconds.
cdef double _INITIAL_RTT = 333_000
cdef int64_t _PERSISTENT_FACTOR = 3
cdef int _PROBES = 2
# Keeps the doubled time-out a number.
cdef int _BACKOFF_MAX = 20

cdef size_t _RING_MIN = 256
# A number is skipped once a window on average, or once in this many packets while the window is smaller.
cdef uint64_t _SKIP_PERIOD_MIN = 64

NEVER = 2**63 - 1


@cython.final
cdef class SentPackets:
    def __cinit__(self, uint64_t next_pn):
        self.oldest = self.next_pn = next_pn
        self.capacity = _RING_MIN
        self.ring = <Sent *>malloc(self.capacity * sizeof(Sent))
        if self.ring == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.ring)

    cdef Sent *push(self) noexcept nogil:
        cdef Sent *record
        if self.next_pn - self.oldest == self.capacity and not self.grow():
            return NULL
        record = &self.ring[self.next_pn & (self.capacity - 1)]
        memset(record, 0, sizeof(Sent))
        self.next_pn += 1
        return record

    cdef Sent *get(self, uint64_t pn) noexcept nogil:
        if not self.oldest <= pn < self.next_pn:
            return NULL
        return &self.ring[pn & (self.capacity - 1)]

    cdef bint grow(self) noexcept nogil:
        cdef size_t capacity = 2 * self.capacity
        cdef uint64_t pn
        cdef Sent *ring
        if capacity > SENT_MAX:
            return False
        ring = <Sent *>malloc(capacity * sizeof(Sent))
        if ring == NULL:
            return False
        for pn in range(self.oldest, self.next_pn):
            ring[pn & (capacity - 1)] = self.ring[pn & (self.capacity - 1)]
        free(self.ring)
        self.ring = ring
        self.capacity = capacity
        return True


@cython.final
cdef class Recovery:
    def __cinit__(
        self, bytes secret, uint64_t next_pn=0, uint64_t datagram_size=1200, uint64_t batch_size=65_507,
        int64_t max_ack_delay=25_000, int ack_delay_exponent=3,
    ):
        if len(secret) != 16:
            raise ValueError(f"a secret of {len(secret)} bytes; pass 16 random ones")
        if not (0 <= ack_delay_exponent <= 20 and 0 <= max_ack_delay < 1 << 34):
            raise ValueError("an ACK delay beyond what transport parameters allow; pass the peer's own")
        memcpy(self.secret, PyBytes_AS_STRING(secret), 16)
        self.late = <Late *>calloc(LATE_MAX, sizeof(Late))
        if self.late == NULL:
            raise MemoryError
        self.sent = SentPackets(next_pn)
        self.congestion = Congestion(datagram_size)
        self.pacer = Pacer(batch_size)
        self.ecn = PathEcn()
        self.max_ack_delay = max_ack_delay
        self.ack_delay_exponent = ack_delay_exponent
        self.largest_acked = self.run_since = -1
        self.loss_time = self.wait_until = INT64_MAX
        self.packet_threshold = PACKET_THRESHOLD
        self.time_threshold = TIME_THRESHOLD
        self.smoothed_rtt = _INITIAL_RTT
        self.rtt_variation = _INITIAL_RTT / 2
        self.place_skip()

    def __dealloc__(self):
        free(self.late)

    # ---- Sending ----

    cpdef uint64_t allowance(self, int64_t now) noexcept nogil:
        cdef uint64_t window = self.congestion.window
        cdef uint64_t datagram = self.congestion.datagram_size
        cdef uint64_t room = self.room()
        cdef uint64_t paced
        self.wait_until = INT64_MAX
        if self.sent.next_pn - self.sent.oldest > SENT_MAX - SENT_RESERVE:
            room = 0
        if room < datagram:
            self.congestion.on_filled(now)
            room = 0
        else:
            paced = self.pacer.allowed(window, <int64_t>self.smoothed_rtt, now)
            if paced == 0:
                self.congestion.on_filled(now)
                self.wait_until = self.pacer.next_time()
            room = min(room, paced)
        return max(room, <uint64_t>self.probes * datagram)

    cpdef uint64_t room(self) noexcept nogil:
        cdef uint64_t window = self.congestion.window
        return window - self.bytes_in_flight if self.bytes_in_flight < window else 0

    cpdef int64_t send_time(self) noexcept nogil:
        return self.wait_until

    cpdef uint64_t next_number(self) noexcept nogil:
        return self.sent.next_pn + (self.sent.next_pn == self.skip_at)

    cdef int choose_mark(self, bint is_possible) noexcept nogil:
        # What is sent again when nothing comes back must not depend on marks getting through.
        self.mark = ECT_0 if is_possible and self.pto_count < PTO_DOUBT and self.ecn.marks() else 0
        return self.mark

    cdef Sent *on_sent(self, uint64_t pn, int64_t now, size_t size, int flags) noexcept nogil:
        cdef Sent *record
        if pn < self.sent.next_pn:
            return NULL
        while self.sent.next_pn < pn:
            # A blank record is PASSED: nobody waits for it.
            if self.sent.push() == NULL:
                return NULL
            self.skipped[self.skipped_count % SKIPPED_MAX] = self.sent.next_pn - 1
            self.skipped_count += 1
        if pn > self.skip_at:
            self.place_skip()
        if self.mark:
            flags |= MARKED
        record = self.track(now, size, flags)
        if record == NULL:
            return NULL
        if self.mark:
            self.ecn.on_sent()
        if flags & IN_FLIGHT:
            self.pacer.on_sent(size)
        if flags & ACK_ELICITING and self.probes:
            self.probes -= 1
        return record

    cdef Sent *adopt(self, uint64_t pn, int64_t time, size_t size, int flags) noexcept nogil:
        if pn < self.sent.next_pn or self.start_at(pn) < 0:
            return NULL
        return self.track(time, size, flags)

    cpdef int start_at(self, uint64_t pn) noexcept nogil:
        while self.sent.next_pn < pn:
            if self.sent.push() == NULL:
                return -1
        self.place_skip()
        return 0

    cpdef void on_app_limited(self, int64_t now) noexcept nogil:
        self.congestion.on_app_limited(now)

    cdef Sent *track(self, int64_t time, size_t size, int flags) noexcept nogil:
        cdef Sent *record
        self.pass_settled()
        record = self.sent.push()
        if record == NULL:
            return NULL
        record.time = time
        record.size = <uint16_t>size
        record.flags = <uint8_t>flags
        record.state = OUTSTANDING
        if flags & IN_FLIGHT:
            self.bytes_in_flight += size
        if flags & ACK_ELICITING:
            self.eliciting_in_flight += 1
            self.last_eliciting_time = time
        return record

    cdef void pass_settled(self) noexcept nogil:
        # What needs no acknowledgement must not hold the ring: a side that only receives gets none for long.
        cdef Sent *record
        while self.sent.oldest < self.sent.next_pn:
            record = &self.sent.ring[self.sent.oldest & (self.sent.capacity - 1)]
            if record.state == OUTSTANDING and record.flags & IN_FLIGHT:
                return
            if record.state == ACKED:
                self.run_since = -1
            self.sent.oldest += 1

    # ---- Skipped numbers (RFC 9000, section 21.4) ----

    cdef void place_skip(self) noexcept nogil:
        """Somewhere in the next two windows, where nobody without the secret can tell."""
        cdef uint64_t period = max(_SKIP_PERIOD_MIN, self.congestion.window // self.congestion.datagram_size)
        self.skip_at = self.sent.next_pn + 1 + siphash(self.secret[0], self.secret[1], self.draws) % (2 * period)
        self.draws += 1

    cdef bint names_skipped(self, const AckFrame *frame) noexcept nogil:
        # Both are walked from the newest.
        cdef size_t i = 0
        cdef size_t known = self.skipped_count
        cdef size_t last = known - min(known, <size_t>SKIPPED_MAX)
        cdef uint64_t pn
        while i < frame.count and known > last:
            pn = self.skipped[(known - 1) % SKIPPED_MAX]
            if pn >= frame.ranges[i].stop:
                known -= 1
            elif pn < frame.ranges[i].start:
                i += 1
            else:
                return True
        return False

    # ---- Acknowledgements ----

    cdef int on_ack(self, const AckFrame *frame, int64_t now) noexcept nogil:
        """RFC 9002, appendix A.7; the order of its steps matters."""
        cdef uint64_t pn, start, growth_from
        cdef uint64_t growth = 0
        cdef uint64_t reductions = self.congestion.reductions
        cdef uint64_t marked = 0
        cdef int64_t sample = -1
        cdef int64_t newest = -1
        cdef bint eliciting = False
        cdef size_t i
        cdef Sent *record
        if frame.largest >= self.sent.next_pn:
            return ACK_OF_UNSENT
        if self.names_skipped(frame):
            return ACK_OF_SKIPPED
        self.acked = self.lost = NULL
        growth_from = self.congestion.recovery_until
        for i in range(frame.count):
            pn = frame.ranges[i].stop
            start = max(frame.ranges[i].start, self.sent.oldest)
            while pn > start:
                pn -= 1
                record = &self.sent.ring[pn & (self.sent.capacity - 1)]
                if record.state != OUTSTANDING:
                    continue
                if pn == frame.largest and pn >= self.path_start:
                    sample = now - record.time
                if newest < 0:
                    newest = <int64_t>pn
                if record.flags & MARKED and pn >= self.path_start:
                    marked += 1
                eliciting |= record.flags & ACK_ELICITING != 0
                if pn >= growth_from and record.flags & IN_FLIGHT:
                    growth += record.size
                self.take_acked(record)
            if pn <= self.sent.oldest:
                break
        if self.late_count:
            self.find_late(frame, now)
        if sample >= 0 and eliciting:
            # Without the peer's own delay, which changes with the rate and would look like a queue to HyStart++.
            self.congestion.on_rtt(self.update_rtt(sample, frame.delay, now))
        if self.ecn.on_ack(frame, marked, <int64_t>frame.largest > self.largest_acked):
            if newest >= <int64_t>self.path_start:
                self.congestion.on_marked(<uint64_t>newest, self.sent.next_pn)
        self.largest_acked = max(self.largest_acked, <int64_t>frame.largest)
        self.detect_lost(now)
        if self.acked != NULL:
            self.pto_count = 0
            self.probes = 0
            # A reduction just now makes everything acknowledged here part of the recovery period.
            if self.congestion.reductions != reductions:
                growth = 0
            self.congestion.on_acked(
                growth, <uint64_t>self.largest_acked, self.sent.next_pn, <int64_t>self.smoothed_rtt, now
            )
        return 0

    cdef void take_acked(self, Sent *record) noexcept nogil:
        record.state = ACKED
        record.next = self.acked
        self.acked = record
        if record.flags & IN_FLIGHT:
            self.bytes_in_flight -= record.size
        if record.flags & ACK_ELICITING:
            self.eliciting_in_flight -= 1

    cdef void find_late(self, const AckFrame *frame, int64_t now) noexcept nogil:
        # Forgets what is older than a probe time-out or came late before, then looks up each range among the rest. So
        # a peer that acknowledges the same again and again does not have the same looked at again and again.
        cdef int64_t horizon = now - self.pto()
        cdef size_t i, low, high, middle
        cdef uint64_t start, stop
        cdef Late *late
        if self.late_came:
            self.forget_came()
        while self.late_count and self.late[self.late_first].lost_at <= horizon:
            self.late_first = (self.late_first + 1) % LATE_MAX
            self.late_count -= 1
        for i in range(frame.count):
            start = frame.ranges[i].start
            stop = frame.ranges[i].stop
            # The first of the late packets at or behind ``stop``; then downwards, which keeps the list ascending.
            low = 0
            high = self.late_count
            while low < high:
                middle = (low + high) // 2
                if self.late[(self.late_first + middle) % LATE_MAX].pn < stop:
                    low = middle + 1
                else:
                    high = middle
            while low:
                low -= 1
                late = &self.late[(self.late_first + low) % LATE_MAX]
                if late.pn < start:
                    break
                self.on_late(late, now)

    cdef void forget_came(self) noexcept nogil:
        cdef size_t i, kept = 0
        cdef Late *late
        for i in range(self.late_count):
            late = &self.late[(self.late_first + i) % LATE_MAX]
            if late.sent.state == LOST:
                self.late[(self.late_first + kept) % LATE_MAX] = late[0]
                kept += 1
        self.late_count = kept
        self.late_came = False

    cdef void on_late(self, Late *late, int64_t now) noexcept nogil:
        """RFC 9002, section 6.1.1: reordering that was taken for loss raises the threshold that did so, within bounds.

        Time goes up to two round trips, as RFC 8985, section 6.2, lets its reordering window grow by one.
        """
        cdef int64_t distance = self.largest_acked - <int64_t>late.pn
        cdef int64_t taken = now - late.sent.time
        late.sent.state = LATE
        self.late_came = True
        late.sent.next = self.acked
        self.acked = &late.sent
        self.late_total += 1
        self.run_since = -1
        self.calm_since = self.congestion.reductions
        if late.by_time:
            taken = <int64_t>(8 * taken / max(self.smoothed_rtt, <double>self.latest_rtt, <double>GRANULARITY)) + 1
            self.time_threshold = <int>max(<int64_t>self.time_threshold, min(taken, <int64_t>TIME_THRESHOLD_MAX))
        elif distance >= self.packet_threshold:
            self.packet_threshold = min(distance + 1, <int64_t>PACKET_THRESHOLD_MAX)
        if not late.sent.flags & MTU_PROBE:
            self.congestion.on_spurious(late.pn)

    cdef void forget_disorder(self) noexcept nogil:
        self.packet_threshold = PACKET_THRESHOLD
        self.time_threshold = TIME_THRESHOLD
        self.calm_since = self.congestion.reductions

    # ---- Round trips ----

    cpdef void seed_rtt(
        self, int64_t latest, int64_t smoothed, int64_t variation, int64_t minimum, int64_t now
    ) noexcept nogil:
        self.latest_rtt = latest
        self.smoothed_rtt = smoothed
        self.rtt_variation = variation
        self.min_rtt = minimum
        self.has_sample = True
        self.first_sample_time = now

    cdef void resize(self, uint64_t datagram_size, uint64_t batch_size) noexcept nogil:
        self.congestion.set_datagram_size(datagram_size)
        self.pacer.set_quantum(batch_size)

    cpdef void reset_path(self) noexcept nogil:
        self.has_sample = self.fresh_minimum = False
        self.latest_rtt = self.min_rtt = 0
        self.smoothed_rtt = _INITIAL_RTT
        self.rtt_variation = _INITIAL_RTT / 2
        self.pto_count = 0
        self.run_since = -1
        self.congestion.reset()
        self.forget_disorder()
        # What was sent on the old path says nothing of the new one.
        self.path_start = self.congestion.recovery_until = self.sent.next_pn
        self.ecn.test_again(self.sent.next_pn)

    cpdef int64_t pto(self) noexcept nogil:
        return <int64_t>(self.smoothed_rtt + max(4 * self.rtt_variation, <double>GRANULARITY)) + self.max_ack_delay

    cdef int64_t update_rtt(self, int64_t sample, uint64_t delay, int64_t now) noexcept nogil:
        """RFC 9002, section 5.3; the handshake is confirmed, so the peer's delay counts up to its own maximum.

        Returns the sample without that delay.
        """
        cdef int64_t adjusted = sample
        cdef int64_t waited = self.max_ack_delay
        if delay <= <uint64_t>waited >> self.ack_delay_exponent:
            waited = <int64_t>(delay << self.ack_delay_exponent)
        self.latest_rtt = sample
        if not self.has_sample:
            self.has_sample = True
            self.first_sample_time = now
            self.min_rtt = sample
            self.smoothed_rtt = sample
            self.rtt_variation = sample / 2.0
            return sample
        self.min_rtt = sample if self.fresh_minimum else min(self.min_rtt, sample)
        self.fresh_minimum = False
        if sample >= self.min_rtt + waited:
            adjusted = sample - waited
        self.rtt_variation += (abs(self.smoothed_rtt - adjusted) - self.rtt_variation) / 4
        self.smoothed_rtt += (adjusted - self.smoothed_rtt) / 8
        return adjusted

    # ---- Losses and time-outs ----

    cpdef int64_t timeout(self) noexcept nogil:
        """RFC 9002, section 6.2.1."""
        if self.loss_time != INT64_MAX:
            return self.loss_time
        if self.eliciting_in_flight == 0:
            return INT64_MAX
        return self.last_eliciting_time + (self.pto() << min(self.pto_count, _BACKOFF_MAX))

    cpdef int on_timer(self, int64_t now) noexcept nogil:
        """RFC 9002, appendix A.9. A probe time-out declares nothing lost (section 6.2)."""
        self.acked = self.lost = NULL
        if now < self.timeout():
            return TIMER_EARLY
        if self.loss_time != INT64_MAX:
            self.detect_lost(now)
            return TIMER_LOSS
        self.pto_count += 1
        self.probes = _PROBES
        if self.pto_count == PTO_DOUBT and self.ecn.state == ECN_CAPABLE:
            self.ecn.test_again(self.sent.next_pn)
        return TIMER_PROBE

    cdef Sent *oldest_outstanding(self) noexcept nogil:
        cdef uint64_t pn
        cdef Sent *record
        for pn in range(self.sent.oldest, self.sent.next_pn):
            record = &self.sent.ring[pn & (self.sent.capacity - 1)]
            if record.state == OUTSTANDING and record.flags & ACK_ELICITING:
                return record
        return NULL

    cdef void detect_lost(self, int64_t now) noexcept nogil:
        """RFC 9002, section 6.1: everything before the first packet that is not lost leaves the ring."""
        cdef int64_t delay = <int64_t>(max(self.smoothed_rtt, <double>self.latest_rtt) * self.time_threshold / 8)
        cdef bint persistent = False
        cdef bint by_time
        cdef int64_t pn
        cdef Sent *record
        delay = max(delay, <int64_t>GRANULARITY)
        self.loss_time = INT64_MAX
        while True:
            self.pass_settled()
            pn = <int64_t>self.sent.oldest
            if pn >= self.largest_acked or self.sent.oldest == self.sent.next_pn:
                break
            record = &self.sent.ring[self.sent.oldest & (self.sent.capacity - 1)]
            by_time = self.largest_acked - pn < self.packet_threshold
            if by_time and record.time + delay > now:
                self.loss_time = record.time + delay
                break
            persistent |= self.declare_lost(<uint64_t>pn, record, by_time, now)
        if persistent:
            self.fresh_minimum = True
            self.run_since = -1
            self.congestion.on_persistent()
        if self.congestion.reductions >= self.calm_since + CALM:
            self.forget_disorder()

    cdef bint declare_lost(self, uint64_t pn, Sent *record, bint by_time, int64_t now) noexcept nogil:
        """Says whether the congestion is persistent by now (RFC 9002, section 7.6)."""
        record.state = LOST
        record.next = NULL
        if self.lost == NULL:
            self.lost = record
        else:
            self.lost_tail.next = record
        self.lost_tail = record
        self.lost_total += 1
        self.bytes_in_flight -= record.size
        if record.flags & MARKED:
            self.ecn.on_lost(pn)
        self.remember(pn, record, by_time, now)
        if record.flags & ACK_ELICITING:
            self.eliciting_in_flight -= 1
        if record.flags & MTU_PROBE:
            return False
        self.congestion.on_lost(pn, self.sent.next_pn)
        if not record.flags & ACK_ELICITING or not self.has_sample or record.time <= self.first_sample_time:
            return False
        if self.run_since < 0:
            self.run_since = record.time
        return record.time - self.run_since > _PERSISTENT_FACTOR * self.pto()

    cdef void remember(self, uint64_t pn, const Sent *record, bint by_time, int64_t now) noexcept nogil:
        # A full memory takes no more: what is in it may be in the list ``acked``.
        cdef Late *late
        if self.late_count == LATE_MAX:
            return
        late = &self.late[(self.late_first + self.late_count) % LATE_MAX]
        late.sent = record[0]
        late.pn = pn
        late.lost_at = now
        late.by_time = by_time
        self.late_count += 1

    # ---- For Python ----

    @property
    def oldest(self):
        return self.sent.oldest

    @property
    def next_pn(self):
        return self.sent.next_pn

    def mark_batch(self):
        return self.choose_mark(True)

    def send(self, int64_t now, uint16_t size, int flags=ACK_ELICITING | IN_FLIGHT, size_t count=1):
        cdef uint64_t pn = 0
        cdef Sent *record = NULL
        with nogil:
            while count:
                count -= 1
                pn = self.next_number()
                record = self.on_sent(pn, now, size, flags)
                if record == NULL:
                    break
                record.control = <uint32_t>pn
        return None if record == NULL else pn

    def take_over(self, uint64_t pn, int64_t time, uint16_t size, int flags=ACK_ELICITING | IN_FLIGHT):
        cdef Sent *record = self.adopt(pn, time, size, flags)
        if record == NULL:
            raise ValueError(f"packet {pn} comes before {self.sent.next_pn}, or too many do; take them over ascending")
        record.control = <uint32_t>pn

    def acknowledge(self, spans, int64_t now, uint64_t delay=0, counts=None):
        cdef AckFrame frame
        cdef int result
        if not 0 < len(spans) <= ACK_RANGES_MAX:
            raise ValueError(f"{len(spans)} ranges; pass 1 to {ACK_RANGES_MAX}, newest first")
        memset(&frame, 0, sizeof(frame))
        for start, stop in spans:
            if not start < stop or frame.count and stop >= frame.ranges[frame.count - 1].start:
                raise ValueError("ranges that overlap, touch or ascend; pass them newest first, with gaps between")
            frame.ranges[frame.count].start = start
            frame.ranges[frame.count].stop = stop
            frame.count += 1
        frame.largest = frame.ranges[0].stop - 1
        frame.delay = delay
        if counts is not None:
            frame.has_ecn = True
            frame.ect0, frame.ect1, frame.ce = counts
        with nogil:
            result = self.on_ack(&frame, now)
        if result < 0:
            what = "never sent" if result == ACK_OF_UNSENT else "skipped on purpose"
            raise RemoteProtocolError(
                f"the peer acknowledged a packet that was {what}; close the connection with PROTOCOL_VIOLATION"
            )

    def acked_packets(self):
        return listed(self.acked)

    def lost_packets(self):
        return listed(self.lost)

    def probe_packet(self):
        cdef Sent *record = self.oldest_outstanding()
        return None if record == NULL else record.control


cdef list listed(const Sent *record):
    result = []
    while record != NULL:
        result.append((record.control, record.flags, record.state))
        record = record.next
    return result


cdef inline uint64_t rotate(uint64_t value, int count) noexcept nogil:
    return value << count | value >> (64 - count)


cdef inline void sip_rounds(uint64_t *v, int count) noexcept nogil:
    while count:
        count -= 1
        v[0] += v[1]
        v[2] += v[3]
        v[1] = rotate(v[1], 13) ^ v[0]
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = rotate(v[0], 32)
        v[2] += v[1]
        v[0] += v[3]
        v[1] = rotate(v[1], 17) ^ v[2]
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = rotate(v[2], 32)


cdef uint64_t siphash(uint64_t k0, uint64_t k1, uint64_t number) noexcept nogil:
    """SipHash-2-4 of the number's eight bytes, little-endian (Aumasson and Bernstein, 2012)."""
    cdef uint64_t[4] v
    v[0] = k0 ^ 0x736F6D6570736575ULL
    v[1] = k1 ^ 0x646F72616E646F6DULL
    v[2] = k0 ^ 0x6C7967656E657261ULL
    v[3] = k1 ^ 0x7465646279746573ULL
    v[3] ^= number
    sip_rounds(v, 2)
    v[0] ^= number
    v[3] ^= <uint64_t>8 << 56
    sip_rounds(v, 2)
    v[0] ^= <uint64_t>8 << 56
    v[2] ^= 0xFF
    sip_rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
