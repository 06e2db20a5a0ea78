# cython: language_level=3, auto_pickle=False
"""How large a datagram the path carries: found out by probes, and given up when large ones vanish (RFC 8899).

- The first probe has the largest size there may be: that of the local network, which most paths carry from end to end.
  If it is lost three times, others follow, from the middle of the sizes that networks have, then of what is left.
- One probe is under way at a time. It is no part of a train, so that its loss costs nothing else, and it is sent only
  while data is: who sends little gains nothing.
- Large datagrams that vanish while small ones arrive are a black hole (RFC 8899, section 4.3). Then the smallest size
  there is goes on at once, and the former one is tried first: was it only an outage, it is back after a round trip.
"""

cimport cython
from libc.stdint cimport INT64_MAX

cdef enum:
    STEP = 16  # what is not worth another probe
    TRIES = 3  # MAX_PROBES of RFC 8899, section 5.1.2: as many are lost before a size counts as too large
    DOUBTS = 3
    SIZES = 16

cdef int64_t _SECOND = 1_000_000
# PMTU_RAISE_TIMER of RFC 8899, section 5.1.1: a path may change for the better.
cdef int64_t _RAISE = 600 * _SECOND
# A path on which probes arrive and trains vanish shall not fall from one black hole into the next.
cdef int64_t _COOLDOWN = 60 * _SECOND

# Networks' packets less the headers of IPv6 and UDP, or of IPv4 and UDP: the least of IPv6 and tunnels, WireGuard,
# PPPoE, Ethernet, FDDI, jumbo frames, and the powers of two and what loopback carries.
cdef size_t[SIZES] _COMMON = [
    1_232, 1_372, 1_392, 1_444, 1_452, 1_472, 2_000, 4_304, 8_152, 8_952, 8_972, 16_336, 32_720, 49_104, 65_488, 65_507,
]


@cython.final
cdef class PathMtu:
    def __cinit__(self, size_t size, size_t limit):
        if not DATAGRAM_BASE <= size <= limit <= DATAGRAM_TOP:
            raise ValueError(f"a datagram of {size} bytes, up to {limit}; pass {DATAGRAM_BASE} to {DATAGRAM_TOP}")
        self.reset(size, limit)

    cpdef void reset(self, size_t size, size_t limit) noexcept nogil:
        self.size = size
        self.limit = self.wish = limit
        self.failed = limit + 1
        self.probing = 0
        self.tries = self.doubts = 0
        self.is_settled = False
        self.resume_at = 0
        self.fell_at = -_COOLDOWN

    cpdef size_t due(self, uint64_t window, int64_t now) noexcept nogil:
        cdef size_t size
        if self.probing or now < self.resume_at:
            return 0
        if self.is_settled:
            self.is_settled = False
            self.failed = self.limit + 1
            self.wish = self.limit
        if self.failed - self.size <= STEP and not self.size < self.wish < self.failed:
            self.is_settled = True
            self.resume_at = INT64_MAX if self.size == self.limit else now + _RAISE
            return 0
        size = self.choose(<size_t>min(window // 2, <uint64_t>DATAGRAM_TOP))
        if size != self.tried:
            self.tried = size
            self.tries = 0
        return size

    cpdef void on_probe_sent(self, size_t size) noexcept nogil:
        self.probing = size

    cpdef bint on_probe_acked(self, size_t size) noexcept nogil:
        if size == self.probing:
            self.probing = 0
        if size <= self.size or size > self.limit:
            return False
        self.size = size
        self.doubts = 0
        if self.failed <= size:
            self.failed = self.limit + 1
        return True

    cpdef void on_probe_lost(self, size_t size) noexcept nogil:
        if size != self.probing:
            return
        self.probing = 0
        self.tries += 1
        if self.tries == TRIES and size > self.size:
            self.failed = size

    cpdef bint on_refused(self, size_t size, int64_t now) noexcept nogil:
        if size <= self.size:
            return self.fall_back(now)
        if size == self.probing:
            self.probing = 0
        self.failed = min(self.failed, size)
        return False

    cpdef bint on_outcome(self, bint any_acked, bint any_lost, int64_t now) noexcept nogil:
        if any_acked:
            self.doubts = 0
        elif any_lost:
            self.doubts += 1
            if self.doubts >= DOUBTS:
                return self.fall_back(now)
        return False

    cpdef bint fall_back(self, int64_t now) noexcept nogil:
        if self.size == DATAGRAM_BASE:
            return False
        self.wish = self.size
        self.size = DATAGRAM_BASE
        self.probing = 0
        self.tries = self.doubts = 0
        self.is_settled = False
        self.resume_at = now + _COOLDOWN if now - self.fell_at < _COOLDOWN else 0
        self.fell_at = now
        self.black_holes += 1
        return True

    cdef size_t choose(self, size_t room) noexcept nogil:
        """A size between what is known to get through and what is not; 0 where the window is too small for one."""
        cdef size_t i, first = SIZES, count = 0
        if self.size < self.wish < self.failed and self.wish <= room:
            return self.wish
        for i in range(SIZES):
            if self.size < _COMMON[i] < self.failed and _COMMON[i] <= room:
                first = min(first, i)
                count += 1
        if count:
            return _COMMON[first + count // 2]
        i = (self.size + self.failed) // 2
        return i if i <= room else 0
