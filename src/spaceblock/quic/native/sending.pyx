# cython: language_level=3, auto_pickle=False
"""The sending half of a connection: what is due is put into packets and sealed, and what became of them is followed up.

Rules: packet numbers are given out where packets are sealed, and nowhere else. No clock and no socket: ``now`` is an
argument in microseconds, and batches are memory.
"""

from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from spaceblock.quic.native.credit cimport Credit
from spaceblock.quic.native.mtu cimport DATAGRAM_BASE, PathMtu
from spaceblock.quic.native.phases cimport KeyPhases
from spaceblock.quic.native.protection cimport HeaderKey, PacketKey
from spaceblock.quic.native.recovery cimport (
    ACK_ELICITING,
    FIN,
    GRANULARITY,
    HAS_CONTROL,
    HAS_STREAM,
    IN_FLIGHT,
    MTU_PROBE,
    PTO_DOUBT,
    TIMER_LOSS,
    TIMER_PROBE,
)
from spaceblock.quic.native.streams cimport Run, SendStream, StreamTable
from spaceblock.quic.native.udp cimport pack_address, pack_local
from spaceblock.varint cimport VARINT_MAX, write_varint

cdef enum:
    STREAM_HEAD_MAX = 1 + 8 + 8
    ACK_MIN = 5  # bytes of the shortest acknowledgement
    HAS_CREDIT = 0x80  # in Sent.flags: limits were told


cdef class PacketSender:
    """What :class:`PacketEngine <spaceblock.quic.native.engine.PacketEngine>` sends; see there for its arguments."""

    def __cinit__(
        self, recovery, received, PacketKey sealing, HeaderKey seal_mask, PacketKey opening, HeaderKey open_mask,
        size_t datagram_size, accept, size_t datagram_limit=0,
    ):
        self._out = <uint8_t*>malloc(BATCH_SIZE)
        if self._out == NULL:
            raise MemoryError
        self.recovery = recovery
        self.received = received
        self.phases = KeyPhases(sealing, opening)
        self._seal_mask = seal_mask
        self.mtu = PathMtu(datagram_size, datagram_limit or datagram_size)
        self._first_size = datagram_size
        self._first_limit = self.mtu.limit
        self._resize()
        self.packets_max = self._key_packets = VARINT_MAX
        self.send_streams = {}
        self._senders = StreamTable()
        self._sender_ids = StreamTable()
        self.credit = Credit(StreamTable())
        self._control = deque()
        self._sent_control = {}
        self._next_control = 1
        self.lost = []
        self.delivered = []

    def __dealloc__(self):
        free(self._out)

    # Addresses, streams, frames.

    def set_peer_cid(self, bytes cid):
        """The connection ID that packets are sent to."""
        if PyBytes_GET_SIZE(cid) > CID_MAX:
            raise ValueError("a connection ID has at most 20 bytes")
        self._peer_cid_size = <size_t>PyBytes_GET_SIZE(cid)
        memcpy(self._peer_cid, PyBytes_AS_STRING(cid), self._peer_cid_size)

    def set_peer_address(self, address, int family):
        """Where a pump sends to, on a socket of that family."""
        self.peer_size = pack_address(address, family, &self.peer)
        self.local_size = pack_local(address, self.local)

    def move_to(self, address, bytes used_cid not None):
        """The peer is elsewhere now, and sends from there to this connection ID of ours."""
        if PyBytes_GET_SIZE(used_cid) != sizeof(self._used_cid):
            raise ValueError("a connection ID of ours has 8 bytes")
        memcpy(&self._used_cid, PyBytes_AS_STRING(used_cid), sizeof(self._used_cid))
        if self.peer_size:
            PacketSender.set_peer_address(self, address, self.peer.ss_family)

    @property
    def used_cid(self):
        """The connection ID of ours in the last packets that came from where the peer is; zeros before the first."""
        return PyBytes_FromStringAndSize(<const char*>&self._used_cid, sizeof(self._used_cid))

    def confine(self, uint64_t room):
        """Send no more than ``room`` bytes, and three times of what comes, until :meth:`release` (section 8)."""
        self.is_confined = True
        self.path_room = room

    def release(self):
        """The peer is where it seems to be."""
        self.is_confined = False

    def probe(self):
        """Send two packets at once, whatever the window says: what they bring back tells what the path has lost."""
        self.recovery.probes = max(self.recovery.probes, 2)
        if not self.wants_to_send():
            self.send_control(b"\x01")

    def limit_datagrams(self, size_t limit):
        """No datagram of more than ``limit`` bytes leaves this system on the present path, so larger ones are not
        tried; every path takes 1200."""
        limit = max(min(limit, self._first_limit), <size_t>DATAGRAM_BASE)
        self.mtu.reset(min(self._first_size, limit), limit)
        self._resize()

    def reset_path(self):
        """The peer has moved: round trips, window, marks and datagrams begin anew (RFC 9000, sections 9.4 and 14.3)."""
        self.mtu.reset(self._first_size, self._first_limit)
        self._resize()
        self.recovery.reset_path()

    def add_send_stream(self, SendStream stream):
        """Send what is written to ``stream``; call :meth:`wake` after writing."""
        stream.slot = self._next_slot
        self._next_slot += 1
        self._senders.add(stream.slot, <void*>stream)
        self._sender_ids.add(stream.stream_id, <void*>stream)
        self.send_streams[stream.stream_id] = stream

    def remove_send_stream(self, SendStream stream):
        """Forget a stream that is finished or reset."""
        cdef void *each = self._first_turn
        cdef void *following
        self._senders.remove(stream.slot)
        self._sender_ids.remove(stream.stream_id)
        if stream.queued:
            self._first_turn = self._last_turn = NULL
            while each != NULL:
                following = (<SendStream>each).next_turn
                if each != <void*>stream:
                    self._to_turn_end(each)
                each = following
            stream.queued = False
        self.send_streams.pop(stream.stream_id, None)
        # A thread may have taken in the acknowledgements just now, which nobody has reported yet.
        stream.release()

    def wake(self, SendStream stream):
        """There is something new to send on ``stream``."""
        self._queue(stream)

    def send_control(self, bytes frame, token=None):
        """Send an ack-eliciting ``frame``; ``token`` comes back through ``delivered``, or ``lost`` to be sent anew.

        Without a token a frame that is lost is sent again as it is.
        """
        if PyBytes_GET_SIZE(frame) > HEAD_MAX // 2:
            raise ValueError("a frame beside stream data has at most 1024 bytes")
        self._control.append((frame, token))
        self._waiting += 1

    def adopt(
        self, uint64_t pn, int64_t time, size_t size, frames, SendStream stream, uint64_t offset, uint64_t length,
        bint fin,
    ):
        """Take over a packet that was sent before the hand-over: (frame, token) pairs, and at most one stream piece."""
        cdef int flags = ACK_ELICITING | IN_FLIGHT
        cdef Sent *sent
        if stream is not None:
            flags |= HAS_STREAM | (FIN if fin else 0)
        if frames:
            flags |= HAS_CONTROL
        sent = self.recovery.adopt(pn, time, size, flags)
        if sent == NULL:
            raise MemoryError
        if stream is not None:
            sent.stream = stream.slot
            sent.offset = offset
            sent.length = <uint32_t>length
        if frames:
            self._sent_control[self._next_control] = list(frames)
            sent.control = self._next_control
            self._next_control += 1

    # Sending.

    @property
    def batch(self):
        """The memory into which :meth:`build` writes."""
        return <uint8_t[:BATCH_SIZE]>self._out

    def build(self, int64_t now):
        """Seal the next batch of packets into ``batch``; returns its bytes, 0 for none.

        All packets but the last have ``segment`` bytes. What is built counts as sent.
        """
        cdef size_t size
        with nogil:
            size = self.build_into(self._out, now)
        return size

    cdef size_t build_into(self, uint8_t *out, int64_t now) except? 9999999 nogil:
        cdef uint64_t allowance = self.recovery.allowance(now)
        cdef size_t total = 0, size, packets = 0, full = self.datagram_size
        cdef bint holds = False
        cdef void *stream
        self.segment = full
        if self.is_confined:
            if self.path_room < full:
                if not self.may_only_acknowledge():
                    return 0
                return self._finish(out, self._mixed_packet(out, <size_t>self.path_room, False, now), now)
            allowance = min(allowance, self.path_room)
        self.mark = self.recovery.choose_mark(True)
        if self.recovery.next_number() >= self.phases.update_at and self.phases.may_update(self.recovery.largest_acked):
            self._turn()
        if self.phases.owes_answer() and self._first_turn != NULL and allowance >= full:
            # A peer that sends nothing but acknowledgements would get none of its new phase, which it may wait for.
            self.ack_due = True
        size = self._probe_due(allowance, &holds, now)
        if size:
            return self._finish(out, self._probe_packet(out, size, now), now)
        while packets < self._per_batch and (
            self.ack_due or ((self._waiting or self.credit.is_due()) and allowance >= full)
        ):
            size = self._mixed_packet(out + total, full, allowance >= full, now)
            if size == 0:
                break
            total += size
            packets += 1
            allowance = allowance - size if allowance > size else 0
            if size < full:
                break
        if holds:
            return self._finish(out, total, now)
        while packets < self._per_batch and total == packets * full and allowance >= full and self._first_turn != NULL:
            stream = self._next_turn()
            size = self._stream_packets(<SendStream>stream, out + total, self._per_batch - packets, allowance, now)
            total += size
            packets += (size + full - 1) // full
            allowance = allowance - size if allowance > size else 0
            if self._has_work(<SendStream>stream):
                self._to_turn_end(stream)
                if size == 0:
                    break
        if total == 0 and allowance >= full:
            self.recovery.on_app_limited(now)
        return self._finish(out, total, now)

    @property
    def waiting(self):
        """Control frames that wait to be sent."""
        return self._waiting

    def wants_to_send(self):
        """Whether :meth:`build` would find something, if the window allows."""
        return self.has_to_send()

    def next_timer(self, int64_t idle):
        """When something is due even if nothing comes, the end of a connection that was ``idle`` for so long included
        (RFC 9000, section 10.1)."""
        self._idle = idle
        return min(self._settled_at(), self.recovery.send_time()) if self.has_to_send() else self._settled_at()

    cdef int64_t _settled_at(self) noexcept nogil:
        return min(self.recovery.timeout(), self.idle_since + max(self._idle, 3 * self.recovery.pto()))

    cdef bint is_early(self) noexcept nogil:
        """Whether something is due before the timer that is set: as for recovery, by more than its clock's grain."""
        return self._settled_at() + GRANULARITY < self.timer_set or (
            self.has_to_send() and self.recovery.send_time() < self.timer_set
        )

    cdef bint has_to_send(self) noexcept nogil:
        if self.is_confined and self.path_room < self.datagram_size:
            return self.may_only_acknowledge()
        return self.ack_due or self._waiting > 0 or self._first_turn != NULL or self.credit.is_due()

    cdef bint may_only_acknowledge(self) noexcept nogil:
        """Whether an acknowledgement is due and may find room where a whole datagram does not: a peer whose window is
        full of what was lost may wait for it before it answers a challenge."""
        return self.ack_due and self.path_room >= 1 + self._peer_cid_size + PN_SIZE + ACK_MIN + TAG

    def close_packet(self, bytes frame, int64_t now):
        """One packet with ``frame``, which is a CONNECTION_CLOSE."""
        cdef size_t size = <size_t>PyBytes_GET_SIZE(frame)
        cdef uint64_t pn = self.recovery.next_number()
        if size > HEAD_MAX // 2:
            raise ValueError("a closing frame has at most 1024 bytes")
        self.mark = self.recovery.choose_mark(False)
        memcpy(self._head, PyBytes_AS_STRING(frame), size)
        if self.recovery.on_sent(pn, now, size, 0) == NULL:
            return b""
        size = self._seal(pn, size, NULL, 0, self._out)
        self._protect(self._out, size, size)
        return PyBytes_FromStringAndSize(<const char*>self._out, <Py_ssize_t>size)

    def path_packet(self, bytes frames not None, size_t size, bytes cid not None, int64_t now):
        """One packet with frames of path validation for any path, padded to ``size`` bytes if it has fewer.

        It goes to the peer's ``cid``. Nothing follows it up, and it tells nothing of the path that is in use. Empty if
        the key has sealed as many packets as it may.
        """
        cdef uint8_t[CID_MAX] peer_cid
        cdef size_t peer_cid_size = self._peer_cid_size
        cdef size_t taken = <size_t>PyBytes_GET_SIZE(frames)
        cdef size_t overhead = 1 + <size_t>PyBytes_GET_SIZE(cid) + PN_SIZE + TAG
        cdef size_t head = max(taken + overhead, size) - overhead
        cdef uint64_t pn = self.recovery.next_number()
        if head > HEAD_MAX or PyBytes_GET_SIZE(cid) > CID_MAX:
            raise ValueError("a packet for a path has at most 2048 bytes of frames")
        self.mark = self.recovery.choose_mark(False)
        if pn >= self.packets_max or self.recovery.on_sent(pn, now, head, 0) == NULL:
            return b""
        memcpy(self._head, PyBytes_AS_STRING(frames), taken)
        memset(self._head + taken, PADDING, head - taken)
        memcpy(peer_cid, self._peer_cid, CID_MAX)
        self.set_peer_cid(cid)
        # What lies in the batch may not be sent yet.
        size = self._seal(pn, head, NULL, 0, self._scratch)
        self._protect(self._scratch, size, size)
        memcpy(self._peer_cid, peer_cid, CID_MAX)
        self._peer_cid_size = peer_cid_size
        return PyBytes_FromStringAndSize(<const char*>self._scratch, <Py_ssize_t>size)

    cdef size_t _finish(self, uint8_t *out, size_t total, int64_t now) noexcept nogil:
        """A batch is built: protect its headers, and let the idle time-out know."""
        if self.recovery.last_eliciting_time == now and not self._elicited:
            self._elicited = True
            self.idle_since = now
        if total:
            self._protect(out, total, self.segment)
            if self.is_confined:
                self.path_room -= total
        return total

    cdef size_t _probe_due(self, uint64_t allowance, bint *holds, int64_t now) noexcept nogil:
        """Bytes of a path MTU probe that is to be sent now. While it waits for the window, streams do as well."""
        cdef size_t size
        if self._first_turn == NULL or allowance < self.datagram_size or self.recovery.probes or self.is_confined:
            return 0
        size = self.mtu.due(self.recovery.congestion.window, now)
        if size == 0 or (<SendStream>self._first_turn).written - (<SendStream>self._first_turn).sent < size:
            return 0
        if self.recovery.room() < size:
            self.recovery.congestion.on_filled(now)
            holds[0] = True
            return 0
        return size

    cdef size_t _probe_packet(self, uint8_t *out, size_t size, int64_t now) noexcept nogil:
        """A PING and PADDING: nothing that would have to be sent again (RFC 8899, section 4.1)."""
        cdef size_t padding = size - 1 - self._peer_cid_size - PN_SIZE - 1 - TAG
        cdef uint64_t pn = self.recovery.next_number()
        if self.recovery.on_sent(pn, now, size, ACK_ELICITING | IN_FLIGHT | MTU_PROBE) == NULL:
            return 0
        self.mtu.on_probe_sent(size)
        self.segment = size
        self._head[0] = PING
        memset(self._scratch, 0, padding)
        return self._seal(pn, 1, self._scratch, padding, out)

    def on_refused(self, int64_t now):
        """The system does not send datagrams as large as those of the last batch."""
        self.refused(now)

    cdef void refused(self, int64_t now) noexcept nogil:
        if self.mtu.on_refused(self.segment, now):
            self._resize()

    cdef void _resize(self) noexcept nogil:
        self.datagram_size = self.mtu.size
        self._per_batch = min(<size_t>GROUP, <size_t>BATCH_SIZE // self.datagram_size)
        self.recovery.resize(self.datagram_size, self._per_batch * self.datagram_size)

    cdef void _turn(self) noexcept nogil:
        """Move on to the next key phase in both directions (section 6.1)."""
        cdef uint64_t pn = self.recovery.next_number()
        self.phases.turn(pn)
        self.packets_max = pn + self._key_packets

    cdef size_t _mixed_packet(self, uint8_t *out, size_t limit, bint may_elicit, int64_t now) except? 9999999 nogil:
        """A packet of ``limit`` bytes with an acknowledgement, control frames, and stream data in what is left."""
        cdef size_t room = limit - 1 - self._peer_cid_size - PN_SIZE - TAG
        cdef size_t head = 0, size = 0, stream_head
        # A large datagram has room for more frames than what they are written to; a stream's head comes behind them.
        cdef size_t head_room = min(room, <size_t>(HEAD_MAX - STREAM_HEAD_MAX))
        cdef int flags = 0
        cdef uint64_t pn = self.recovery.next_number()
        cdef uint64_t acked = 0, delay
        cdef const uint8_t *data = NULL
        cdef void *stream = NULL
        cdef Sent *sent
        cdef Run run
        if self.ack_due:
            delay = <uint64_t>max(now - self.received.largest_time, 0) >> 3
            head = self.received.write_ack(self._head, head_room, delay)
            if head:
                acked = <uint64_t>(self.received.largest + 1)
                self.phases.answered |= acked > self.phases.start
            # While the peer may be elsewhere, there may be no room even for that.
            self.ack_due = head == 0 and self.received.count > 0
        if may_elicit and self.credit.is_due():
            size = self.credit.write(self._head + head, head_room - head)
            if size:
                flags |= ACK_ELICITING | IN_FLIGHT | HAS_CREDIT
                head += size
                size = 0
        if may_elicit and self._waiting:
            with gil:
                if self._put_control(head_room, &head):
                    flags |= ACK_ELICITING | IN_FLIGHT | HAS_CONTROL
        if may_elicit and self._first_turn != NULL and room - head > 2 * STREAM_HEAD_MAX:
            stream = self._first_turn
            if (<SendStream>stream).next_run(room - head - STREAM_HEAD_MAX, self.max_data - self.data_sent, &run):
                stream_head = self._stream_head(self._head + head, <SendStream>stream, run.offset, run.fin)
                (<SendStream>stream).next_run(room - head - stream_head, self.max_data - self.data_sent, &run)
                head += self._stream_head(self._head + head, <SendStream>stream, run.offset, run.fin)
                size = run.size
                flags |= ACK_ELICITING | IN_FLIGHT | HAS_STREAM | (FIN if run.fin else 0)
            else:
                stream = NULL
                self._next_turn()
        if head == 0:
            return 0
        sent = self.recovery.on_sent(pn, now, 1 + self._peer_cid_size + PN_SIZE + head + size + TAG, flags)
        if sent == NULL:
            # Out of memory: what would have been in the packet is taken for lost, and the acknowledgement is due still.
            self.ack_due |= acked > 0
            if flags & HAS_CREDIT:
                self.credit.tell_again()
            if flags & HAS_CONTROL:
                with gil:
                    self._control_settled(self._next_control - 1, True)
            return 0
        sent.acked = acked
        if flags & HAS_CONTROL:
            sent.control = self._next_control - 1
        if stream != NULL:
            sent.stream = (<SendStream>stream).slot
            sent.offset = run.offset
            sent.length = <uint32_t>size
            if size:
                data = (<SendStream>stream).bytes_at(run.offset, size, self._scratch)
            (<SendStream>stream).mark_sent(&run)
            if run.is_new:
                self.data_sent += size
        return self._seal(pn, head, data, size, out)

    cdef int _put_control(self, size_t room, size_t *head) except -1:
        """Write control frames that wait behind what the head holds; whether there were any."""
        cdef list taken = []
        cdef bytes frame
        while self._control:
            frame = (<tuple>self._control[0])[0]
            if <size_t>PyBytes_GET_SIZE(frame) > room - head[0]:
                break
            memcpy(self._head + head[0], PyBytes_AS_STRING(frame), <size_t>PyBytes_GET_SIZE(frame))
            head[0] += <size_t>PyBytes_GET_SIZE(frame)
            taken.append(self._control.popleft())
            self._waiting -= 1
        if taken:
            self._sent_control[self._next_control] = taken
            self._next_control += 1
        return bool(taken)

    cdef size_t _stream_packets(
        self, SendStream stream, uint8_t *out, size_t packets, uint64_t allowance, int64_t now
    ) noexcept nogil:
        """Packets with data of one stream and nothing else, up to the first that is not full."""
        cdef size_t overhead = 1 + self._peer_cid_size + PN_SIZE + TAG
        cdef size_t room = self.datagram_size - overhead
        cdef size_t total = 0, head, size
        cdef const uint8_t *data
        cdef uint64_t pn
        cdef Sent *sent
        cdef Run run
        while packets and allowance >= self.datagram_size:
            if not stream.next_run(room - STREAM_HEAD_MAX, self.max_data - self.data_sent, &run):
                break
            # The head is as long as its numbers need, and what that saves is used for data.
            head = self._stream_head(self._head, stream, run.offset, run.fin)
            if not stream.next_run(room - head, self.max_data - self.data_sent, &run):
                break
            head = self._stream_head(self._head, stream, run.offset, run.fin)
            size = overhead + head + run.size
            pn = self.recovery.next_number()
            sent = self.recovery.on_sent(
                pn, now, size, ACK_ELICITING | IN_FLIGHT | HAS_STREAM | (FIN if run.fin else 0)
            )
            if sent == NULL:
                break
            sent.stream = stream.slot
            sent.offset = run.offset
            sent.length = <uint32_t>run.size
            data = NULL
            if run.size:
                data = stream.bytes_at(run.offset, run.size, self._scratch)
            stream.mark_sent(&run)
            if run.is_new:
                self.data_sent += run.size
            total += self._seal(pn, head, data, run.size, out + total)
            allowance -= size
            packets -= 1
            if size < self.datagram_size:
                break
        return total

    cdef size_t _stream_head(self, uint8_t *out, SendStream stream, uint64_t offset, bint fin) noexcept nogil:
        """A STREAM frame's head, without a length: its data reaches to the end of the packet (section 19.8)."""
        cdef size_t size = 1
        out[0] = STREAM | (0x04 if offset else 0) | (0x01 if fin else 0)
        size += write_varint(out + 1, stream.stream_id)
        if offset:
            size += write_varint(out + size, offset)
        return size

    cdef size_t _seal(
        self, uint64_t pn, size_t head_size, const uint8_t *data, size_t size, uint8_t *out
    ) noexcept nogil:
        """Write one short-header packet; its header is protected by :meth:`_protect` later."""
        cdef size_t header_size = 1 + self._peer_cid_size + PN_SIZE
        cdef uint8_t *number = out + 1 + self._peer_cid_size
        out[0] = 0x40 | (PN_SIZE - 1) | self.phases.bit
        memcpy(out + 1, self._peer_cid, self._peer_cid_size)
        number[0] = <uint8_t>(pn >> 24 & 0xFF)
        number[1] = <uint8_t>(pn >> 16 & 0xFF)
        number[2] = <uint8_t>(pn >> 8 & 0xFF)
        number[3] = <uint8_t>(pn & 0xFF)
        (<PacketKey>self.phases.sealing).seal(
            pn, out, header_size, self._head, head_size, data, size, out + header_size
        )
        return header_size + head_size + size + TAG

    cdef bint _protect(self, uint8_t *out, size_t total, size_t segment) noexcept nogil:
        """Apply header protection to all packets of a batch, with one call for the masks."""
        cdef size_t at = 0, count = 0, i, j
        cdef size_t number = 1 + self._peer_cid_size
        while at < total:
            memcpy(self._samples + SAMPLE * count, out + at + number + PN_SIZE, SAMPLE)
            count += 1
            at += segment
        if self._seal_mask.masks(self._samples, count, self._masks) != 0:
            return False
        for i in range(count):
            at = i * segment
            out[at] ^= self._masks[SAMPLE * i] & 0x1F
            for j in range(PN_SIZE):
                out[at + number + j] ^= self._masks[SAMPLE * i + 1 + j]
        return True

    # What became of packets.

    def on_timer(self, int64_t now):
        """The recovery's timer fired: declare losses, or send probes."""
        cdef int result = self.recovery.on_timer(now)
        cdef Sent *oldest
        cdef void *turn
        if result == TIMER_LOSS:
            self._settle(now)
        elif result == TIMER_PROBE:
            oldest = self.recovery.oldest_outstanding()
            if oldest != NULL:
                if self.recovery.pto_count >= PTO_DOUBT and oldest.size > DATAGRAM_BASE and self.mtu.fall_back(now):
                    self._resize()
                self._send_again(oldest)
            turn = self._first_turn
            # A turn may be over by now, for want of credit.
            while turn != NULL and not self._has_work(<SendStream>turn):
                turn = (<SendStream>turn).next_turn
            if not self._control and turn == NULL and not self.credit.is_due():
                self.send_control(b"\x01")

    cdef int _settle(self, int64_t now) except -1 nogil:
        """Walk the recovery's two lists."""
        cdef Sent *sent = self.recovery.acked
        cdef void *stream
        cdef size_t full = self.datagram_size
        cdef bint any_acked = False, any_lost = False, is_resized = False
        while sent != NULL:
            if sent.flags & MTU_PROBE:
                is_resized |= self.mtu.on_probe_acked(sent.size)
            elif sent.size == full:
                any_acked = True
            if sent.flags & HAS_STREAM:
                stream = self._senders.find(sent.stream)
                if stream != NULL:
                    (<SendStream>stream).on_acknowledged(sent.offset, sent.length, sent.flags & FIN != 0)
                    self.acknowledged = True
            if sent.flags & HAS_CONTROL:
                with gil:
                    self._control_settled(sent.control, False)
            if sent.acked:
                self.received.forget_below(sent.acked)
            sent = sent.next
        sent = self.recovery.lost
        while sent != NULL:
            if sent.flags & MTU_PROBE:
                self.mtu.on_probe_lost(sent.size)
            elif sent.size == full:
                any_lost = True
            self._send_again(sent)
            sent = sent.next
        if full > DATAGRAM_BASE:
            is_resized |= self.mtu.on_outcome(any_acked, any_lost, now)
        if is_resized:
            self._resize()
        return 0

    cdef int _send_again(self, const Sent *sent) except -1 nogil:
        cdef void *stream
        if sent.flags & HAS_STREAM:
            stream = self._senders.find(sent.stream)
            if stream != NULL:
                (<SendStream>stream).on_lost(sent.offset, sent.length, sent.flags & FIN != 0)
                self._queue(<SendStream>stream)
        if sent.flags & HAS_CREDIT:
            self.credit.tell_again()
        if sent.flags & HAS_CONTROL:
            with gil:
                self._control_settled(sent.control, True)
        return 0

    cdef int _control_settled(self, uint32_t number, bint lost) except -1:
        for frame, token in self._sent_control.pop(number, ()):
            if token is not None:
                (self.lost if lost else self.delivered).append(token)
            elif lost:
                self.send_control(frame)
        return 0

    cdef bint _raise_limit(self, uint64_t stream_id, uint64_t limit) noexcept nogil:
        """The peer allows more on a stream (section 19.10); False for one that is not known."""
        cdef void *stream = self._sender_ids.find(stream_id)
        if stream == NULL:
            return False
        if limit > (<SendStream>stream).limit:
            (<SendStream>stream).limit = limit
            self._queue(<SendStream>stream)
        return True

    cdef void _raise_connection_limit(self, uint64_t limit) noexcept nogil:
        """The peer allows more on all streams together (section 19.9)."""
        cdef size_t i
        if limit > self.max_data:
            self.max_data = limit
            for i in range(self._senders.count):
                self._queue(<SendStream>self._senders.values[i])

    cdef bint _has_work(self, SendStream stream) noexcept nogil:
        return stream.has_work(self.max_data - self.data_sent)

    cdef void _queue(self, SendStream stream) noexcept nogil:
        if not stream.queued and self._has_work(stream):
            self._to_turn_end(<void*>stream)

    cdef void _to_turn_end(self, void *stream) noexcept nogil:
        (<SendStream>stream).queued = True
        (<SendStream>stream).next_turn = NULL
        if self._last_turn == NULL:
            self._first_turn = stream
        else:
            (<SendStream>self._last_turn).next_turn = stream
        self._last_turn = stream

    cdef void *_next_turn(self) noexcept nogil:
        cdef void *stream = self._first_turn
        self._first_turn = (<SendStream>stream).next_turn
        if self._first_turn == NULL:
            self._last_turn = NULL
        (<SendStream>stream).queued = False
        return stream
