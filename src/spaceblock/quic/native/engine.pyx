# cython: language_level=3, auto_pickle=False
"""One connection's packets after the handshake: what arrives is opened and taken apart, what is due is sealed.

Rules: received packets are opened where they lie, and nothing of them is believed before their tag was checked.
STREAM, ACK and credit frames are handled here; all others are put into ``rare`` for Python. Errors of the peer are put
into ``violation`` and end the processing of everything (RFC 9000, section 11). The sending half is in ``sending``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from spaceblock.quic.native.budget cimport Budget
from spaceblock.quic.native.phases cimport (
    KEY_PHASE,
    KEY_TOO_OLD,
    NOT_OPENED,
    NUMBER_TOO_LOW,
    OPENED_NEXT,
    OPENED_OLD,
    UPDATE_TOO_SOON,
)
from spaceblock.quic.native.probing cimport is_loopback, is_probing
from spaceblock.quic.native.protection cimport HeaderKey, PacketKey
from spaceblock.quic.native.ranges cimport REPEATED, parse_ack
from spaceblock.quic.native.recovery cimport ACK_OF_SKIPPED
from spaceblock.quic.native.sending cimport ACK, BATCH_SIZE, PADDING, PING, PN_SIZE, SAMPLE, STREAM, TAG, PacketSender
from spaceblock.quic.native.streams cimport ReceiveStream, SendStream
from spaceblock.quic.native.udp cimport unpack_sender
from spaceblock.varint cimport VARINT_MAX, read_varint

cimport cython

ELSEWHERE = 1 << 62
"""Begins what ``rare`` says of packets that did not come from where the peer is, and is the type of no frame: followed
by their address, their bytes, the connection ID of ours that they carry, and whether the peer has moved there."""

RARE_FRAMES_AHEAD = RARE_AHEAD
"""Frames for Python that may come at once, whatever packets they are in."""

RARE_FRAMES_WAITING = RARE_WAITING
"""Frames that may wait for Python, where a thread takes in packets for an event loop that does not come."""

cdef enum:
    HEADER_SIZE_OPEN = 1 + LOCAL_CID_SIZE  # before the packet number
    RESERVED_BITS = 0x18
    OLD_KEY = 0x01  # in Opened.marks: opened with the key of the phase before
    CONNECTION_CLOSE = 0x1D  # and 0x1C
    LISTENS = 4  # times that a few packets are opened after the close
    # Frame types (RFC 9000, section 19).
    ACK_ECN = 0x03
    MAX_DATA = 0x10
    MAX_STREAM_DATA = 0x11
    PATH_CHALLENGE = 0x1A


@cython.final
cdef class PacketEngine(PacketSender):
    """The packets of one connection, in both directions.

    Datagrams have ``datagram_size`` bytes at first, and grow up to ``datagram_limit`` where the path carries more.
    ``accept(stream_id)`` is called for a STREAM frame of a stream that is not known, and returns its
    :class:`ReceiveStream`, or None where the frame is to be ignored; it may set a violation.
    """

    def __cinit__(
        self, recovery, received, PacketKey sealing, HeaderKey seal_mask, PacketKey opening, HeaderKey open_mask,
        size_t datagram_size, accept, size_t datagram_limit=0,
    ):
        self._open_mask = open_mask
        self._accept = accept
        self._failed_max = VARINT_MAX
        self._rare_room = RARE_AHEAD
        self._listens = LISTENS
        self._newest_plain = self.received.largest
        self.receive_streams = {}
        self._receivers = self.credit.streams
        self.rare = []
        self.news = []

    # Addresses, credit, streams.

    def set_peer_address(self, address, int family):
        """Where a pump sends to, on a socket of that family."""
        PacketSender.set_peer_address(self, address, family)
        self._look_for_peer()

    def move_to(self, address, bytes used_cid not None):
        """The peer is elsewhere now, and sends from there to this connection ID of ours."""
        PacketSender.move_to(self, address, used_cid)
        self._look_for_peer()

    cdef void _look_for_peer(self) noexcept nogil:
        self.credit.is_local = self.recovery.pacer.is_needless = is_loopback(&self.peer)

    def set_local_cids(self, cids):
        """The connection IDs that packets of the peer may carry."""
        cdef bytes cid
        self._local_cid_count = 0
        for cid in cids:
            if PyBytes_GET_SIZE(cid) == LOCAL_CID_SIZE and self._local_cid_count < LOCAL_CIDS_MAX:
                memcpy(&self._local_cids[self._local_cid_count], PyBytes_AS_STRING(cid), LOCAL_CID_SIZE)
                self._local_cid_count += 1

    def set_credit(self, max_data, data_sent, local_max_data, data_received, consumed=0):
        """The connection's credit in both directions, as it stands at the hand-over."""
        self.max_data = max_data
        self.data_sent = data_sent
        self.credit.set_connection(local_max_data, data_received, consumed)

    def set_key_updates(self, make_keys, bint phase, uint64_t interval, uint64_t key_packets, uint64_t failed_max):
        """Follow the peer's key updates (RFC 9001, section 6), and begin one after ``interval`` packets of a key.

        ``make_keys()`` returns the sealing and the opening key of the next phase, each time of a later one; ``phase``
        is the bit of the present one. A key seals no more than ``key_packets``, which ``packets_max`` follows, and with
        ``failed_max`` packets that did not open the connection ends. Call it once all that was sent is adopted.
        """
        # Nobody told how much the present key has sealed: at most every number that was given out.
        self.packets_max = self._key_packets = key_packets
        self._failed_max = failed_max
        self.phases.update(make_keys, phase, interval, self.recovery.next_number())

    def add_receive_stream(self, ReceiveStream stream):
        """Take in what comes for ``stream``."""
        self._receivers.add(stream.stream_id, <void*>stream)
        self.credit.add(stream)
        stream.engine = <void*>self
        self.receive_streams[stream.stream_id] = stream

    def remove_receive_stream(self, ReceiveStream stream):
        """Forget a stream that is finished; what still comes for it is asked of ``accept``."""
        if self.receive_streams.pop(stream.stream_id, None) is None:
            return
        self._receivers.remove(stream.stream_id)
        self.credit.remove(stream)
        self._drop_news(<void*>stream)

    def count_reset(self, ReceiveStream stream, uint64_t final_size):
        """Charge a reset stream's final size to the connection's credit (section 4.5); False where that is too much."""
        cdef uint64_t fresh = final_size - stream.highest if final_size > stream.highest else 0
        return final_size <= stream.limit and self.credit.count(fresh)

    def grant_stream(self, ReceiveStream stream not None, uint64_t consumed):
        """Let the peer send up to a window beyond ``consumed``; returns whether there is now something to send."""
        return self._grant(stream, consumed)

    def grant_connection(self, uint64_t count):
        """``count`` more bytes of any streams were consumed; returns whether there is now something to send."""
        return self.credit.consume(count)

    def pull(self, ReceiveStream stream not None):
        """Give a stream's intake what it held back, as :meth:`ReceiveStream.pull` does, and credit what it takes."""
        result = stream.pull()
        self._credit_intake(stream)
        return result

    def violate(self, code, kind, str reason):
        """Say that the peer broke a rule; the first one counts."""
        if not self.is_broken:
            self._broken_text = reason
            self._break(code, kind, NULL)

    @property
    def violation(self):
        """``(QUIC error code, frame type, reason)`` once the peer broke a rule, else None."""
        if not self.is_broken:
            return None
        why = self._broken_text if self._broken_text is not None else (<bytes>self._broken_why).decode()
        return self._broken_code, self._broken_kind, why

    cdef void _break(self, uint64_t code, uint64_t kind, const char *why) noexcept nogil:
        if not self.is_broken:
            self.is_broken = True
            self._broken_code = code
            self._broken_kind = kind
            self._broken_why = why

    # Receiving.

    def receive(self, uint8_t[::1] data not None, size_t segment, int64_t now, int ecn=0, elsewhere=None):
        """Take in one receive buffer of datagrams of ``segment`` bytes each, the last one maybe shorter, and ECN bits.

        ``elsewhere`` is where it came from, if the peer is not there; ``rare`` then begins with what that means.
        The packets are opened in place. Afterwards ``news``, ``rare``, ``lost`` and ``delivered`` may have grown.
        Returns how many packets were this connection's.
        """
        cdef size_t size = <size_t>data.shape[0]
        cdef size_t count
        if size == 0 or segment == 0:
            return 0
        self._elsewhere = elsewhere
        self.is_elsewhere = elsewhere is not None
        with nogil:
            count = self.take_in(&data[0], size, segment, ecn, now)
            self.drain()
        self.is_elsewhere = False
        self.report()
        return count

    cdef size_t take_in(self, uint8_t *data, size_t size, size_t segment, int ecn, int64_t now) except? 9999999 nogil:
        """Take in datagrams from memory; :meth:`drain` must follow before the memory is used again."""
        cdef size_t at = 0, count, i, total = 0, start
        cdef uint64_t used_cid = 0
        if self.is_broken:
            return 0
        if self.is_closing:
            # Nothing but a close is looked for any more (RFC 9000, section 10.2.1); who closed may want to repeat it.
            return not self.is_elsewhere and self._listen(data, size, segment, now)
        while at < size and not self.is_broken:
            start = at
            count = self._open_group(data, size, segment, &at, now)
            if count and self.is_elsewhere:
                with gil:
                    self._visit(count, at - start)
            if count:
                used_cid = self._packets[count - 1].cid
            for i in range(count):
                self._process(&self._packets[i], now)
                if self.is_broken:
                    break
            total += count
        if total:
            self.opened += total
            self.received.count_marks(ecn, total)
            self.idle_since = now
            self._elicited = False
            if not self.is_elsewhere:
                self._used_cid = used_cid
                if self.is_confined:
                    self.path_room += 3 * size
        # What breaks a rule is to be told, even if it is a packet that does not count.
        return max(total, <size_t>self.is_broken)

    cdef size_t take_in_elsewhere(
        self, uint8_t *data, size_t size, const Received *received, int64_t now
    ) except? 9999999 nogil:
        """The same for datagrams out of a buffer that does not come from where the peer is."""
        cdef size_t count
        with gil:
            self._elsewhere = unpack_sender(received)
            self.is_elsewhere = self._elsewhere is not None
        if not self.is_elsewhere:
            return 0
        count = self.take_in(data, size, received.segment, received.ecn, now)
        self.is_elsewhere = False
        return count

    cdef int _visit(self, size_t count, size_t size) except -1:
        """Say in ``rare`` that packets came from elsewhere, and whether one moves the peer: what does is not probing,
        and has a higher number than all others that are not (RFC 9000, section 9.3)."""
        cdef bint moved = False
        cdef size_t i
        cdef uint64_t cid = self._packets[count - 1].cid
        for i in range(count):
            if self._moves(&self._packets[i]):
                moved = True
                cid = self._packets[i].cid
        self.awaits_python |= moved
        used_cid = PyBytes_FromStringAndSize(<const char*>&cid, LOCAL_CID_SIZE)
        return self._put_rare((ELSEWHERE, self._elsewhere, size, used_cid, moved))

    cdef bint _moves(self, const Opened *packet) noexcept nogil:
        """Whether the peer is where this packet came from."""
        return <int64_t>packet.pn > self._newest_plain and not is_probing(packet.payload, packet.payload + packet.size)

    cdef int drain(self) except -1 nogil:
        """Hand on what the streams have received, and make the keys that an update calls for."""
        cdef void *each = self._first_news
        if self.phases.is_due:
            with gil:
                self.phases.renew()
        while each != NULL:
            (<ReceiveStream>each).drain()
            self._credit_intake(<ReceiveStream>each)
            each = (<ReceiveStream>each).next_news
        return 0

    cdef bint may_answer(self) noexcept nogil:
        """Whether what is due may be sent before Python had a look at what came."""
        return not (self.is_broken or self.is_closing or self.awaits_python)

    cdef bint needs_python(self, int64_t now) except -1:
        """Whether what came is more than acknowledgements and credit that changed nothing for those who wait.

        To be asked after :meth:`report`, and when all that may be sent was sent.
        """
        cdef SendStream sender
        if not self.may_answer() or self.cut_off or self.news or self.rare or self.lost or self.delivered:
            return True
        if now >= self.look_at or self.is_early() or self.recovery.next_number() >= self.packets_max:
            return True
        for sender in self.send_streams.values():
            if sender.is_awaited():
                return True
        return False

    cdef bint _credit_intake(self, ReceiveStream stream) noexcept nogil:
        """What an intake took is consumed; returns whether there is now something to send."""
        cdef uint64_t fresh = stream.taken - stream.credited
        cdef bint due
        if stream._intake != NULL and fresh:
            stream.credited = stream.taken
            due = self.credit.consume(fresh)
            return self._grant(stream, stream.taken) or due
        return False

    cdef bint _grant(self, ReceiveStream stream, uint64_t consumed) noexcept nogil:
        return self.credit.grant(
            stream, consumed, self.idle_since, self.recovery.min_rtt, <int64_t>self.recovery.smoothed_rtt
        )

    def share_credit(self, Budget budget not None):
        """Grant near data streams credit out of what all engines that do so have together."""
        self.credit.budget = budget
        budget.members.add(self)

    def leave_credit(self):
        """Nothing comes for this connection any more."""
        cdef Budget budget = self.credit.budget
        self.credit.leave_budget()
        if budget is not None:
            budget.members.discard(self)

    cpdef void take_turn(self, ReceiveStream stream, int64_t now) noexcept nogil:
        """The budget allows a stream more credit now."""
        self.credit.grant(stream, stream.asked, now, self.recovery.min_rtt, <int64_t>self.recovery.smoothed_rtt)
        stream.has_turn = False

    cdef int report(self) except -1:
        """Do with the GIL what taking in left to do: list the news, and let go of what was acknowledged."""
        cdef void *each = self._first_news
        cdef SendStream sender
        self._first_news = NULL
        while each != NULL:
            (<ReceiveStream>each).has_news = False
            self.news.append(<ReceiveStream>each)
            each = (<ReceiveStream>each).next_news
        if self.acknowledged:
            self.acknowledged = False
            for sender in list(self.send_streams.values()):
                sender.release()
        return 0

    cdef bint _listen(self, uint8_t *data, size_t size, size_t segment, int64_t now) noexcept nogil:
        """Find out whether the peer closes, too, as far as that costs little; True."""
        cdef size_t at = 0, i
        if self._listens:
            self._listens -= 1
            for i in range(self._open_group(data, size, segment, &at, now)):
                if self._packets[i].size and self._packets[i].payload[0] | 1 == CONNECTION_CLOSE:
                    self.heard_close = True
        return True

    cdef size_t _open_group(
        self, uint8_t *data, size_t size, size_t segment, size_t *at, int64_t now
    ) noexcept nogil:
        """Open up to GROUP packets from ``at`` on; those that are this connection's are left in ``_packets``."""
        cdef uint8_t *starts[GROUP]
        cdef size_t[GROUP] lengths
        cdef size_t found = 0, count = 0, i, length
        cdef uint8_t *packet
        cdef uint64_t cid
        cdef bint known
        while at[0] < size and found < GROUP:
            packet = data + at[0]
            length = min(segment, size - at[0])
            at[0] += length
            if length < HEADER_SIZE_OPEN + PN_SIZE + SAMPLE or packet[0] & 0xC0 != 0x40:
                continue
            memcpy(&cid, packet + 1, LOCAL_CID_SIZE)
            known = False
            for i in range(self._local_cid_count):
                known |= self._local_cids[i] == cid
            if known:
                memcpy(self._samples + SAMPLE * found, packet + HEADER_SIZE_OPEN + PN_SIZE, SAMPLE)
                starts[found] = packet
                lengths[found] = length
                found += 1
        if found == 0 or self._open_mask.masks(self._samples, found, self._masks) != 0:
            return 0
        for i in range(found):
            if self._open_one(starts[i], lengths[i], self._masks + SAMPLE * i, &self._packets[count], now):
                count += 1
        return count

    cdef bint _open_one(
        self, uint8_t *data, size_t size, const uint8_t *mask, Opened *packet, int64_t now
    ) noexcept nogil:
        """Remove header protection (RFC 9001, section 5.4) and open one packet; False: not ours, or seen before."""
        cdef uint8_t first = data[0] ^ (mask[0] & 0x1F)
        cdef size_t pn_size = (first & 0x03) + 1
        cdef size_t header_size = HEADER_SIZE_OPEN + pn_size
        cdef uint64_t truncated = 0, window, candidate, expected
        cdef size_t i
        data[0] = first
        for i in range(pn_size):
            data[HEADER_SIZE_OPEN + i] ^= mask[1 + i]
            truncated = (truncated << 8) | data[HEADER_SIZE_OPEN + i]
        # RFC 9000, appendix A.3.
        expected = <uint64_t>(self.received.largest + 1)
        window = <uint64_t>1 << (8 * pn_size)
        candidate = (expected & ~(window - 1)) | truncated
        if candidate + window // 2 <= expected and candidate < VARINT_MAX + 1 - window:
            candidate += window
        elif candidate > expected + window // 2 and candidate >= window:
            candidate -= window
        packet.pn = candidate
        memcpy(&packet.cid, data + 1, LOCAL_CID_SIZE)
        packet.payload = data + header_size
        packet.size = size - header_size - TAG
        packet.marks = first & RESERVED_BITS
        if first & KEY_PHASE != self.phases.plain_bit:
            if not self._open_aside(data, header_size, size - header_size, packet, now):
                return False
        elif (<PacketKey>self.phases.opening).open(
            candidate, data, header_size, packet.payload, size - header_size, packet.payload
        ) != 0:
            return self._refuse()
        return self.received.add(candidate, now) != REPEATED

    cdef bint _open_aside(
        self, uint8_t *data, size_t header_size, size_t sealed_size, Opened *packet, int64_t now
    ) noexcept nogil:
        """Open a packet with another phase bit, or one soon after a key update."""
        cdef int64_t pto = self.recovery.pto()
        cdef int result = self.phases.open_aside(
            packet.pn, data, header_size, packet.payload, sealed_size, self._scratch, BATCH_SIZE, self.received.largest,
            pto, now,
        )
        if result == NOT_OPENED:
            return self._refuse()
        if result == OPENED_OLD:
            packet.marks |= OLD_KEY
        elif result == OPENED_NEXT:
            self._turn()
            self.phases.followed(packet.pn, pto, now)
        elif result == UPDATE_TOO_SOON:
            self._break(KEY_UPDATE_ERROR, 0, "a key update before the one before was acknowledged")
        elif result == NUMBER_TOO_LOW:
            self._break(KEY_UPDATE_ERROR, 0, "a new key for a packet before one with an older key")
        elif result == KEY_TOO_OLD:
            self._break(KEY_UPDATE_ERROR, 0, "an old key for a packet behind one with a newer key")
        return not self.is_broken

    cdef bint _refuse(self) noexcept nogil:
        """Count a packet that did not open (RFC 9001, section 6.6); False."""
        self.failed += 1
        if self.failed >= self._failed_max:
            self._break(AEAD_LIMIT_REACHED, 0, "more packets that do not open than there may be")
        return False

    cdef int _process(self, const Opened *packet, int64_t now) except -1 nogil:
        """Take one packet's frames apart (section 12.4)."""
        cdef const uint8_t *at = packet.payload
        cdef const uint8_t *end = at + packet.size
        cdef uint64_t kind
        cdef int fine
        if packet.size == 0 or packet.marks & RESERVED_BITS:
            self._break(PROTOCOL_VIOLATION, 0, "a packet without frames, or with reserved bits set")
            return 0
        if self._moves(packet):
            self._newest_plain = <int64_t>packet.pn
        self._rare_room = min(self._rare_room + RARE_PER_PACKET, <int64_t>RARE_AHEAD)
        while at < end and not self.is_broken:
            kind = at[0]
            if kind == PADDING:
                at += 1
            elif STREAM <= kind <= STREAM + 7:
                self.ack_due = True
                fine = self._stream_frame(kind, &at, end)
                if not fine:
                    self._break(FRAME_ENCODING_ERROR, kind, "a frame that is cut short")
            elif kind == ACK or kind == ACK_ECN:
                fine = self._ack_frame(&at, end, packet.marks & OLD_KEY, now)
                if not fine:
                    self._break(FRAME_ENCODING_ERROR, kind, "a malformed ACK frame")
            elif kind == PING:
                self.ack_due = True
                at += 1
            elif kind == MAX_DATA or kind == MAX_STREAM_DATA:
                self.ack_due = True
                fine = self._credit_frame(kind, &at, end)
                if not fine:
                    self._break(FRAME_ENCODING_ERROR, kind, "a frame that is cut short")
            else:
                fine = read_varint(&at, end, &kind)
                if fine and self._may_ask(kind):
                    with gil:
                        fine = self._rare_frame(kind, &at, end)
                if not fine:
                    self._break(FRAME_ENCODING_ERROR, kind, "a frame that is unknown or cut short")
        return 0

    cdef int _stream_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1 nogil:
        cdef uint64_t stream_id, offset = 0, size, fresh, stop
        cdef void *stream
        cdef const uint8_t *data
        cdef int result
        cdef bint is_new
        at[0] += 1
        if not read_varint(at, end, &stream_id):
            return False
        if kind & 0x04 and not read_varint(at, end, &offset):
            return False
        if kind & 0x02:
            if not read_varint(at, end, &size) or size > <uint64_t>(end - at[0]):
                return False
        else:
            size = <uint64_t>(end - at[0])
        data = at[0]
        at[0] += size
        if offset > VARINT_MAX - size:
            return False
        stream = self._receivers.find(stream_id)
        if stream == NULL:
            if self._may_ask(kind):
                with gil:
                    stream = self._ask_for_stream(stream_id)
            if stream == NULL:
                return True
        stop = offset + size
        is_new = size and (<ReceiveStream>stream).highest == 0
        fresh = stop - (<ReceiveStream>stream).highest if stop > (<ReceiveStream>stream).highest else 0
        if stop > (<ReceiveStream>stream).limit or fresh > self.credit.limit - self.credit.received:
            self._break(FLOW_CONTROL_ERROR, kind, "more data than this side allowed")
            return True
        result = (<ReceiveStream>stream).receive(offset, data, <size_t>size, kind & 0x01)
        if result == 2:
            self._break(FINAL_SIZE_ERROR, kind, "a stream's final size changed")
            return True
        if result == 3:
            self._break(PROTOCOL_VIOLATION, kind, "a stream with too many gaps")
            return True
        self.credit.received += fresh
        if (<ReceiveStream>stream).pledged:
            self.credit.budget.arrived(<ReceiveStream>stream, fresh)
        if is_new:
            self._grant(<ReceiveStream>stream, 0)
        if result == 1 and not (<ReceiveStream>stream).has_news:
            (<ReceiveStream>stream).has_news = True
            (<ReceiveStream>stream).next_news = NULL
            if self._first_news == NULL:
                self._first_news = stream
            else:
                (<ReceiveStream>self._last_news).next_news = stream
            self._last_news = stream
        return True

    cdef void _drop_news(self, void *stream) noexcept nogil:
        cdef void *each = self._first_news
        cdef void *before = NULL
        if not (<ReceiveStream>stream).has_news:
            return
        while each != stream:
            before = each
            each = (<ReceiveStream>each).next_news
        if before == NULL:
            self._first_news = (<ReceiveStream>stream).next_news
        else:
            (<ReceiveStream>before).next_news = (<ReceiveStream>stream).next_news
        if self._last_news == stream:
            self._last_news = before
        (<ReceiveStream>stream).has_news = False

    cdef bint _may_ask(self, uint64_t kind) noexcept nogil:
        """Count a frame that costs a turn of Python: a peer may not send any number of them for little."""
        self._rare_room -= 1
        if self._rare_room < 0:
            self._break(PROTOCOL_VIOLATION, kind, "more rare frames than so few packets have reason for")
        return self._rare_room >= 0

    cdef void *_ask_for_stream(self, uint64_t stream_id) except? NULL:
        # The table keeps alive what it finds.
        self._accept(stream_id)
        return self._receivers.find(stream_id)

    cdef int _ack_frame(self, const uint8_t **at, const uint8_t *end, bint old_key, int64_t now) except -1 nogil:
        cdef size_t used = 0
        cdef int result
        if parse_ack(at[0], <size_t>(end - at[0]), &self._ack, &used) != 0:
            return False
        at[0] += used
        if old_key and self._ack.largest >= self.phases.sealed_from:
            # RFC 9001, section 6.2: who has opened that one must use the new keys.
            self._break(KEY_UPDATE_ERROR, ACK, "a packet with a new key acknowledged in one with an old key")
            return True
        result = self.recovery.on_ack(&self._ack, now)
        if result == ACK_OF_SKIPPED:
            self._break(PROTOCOL_VIOLATION, ACK, "an acknowledgement of a packet that this side skipped")
        elif result < 0:
            self._break(PROTOCOL_VIOLATION, ACK, "an acknowledgement of a packet that this side did not send")
        else:
            self._settle(now)
        return True

    cdef bint _credit_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1 nogil:
        """MAX_DATA or MAX_STREAM_DATA (sections 19.9 and 19.10); False if it is cut short."""
        cdef uint64_t stream_id, limit
        at[0] += 1
        if kind == MAX_DATA:
            if not read_varint(at, end, &limit):
                return False
            self._raise_connection_limit(limit)
            return True
        if not read_varint(at, end, &stream_id) or not read_varint(at, end, &limit):
            return False
        if not self._raise_limit(stream_id, limit) and self._may_ask(kind):
            with gil:
                self._put_rare((kind, stream_id, limit))
        return True

    cdef int _put_rare(self, tuple frame) except -1:
        """Leave a frame for Python, which may not come for long where a thread takes the packets in."""
        if len(self.rare) < RARE_WAITING:
            self.rare.append(frame)
        else:
            self._break(PROTOCOL_VIOLATION, 0, "more rare frames than anybody could look at")
        return 0

    cdef int _rare_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1:
        """Frames for Python, and the credit frames; ``at`` is behind the type. False: unknown, or cut short."""
        cdef uint64_t[3] numbers
        cdef size_t count = 0, wanted = 0, extra = 0
        if kind == 0x1E:
            wanted = 0
        elif kind in (0x07, MAX_DATA, 0x12, 0x13, 0x14, 0x16, 0x17, 0x19):
            wanted = 1
        elif kind in (0x05, 0x06, MAX_STREAM_DATA, 0x15, 0x18, 0x1D):
            wanted = 2
        elif kind in (0x04, 0x1C):
            wanted = 3
        elif kind in (0x1A, 0x1B):
            extra = 8
        else:
            return False
        while count < wanted:
            if not read_varint(at, end, &numbers[count]):
                return False
            count += 1
        if kind in (0x1C, 0x1D):
            self.awaits_python = True  # after a close no packet follows but the answer to it (RFC 9000, section 10.2.2)
        else:
            self.ack_due = True
        if kind in (0x06, 0x07, 0x1C, 0x1D):
            # The last number is the length of what follows.
            if numbers[wanted - 1] > <uint64_t>(end - at[0]):
                return False
            extra = <size_t>numbers[wanted - 1]
        elif kind == 0x18:
            if at[0] == end:
                return False
            extra = <size_t>1 + at[0][0] + 16
        if extra > <size_t>(end - at[0]):
            return False
        if kind == MAX_DATA:
            self._raise_connection_limit(numbers[0])
        elif kind != MAX_STREAM_DATA or not self._raise_limit(numbers[0], numbers[1]):
            fields = [numbers[i] for i in range(wanted)]
            if extra or kind in (0x06, 0x07, 0x1C, 0x1D):
                fields.append(PyBytes_FromStringAndSize(<const char*>at[0], <Py_ssize_t>extra))
            if kind == PATH_CHALLENGE:
                fields.append(self._elsewhere if self.is_elsewhere else None)
            self._put_rare((kind, *fields))
        at[0] += extra
        return True
