"""The two directions of a stream, as the engine sees them: what is written and unacknowledged, and what has arrived."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef struct Span:
    uint64_t start  # offset of the first byte in the stream
    uint64_t stop

cdef struct Piece:
    const uint8_t* data  # held by the owner at the same place of SendStream._owners
    uint64_t start
    uint64_t stop

cdef struct Run:
    uint64_t offset
    size_t size
    bint fin
    bint is_new  # never sent before, so it uses the connection's credit

# What takes a stream's bytes as they arrive, without the GIL; given by a capsule named "spaceblock.intake". take() is
# given runs of bytes that follow each other, and says how many bytes it took, fewer than all when it waits for a call
# from Python.
cdef struct Intake:
    void* owner
    size_t (*take)(void* owner, const uint8_t* const* runs, const size_t* sizes, size_t count) noexcept nogil
    bint laden  # it wants a call of settle() soon, while what arrived is in the cache

cdef class StreamTable:
    # Finds a stream without the GIL; whoever adds one keeps it alive. Made for a few hundred.
    cdef uint64_t* keys
    cdef void** values
    cdef size_t count
    cdef size_t capacity
    cdef size_t last
    cdef void* find(self, uint64_t key) noexcept nogil
    cdef int add(self, uint64_t key, void* value) except -1
    cdef void remove(self, uint64_t key) noexcept nogil

cdef class Spans:
    cdef Span* spans  # disjoint, ascending
    cdef size_t count
    cdef size_t capacity
    cpdef int add(self, uint64_t start, uint64_t stop) except -1 nogil
    cpdef int remove(self, uint64_t start, uint64_t stop) except -1 nogil
    cdef size_t find(self, uint64_t offset) noexcept nogil
    cdef int _reserve(self) except -1 nogil

cdef class SendStream:
    cdef readonly uint64_t stream_id
    cdef public uint64_t limit  # the peer's MAX_STREAM_DATA
    cdef readonly uint64_t written  # bytes given to write(): where the next ones begin
    cdef readonly uint64_t sent  # first byte that was never sent
    cdef readonly uint64_t acknowledged  # first byte that is not acknowledged
    cdef readonly bint fin_written
    cdef bint fin_pending  # written and not sent, or lost
    cdef readonly bint fin_acknowledged
    cdef readonly bint stopped  # reset: nothing of it is sent any more
    cdef public bint held  # nothing of it is sent yet: the peer does not allow so many streams
    cdef public int64_t awaited  # the backlog that somebody waits for, in bytes; -1: nobody does
    cdef uint32_t slot  # how the engine's records call it
    cdef bint queued  # among the engine's turns
    cdef void* next_turn  # the SendStream behind it there
    cdef Spans _lost  # to be sent again
    cdef Spans _acknowledged  # beyond ``acknowledged``
    cdef Piece* _pieces
    cdef size_t _first  # index of the oldest piece in use
    cdef size_t _count
    cdef size_t _capacity
    cdef size_t _cursor  # index of the piece that holds ``sent``, a hint
    cdef size_t releasable  # pieces that are acknowledged and whose owners still hold them
    cdef object _owners
    cdef uint64_t _backlog(self) noexcept nogil
    cdef bint is_awaited(self) noexcept nogil
    cdef bint has_work(self, uint64_t credit) noexcept nogil
    cdef bint next_run(self, size_t room, uint64_t credit, Run* run) noexcept nogil
    cdef const uint8_t* bytes_at(self, uint64_t offset, size_t size, uint8_t* scratch) noexcept nogil
    cdef void _copy(self, uint64_t offset, size_t size, uint8_t* scratch) noexcept nogil
    cdef void mark_sent(self, const Run* run) noexcept nogil
    cdef int on_acknowledged(self, uint64_t offset, uint64_t size, bint fin) except -1 nogil
    cdef int on_lost(self, uint64_t offset, uint64_t size, bint fin) except -1 nogil
    cdef size_t _find(self, uint64_t offset) noexcept nogil
    cdef int _add_piece(self, const uint8_t* data, size_t size) except -1

cdef class ReceiveStream:
    cdef readonly uint64_t stream_id
    cdef public uint64_t limit  # credit granted: the offset that the peer may reach
    cdef readonly uint64_t taken  # bytes handed on
    cdef readonly uint64_t arrived  # bytes that arrived in order
    cdef readonly uint64_t highest  # one behind the highest byte that arrived
    cdef readonly int64_t final_size  # -1 while unknown
    cdef readonly bint finished  # all came and was taken, or it was reset
    cdef bint has_news  # among the engine's news
    cdef bint ended  # the final size became known to be reached, which nobody was told yet
    cdef void* next_news  # the ReceiveStream behind it there
    # For Credit: its window, and since when and from where on it is being used up.
    cdef uint64_t window
    cdef int64_t tuned_at
    cdef uint64_t tuned_from
    cdef bint limit_due  # among those whose limits are to be told
    cdef void* next_due  # the ReceiveStream behind it there
    cdef uint64_t credited  # of taken, what the connection was credited for
    # For Budget: bytes granted that it counts on, since when, and the neighbours in its two lists.
    cdef uint64_t pledged
    cdef int64_t pledged_at
    cdef uint64_t share  # what it may have at once; 0: not known yet
    cdef bint holds
    cdef void* held_before
    cdef void* held_behind
    cdef bint waits
    cdef void* waits_behind
    cdef bint has_turn
    cdef uint64_t asked  # how far it was consumed when it began to wait, or since
    cdef void* engine  # the PacketEngine that it belongs to
    cdef public object owner
    cdef readonly object intake  # keeps _intake alive; None: take() hands on
    cdef Intake* _intake
    cdef uint64_t _told  # of taken, what collect() has told
    # Bytes [taken, _in_place) of the packets just opened, which lie where they were opened until drain().
    cdef const uint8_t** _spans
    cdef size_t* _sizes
    cdef size_t _count
    cdef size_t _capacity
    cdef uint64_t _in_place
    # A ring for bytes [_in_place, arrived), and those beyond a gap: the one at an offset lies at the offset modulo the
    # ring's size, a power of two. The credit bounds it.
    cdef Spans _early
    cdef uint8_t* _ring
    cdef uint64_t _ring_size
    cdef int receive(self, uint64_t offset, const uint8_t* data, size_t size, bint fin) except -1 nogil
    cdef int drain(self) except -1 nogil
    cdef int _append(self, const uint8_t* data, size_t size) except -1 nogil
    cdef int _take_early(self) except -1 nogil
    cdef int _reserve(self, uint64_t stop) except -1 nogil
    cdef void _put(self, uint64_t offset, const uint8_t* data, uint64_t size) noexcept nogil
