# cython: language_level=3, auto_pickle=False
"""What a socket's receive buffer can still hold, given out to the streams of all its connections in turns.

Rules: on a near path no congestion controller sees the receiver's socket fill up, so what is granted to all near
streams together and has not arrived must find room there. Where that is too little for everybody, a few streams at a
time have a large share of it and the others wait in a queue: a stream that sends a long run at once costs far less than
many that send a datagram each. A pledge counts for a short time only, so that who does not use it holds nobody up, and
a stream's share grows as long as it uses it in that time and shrinks when it does not, so that little is ever granted
that does not count. Who is alone
begins with half of it. Sizes are bytes, times microseconds.
"""

cimport cython

TURNS = 4
"""Streams that share the buffer at a time, when more than that want to."""

LAPSE = 50_000
"""Microseconds for which a pledge counts."""

SIZE_MIN = 256 * 1024
"""What is granted at once however small the buffer: less is slower than to lose some of it."""

SHARE_MIN = 64 * 1024
"""Share of a stream of which nothing is known."""

cdef int64_t NEVER = 2**63 - 1
cdef uint64_t _TURNS = TURNS
cdef int64_t _LAPSE = LAPSE
cdef uint64_t _SHARE_MIN = SHARE_MIN


@cython.final
cdef class Budget:
    """The budget of one socket that can hold ``size`` bytes."""

    def __cinit__(self, uint64_t size):
        self.size = max(size, <uint64_t>SIZE_MIN)
        self.members = set()

    def turn(self, int64_t now):
        """The engine and the stream that are to :meth:`PacketEngine.take_turn`, or None: for who has no pump."""
        cdef void *stream = self.next_turn(now)
        if stream == NULL:
            return None
        return <object>(<ReceiveStream>stream).engine, <ReceiveStream>stream

    cdef bint allows(self, ReceiveStream stream, uint64_t limit, int64_t now) noexcept nogil:
        cdef uint64_t count = limit - stream.highest if limit > stream.highest else 0
        if stream.waits:
            return False
        if not stream.has_turn:
            self.lapse(now)
            self.learn(stream)
            if self.waiting or self.pledged - stream.pledged + count > self.size:
                self.wait(stream)
                return False
        stream.has_turn = False
        self.let_go(stream)
        self.hold(stream, count, now)
        return True

    cdef void arrived(self, ReceiveStream stream, uint64_t fresh) noexcept nogil:
        fresh = min(fresh, stream.pledged)
        stream.pledged -= fresh
        self.pledged -= fresh

    cdef uint64_t window_of(self, ReceiveStream stream) noexcept nogil:
        cdef size_t others = max(self.holding - stream.holds, self.waiting - stream.waits)
        cdef uint64_t count = min(<uint64_t>others + 1, _TURNS)
        if others == 0:
            return max(self.size // 2, min(stream.share, self.size))
        return max(_SHARE_MIN, min(stream.share, self.size // count))

    cdef void learn(self, ReceiveStream stream) noexcept nogil:
        """A stream wants more: because it has used its share, or a long time after it got it."""
        if stream.holds:
            stream.share = min(2 * max(stream.share, _SHARE_MIN), self.size)
        else:
            stream.share = max(stream.share // 2, _SHARE_MIN)

    cdef void *next_turn(self, int64_t now) noexcept nogil:
        cdef void *first = self.first_waiting
        cdef uint64_t others
        if first == NULL:
            return NULL
        self.lapse(now)
        others = self.pledged - (<ReceiveStream>first).pledged
        if others and others + self.window_of(<ReceiveStream>first) > self.size:
            return NULL
        self.first_waiting = (<ReceiveStream>first).waits_behind
        if self.first_waiting == NULL:
            self.last_waiting = NULL
        (<ReceiveStream>first).waits = False
        (<ReceiveStream>first).has_turn = True
        self.waiting -= 1
        return first

    cdef void drop(self, ReceiveStream stream) noexcept nogil:
        cdef void *each = self.first_waiting
        cdef void *before = NULL
        self.let_go(stream)
        stream.has_turn = False
        if not stream.waits:
            return
        while each != <void *>stream:
            before = each
            each = (<ReceiveStream>each).waits_behind
        if before == NULL:
            self.first_waiting = stream.waits_behind
        else:
            (<ReceiveStream>before).waits_behind = stream.waits_behind
        if self.last_waiting == <void *>stream:
            self.last_waiting = before
        stream.waits = False
        self.waiting -= 1

    cdef int64_t next_lapse(self) noexcept nogil:
        return NEVER if self.first_holder == NULL else (<ReceiveStream>self.first_holder).pledged_at + _LAPSE

    cdef void lapse(self, int64_t now) noexcept nogil:
        while self.first_holder != NULL and (<ReceiveStream>self.first_holder).pledged_at + _LAPSE <= now:
            self.let_go(<ReceiveStream>self.first_holder)

    cdef void hold(self, ReceiveStream stream, uint64_t count, int64_t now) noexcept nogil:
        """Count on ``count`` bytes of a stream from now on."""
        stream.holds = True
        stream.pledged = count
        stream.pledged_at = now
        stream.held_behind = NULL
        stream.held_before = self.last_holder
        if self.last_holder == NULL:
            self.first_holder = <void *>stream
        else:
            (<ReceiveStream>self.last_holder).held_behind = <void *>stream
        self.last_holder = <void *>stream
        self.holding += 1
        self.pledged += count

    cdef void let_go(self, ReceiveStream stream) noexcept nogil:
        """Do not count on a stream any more."""
        if not stream.holds:
            return
        if stream.held_before == NULL:
            self.first_holder = stream.held_behind
        else:
            (<ReceiveStream>stream.held_before).held_behind = stream.held_behind
        if stream.held_behind == NULL:
            self.last_holder = stream.held_before
        else:
            (<ReceiveStream>stream.held_behind).held_before = stream.held_before
        stream.holds = False
        self.holding -= 1
        self.pledged -= stream.pledged
        stream.pledged = 0

    cdef void wait(self, ReceiveStream stream) noexcept nogil:
        """Have a stream wait for its turn."""
        stream.waits = True
        stream.waits_behind = NULL
        if self.last_waiting == NULL:
            self.first_waiting = <void *>stream
        else:
            (<ReceiveStream>self.last_waiting).waits_behind = <void *>stream
        self.last_waiting = <void *>stream
        self.waiting += 1
