# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Key phases (RFC 9001, section 6): which key opens a packet, and when both sides move on to the next ones.

- Moving on exchanges pointers. The keys behind are made when Python has its turn, which is before anything is
  acknowledged with the new ones; so a peer that keeps to the rules never finds them missing.
- A packet with another phase bit costs an attempt with one other key, which its number tells; with both in the three
  probe time-outs after an update. Nothing is derived or allocated for it.
- The old key is for what the network has delayed. The phase before that is forgotten: with updates in quick succession
  its packets are lost, and sent again.
"""

cimport cython
from libc.stdint cimport INT64_MAX, UINT64_MAX
from libc.string cimport memcpy

cdef enum:
    NO_BIT = 0xFF

cdef uint64_t NO_PACKET = UINT64_MAX


@cython.final
cdef class KeyPhases:
    def __cinit__(self, PacketKey sealing not None, PacketKey opening not None):
        self.keys = [sealing, opening]
        self.sealing = <void *>sealing
        self.opening = <void *>opening
        # Of the first phase all is known: it began with the connection.
        self.old_until = INT64_MAX
        self.answered = True
        self.update_at = self.interval = NO_PACKET

    def update(self, make_keys, bint phase, uint64_t interval, uint64_t next_pn):
        """See ``PacketEngine.set_key_updates``."""
        self.make_keys = make_keys
        self.bit = self.plain_bit = KEY_PHASE if phase else 0
        self.sealed_from = next_pn
        self.interval = interval
        self.update_at = next_pn + interval
        self.renew()

    # ---- Opening ----

    cdef int open_aside(
        self, uint64_t pn, const uint8_t *header, size_t header_size, uint8_t *sealed, size_t sealed_size,
        uint8_t *room, size_t room_size, int64_t largest, int64_t pto, int64_t now,
    ) noexcept nogil:
        if now >= self.old_until:
            self.old_until = INT64_MAX
            self.old_opening = NULL
            self.is_due = True
            self.plain_bit = self.bit
        if header[0] & KEY_PHASE != self.bit:
            return self.open_turned(pn, header, header_size, sealed, sealed_size, room, room_size, largest)
        if (<PacketKey>self.opening).open(pn, header, header_size, sealed, sealed_size, sealed) != 0:
            return NOT_OPENED
        if self.start == NO_PACKET:
            self.followed(pn, pto, now)
        self.start = min(self.start, pn)
        return OPENED

    cdef int open_turned(
        self, uint64_t pn, const uint8_t *header, size_t header_size, uint8_t *sealed, size_t sealed_size,
        uint8_t *room, size_t room_size, int64_t largest,
    ) noexcept nogil:
        """Section 6.5: the number tells whether the packet is of the phase before or of the next one."""
        cdef bint try_both = self.old_opening != NULL and sealed_size <= room_size
        if pn < self.start:
            if self.old_opening == NULL:
                return NOT_OPENED
            if (<PacketKey>self.old_opening).open(pn, header, header_size, sealed, sealed_size, sealed) != 0:
                return NOT_OPENED
            return OPENED_OLD
        if try_both:
            # What does not open is destroyed by the attempt.
            memcpy(room, sealed, sealed_size)
        if self.next_opening != NULL:
            if (<PacketKey>self.next_opening).open(pn, header, header_size, sealed, sealed_size, sealed) == 0:
                if not self.answered:
                    return UPDATE_TOO_SOON
                return NUMBER_TOO_LOW if <int64_t>pn <= largest else OPENED_NEXT
        if try_both:
            if (<PacketKey>self.old_opening).open(pn, header, header_size, room, sealed_size, sealed) == 0:
                return KEY_TOO_OLD
        return NOT_OPENED

    # ---- Updates ----

    cdef bint owes_answer(self) noexcept nogil:
        return not self.answered and self.start != NO_PACKET

    cdef bint may_update(self, int64_t largest_acked) noexcept nogil:
        """Section 6.1: not before a packet of this phase was acknowledged."""
        return self.next_sealing != NULL and largest_acked >= <int64_t>self.sealed_from

    cdef void turn(self, uint64_t next_pn) noexcept nogil:
        self.old_opening = self.opening
        self.opening = self.next_opening
        self.sealing = self.next_sealing
        self.next_opening = self.next_sealing = NULL
        self.is_due = True
        self.bit ^= KEY_PHASE
        self.plain_bit = NO_BIT
        self.answered = False
        self.start = NO_PACKET
        self.old_until = INT64_MAX
        self.sealed_from = next_pn
        self.update_at = next_pn + self.interval
        self.count += 1

    cdef void followed(self, uint64_t pn, int64_t pto, int64_t now) noexcept nogil:
        self.start = pn
        self.old_until = now + 3 * pto

    cdef int renew(self) except -1:
        """Make the next phase's keys if they were used, and let go of those that serve no more."""
        cdef PacketKey sealing, opening
        if self.next_sealing == NULL and self.make_keys is not None:
            sealing, opening = self.make_keys()
            self.keys += [sealing, opening]
            self.next_sealing = <void *>sealing
            self.next_opening = <void *>opening
        self.keys = [key for key in self.keys if self.is_used(key)]
        self.is_due = False
        return 0

    cdef bint is_used(self, PacketKey key):
        cdef void *place = <void *>key
        return (
            place == self.sealing or place == self.opening or place == self.next_sealing
            or place == self.next_opening or place == self.old_opening
        )
