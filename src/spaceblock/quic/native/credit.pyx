# cython: language_level=3, auto_pickle=False
"""What this side allows the peer to send: the credit of the connection and of each stream (RFC 9000, section 4).

Rules: credit follows consumption, in steps of a quarter of a window, and no limit ever goes back. The window of a data
stream doubles while its reader uses it up within two round trips, and is then twice the bandwidth-delay product, up to
a cap that all streams share. Below a millisecond of round trip the socket's receive buffer bounds it instead: what
was granted and has not arrived must find room there, and no congestion controller sees that limit. Connections that
share a socket share its buffer too (see ``budget``). A frame that was
lost is sent again with its limit's present height. Sizes are bytes, times microseconds.
"""

from spaceblock.varint cimport varint_size, write_varint

cimport cython

NEAR = 1_000
"""Microseconds of a round trip below which a window is bounded by the socket's buffer."""

NEAR_SHARED = 5_000
"""The same where connections share the buffer: it is filled within less time than that."""

NEAR_WINDOW_MIN = 256 * 1024
"""Credit of a stream on a near path, however many there are."""

WINDOWS_MAX = 16 * 1024 * 1024
"""Credit of all data streams together, where it is tuned beyond what the options say."""

cdef enum:
    MAX_DATA = 0x10
    MAX_STREAM_DATA = 0x11

cdef int64_t _NEAR = NEAR
cdef int64_t _NEAR_SHARED = NEAR_SHARED
cdef uint64_t _NEAR_WINDOW_MIN = NEAR_WINDOW_MIN
cdef uint64_t _WINDOWS_MAX = WINDOWS_MAX


@cython.final
cdef class Credit:
    """The credit of one connection; ``streams`` holds the streams on which the peer sends, by stream ID."""

    def __cinit__(self, StreamTable streams not None):
        self.streams = streams

    def set_windows(
        self, uint64_t connection_window, uint64_t stream_window, uint64_t control_window, uint64_t receive_buffer
    ):
        """Windows of the connection, of a unidirectional and of a bidirectional stream, and the socket's buffer."""
        self.connection_window = connection_window
        self.stream_window = stream_window
        self.control_window = control_window
        self.receive_buffer = receive_buffer

    def set_connection(self, uint64_t limit, uint64_t received, uint64_t consumed):
        """How far the connection's credit is used at the hand-over."""
        self.limit = limit
        self.received = received
        self.consumed = consumed

    def add(self, ReceiveStream stream not None):
        """A stream whose limit is to be kept up."""
        stream.window = self.stream_window if stream.stream_id & 2 else self.control_window
        self.data_streams += stream.stream_id >> 1 & 1

    def remove(self, ReceiveStream stream not None):
        """A stream that needs no more credit."""
        cdef void *each = self.first_due
        if self.budget is not None:
            self.budget.drop(stream)
        self.data_streams -= stream.stream_id >> 1 & 1
        if stream.limit_due:
            if each == <void *>stream:
                self.first_due = stream.next_due
            else:
                while (<ReceiveStream>each).next_due != <void *>stream:
                    each = (<ReceiveStream>each).next_due
                (<ReceiveStream>each).next_due = stream.next_due
            stream.limit_due = False

    cdef bint count(self, uint64_t fresh) noexcept nogil:
        """Bytes that arrived for the first time; False where that is more than was allowed."""
        if fresh > self.limit - self.received:
            return False
        self.received += fresh
        return True

    cdef bint consume(self, uint64_t count) noexcept nogil:
        """Bytes of any streams that will not be held any more; returns whether a frame is due."""
        cdef uint64_t wanted
        self.consumed += count
        wanted = self.consumed + self.connection_window
        if wanted <= self.limit or 4 * (wanted - self.limit) < self.connection_window:
            return False
        self.limit = wanted
        self.connection_due = True
        return True

    cdef bint grant(
        self, ReceiveStream stream, uint64_t consumed, int64_t now, int64_t min_rtt, int64_t rtt
    ) noexcept nogil:
        """A stream was consumed up to ``consumed``; returns whether a frame is due."""
        cdef uint64_t window = self.window_of(stream, min_rtt)
        cdef uint64_t limit
        # The window may have become smaller than what is granted already.
        if stream.final_size >= 0 or consumed + window <= stream.limit:
            return False
        if 4 * (consumed + window - stream.limit) < window:
            return False
        if stream.stream_id & 2:
            self.tune(stream, consumed, now, rtt)
        limit = consumed + self.window_of(stream, min_rtt)
        if self.shares(stream, min_rtt) and not self.budget.allows(stream, limit, now):
            stream.asked = consumed
            return False
        stream.limit = max(stream.limit, limit)
        self.tell(<void *>stream)
        return True

    cdef uint64_t window_of(self, ReceiveStream stream, int64_t min_rtt) noexcept nogil:
        """Credit that a stream has at once."""
        cdef uint64_t window = stream.window
        cdef uint64_t count = max(<size_t>1, self.data_streams)
        if not stream.stream_id & 2:
            return window
        window = min(window, max(self.stream_window, _WINDOWS_MAX // count))
        if min_rtt < _NEAR or self.is_local:
            window = min(window, max(_NEAR_WINDOW_MIN, self.receive_buffer // count))
        if self.shares(stream, min_rtt):
            window = min(window, self.budget.window_of(stream))
        return window

    cdef bint shares(self, ReceiveStream stream, int64_t min_rtt) noexcept nogil:
        """Whether a stream's credit is a part of what all connections together may be granted."""
        return self.budget is not None and stream.stream_id & 2 and (min_rtt < _NEAR_SHARED or self.is_local)

    cdef void leave_budget(self) noexcept:
        """Nothing comes for this connection any more."""
        cdef size_t i
        if self.budget is not None:
            for i in range(self.streams.count):
                self.budget.drop(<ReceiveStream>self.streams.values[i])
            self.budget = None

    cdef void tune(self, ReceiveStream stream, uint64_t consumed, int64_t now, int64_t rtt) noexcept nogil:
        """Double the window of a stream whose reader used it up within two round trips."""
        if stream.tuned_at == 0:
            stream.tuned_at = now
            stream.tuned_from = consumed
        elif consumed - stream.tuned_from >= stream.window:
            if now - stream.tuned_at < 2 * rtt:
                stream.window = max(stream.window, min(2 * stream.window, _WINDOWS_MAX))
            stream.tuned_at = now
            stream.tuned_from = consumed

    cdef bint is_due(self) noexcept nogil:
        """Whether there is a frame to send."""
        return self.connection_due or self.first_due != NULL

    cdef void tell(self, void *stream) noexcept nogil:
        if not (<ReceiveStream>stream).limit_due:
            (<ReceiveStream>stream).limit_due = True
            (<ReceiveStream>stream).next_due = self.first_due
            self.first_due = stream

    cdef void tell_again(self) noexcept nogil:
        """A packet with credit was lost: tell all limits anew, which is rare and cheap.

        Not those of streams on which nothing came: they are the first ones still, and the peer may not know the stream.
        """
        cdef size_t i
        cdef void *stream
        self.connection_due = True
        for i in range(self.streams.count):
            stream = self.streams.values[i]
            if not (<ReceiveStream>stream).finished and (<ReceiveStream>stream).highest > 0:
                self.tell(stream)

    cdef size_t write(self, uint8_t *out, size_t room) noexcept nogil:
        """Write the frames that are due and find room (sections 19.9 and 19.10); returns their size."""
        cdef size_t size = 0
        cdef void *stream
        if self.connection_due and 1 + varint_size(self.limit) <= room:
            out[0] = MAX_DATA
            size = 1 + write_varint(out + 1, self.limit)
            self.connection_due = False
        while self.first_due != NULL:
            stream = self.first_due
            if (
                1 + varint_size((<ReceiveStream>stream).stream_id) + varint_size((<ReceiveStream>stream).limit)
                > room - size
            ):
                break
            out[size] = MAX_STREAM_DATA
            size += 1
            size += write_varint(out + size, (<ReceiveStream>stream).stream_id)
            size += write_varint(out + size, (<ReceiveStream>stream).limit)
            (<ReceiveStream>stream).limit_due = False
            self.first_due = (<ReceiveStream>stream).next_due
        return size
