"""One connection's packets after the handshake: what arrives is opened and taken apart, what is due is sealed."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from spaceblock.quic.native.phases cimport KeyPhases
from spaceblock.quic.native.protection cimport HeaderKey, PacketKey
from spaceblock.quic.native.ranges cimport AckFrame, PacketRanges
from spaceblock.quic.native.recovery cimport Recovery, Sent
from spaceblock.quic.native.udp cimport sockaddr_storage, socklen_t
from spaceblock.quic.native.streams cimport ReceiveStream, SendStream, StreamTable

cdef enum:
    CID_MAX = 20  # RFC 9000, section 17.2
    LOCAL_CID_SIZE = 8
    LOCAL_CIDS_MAX = 32
    GROUP = 64  # packets opened together; also the most that one GSO batch may hold
    BATCH_SIZE = 65507  # bytes of one GSO batch: a UDP datagram's payload over IPv4
    HEAD_MAX = 2048  # bytes of frames before a packet's stream data

cdef struct Opened:
    uint64_t pn
    uint8_t *payload
    size_t size
    uint8_t marks  # the reserved bits, which nobody may set, and OLD_KEY

cdef class PacketEngine:
    cdef readonly Recovery recovery
    cdef readonly PacketRanges received
    cdef readonly KeyPhases phases
    cdef uint64_t _key_packets  # that one key may seal
    cdef uint64_t _failed_max  # packets that need not open
    cdef HeaderKey _seal_mask
    cdef HeaderKey _open_mask
    cdef readonly size_t datagram_size
    cdef size_t _per_batch  # packets of one GSO batch
    cdef uint8_t[CID_MAX] _peer_cid
    cdef size_t _peer_cid_size
    cdef uint64_t[LOCAL_CIDS_MAX] _local_cids
    cdef size_t _local_cid_count
    cdef readonly uint64_t max_data  # what the peer allows
    cdef readonly uint64_t data_sent
    cdef public uint64_t local_max_data  # what this side allows
    cdef readonly uint64_t data_received
    cdef readonly dict send_streams  # by stream ID
    cdef readonly dict receive_streams
    cdef object _accept  # called with the ID of a stream that is not known: a ReceiveStream, or None to drop its bytes
    cdef StreamTable _senders  # by Sent.stream
    cdef StreamTable _receivers  # by stream ID
    cdef uint32_t _next_slot
    cdef void *_first_turn  # SendStreams that may have something to send, the next one first
    cdef void *_last_turn
    cdef void *_first_news  # ReceiveStreams to which something came since the last report, in that order
    cdef void *_last_news
    cdef object _control  # (frame, token) that wait
    cdef size_t _waiting  # how many
    cdef dict _sent_control  # Sent.control to the (frame, token) pairs in that packet
    cdef uint32_t _next_control
    cdef readonly list rare  # frames for Python: (type, field, ...)
    cdef readonly list news  # receive streams with something to take or to collect
    cdef bint acknowledged  # a send stream may have something to release
    cdef readonly list lost  # tokens of control frames that were lost
    cdef readonly list delivered  # of those that were acknowledged
    cdef public bint ack_due
    cdef readonly uint64_t failed  # packets that did not open
    cdef readonly uint64_t opened
    cdef readonly bint is_broken  # the peer broke a rule
    cdef uint64_t _broken_code, _broken_kind
    cdef const char *_broken_why
    cdef object _broken_text  # instead of _broken_why
    cdef public uint64_t packets_max  # number of the first packet that the key must not seal
    cdef public bint is_closing  # nothing but its close is sent any more
    cdef public object owner
    # For a pump.
    cdef sockaddr_storage peer
    cdef socklen_t peer_size
    cdef bint touched
    cdef void *next_touched
    # The idle time-out's clock (RFC 9000, section 10.1), in microseconds.
    cdef public int64_t idle_since
    cdef bint _elicited  # an ack-eliciting packet was sent since the last that was received
    cdef uint8_t *_out
    cdef AckFrame _ack
    cdef Opened[GROUP] _packets
    cdef uint8_t[GROUP * 16] _samples
    cdef uint8_t[GROUP * 16] _masks
    cdef uint8_t[HEAD_MAX] _head
    cdef uint8_t[BATCH_SIZE] _scratch

    cdef size_t take_in(self, uint8_t *data, size_t size, size_t segment, int64_t now) except? 9999999 nogil
    cdef int drain(self) except -1 nogil
    cdef int report(self) except -1
    cdef size_t build_into(self, uint8_t *out, int64_t now) except? 9999999 nogil

    cdef size_t _open_group(self, uint8_t *data, size_t size, size_t segment, size_t *at, int64_t now) noexcept nogil
    cdef bint _open_one(
        self, uint8_t *data, size_t size, const uint8_t *mask, Opened *packet, int64_t now
    ) noexcept nogil
    cdef bint _open_aside(
        self, uint8_t *data, size_t header_size, size_t sealed_size, Opened *packet, int64_t now
    ) noexcept nogil
    cdef bint _refuse(self) noexcept nogil
    cdef void _turn(self) noexcept nogil
    cdef int _process(self, const Opened *packet, int64_t now) except -1 nogil
    cdef int _stream_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1 nogil
    cdef void *_ask_for_stream(self, uint64_t stream_id) except? NULL
    cdef int _ack_frame(self, const uint8_t **at, const uint8_t *end, bint old_key, int64_t now) except -1 nogil
    cdef int _rare_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1
    cdef void _break(self, uint64_t code, uint64_t kind, const char *why) noexcept nogil
    cdef int _settle(self) except -1 nogil
    cdef int _send_again(self, const Sent *sent) except -1 nogil
    cdef int _control_settled(self, uint32_t number, bint lost) except -1
    cdef bint _has_work(self, SendStream stream) noexcept nogil
    cdef void _queue(self, SendStream stream) noexcept nogil
    cdef void _to_turn_end(self, void *stream) noexcept nogil
    cdef void *_next_turn(self) noexcept nogil
    cdef size_t _mixed_packet(self, uint8_t *out, bint may_elicit, int64_t now) except? 9999999 nogil
    cdef int _put_control(self, size_t room, size_t *head) except -1
    cdef size_t _stream_packets(
        self, SendStream stream, uint8_t *out, size_t packets, uint64_t allowance, int64_t now
    ) noexcept nogil
    cdef size_t _stream_head(self, uint8_t *out, SendStream stream, uint64_t offset, bint fin) noexcept nogil
    cdef size_t _seal(
        self, uint64_t pn, size_t head_size, const uint8_t *data, size_t size, uint8_t *out
    ) noexcept nogil
    cdef bint _protect(self, uint8_t *out, size_t total) noexcept nogil
