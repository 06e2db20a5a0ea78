# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False, cdivision=True
"""How much may be in flight, and how fast it may leave: CUBIC (RFC 9438) with HyStart++ (RFC 9406), and a pacer.

- A few losses while round trips show no queue are the path's noise, and no congestion: see _SPARED_RATE.
- Windows are kept in bytes, CUBIC's formula is in datagrams and seconds, as in its RFC; both in double precision.
- A window grows only while it is what limits the sender (RFC 9002, section 7.8), and time without need does not count.
- Whether a packet belongs to a recovery period is told by its number, not by its time: batches share one time.
- Every divisor is a positive constant, a window or a datagram size, none of which is ever 0.
"""

cimport cython
from libc.math cimport cbrt
from libc.stdint cimport INT64_MAX, UINT64_MAX

# RFC 9002, section 7.2.
cdef uint64_t _INITIAL_DATAGRAMS = 10
cdef uint64_t _INITIAL_BYTES = 14720
cdef uint64_t _MINIMUM_DATAGRAMS = 2
# What Recovery can keep track of, with some to spare.
cdef uint64_t _MAXIMUM_DATAGRAMS = 100_000

# RFC 9438, section 5; alpha makes CUBIC's Reno-friendly region as fast as Reno (section 4.3).
cdef double _C = 0.4
cdef double _BETA = 0.7
cdef double _ALPHA = 3 * (1 - 0.7) / (1 + 0.7)

# RFC 9406, section 4.3. Its L, which limits growth for each ACK, is infinite: our ACKs are rare, and batches bounded.
cdef int64_t _MIN_RTT_THRESH = 4_000
cdef int64_t _MAX_RTT_THRESH = 16_000
cdef int64_t _MIN_RTT_DIVISOR = 8
cdef int _N_RTT_SAMPLE = 8
cdef double _CSS_GROWTH_DIVISOR = 4
cdef int _CSS_ROUNDS = 5

# By its formula CUBIC moves no more than 120 datagrams a round trip where one in 10 000 is lost for other reasons than
# congestion (RFC 9438, section 5.2). So windows that are large already spare losses, up to one in so many datagrams
# acknowledged and so many in a row, while the shortest of the last two rounds is no longer than the shortest ever and
# an eighth of it. Congestion that loses more than that, or that queues before it loses, is answered by CUBIC's rules.
# RFC 9002, section 7, leaves the sender this choice.
cdef uint64_t _SPARING_DATAGRAMS = 100
cdef double _SPARED_RATE = 1_000
cdef double _SPARED_MAX = 8
cdef double _SPARED_FIRST = 2
cdef double _QUEUE_DIVISOR = 8

# RFC 9002, section 7.7. A timer is late by up to a millisecond: the burst makes up for two of them.
cdef double _PACING_GAIN = 1.25
cdef double _BURST_TIME = 2_000
cdef int64_t _PACED_RTT = 1_000


@cython.final
cdef class Congestion:
    def __cinit__(self, uint64_t datagram_size):
        if not 0 < datagram_size <= 65535:
            raise ValueError(f"a datagram of {datagram_size} bytes; pass 1 to 65535")
        self.datagram_size = datagram_size
        self.reset()

    cpdef void on_acked(
        self, uint64_t size, uint64_t largest, uint64_t next_pn, int64_t smoothed_rtt, int64_t now
    ) noexcept nogil:
        """RFC 9002, section 7.3: grow by what was acknowledged, and count the rounds of HyStart++ meanwhile."""
        if largest + 1 >= self.round_stop:
            self.end_round()
            self.round_stop = next_pn
        self.spares = min(self.spares + size / (_SPARED_RATE * self.datagram_size), _SPARED_MAX)
        if size == 0 or self.app_limited:
            return
        if self.window >= self.threshold:
            self.grow(size, smoothed_rtt, now)
        else:
            self.set_window(self.exact + (size / _CSS_GROWTH_DIVISOR if self.conservative else size))

    cpdef void on_rtt(self, int64_t rtt) noexcept nogil:
        """RFC 9406, section 4.2: leave slow start, or come back to it, by the smallest round trip of the round."""
        cdef int64_t limit
        self.least_rtt = min(self.least_rtt, rtt)
        self.round_min = min(self.round_min, rtt)
        self.samples += 1
        if self.threshold != UINT64_MAX or self.samples < _N_RTT_SAMPLE:
            return
        if self.conservative:
            if self.round_min < self.baseline:
                self.conservative = False
        elif self.last_round_min != INT64_MAX:
            limit = max(_MIN_RTT_THRESH, min(self.last_round_min // _MIN_RTT_DIVISOR, _MAX_RTT_THRESH))
            if self.round_min >= self.last_round_min + limit:
                self.conservative = True
                self.conservative_rounds = 0
                self.baseline = self.round_min

    cpdef void on_lost(self, uint64_t pn, uint64_t next_pn) noexcept nogil:
        """RFC 9002, section 7.3.2: one reduction for all that was sent before it."""
        if pn < self.recovery_until:
            self.episode_lost += self.episode_lost > 0 and pn >= self.episode_first
        elif self.may_spare():
            self.spares -= 1
            self.spared += 1
        else:
            self.begin_recovery(pn, next_pn)

    cpdef void on_marked(self, uint64_t pn, uint64_t next_pn) noexcept nogil:
        """RFC 9002, section 7.1: as a loss, but certain, so that the reduction is never taken back."""
        if pn >= self.recovery_until:
            self.begin_recovery(pn, next_pn)
        self.episode_lost = -1

    cpdef void on_spurious(self, uint64_t pn) noexcept nogil:
        """RFC 9438, section 4.9.2: a reduction is taken back when each of its losses turned out to be none."""
        if self.episode_lost > 0 and self.episode_first <= pn < self.recovery_until:
            self.episode_lost -= 1
            if self.episode_lost == 0:
                self.undo()

    cpdef void on_persistent(self) noexcept nogil:
        """RFC 9002, section 7.6.2; congestion avoidance then begins anew where slow start ends (RFC 9438, 4.8)."""
        self.set_window(0)
        self.w_max = 0
        self.epoch = -1
        self.recovery_until = 0
        self.episode_lost = -1

    cpdef void on_app_limited(self, int64_t now) noexcept nogil:
        if not self.app_limited:
            self.app_limited = True
            self.limited_since = now

    cpdef void on_filled(self, int64_t now) noexcept nogil:
        """RFC 9438, section 5.8: the time in which the window was not needed is no part of CUBIC's time."""
        if self.app_limited:
            self.app_limited = False
            if self.epoch >= 0:
                self.epoch += max(now - self.limited_since, <int64_t>0)

    cpdef void set_datagram_size(self, uint64_t size) noexcept nogil:
        cdef double factor = <double>self.datagram_size / <double>size
        self.datagram_size = size
        self.maximum = _MAXIMUM_DATAGRAMS * size
        self.w_max *= factor
        self.cwnd_prior *= factor
        self.epoch = -1
        self.episode_lost = -1
        self.set_window(self.exact)

    cpdef void reset(self) noexcept nogil:
        self.maximum = _MAXIMUM_DATAGRAMS * self.datagram_size
        self.threshold = UINT64_MAX
        self.set_window(min(
            _INITIAL_DATAGRAMS * self.datagram_size, max(_INITIAL_BYTES, _MINIMUM_DATAGRAMS * self.datagram_size)
        ))
        self.app_limited = False
        self.recovery_until = self.round_stop = 0
        self.w_max = self.w_est = self.cwnd_prior = self.k = 0
        self.epoch = self.episode_lost = -1
        self.last_round_min = self.round_min = self.baseline = INT64_MAX
        self.samples = self.conservative_rounds = 0
        self.conservative = False
        self.spares = _SPARED_FIRST
        self.least_rtt = self.recent_rtt = INT64_MAX

    # ---- Helpers ----

    cdef bint may_spare(self) noexcept nogil:
        if self.spares < 1 or self.window < _SPARING_DATAGRAMS * self.datagram_size or self.least_rtt == INT64_MAX:
            return False
        return min(self.recent_rtt, self.round_min) - self.least_rtt < self.least_rtt / _QUEUE_DIVISOR

    cdef void begin_recovery(self, uint64_t pn, uint64_t next_pn) noexcept nogil:
        self.episode_start = self.recovery_until
        self.episode_first = pn
        self.episode_lost = 1
        self.recovery_until = next_pn
        self.reductions += 1
        self.reduce()

    cdef void grow(self, uint64_t size, int64_t smoothed_rtt, int64_t now) noexcept nogil:
        """RFC 9438, sections 4.2 to 4.5: congestion avoidance."""
        cdef double datagram = <double>self.datagram_size
        cdef double cwnd = self.exact / datagram
        # More than a window in one acknowledgement would overshoot the target.
        cdef double share = min(<double>size / self.exact, 1)
        cdef double seconds, target
        if self.epoch < 0:
            # Without a maximum from before, the curve begins at its plateau (sections 4.8 and 4.10).
            self.epoch = now
            self.w_max = max(self.w_max, cwnd)
            self.cwnd_prior = max(self.cwnd_prior, cwnd)
            self.k = cbrt((self.w_max - cwnd) / _C)
            self.w_est = cwnd
        self.w_est += share if self.w_est >= self.cwnd_prior else _ALPHA * share
        seconds = (now - self.epoch) / 1e6
        if w_cubic(seconds, self.k, self.w_max) < self.w_est:
            target = max(cwnd, self.w_est)
        else:
            target = w_cubic(seconds + smoothed_rtt / 1e6, self.k, self.w_max)
            target = cwnd + (max(cwnd, min(target, 1.5 * cwnd)) - cwnd) * share
        self.set_window(target * datagram)

    cdef void end_round(self) noexcept nogil:
        if self.samples:
            self.recent_rtt = self.round_min
        self.last_round_min = self.round_min
        self.round_min = INT64_MAX
        self.samples = 0
        if self.conservative:
            self.conservative_rounds += 1
            if self.conservative_rounds == _CSS_ROUNDS:
                self.conservative = False
                self.threshold = self.window

    cdef void reduce(self) noexcept nogil:
        """RFC 9438, sections 4.6 and 4.7: multiplicative decrease, with fast convergence."""
        cdef double cwnd = self.exact / <double>self.datagram_size
        self.saved_exact = self.exact
        self.saved_threshold = self.threshold
        self.saved_w_max = self.w_max
        self.saved_w_est = self.w_est
        self.saved_cwnd_prior = self.cwnd_prior
        self.saved_k = self.k
        self.saved_epoch = self.epoch
        self.w_max = cwnd * (1 + _BETA) / 2 if cwnd < self.w_max else cwnd
        self.cwnd_prior = cwnd
        self.epoch = -1
        self.conservative = False
        self.set_window(self.exact * _BETA)
        self.threshold = self.window

    cdef void undo(self) noexcept nogil:
        self.undone += 1
        self.episode_lost = -1
        self.recovery_until = self.episode_start
        if self.exact >= self.saved_exact:
            return
        self.threshold = self.saved_threshold
        self.w_max = self.saved_w_max
        self.w_est = self.saved_w_est
        self.cwnd_prior = self.saved_cwnd_prior
        self.k = self.saved_k
        self.epoch = self.saved_epoch
        self.set_window(self.saved_exact)

    cdef void set_window(self, double value) noexcept nogil:
        self.exact = max(<double>(_MINIMUM_DATAGRAMS * self.datagram_size), min(value, <double>self.maximum))
        self.window = <uint64_t>self.exact


cdef inline double w_cubic(double seconds, double k, double w_max) noexcept nogil:
    """RFC 9438, equation 1."""
    return _C * (seconds - k) * (seconds - k) * (seconds - k) + w_max


@cython.final
cdef class Pacer:
    def __cinit__(self, uint64_t quantum):
        if quantum == 0:
            raise ValueError("a quantum of 0 bytes; pass the bytes of one batch")
        self.quantum = quantum
        self.tokens = quantum

    cpdef uint64_t allowed(self, uint64_t window, int64_t smoothed_rtt, int64_t now) noexcept nogil:
        """RFC 9002, section 7.7: 1.25 windows a round trip; below a millisecond, timers are too coarse for it."""
        if self.is_needless or smoothed_rtt < _PACED_RTT:
            self.rate = 0
            self.tokens = self.quantum
            self.filled_at = now
            return UINT64_MAX
        self.rate = _PACING_GAIN * window / smoothed_rtt
        self.tokens += self.rate * max(now - self.filled_at, <int64_t>0)
        self.tokens = min(self.tokens, max(<double>self.quantum, self.rate * _BURST_TIME))
        self.filled_at = now
        if self.tokens <= 0:
            return 0
        return max(<uint64_t>self.tokens, self.quantum)

    cpdef void on_sent(self, uint64_t size) noexcept nogil:
        if self.rate > 0:
            self.tokens -= size

    cpdef void set_quantum(self, uint64_t quantum) noexcept nogil:
        self.quantum = quantum

    cpdef int64_t next_time(self) noexcept nogil:
        if self.rate == 0 or self.tokens > 0:
            return self.filled_at
        return self.filled_at + 1 + <int64_t>(-self.tokens / self.rate)
