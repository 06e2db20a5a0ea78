"""The keys of a connection's present key phase, of the next one and of the one before, for the packet engine."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from spaceblock.quic.native.protection cimport PacketKey

cdef enum:
    KEY_PHASE = 0x04  # in a short header's first byte (RFC 9000, section 17.3.1)

cdef enum:  # what open_aside() says
    NOT_OPENED = 0
    OPENED = 1
    OPENED_OLD = 2  # with the key of the phase before
    # The peer updated its keys: call turn(), then followed().
    OPENED_NEXT = 3
    # KEY_UPDATE_ERROR (RFC 9001, sections 6.2 and 6.4).
    UPDATE_TOO_SOON = -1
    NUMBER_TOO_LOW = -2
    KEY_TOO_OLD = -3

cdef class KeyPhases:
    # PacketKeys; both of the next phase are NULL until they are made, the old one is NULL before and after its time.
    cdef void *sealing
    cdef void *opening
    cdef void *next_sealing
    cdef void *next_opening
    cdef void *old_opening
    cdef list keys  # keeps alive what these point to
    cdef object make_keys  # makes the next phase's; None: there is none
    cdef bint is_due  # renew() has something to do
    cdef uint8_t bit  # KEY_PHASE or 0: the present phase's
    cdef uint8_t plain_bit  # the same while packets with it need no second look, else one that no header has
    cdef bint answered  # this side acknowledged a packet of this phase, in one of this phase
    cdef uint64_t start  # the lowest number opened with this phase's key; the largest integer for none
    cdef int64_t old_until  # when the old key goes; INT64_MAX until the peer was seen to use the new one
    cdef uint64_t sealed_from  # the first number that this phase's key may have sealed
    cdef uint64_t update_at  # the number before which this side wants to update
    cdef uint64_t interval  # packets
    cdef readonly uint64_t count  # updates, by either side

    # Opens what has another phase bit, and for some time after an update what has the present one. Writes to ``out``,
    # which is ``sealed`` itself; ``room`` has space for ``room_size`` bytes. ``largest`` is the largest number received
    # so far, ``pto`` in microseconds like ``now``.
    cdef int open_aside(
        self, uint64_t pn, const uint8_t *header, size_t header_size, uint8_t *sealed, size_t sealed_size,
        uint8_t *room, size_t room_size, int64_t largest, int64_t pto, int64_t now,
    ) noexcept nogil
    cdef int open_turned(
        self, uint64_t pn, const uint8_t *header, size_t header_size, uint8_t *sealed, size_t sealed_size,
        uint8_t *room, size_t room_size, int64_t largest,
    ) noexcept nogil
    # A packet of this phase was opened, and none of this phase acknowledged.
    cdef bint owes_answer(self) noexcept nogil
    # Whether this side may and wants to update: call turn() then.
    cdef bint may_update(self, int64_t largest_acked) noexcept nogil
    # Moves on to the next phase in both directions; there must be keys. ``next_pn`` is the first number sealed in it.
    cdef void turn(self, uint64_t next_pn) noexcept nogil
    # The first packet of this phase was opened: from now on the time of the old key runs.
    cdef void followed(self, uint64_t pn, int64_t pto, int64_t now) noexcept nogil
    cdef int renew(self) except -1
    cdef bint is_used(self, PacketKey key)
