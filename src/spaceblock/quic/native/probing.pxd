"""Where packets come from, and whether they move a connection there (RFC 9000, section 9); not compiled alone."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp, memcpy

from spaceblock.quic.native.udp cimport sockaddr, sockaddr_storage
from spaceblock.varint cimport read_varint

cdef extern from "<sys/socket.h>" nogil:
    int AF_INET6

cdef inline bint same_address(const sockaddr *one, const sockaddr_storage *other) noexcept nogil:
    # Family and port are the first four bytes. An IPv4 address follows; an IPv6 address and its scope do behind the
    # flow label, which tells nothing of where a peer is.
    if memcmp(one, other, 4) != 0:
        return False
    if other.ss_family == AF_INET6:
        return memcmp(<const uint8_t *>one + 8, <const uint8_t *>other + 8, 20) == 0
    return memcmp(<const uint8_t *>one + 4, <const uint8_t *>other + 4, 4) == 0

cdef inline bint is_loopback(const sockaddr_storage *address) noexcept nogil:
    # 127.0.0.0/8, in IPv6 clothes too, or ::1.
    cdef const uint8_t *host = <const uint8_t *>address + 8
    cdef uint64_t[2] halves
    if address.ss_family != AF_INET6:
        return (<const uint8_t *>address)[4] == 127
    memcpy(halves, host, 16)
    if halves[0] != 0 or host[8] != 0 or host[9] != 0:
        return False
    return (host[10] == 0xFF and host[11] == 0xFF and host[12] == 127) or (
        halves[1] != 0 and memcmp(host + 8, b"\0\0\0\0\0\0\0\1", 8) == 0
    )

cdef inline bint is_probing(const uint8_t *at, const uint8_t *end) noexcept nogil:
    # Whether a packet has nothing but PADDING, NEW_CONNECTION_ID, PATH_CHALLENGE and PATH_RESPONSE (section 9.1).
    cdef uint64_t kind, number
    while at < end:
        if not read_varint(&at, end, &kind):
            return False
        if kind == 0x1A or kind == 0x1B:
            if end - at < 8:
                return False
            at += 8
        elif kind == 0x18:
            if not read_varint(&at, end, &number) or not read_varint(&at, end, &number):
                return False
            if at == end or end - at < 1 + at[0] + 16:
                return False
            at += 1 + at[0] + 16
        elif kind != 0:
            return False
    return True
