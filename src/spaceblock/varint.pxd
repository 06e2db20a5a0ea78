"""Variable-length integers (RFC 9000, section 16) on pointers; the caller says how much there is."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef extern from *:
    """
    #define SPACEBLOCK_VARINT_MAX (((uint64_t)1 << 62) - 1)
    """
    const uint64_t VARINT_MAX "SPACEBLOCK_VARINT_MAX"  # also the largest packet number (section 12.3)

cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    """Bytes of the shortest form; ``value`` is below 2^62."""
    if value < 0x40:
        return 1
    if value < 0x4000:
        return 2
    if value < 0x4000_0000:
        return 4
    return 8

cdef inline size_t write_varint(uint8_t* out, uint64_t value) noexcept nogil:
    """Write the shortest form, for which ``out`` has room; returns its size."""
    cdef size_t size = varint_size(value)
    cdef size_t i
    cdef uint64_t rest = value
    for i in range(size):
        out[size - 1 - i] = <uint8_t>(rest & 0xFF)
        rest >>= 8
    if size == 2:
        out[0] |= 0x40
    elif size == 4:
        out[0] |= 0x80
    elif size == 8:
        out[0] |= 0xC0
    return size

cdef inline bint read_varint(const uint8_t** data, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Read one integer and move ``data`` behind it; False, with nothing moved, if ``end`` comes first."""
    cdef const uint8_t* at = data[0]
    cdef size_t size, i
    cdef uint64_t result
    if at >= end:
        return False
    size = <size_t>1 << (at[0] >> 6)
    if <size_t>(end - at) < size:
        return False
    result = at[0] & 0x3F
    for i in range(1, size):
        result = (result << 8) | at[i]
    value[0] = result
    data[0] = at + size
    return True
