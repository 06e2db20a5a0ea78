# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""UDP sockets in batches: many datagrams received in one call, coalesced (GRO), and many sent as one train (GSO).

Linux does both. Elsewhere, and where a device refuses trains, datagrams go one by one, and callers notice nothing. The
rules here:

- The C functions need no GIL, raise nothing, allocate nothing and never wait; they answer with a count or -errno.
- An error that an earlier datagram caused (ICMP) says nothing about this call, and anybody can forge one: it is
  counted, and the call made again.
- What the kernel reports is checked against the buffer before it is believed.
"""

cimport cython
from cpython.object cimport PyObject_AsFileDescriptor
from libc.errno cimport (
    EACCES, EAGAIN, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS,
    ENOPROTOOPT, EOPNOTSUPP, EPROTO, errno,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from os import strerror
from typing import NamedTuple

from spaceblock.quic.routes import Way

cdef extern from *:
    """
    #include <errno.h>
    #include <string.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #ifdef __linux__
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif
    #define TRAINS 1
    #define MARKS 1
    #define LOCAL_IPV4 IP_PKTINFO
    #define LOCAL_IPV6 IPV6_PKTINFO
    #else
    #define TRAINS 0
    #define MARKS 0
    #define LOCAL_IPV4 -1
    #define LOCAL_IPV6 -1
    #endif
    #if !defined(__linux__) && !defined(__FreeBSD__) && !defined(__NetBSD__) && !defined(__OpenBSD__)
    struct mmsghdr {
        struct msghdr msg_hdr;
        unsigned int msg_len;
    };
    static int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, void *timeout) {
        unsigned int at;
        (void)timeout;
        for (at = 0; at < count; at++) {
            ssize_t got = recvmsg(fd, &messages[at].msg_hdr, flags);
            if (got < 0) return at ? (int)at : -1;
            messages[at].msg_len = (unsigned int)got;
        }
        return (int)at;
    }
    static int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
        unsigned int at;
        for (at = 0; at < count; at++) {
            if (sendmsg(fd, &messages[at].msg_hdr, flags) < 0) return at ? (int)at : -1;
        }
        return (int)at;
    }
    #endif
    /* An option that this system does not have is -1; setting it fails like one that the kernel does not know. */
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT -1
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO -1
    #endif
    #ifndef IP_MTU_DISCOVER
    #define IP_MTU_DISCOVER -1
    #endif
    #ifndef IP_PMTUDISC_PROBE
    #define IP_PMTUDISC_PROBE -1
    #endif
    #ifndef IPV6_MTU_DISCOVER
    #define IPV6_MTU_DISCOVER -1
    #endif
    #ifndef IPV6_PMTUDISC_PROBE
    #define IPV6_PMTUDISC_PROBE -1
    #endif
    #ifndef IP_DONTFRAG
    #define IP_DONTFRAG -1
    #endif
    #ifndef IPV6_DONTFRAG
    #define IPV6_DONTFRAG -1
    #endif
    #ifndef IP_RECVTOS
    #define IP_RECVTOS -1
    #endif
    #ifndef IPV6_RECVTCLASS
    #define IPV6_RECVTCLASS -1
    #endif
    #ifndef IPV6_TCLASS
    #define IPV6_TCLASS -1
    #endif
    #ifndef SO_RCVBUFFORCE
    #define SO_RCVBUFFORCE -1
    #endif
    #ifndef SO_SNDBUFFORCE
    #define SO_SNDBUFFORCE -1
    #endif
    """
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr_layout "mmsghdr":
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    cmsghdr *CMSG_FIRSTHDR(msghdr *message) nogil
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *control) nogil
    uint8_t *CMSG_DATA(cmsghdr *control) nogil
    size_t CMSG_LEN(size_t size) nogil
    size_t CMSG_SPACE(size_t size) nogil
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout) nogil
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags) nogil
    ssize_t sendmsg(int fd, const msghdr *message, int flags) nogil
    int inet_pton(int family, const char *text, void *out)
    const char *inet_ntop(int family, const void *address, char *out, socklen_t size)
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    uint32_t htonl(uint32_t value)
    uint32_t ntohl(uint32_t value)
    int EWOULDBLOCK, TRAINS, MARKS, MSG_DONTWAIT, MSG_TRUNC, MSG_CTRUNC, AF_INET, AF_INET6
    int IPPROTO_IP, IPPROTO_IPV6, IPPROTO_UDP, SOL_SOCKET, SO_RCVBUF, SO_SNDBUF, SO_RCVBUFFORCE, SO_SNDBUFFORCE
    int UDP_SEGMENT, UDP_GRO, IP_TOS, IP_RECVTOS, IPV6_TCLASS, IPV6_RECVTCLASS, LOCAL_IPV4, LOCAL_IPV6
    int IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE, IP_DONTFRAG, IPV6_DONTFRAG

cdef enum:
    # A socket holds one pending error at a time, and telling it clears it; more than this is not pending but lasting.
    TRIES = 4
    BUFFERS_MAX = 64
    ROOM_MAX = 1 << 20
    # The kernel doubles it, in an int.
    SOCKET_BUFFER_MAX = (1 << 30) - 1
    # struct in_pktinfo: the interface, the address of ours, and the one in the header; struct in6_pktinfo: the address,
    # and the interface. In what is sent the interface is left to the system.
    IPV4_INFO = 12
    IPV4_INFO_LOCAL = 4
    IPV6_INFO = 20


# ---- Receiving ----


class Datagrams(NamedTuple):
    data: memoryview
    segment: int
    address: tuple | None
    ecn: int
    truncated: bool


@cython.final
cdef class ReceiveBatch:
    def __cinit__(self, int count=8, Py_ssize_t room=65536):
        cdef int at
        cdef mmsghdr_layout *messages
        if not 1 <= count <= BUFFERS_MAX or not 1 <= room <= ROOM_MAX:
            raise ValueError(f"{count} buffers of {room} bytes; pass 1 to {BUFFERS_MAX} of 1 to {ROOM_MAX} bytes")
        self.count = count
        self.room = <size_t>room
        self.memory = bytearray(count * room)
        # A view keeps the bytes from moving, and is what Python reads.
        self.view = memoryview(self.memory)
        self.received = <Received *>calloc(count, sizeof(Received))
        self.messages = <mmsghdr *>calloc(count, sizeof(mmsghdr_layout))
        self.vectors = <iovec *>calloc(count, sizeof(iovec))
        self.addresses = <sockaddr_storage *>calloc(count, sizeof(sockaddr_storage))
        self.controls = <uint8_t *>calloc(count, CONTROL_SIZE)
        if not (self.received and self.messages and self.vectors and self.addresses and self.controls):
            raise MemoryError
        messages = <mmsghdr_layout *>self.messages
        for at in range(count):
            self.received[at].data = <uint8_t *><char *>self.memory + at * self.room
            self.received[at].address = <sockaddr *>&self.addresses[at]
            self.vectors[at].iov_base = self.received[at].data
            self.vectors[at].iov_len = self.room
            messages[at].msg_hdr.msg_name = &self.addresses[at]
            messages[at].msg_hdr.msg_iov = &self.vectors[at]
            messages[at].msg_hdr.msg_iovlen = 1
            messages[at].msg_hdr.msg_control = self.controls + at * CONTROL_SIZE
            ready(&messages[at].msg_hdr)

    def __dealloc__(self):
        free(self.received)
        free(self.messages)
        free(self.vectors)
        free(self.addresses)
        free(self.controls)

    def receive_from(self, sock):
        cdef int fd = PyObject_AsFileDescriptor(sock)
        cdef int got
        with nogil:
            got = self.receive(fd)
        if got < 0:
            raise OSError(-got, strerror(-got))
        return got

    def buffers(self):
        cdef Received *each
        cdef int at
        cdef list found = []
        for at in range(self.filled):
            each = &self.received[at]
            found.append(Datagrams(
                self.view[at * self.room:at * self.room + each.size].toreadonly(),
                each.segment,
                unpack_sender(each) if each.address_size else None,
                each.ecn,
                bool(each.truncated),
            ))
        return found

    cdef int receive(self, int fd) noexcept nogil:
        cdef mmsghdr_layout *messages = <mmsghdr_layout *>self.messages
        cdef int at, got
        cdef int tries = 0
        for at in range(self.filled):
            ready(&messages[at].msg_hdr)
        self.filled = 0
        while True:
            got = recvmmsg(fd, self.messages, <unsigned int>self.count, MSG_DONTWAIT, NULL)
            if got >= 0:
                break
            got = errno
            if got == EAGAIN or got == EWOULDBLOCK:
                return 0
            if got != EINTR:
                tries += 1
                if tries == TRIES or not is_soft(got):
                    return -got
                self.soft_errors += 1
        for at in range(got):
            read_message(&messages[at], &self.received[at])
        self.filled = got
        return got


cdef inline void ready(msghdr *message) noexcept nogil:
    # What the kernel overwrites in a message that it fills.
    message.msg_namelen = sizeof(sockaddr_storage)
    message.msg_controllen = CONTROL_SIZE
    message.msg_flags = 0


cdef inline void read_message(mmsghdr_layout *message, Received *received) noexcept nogil:
    cdef cmsghdr *control = CMSG_FIRSTHDR(&message.msg_hdr)
    cdef size_t value
    received.size = message.msg_len
    received.segment = received.size
    received.address_size = message.msg_hdr.msg_namelen
    received.ecn = 0
    received.local_size = 0
    received.truncated = (message.msg_hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0
    while control != NULL:
        value = control_value(control)
        if control.cmsg_level == IPPROTO_UDP:
            if control.cmsg_type == UDP_GRO and 0 < value < received.size:
                received.segment = value
        elif control.cmsg_level == IPPROTO_IP:
            if control.cmsg_type == IP_TOS or control.cmsg_type == IP_RECVTOS:
                received.ecn = value & 3
            elif control.cmsg_type == LOCAL_IPV4 and control.cmsg_len == CMSG_LEN(IPV4_INFO):
                received.local_size = 4
                memcpy(received.local, CMSG_DATA(control) + IPV4_INFO_LOCAL, 4)
        elif control.cmsg_level == IPPROTO_IPV6:
            if control.cmsg_type == IPV6_TCLASS:
                received.ecn = value & 3
            elif control.cmsg_type == LOCAL_IPV6 and control.cmsg_len == CMSG_LEN(IPV6_INFO):
                # Nobody can send from a multicast address.
                received.local_size = 0 if CMSG_DATA(control)[0] == 0xFF else 16
                memcpy(received.local, CMSG_DATA(control), 16)
        control = CMSG_NXTHDR(&message.msg_hdr, control)


cdef inline size_t control_value(cmsghdr *control) noexcept nogil:
    # A number in as many bytes as the system chose for it; 0 when it is negative or of another size.
    cdef size_t size = control.cmsg_len - CMSG_LEN(0)
    cdef uint16_t short_value
    cdef int int_value
    if size == 1:
        return CMSG_DATA(control)[0]
    if size == sizeof(uint16_t):
        memcpy(&short_value, CMSG_DATA(control), sizeof(uint16_t))
        return short_value
    if size == sizeof(int):
        memcpy(&int_value, CMSG_DATA(control), sizeof(int))
        return <size_t>int_value if int_value > 0 else 0
    return 0


cdef inline bint is_soft(int code) noexcept nogil:
    # What the kernel makes of ICMP messages.
    return (
        code == ECONNREFUSED or code == EHOSTUNREACH or code == ENETUNREACH or code == EMSGSIZE or code == EPROTO
        or code == ENOPROTOOPT or code == EACCES or code == EOPNOTSUPP or code == ECONNRESET
    )


# ---- Sending ----


@cython.final
cdef class SendBatch:
    def __cinit__(self, Py_ssize_t room=65535, bint gso=True):
        if not 1 <= room <= ROOM_MAX:
            raise ValueError(f"a batch of {room} bytes; pass 1 to {ROOM_MAX}")
        self.room = <size_t>room
        self.gso = gso
        self.memory = bytearray(room)
        self.view = memoryview(self.memory)
        self.data = <uint8_t *><char *>self.memory
        self.messages = <mmsghdr *>calloc(SEGMENTS_MAX, sizeof(mmsghdr_layout))
        self.vectors = <iovec *>calloc(SEGMENTS_MAX, sizeof(iovec))
        self.control = <uint8_t *>calloc(1, CONTROL_SIZE)
        if not (self.messages and self.vectors and self.control):
            raise MemoryError

    def __dealloc__(self):
        free(self.messages)
        free(self.vectors)
        free(self.control)

    @property
    def buffer(self):
        return self.view

    @property
    def ecn(self):
        return self.mark

    @ecn.setter
    def ecn(self, value):
        if not 0 <= value <= 3:
            raise ValueError(f"ecn is {value}; pass two bits, 0 to 3")
        self.mark = value

    def send(self, sock, Py_ssize_t segment, Py_ssize_t total, address=None):
        cdef int fd = PyObject_AsFileDescriptor(sock)
        cdef sockaddr_storage to
        cdef sockaddr *target = NULL
        cdef socklen_t size = 0
        cdef int code
        if segment < 1 or total < 0 or <size_t>total > self.room or <size_t>total < self.sent:
            raise ValueError(
                f"{total} bytes in segments of {segment}, of which {self.sent} are sent, in a batch of {self.room}; "
                "pass the sizes of what was written there"
            )
        if address is not None:
            size = pack_address(address, sock.family, &to)
            target = <sockaddr *>&to
        self.local_size = pack_local(address, self.local)
        with nogil:
            code = -self.flush(fd, target, size, <size_t>segment, <size_t>total)
        if code == EAGAIN or code == EWOULDBLOCK or code == ENOBUFS:
            return False
        if code:
            raise OSError(code, strerror(code))
        return True

    def drop(self):
        self.discard()

    cdef uint8_t *space(self) noexcept nogil:
        return self.data

    cdef void discard(self) noexcept nogil:
        self.sent = 0

    cdef int flush(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t total
    ) noexcept nogil:
        cdef size_t many = 0
        cdef size_t left
        cdef ssize_t done
        cdef int tries = 0
        cdef int code
        cdef bint train
        cdef bint refused = False
        if segment == 0 or total > self.room or self.sent > total:
            self.sent = 0
            return -EINVAL
        if segment <= PAYLOAD_MAX:
            many = segment * min(<size_t>PAYLOAD_MAX // segment, <size_t>SEGMENTS_MAX)
        while self.sent < total:
            left = total - self.sent
            train = TRAINS and self.gso and left > segment and many > segment
            if train:
                done = self.send_train(fd, address, address_size, segment, min(left, many))
            else:
                done = self.send_singly(fd, address, address_size, segment, left)
            if done > 0:
                self.sent += <size_t>done
                tries = 0
                continue
            code = <int>-done
            if code == EAGAIN or code == EWOULDBLOCK or code == ENOBUFS:
                return -code
            if code == EINTR:
                continue
            tries += 1
            if is_soft(code) and tries < TRIES:
                self.soft_errors += 1
            elif train and (code == EIO or code == EINVAL or code == EMSGSIZE or code == EOPNOTSUPP):
                # No checksum offload (EIO), no trains, or a segment larger than the path takes.
                self.gso = False
                refused = True
                tries = 0
            else:
                if refused and (code == EMSGSIZE or code == EINVAL):
                    # A single datagram is too large as well, or its addresses are at fault, and not the train.
                    self.gso = True
                self.sent = 0
                return -code
        self.sent = 0
        return 0

    cdef ssize_t send_train(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t size
    ) noexcept nogil:
        # size bytes from sent on, as one call; all of them, or -errno.
        cdef msghdr message
        cdef uint16_t each = <uint16_t>segment
        cdef ssize_t done
        memset(&message, 0, sizeof(msghdr))
        self.vectors[0].iov_base = self.data + self.sent
        self.vectors[0].iov_len = size
        message.msg_name = <void *>address
        message.msg_namelen = address_size
        message.msg_iov = self.vectors
        message.msg_iovlen = 1
        message.msg_control = self.control
        message.msg_controllen = self.put_local(
            self.put_mark(put_control(self.control, IPPROTO_UDP, UDP_SEGMENT, &each, sizeof(each)))
        )
        done = sendmsg(fd, &message, MSG_DONTWAIT)
        return done if done >= 0 else -errno

    cdef ssize_t send_singly(
        self, int fd, const sockaddr *address, socklen_t address_size, size_t segment, size_t size
    ) noexcept nogil:
        # Bytes of whole datagrams that were sent of size from sent on, not 0, or -errno.
        cdef mmsghdr_layout *messages = <mmsghdr_layout *>self.messages
        cdef size_t control_size = self.put_local(self.put_mark(0))
        cdef size_t at = 0
        cdef unsigned int count = 0
        cdef int done
        while at < size and count < SEGMENTS_MAX:
            self.vectors[count].iov_base = self.data + self.sent + at
            self.vectors[count].iov_len = min(segment, size - at)
            memset(&messages[count], 0, sizeof(mmsghdr_layout))
            messages[count].msg_hdr.msg_name = <void *>address
            messages[count].msg_hdr.msg_namelen = address_size
            messages[count].msg_hdr.msg_iov = &self.vectors[count]
            messages[count].msg_hdr.msg_iovlen = 1
            messages[count].msg_hdr.msg_control = self.control if control_size else NULL
            messages[count].msg_hdr.msg_controllen = control_size
            at += self.vectors[count].iov_len
            count += 1
        done = sendmmsg(fd, self.messages, count, MSG_DONTWAIT)
        if done < 0:
            return -errno
        return <ssize_t>min(<size_t>done * segment, at)

    cdef size_t put_mark(self, size_t at) noexcept nogil:
        # Behind what is there already. Both families' options: the kernel reads the one that suits the datagram, which
        # also holds for an IPv4 address on an IPv6 socket.
        cdef int value = self.mark
        if MARKS and value:
            at += put_control(self.control + at, IPPROTO_IP, IP_TOS, &value, sizeof(int))
            at += put_control(self.control + at, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof(int))
        return at

    cdef size_t put_local(self, size_t at) noexcept nogil:
        # Behind what is there already.
        cdef uint8_t[IPV6_INFO] info
        if self.local_size:
            memset(info, 0, IPV6_INFO)
            if self.local_size == 4:
                memcpy(info + IPV4_INFO_LOCAL, self.local, 4)
                at += put_control(self.control + at, IPPROTO_IP, LOCAL_IPV4, info, IPV4_INFO)
            else:
                memcpy(info, self.local, 16)
                at += put_control(self.control + at, IPPROTO_IPV6, LOCAL_IPV6, info, IPV6_INFO)
        return at


cdef inline size_t put_control(uint8_t *at, int level, int what, const void *value, size_t size) noexcept nogil:
    # The bytes it takes; three of an int each and an address are below CONTROL_SIZE.
    cdef cmsghdr *control = <cmsghdr *>at
    control.cmsg_len = CMSG_LEN(size)
    control.cmsg_level = level
    control.cmsg_type = what
    memcpy(CMSG_DATA(control), value, size)
    return CMSG_SPACE(size)


# ---- Addresses ----


cdef socklen_t pack_address(object address, int family, sockaddr_storage *out) except 0:
    cdef sockaddr_in *four = <sockaddr_in *>out
    cdef sockaddr_in6 *six = <sockaddr_in6 *>out
    cdef bytes host = address[0].encode()
    cdef uint16_t port = address[1]
    memset(out, 0, sizeof(sockaddr_storage))
    if family == AF_INET:
        four.sin_family = <unsigned short>AF_INET
        four.sin_port = htons(port)
        if inet_pton(AF_INET, host, &four.sin_addr) == 1:
            return sizeof(sockaddr_in)
    elif family == AF_INET6:
        six.sin6_family = <unsigned short>AF_INET6
        six.sin6_port = htons(port)
        if len(address) == 4:
            six.sin6_flowinfo = htonl(address[2])
            six.sin6_scope_id = address[3]
        if b":" not in host:
            host = b"::ffff:" + host
        if inet_pton(AF_INET6, host, &six.sin6_addr) == 1:
            return sizeof(sockaddr_in6)
    raise ValueError(f"{address[0]!r} is no numeric address for this socket; resolve it first")


cdef uint8_t pack_local(object address, uint8_t *out) except 255:
    cdef bytes local = address.local if type(address) is Way else b""
    if len(local) not in (0, 4, 16):
        raise ValueError(f"{len(local)} bytes are no address of ours; pass 4 or 16")
    memcpy(out, <const uint8_t *>local, <size_t>len(local))
    return <uint8_t>len(local)


cdef object unpack_sender(const Received *received):
    address = unpack_address(received.address)
    if address is None or received.local_size == 0:
        return address
    way = Way(address)
    way.local = (<const uint8_t *>received.local)[:received.local_size]
    return way


cdef object unpack_address(const sockaddr *address):
    cdef const sockaddr_in *four = <const sockaddr_in *>address
    cdef const sockaddr_in6 *six = <const sockaddr_in6 *>address
    cdef char[64] text
    if address.sa_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
        return (<bytes><char *>text).decode(), ntohs(four.sin_port)
    if address.sa_family == AF_INET6:
        inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text))
        return (<bytes><char *>text).decode(), ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id
    return None


# ---- Options ----


class SocketFacts(NamedTuple):
    gso: bool
    gro: bool
    receive_buffer: int
    send_buffer: int


def prepare_socket(sock, *, bint gro, Py_ssize_t receive_buffer, Py_ssize_t send_buffer):
    cdef bint trains = try_option(sock, IPPROTO_UDP, UDP_SEGMENT, 1200)
    if trains:
        # A size left on the socket would cut every datagram that is sent without one.
        sock.setsockopt(IPPROTO_UDP, UDP_SEGMENT, 0)
    # Also on an IPv6 socket, for the IPv4 addresses mapped into it.
    try_option(sock, IPPROTO_IP, IP_RECVTOS, 1)
    try_option(sock, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    try_option(sock, IPPROTO_IP, IP_DONTFRAG, 1)
    if sock.family == AF_INET6:
        try_option(sock, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        try_option(sock, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE)
        try_option(sock, IPPROTO_IPV6, IPV6_DONTFRAG, 1)
    return SocketFacts(
        trains,
        try_option(sock, IPPROTO_UDP, UDP_GRO, gro) and gro,
        resize(sock, SO_RCVBUF, SO_RCVBUFFORCE, receive_buffer),
        resize(sock, SO_SNDBUF, SO_SNDBUFFORCE, send_buffer),
    )


cdef bint try_option(object sock, int level, int option, int value) except -1:
    if option == -1 or value == -1:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


cdef Py_ssize_t resize(object sock, int option, int forced, Py_ssize_t wanted) except -1:
    # Linux grants what it likes and says nothing, other systems refuse what they will not grant.
    cdef Py_ssize_t size
    wanted = size = min(wanted, <Py_ssize_t>SOCKET_BUFFER_MAX)
    while granted(sock, option) < size and not try_option(sock, SOL_SOCKET, option, <int>size):
        size //= 2
    if granted(sock, option) < wanted:
        try_option(sock, SOL_SOCKET, forced, <int>wanted)
    return granted(sock, option)


cdef Py_ssize_t granted(object sock, int option) except -1:
    # Linux doubles the size for its own bookkeeping, and tells the double.
    cdef Py_ssize_t size = sock.getsockopt(SOL_SOCKET, option)
    return size // 2 if MARKS else size
