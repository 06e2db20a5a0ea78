"""Packet protection for other modules: seal, open and header masks, on pointers, without the GIL."""

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER_CTX:
        pass

cdef enum:
    AES_128_GCM = 1
    AES_256_GCM = 2
    CHACHA20_POLY1305 = 3
    IV_SIZE = 12
    TAG_SIZE = 16
    SAMPLE_SIZE = 16
    # Bytes of a header, of a payload, and of both with the tag: no packet is longer than a UDP datagram can be.
    PACKET_MAX = 65535

cdef class PacketKey:
    # One direction and key phase. Not safe for concurrent use.
    cdef readonly int suite
    cdef EVP_CIPHER_CTX *sealer
    cdef EVP_CIPHER_CTX *opener
    # The other back-end's key, or NULL: then the contexts above serve.
    cdef void *direct
    cdef uint8_t[IV_SIZE] iv

    # Plaintext is head, then data; either may be empty, and then NULL. Writes head_size + data_size + TAG_SIZE bytes.
    # 0, or -1 when the packet is longer than PACKET_MAX or libcrypto failed. No input may overlap out.
    cdef int seal(
        self, uint64_t pn, const uint8_t *header, size_t header_size, const uint8_t *head, size_t head_size,
        const uint8_t *data, size_t data_size, uint8_t *out,
    ) noexcept nogil

    # sealed_size counts the tag. Writes sealed_size - TAG_SIZE bytes; out is sealed itself, or does not overlap it.
    # 0, or -1 when it is no packet of this key: what out then holds must not be used.
    cdef int open(
        self, uint64_t pn, const uint8_t *header, size_t header_size, const uint8_t *sealed, size_t sealed_size,
        uint8_t *out,
    ) noexcept nogil

cdef class HeaderKey:
    # One direction, all key phases. Not safe for concurrent use.
    cdef readonly int suite
    cdef EVP_CIPHER_CTX *cipher

    # count samples of 16 bytes one behind the other give as many masks of 16 bytes, of which the first 5 count.
    # 0, or -1 when count * 16 is beyond 2^30 or libcrypto failed. masks is samples itself, or does not overlap it.
    cdef int masks(self, const uint8_t *samples, size_t count, uint8_t *masks) noexcept nogil
