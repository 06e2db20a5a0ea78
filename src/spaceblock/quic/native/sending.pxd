"""A connection's sending half: what is due is put into packets and sealed, and what became of it is followed up."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from spaceblock.quic.native.credit cimport Credit
from spaceblock.quic.native.mtu cimport PathMtu
from spaceblock.quic.native.phases cimport KeyPhases
from spaceblock.quic.native.protection cimport HeaderKey
from spaceblock.quic.native.ranges cimport PacketRanges
from spaceblock.quic.native.recovery cimport Recovery, Sent
from spaceblock.quic.native.streams cimport SendStream, StreamTable
from spaceblock.quic.native.udp cimport LOCAL_MAX, sockaddr_storage, socklen_t

cdef enum:
    CID_MAX = 20  # RFC 9000, section 17.2
    GROUP = 64  # packets opened together; also the most that one GSO batch may hold
    BATCH_SIZE = 65507  # bytes of one GSO batch: a UDP datagram's payload over IPv4
    HEAD_MAX = 2048  # bytes of frames before a packet's stream data
    PN_SIZE = 4
    TAG = 16
    SAMPLE = 16
    # Frame types (RFC 9000, section 19).
    PADDING = 0x00
    PING = 0x01
    ACK = 0x02
    STREAM = 0x08

cdef class PacketSender:
    cdef readonly Recovery recovery
    cdef readonly PacketRanges received
    cdef readonly KeyPhases phases
    cdef readonly Credit credit  # what this side allows
    cdef uint64_t _key_packets  # that one key may seal
    cdef public uint64_t packets_max  # number of the first packet that the key must not seal
    cdef HeaderKey _seal_mask
    cdef readonly PathMtu mtu
    cdef size_t _first_size, _first_limit  # of datagrams, where a path begins
    cdef readonly size_t datagram_size
    cdef readonly size_t segment  # bytes of each packet of the last batch, but of its last one
    cdef size_t _per_batch  # packets of one GSO batch
    cdef readonly int mark  # the ECN bits that the packets of the last batch are to have
    cdef uint8_t[CID_MAX] _peer_cid
    cdef size_t _peer_cid_size
    cdef readonly uint64_t max_data  # what the peer allows
    cdef readonly uint64_t data_sent
    cdef readonly dict send_streams  # by stream ID
    cdef StreamTable _senders  # by Sent.stream
    cdef StreamTable _sender_ids  # the same, by stream ID
    cdef uint32_t _next_slot
    cdef void *_first_turn  # SendStreams that may have something to send, the next one first
    cdef void *_last_turn
    cdef object _control  # (frame, token) that wait
    cdef size_t _waiting  # how many
    cdef dict _sent_control  # Sent.control to the (frame, token) pairs in that packet
    cdef uint32_t _next_control
    cdef bint acknowledged  # a send stream may have something to release
    cdef readonly list lost  # tokens of control frames that were lost
    cdef readonly list delivered  # of those that were acknowledged
    cdef public bint ack_due
    # The idle time-out's clock (RFC 9000, section 10.1), in microseconds.
    cdef public int64_t idle_since
    cdef int64_t _idle  # how long that may be
    cdef public int64_t timer_set  # when Python will look by itself
    cdef bint _elicited  # an ack-eliciting packet was sent since the last that was received
    cdef sockaddr_storage peer  # where a pump sends to
    cdef socklen_t peer_size
    cdef uint8_t[LOCAL_MAX] local  # the address of ours that it talks to, as Way.local has it
    cdef uint8_t local_size
    # While the peer has not shown that it is there, no more than this is sent (RFC 9000, section 9.3.1).
    cdef readonly bint is_confined
    cdef public uint64_t path_room
    cdef uint64_t _used_cid  # of ours, in the last packets that came from there
    cdef uint8_t *_out
    cdef uint8_t[GROUP * 16] _samples
    cdef uint8_t[GROUP * 16] _masks
    cdef uint8_t[HEAD_MAX] _head
    cdef uint8_t[BATCH_SIZE] _scratch

    cdef bint has_to_send(self) noexcept nogil
    cdef bint may_only_acknowledge(self) noexcept nogil
    cdef int64_t _settled_at(self) noexcept nogil
    cdef bint is_early(self) noexcept nogil
    cdef size_t build_into(self, uint8_t *out, int64_t now) except? 9999999 nogil
    cdef void refused(self, int64_t now) noexcept nogil

    cdef size_t _finish(self, uint8_t *out, size_t total, int64_t now) noexcept nogil
    cdef size_t _probe_due(self, uint64_t allowance, bint *holds, int64_t now) noexcept nogil
    cdef size_t _probe_packet(self, uint8_t *out, size_t size, int64_t now) noexcept nogil
    cdef void _resize(self) noexcept nogil
    cdef void _turn(self) noexcept nogil
    cdef size_t _mixed_packet(self, uint8_t *out, size_t limit, bint may_elicit, int64_t now) except? 9999999 nogil
    cdef int _put_control(self, size_t room, size_t *head) except -1
    cdef size_t _stream_packets(
        self, SendStream stream, uint8_t *out, size_t packets, uint64_t allowance, int64_t now
    ) noexcept nogil
    cdef size_t _stream_head(self, uint8_t *out, SendStream stream, uint64_t offset, bint fin) noexcept nogil
    cdef size_t _seal(
        self, uint64_t pn, size_t head_size, const uint8_t *data, size_t size, uint8_t *out
    ) noexcept nogil
    cdef bint _protect(self, uint8_t *out, size_t total, size_t segment) noexcept nogil
    cdef int _settle(self, int64_t now) except -1 nogil
    cdef int _send_again(self, const Sent *sent) except -1 nogil
    cdef int _control_settled(self, uint32_t number, bint lost) except -1
    cdef bint _raise_limit(self, uint64_t stream_id, uint64_t limit) noexcept nogil
    cdef void _raise_connection_limit(self, uint64_t limit) noexcept nogil
    cdef bint _has_work(self, SendStream stream) noexcept nogil
    cdef void _queue(self, SendStream stream) noexcept nogil
    cdef void _to_turn_end(self, void *stream) noexcept nogil
    cdef void *_next_turn(self) noexcept nogil
