"""One connection's packets after the handshake: what arrives is opened and taken apart, what is due is sealed."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t

from spaceblock.quic.native.protection cimport HeaderKey
from spaceblock.quic.native.ranges cimport AckFrame
from spaceblock.quic.native.sending cimport GROUP, PacketSender
from spaceblock.quic.native.streams cimport ReceiveStream, StreamTable
from spaceblock.quic.native.udp cimport Received

cpdef enum:  # errors of the transport (RFC 9000, section 20.1)
    FLOW_CONTROL_ERROR = 0x03
    STREAM_LIMIT_ERROR = 0x04
    STREAM_STATE_ERROR = 0x05
    FINAL_SIZE_ERROR = 0x06
    FRAME_ENCODING_ERROR = 0x07
    CONNECTION_ID_LIMIT_ERROR = 0x09
    PROTOCOL_VIOLATION = 0x0A
    KEY_UPDATE_ERROR = 0x0E
    AEAD_LIMIT_REACHED = 0x0F
    NO_VIABLE_PATH = 0x10

cdef enum:
    LOCAL_CID_SIZE = 8
    LOCAL_CIDS_MAX = 32
    # Frames for Python, and STREAM frames of streams that are not known: each packet adds so many to those that may
    # come, of which so many may be saved up.
    RARE_PER_PACKET = 8
    RARE_AHEAD = 16384
    RARE_WAITING = 65536

cdef struct Opened:
    uint64_t pn
    uint64_t cid  # of ours, as it lies in the packet
    uint8_t *payload
    size_t size
    uint8_t marks  # the reserved bits, which nobody may set, and OLD_KEY

cdef class PacketEngine(PacketSender):
    cdef uint64_t _failed_max  # packets that need not open
    cdef HeaderKey _open_mask
    cdef uint64_t[LOCAL_CIDS_MAX] _local_cids
    cdef size_t _local_cid_count
    cdef readonly dict receive_streams  # by stream ID
    cdef object _accept  # called with the ID of a stream that is not known: a ReceiveStream, or None to drop its bytes
    cdef StreamTable _receivers  # by stream ID; the credit has it too
    cdef void *_first_news  # ReceiveStreams to which something came since the last report, in that order
    cdef void *_last_news
    cdef readonly list rare  # frames for Python: (type, field, ...)
    cdef readonly list news  # receive streams with something to take or to collect
    cdef int64_t _rare_room  # of them that may come now
    cdef readonly uint64_t failed  # packets that did not open
    cdef readonly uint64_t opened
    cdef readonly bint is_broken  # the peer broke a rule
    cdef uint64_t _broken_code, _broken_kind
    cdef const char *_broken_why
    cdef object _broken_text  # instead of _broken_why
    cdef public bint is_closing  # nothing but its close is sent any more
    cdef size_t _listens  # times that it is still looked whether the peer closes, too
    cdef readonly bint heard_close  # it does
    cdef public object owner
    # Where the peer is, and where else packets come from (RFC 9000, section 9).
    cdef public bint peer_is_fixed  # it is a server: what comes from elsewhere is dropped
    # Its newest packet came from elsewhere, or it closes, and nothing was done about it: until then nothing is sent.
    cdef public bint awaits_python
    cdef int64_t _newest_plain  # the highest number of those packets that are not probing
    cdef bint is_elsewhere  # what is being taken in comes from elsewhere, which is:
    cdef object _elsewhere
    cdef public int64_t look_at  # microseconds: from when on Python wants to look whatever comes
    # For a pump.
    cdef bint touched
    cdef bint cut_off  # it could not send all that it might
    cdef void *next_touched
    cdef size_t unanswered  # bytes that came since it last sent
    cdef bint put_off  # among those that send later
    cdef int64_t send_at
    cdef void *next_put_off
    cdef AckFrame _ack
    cdef Opened[GROUP] _packets

    cdef size_t take_in(self, uint8_t *data, size_t size, size_t segment, int ecn, int64_t now) except? 9999999 nogil
    cdef size_t take_in_elsewhere(
        self, uint8_t *data, size_t size, const Received *received, int64_t now
    ) except? 9999999 nogil
    cdef int drain(self) except -1 nogil
    cdef int report(self) except -1
    cdef bint may_answer(self) noexcept nogil
    cdef bint needs_python(self, int64_t now) except -1
    cdef bint _credit_intake(self, ReceiveStream stream) noexcept nogil
    cpdef void take_turn(self, ReceiveStream stream, int64_t now) noexcept nogil
    cdef bint _grant(self, ReceiveStream stream, uint64_t consumed) noexcept nogil
    cdef bint _credit_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1 nogil
    cdef void _drop_news(self, void *stream) noexcept nogil

    cdef void _look_for_peer(self) noexcept nogil
    cdef bint _listen(self, uint8_t *data, size_t size, size_t segment, int64_t now) noexcept nogil
    cdef size_t _open_group(self, uint8_t *data, size_t size, size_t segment, size_t *at, int64_t now) noexcept nogil
    cdef bint _open_one(
        self, uint8_t *data, size_t size, const uint8_t *mask, Opened *packet, int64_t now
    ) noexcept nogil
    cdef bint _open_aside(
        self, uint8_t *data, size_t header_size, size_t sealed_size, Opened *packet, int64_t now
    ) noexcept nogil
    cdef bint _refuse(self) noexcept nogil
    cdef int _visit(self, size_t count, size_t size) except -1
    cdef bint _moves(self, const Opened *packet) noexcept nogil
    cdef int _process(self, const Opened *packet, int64_t now) except -1 nogil
    cdef int _stream_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1 nogil
    cdef bint _may_ask(self, uint64_t kind) noexcept nogil
    cdef void *_ask_for_stream(self, uint64_t stream_id) except? NULL
    cdef int _ack_frame(self, const uint8_t **at, const uint8_t *end, bint old_key, int64_t now) except -1 nogil
    cdef int _put_rare(self, tuple frame) except -1
    cdef int _rare_frame(self, uint64_t kind, const uint8_t **at, const uint8_t *end) except -1
    cdef void _break(self, uint64_t code, uint64_t kind, const char *why) noexcept nogil
