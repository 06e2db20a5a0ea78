"""Datagrams in batches for other modules: received coalesced, sent as trains, without the GIL."""

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        unsigned short ss_family
    # Only ever pointed to here: some systems do not have it.
    struct mmsghdr

cdef enum:
    # What the kernel takes in one train: segments, and bytes of an IPv4 datagram's payload.
    SEGMENTS_MAX = 64
    PAYLOAD_MAX = 65507
    CONTROL_SIZE = 128
    LOCAL_MAX = 16

# One filled buffer: datagrams of `segment` bytes one behind the other, of which the last may be shorter.
cdef struct Received:
    uint8_t *data
    size_t size
    # Equal to size when nothing was coalesced.
    size_t segment
    sockaddr *address
    socklen_t address_size
    # The two ECN bits of the IP header; 0 where the system does not tell.
    uint8_t ecn
    # The address of ours that they came to, as Way.local has it; none where the system was not asked to tell.
    uint8_t[LOCAL_MAX] local
    uint8_t local_size
    # Bytes, or what says how long the segments are, did not fit: drop it whole.
    bint truncated

cdef class ReceiveBatch:
    # Not safe for concurrent use. What received points to holds until the next receive().
    cdef readonly int count
    cdef readonly size_t room
    # Errors of earlier sends, which ICMP messages reported and which were ignored.
    cdef readonly uint64_t soft_errors
    cdef int filled
    cdef Received *received
    cdef bytearray memory
    cdef object view
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef sockaddr_storage *addresses
    cdef uint8_t *controls

    # Never waits. How many of received are filled, 0 when nothing waits in the socket, or -errno.
    cdef int receive(self, int fd) noexcept nogil

cdef class SendBatch:
    # Of one socket. Not safe for concurrent use.
    cdef readonly size_t room
    # Whether trains are offered to the kernel; cleared when it refuses them, and may be set or cleared at any time.
    cdef public bint gso
    # Two ECN bits for the IP header of all that is sent; 0 leaves the socket's own.
    cdef uint8_t mark
    # The address of ours that all is sent from, as Way.local has it; none leaves the choice to the system.
    cdef uint8_t[LOCAL_MAX] local
    cdef uint8_t local_size
    # Bytes of the batch in hand that were sent, whole segments; not 0 only after -EAGAIN or -ENOBUFS.
    cdef readonly size_t sent
    cdef readonly uint64_t soft_errors
    cdef uint8_t *data
    cdef bytearray memory
    cdef object view
    cdef mmsghdr *messages
    cdef iovec *vectors
    cdef uint8_t *control

    # room bytes, to be filled with a batch from the start.
    cdef uint8_t *space(self) noexcept nogil

    # Sends the first total bytes of space() as datagrams of segment bytes, the last may be shorter; address is NULL on
    # a connected socket. Never waits. 0 when all are sent. -EAGAIN, -EWOULDBLOCK or -ENOBUFS: sent says how far it
    # came; leave space() alone and call again with the same arguments to go on, or drop the rest by discard(). Any
    # other -errno: the rest is dropped.
    cdef int flush(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t total
    ) noexcept nogil

    cdef void discard(self) noexcept nogil

    cdef ssize_t send_train(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t size
    ) noexcept nogil
    cdef ssize_t send_singly(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t size
    ) noexcept nogil
    cdef size_t put_mark(self, size_t at) noexcept nogil
    cdef size_t put_local(self, size_t at) noexcept nogil

# The address of a numeric (host, port) or (host, port, flow, scope) for a socket of this family; an IPv4 address for an
# IPv6 socket is mapped. Its size, or ValueError.
cdef socklen_t pack_address(object address, int family, sockaddr_storage *out) except 0

# The bytes of an address's Way.local, which out has room for.
cdef uint8_t pack_local(object address, uint8_t *out) except 255

# (host, port), or (host, port, flow, scope) for IPv6, and a Way where it is known; None for any other family.
cdef object unpack_sender(const Received *received)
