# cython: language_level=3, auto_pickle=False
"""Whether a path carries ECN marks, and what the peer's counts say of it (RFC 9000, section 13.4).

The first packets of a path are marked, and then none until one of them is acknowledged with counts that fit: a path
that drops marked packets, or clears the marks, must not cost more than these. Whatever does not fit ends it.
"""

cimport cython

cdef enum:
    TEST_PACKETS = 10  # appendix A.4


@cython.final
cdef class PathEcn:
    """For the recovery, which alone has one."""

    cpdef void enable(self) noexcept nogil:
        # The peer may still be on an engine that counts nothing. Once it acknowledges, it has the handshake behind it.
        if self.state == ECN_OFF:
            self.state = ECN_WAITING

    cdef bint marks(self) noexcept nogil:
        return self.state == ECN_CAPABLE or self.state == ECN_TESTING

    cdef void on_sent(self) noexcept nogil:
        self.sent += 1
        if self.state == ECN_TESTING:
            self.test_sent += 1
            if self.test_sent >= TEST_PACKETS:
                self.state = ECN_UNKNOWN

    cdef void on_lost(self, uint64_t pn) noexcept nogil:
        if pn >= self.test_start and (self.state == ECN_TESTING or self.state == ECN_UNKNOWN):
            self.test_lost += 1
            if self.state == ECN_UNKNOWN and self.test_lost >= self.test_sent:
                self.state = ECN_FAILED

    cdef bint on_ack(self, const AckFrame *frame, uint64_t marked, bint is_newest) noexcept nogil:
        """Section 13.4.2.1. An acknowledgement that was overtaken by another tells nothing new."""
        cdef bint is_congested
        if self.state == ECN_OFF or self.state == ECN_FAILED or not is_newest:
            return False
        if self.state == ECN_WAITING:
            self.state = ECN_TESTING
            return False
        if not frame.has_ecn:
            if marked:
                self.state = ECN_FAILED
            return False
        if (
            frame.ect0 < self.ect0 or frame.ce < self.ce  # counts that fall
            or frame.ect0 > self.sent or frame.ce > self.sent - frame.ect0 or frame.ect1  # marks that nobody set
            or frame.ect0 - self.ect0 + frame.ce - self.ce < marked  # marks that were cleared
        ):
            self.state = ECN_FAILED
            return False
        is_congested = frame.ce > self.ce
        self.ect0 = frame.ect0
        self.ce = frame.ce
        if marked:
            self.state = ECN_CAPABLE
        return is_congested

    cdef void test_again(self, uint64_t next_pn) noexcept nogil:
        if self.state == ECN_UNKNOWN or self.state == ECN_CAPABLE or self.state == ECN_FAILED:
            self.state = ECN_TESTING
        self.test_start = next_pn
        self.test_sent = self.test_lost = 0
