# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Packet protection (RFC 9001, sections 5.3 and 5.4): payloads sealed and opened, headers masked in batches.

Two back-ends stand behind ``PacketKey``: OpenSSL's EVP interface, for every suite, and the direct AES-GCM calls of
libipsec-mb, where the build found it, the processor suits it and its answers equal OpenSSL's. The rules here:

- The C functions need no GIL, raise nothing and allocate nothing; each answers 0 or -1. Only ``def`` functions raise.
- Of a cipher context only the nonce changes from packet to packet. Its padding is never touched: with that flag set,
  OpenSSL takes a slow path on every packet.
- Lengths are compared by subtraction before they become addresses, and bounded before they become an ``int``.
- Keys and IVs are wiped when their object goes; a tag is compared in constant time.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

import os

from spaceblock.errors import EngineUnavailable

cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void *data, size_t size)

cdef extern from "openssl/err.h" nogil:
    void ERR_clear_error()

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_CIPHER:
        pass
    int EVP_CTRL_AEAD_GET_TAG
    int EVP_CTRL_AEAD_SET_TAG
    const EVP_CIPHER *EVP_aes_128_gcm()
    const EVP_CIPHER *EVP_aes_256_gcm()
    const EVP_CIPHER *EVP_chacha20_poly1305()
    const EVP_CIPHER *EVP_aes_128_ecb()
    const EVP_CIPHER *EVP_aes_256_ecb()
    const EVP_CIPHER *EVP_chacha20()
    EVP_CIPHER_CTX *EVP_CIPHER_CTX_new()
    void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *context)
    int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *context, int what, int size, void *data)
    int EVP_EncryptInit_ex(
        EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, void *engine, const uint8_t *key, const uint8_t *iv
    )
    int EVP_EncryptUpdate(EVP_CIPHER_CTX *context, uint8_t *out, int *written, const uint8_t *data, int size)
    int EVP_EncryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *out, int *written)
    int EVP_DecryptInit_ex(
        EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, void *engine, const uint8_t *key, const uint8_t *iv
    )
    int EVP_DecryptUpdate(EVP_CIPHER_CTX *context, uint8_t *out, int *written, const uint8_t *data, int size)
    int EVP_DecryptFinal_ex(EVP_CIPHER_CTX *context, uint8_t *out, int *written)

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #ifdef SPACEBLOCK_IPSEC_MB
    #include <stdlib.h>
    #include <openssl/crypto.h>
    #include <intel-ipsec-mb.h>

    /* The direct calls take all their state from key and context. The manager only says which variant suits the
       processor and is never changed once started, so that all keys of all threads may share it. */
    static IMB_MGR *direct_manager;

    typedef struct {
        struct gcm_key_data key;
        struct gcm_context_data context;
        aes_gcm_enc_dec_t seal, open;
        aes_gcm_init_t init;
        aes_gcm_enc_dec_update_t update;
        aes_gcm_enc_dec_finalize_t finalize;
    } direct_key;

    static int direct_start(void) {
        const uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_AVX2;
        IMB_MGR *manager;
        if (direct_manager) return 0;
        manager = alloc_mb_mgr(0);
        if (!manager) return -1;
        init_mb_mgr_auto(manager, NULL);
        if (imb_get_errno(manager) || (manager->features & needed) != needed) {
            free_mb_mgr(manager);
            return -1;
        }
        direct_manager = manager;
        return 0;
    }

    static void *direct_new(int bits, const uint8_t *key) {
        const IMB_MGR *m = direct_manager;
        void *room;
        direct_key *k;
        if (posix_memalign(&room, 64, sizeof(direct_key))) return NULL;
        k = room;
        k->seal = bits == 128 ? m->gcm128_enc : m->gcm256_enc;
        k->open = bits == 128 ? m->gcm128_dec : m->gcm256_dec;
        k->init = bits == 128 ? m->gcm128_init : m->gcm256_init;
        k->update = bits == 128 ? m->gcm128_enc_update : m->gcm256_enc_update;
        k->finalize = bits == 128 ? m->gcm128_enc_finalize : m->gcm256_enc_finalize;
        (bits == 128 ? m->gcm128_pre : m->gcm256_pre)(key, &k->key);
        return k;
    }

    static void direct_free(void *of) {
        if (of) OPENSSL_cleanse(of, sizeof(direct_key));
        free(of);
    }

    static inline void direct_seal(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *head,
        size_t head_size, const uint8_t *data, size_t data_size, uint8_t *out
    ) {
        direct_key *k = of;
        uint8_t *tag = out + head_size + data_size;
        if (head_size && data_size) {
            k->init(&k->key, &k->context, nonce, header, header_size);
            k->update(&k->key, &k->context, out, head, head_size);
            k->update(&k->key, &k->context, out + head_size, data, data_size);
            k->finalize(&k->key, &k->context, tag, 16);
        } else {
            /* Some versions refuse a NULL even where nothing is read. */
            const uint8_t *text = head_size ? head : data_size ? data : out;
            k->seal(&k->key, &k->context, out, text, head_size + data_size, nonce, header, header_size, tag, 16);
        }
    }

    static inline int direct_open(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *sealed, size_t size,
        uint8_t *out
    ) {
        direct_key *k = of;
        uint8_t tag[16];
        k->open(&k->key, &k->context, out, sealed, size, nonce, header, header_size, tag, 16);
        return CRYPTO_memcmp(tag, sealed + size, 16) ? -1 : 0;
    }
    #else
    static int direct_start(void) { return -1; }
    static void *direct_new(int bits, const uint8_t *key) { (void)bits; (void)key; return NULL; }
    static void direct_free(void *of) { (void)of; }
    static inline void direct_seal(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *head,
        size_t head_size, const uint8_t *data, size_t data_size, uint8_t *out
    ) {
        (void)of; (void)nonce; (void)header; (void)header_size; (void)head; (void)head_size; (void)data;
        (void)data_size; (void)out;
    }
    static inline int direct_open(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *sealed, size_t size,
        uint8_t *out
    ) {
        (void)of; (void)nonce; (void)header; (void)header_size; (void)sealed; (void)size; (void)out;
        return -1;
    }
    #endif
    """
    int direct_start() noexcept
    void *direct_new(int bits, const uint8_t *key) noexcept
    void direct_free(void *of) noexcept
    void direct_seal(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *head,
        size_t head_size, const uint8_t *data, size_t data_size, uint8_t *out,
    ) noexcept nogil
    int direct_open(
        void *of, const uint8_t *nonce, const uint8_t *header, size_t header_size, const uint8_t *sealed, size_t size,
        uint8_t *out,
    ) noexcept nogil

cdef enum:
    # EVP counts in an int; this is far beyond any batch, and no product near it overflows.
    MASKS_MAX = 1 << 26

cdef uint64_t PN_MAX = (<uint64_t>1 << 62) - 1


# ---- Payloads ----


@cython.final
cdef class PacketKey:
    def __cinit__(self, int suite, bytes key not None, bytes iv not None, backend=None):
        cdef const EVP_CIPHER *cipher
        cdef const uint8_t *secret = <const uint8_t *>PyBytes_AS_STRING(key)
        if backend is None:
            backend = chosen_backend
        if suite == AES_128_GCM:
            cipher = EVP_aes_128_gcm()
        elif suite == AES_256_GCM:
            cipher = EVP_aes_256_gcm()
        elif suite == CHACHA20_POLY1305:
            cipher = EVP_chacha20_poly1305()
        else:
            raise unknown_suite(suite)
        check_size("key", key, key_size(suite))
        check_size("iv", iv, IV_SIZE)
        self.suite = suite
        memcpy(self.iv, PyBytes_AS_STRING(iv), IV_SIZE)
        if backend == "ipsec-mb" and suite != CHACHA20_POLY1305:
            if not direct_usable():
                raise EngineUnavailable(NOT_USABLE)
            self.direct = direct_new(128 if suite == AES_128_GCM else 256, secret)
            if self.direct == NULL:
                raise MemoryError
        elif backend != "evp" and backend != "ipsec-mb":
            raise ValueError(f"there is no back-end {backend!r}; choose one of evp and ipsec-mb")
        else:
            self.sealer = new_context(cipher, secret, True)
            self.opener = new_context(cipher, secret, False)

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.sealer)
        EVP_CIPHER_CTX_free(self.opener)
        direct_free(self.direct)
        OPENSSL_cleanse(self.iv, IV_SIZE)

    @property
    def backend(self):
        return "evp" if self.direct == NULL else "ipsec-mb"

    def seal_packet(self, pn, const uint8_t[::1] header not None, const uint8_t[::1] payload not None):
        cdef uint64_t number = packet_number(pn)
        cdef bytes out
        check_length(header, payload.shape[0])
        out = PyBytes_FromStringAndSize(NULL, payload.shape[0] + TAG_SIZE)
        if self.seal(
            number, &header[0], <size_t>header.shape[0], NULL, 0, &payload[0], <size_t>payload.shape[0],
            <uint8_t *>PyBytes_AS_STRING(out),
        ):
            raise failed()
        return out

    def open_packet(self, pn, const uint8_t[::1] header not None, const uint8_t[::1] sealed not None):
        cdef uint64_t number = packet_number(pn)
        cdef bytes out = PyBytes_FromStringAndSize(NULL, max(0, sealed.shape[0] - TAG_SIZE))
        if self.open(
            number, &header[0], <size_t>header.shape[0], &sealed[0], <size_t>sealed.shape[0],
            <uint8_t *>PyBytes_AS_STRING(out),
        ):
            return None
        return out

    def seal_into(
        self, uint8_t[::1] out not None, pos, pn, const uint8_t[::1] header not None,
        const uint8_t[::1] head not None, const uint8_t[::1] data not None,
    ):
        cdef uint64_t number = packet_number(pn)
        cdef size_t at, size
        check_length(header, head.shape[0] + data.shape[0])
        size = <size_t>(head.shape[0] + data.shape[0] + TAG_SIZE)
        at = room_at(out, pos, size)
        check_apart(&out[0] + at, size, header)
        check_apart(&out[0] + at, size, head)
        check_apart(&out[0] + at, size, data)
        if self.seal(
            number, &header[0], <size_t>header.shape[0], &head[0], <size_t>head.shape[0], &data[0],
            <size_t>data.shape[0], &out[0] + at,
        ):
            raise failed()
        return at + size

    def open_into(
        self, uint8_t[::1] out not None, pos, pn, const uint8_t[::1] header not None,
        const uint8_t[::1] sealed not None,
    ):
        cdef uint64_t number = packet_number(pn)
        cdef size_t at, size
        size = <size_t>max(0, sealed.shape[0] - TAG_SIZE)
        at = room_at(out, pos, size)
        check_apart(&out[0] + at, size, header)
        if &sealed[0] != &out[0] + at:
            check_apart(&out[0] + at, size, sealed)
        if self.open(
            number, &header[0], <size_t>header.shape[0], &sealed[0], <size_t>sealed.shape[0], &out[0] + at
        ):
            return None
        return at + size

    cdef int seal(
        self, uint64_t pn, const uint8_t *header, size_t header_size, const uint8_t *head, size_t head_size,
        const uint8_t *data, size_t data_size, uint8_t *out,
    ) noexcept nogil:
        cdef uint8_t[IV_SIZE] nonce
        cdef EVP_CIPHER_CTX *context = self.sealer
        cdef int written
        if header_size > PACKET_MAX or head_size > PACKET_MAX - TAG_SIZE:
            return -1
        if data_size > PACKET_MAX - TAG_SIZE - head_size:
            return -1
        make_nonce(nonce, self.iv, pn)
        if self.direct != NULL:
            direct_seal(self.direct, nonce, header, header_size, head, head_size, data, data_size, out)
            return 0
        if EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) != 1:
            return -1
        if header_size and EVP_EncryptUpdate(context, NULL, &written, header, <int>header_size) != 1:
            return -1
        if head_size and EVP_EncryptUpdate(context, out, &written, head, <int>head_size) != 1:
            return -1
        if data_size and EVP_EncryptUpdate(context, out + head_size, &written, data, <int>data_size) != 1:
            return -1
        out += head_size + data_size
        if EVP_EncryptFinal_ex(context, out, &written) != 1:
            return -1
        if EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out) != 1:
            return -1
        return 0

    cdef int open(
        self, uint64_t pn, const uint8_t *header, size_t header_size, const uint8_t *sealed, size_t sealed_size,
        uint8_t *out,
    ) noexcept nogil:
        cdef uint8_t[IV_SIZE] nonce
        cdef EVP_CIPHER_CTX *context = self.opener
        cdef size_t size
        cdef int written
        if header_size > PACKET_MAX or sealed_size > PACKET_MAX or sealed_size < TAG_SIZE:
            return -1
        size = sealed_size - TAG_SIZE
        make_nonce(nonce, self.iv, pn)
        if self.direct != NULL:
            return direct_open(self.direct, nonce, header, header_size, sealed, size, out)
        if EVP_DecryptInit_ex(context, NULL, NULL, NULL, nonce) != 1:
            return -1
        if EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, <void *>(sealed + size)) != 1:
            return -1
        if header_size and EVP_DecryptUpdate(context, NULL, &written, header, <int>header_size) != 1:
            return -1
        if size and EVP_DecryptUpdate(context, out, &written, sealed, <int>size) != 1:
            return -1
        if EVP_DecryptFinal_ex(context, out + size, &written) != 1:
            # Nobody reads libcrypto's error queue here, and a flood of bad packets must not fill it.
            ERR_clear_error()
            return -1
        return 0


cdef inline void make_nonce(uint8_t *nonce, const uint8_t *iv, uint64_t pn) noexcept nogil:
    # Section 5.3: the packet number, as 64 bits in network order, over the end of the IV.
    cdef int at
    memcpy(nonce, iv, IV_SIZE)
    for at in range(8):
        nonce[IV_SIZE - 1 - at] ^= <uint8_t>(pn >> 8 * at)


# ---- Headers ----


@cython.final
cdef class HeaderKey:
    def __cinit__(self, int suite, bytes key not None):
        cdef const EVP_CIPHER *cipher
        if suite == AES_128_GCM:
            cipher = EVP_aes_128_ecb()
        elif suite == AES_256_GCM:
            cipher = EVP_aes_256_ecb()
        elif suite == CHACHA20_POLY1305:
            cipher = EVP_chacha20()
        else:
            raise unknown_suite(suite)
        check_size("key", key, key_size(suite))
        self.suite = suite
        self.cipher = new_context(cipher, <const uint8_t *>PyBytes_AS_STRING(key), True)

    def __dealloc__(self):
        EVP_CIPHER_CTX_free(self.cipher)

    def mask(self, const uint8_t[::1] sample not None):
        if sample.shape[0] != SAMPLE_SIZE:
            raise ValueError(f"a sample of {sample.shape[0]} bytes; pass {SAMPLE_SIZE}")
        return self.mask_all(sample)[:5]

    def mask_all(self, const uint8_t[::1] samples not None):
        cdef bytes out
        if samples.shape[0] % SAMPLE_SIZE or samples.shape[0] // SAMPLE_SIZE > MASKS_MAX:
            raise ValueError(f"samples of {samples.shape[0]} bytes together; pass {SAMPLE_SIZE} for each packet")
        out = PyBytes_FromStringAndSize(NULL, samples.shape[0])
        if self.masks(&samples[0], <size_t>(samples.shape[0] // SAMPLE_SIZE), <uint8_t *>PyBytes_AS_STRING(out)):
            raise failed()
        return out

    cdef int masks(self, const uint8_t *samples, size_t count, uint8_t *masks) noexcept nogil:
        cdef uint8_t[SAMPLE_SIZE] zeros
        cdef size_t at
        cdef int written
        if count == 0:
            return 0
        if count > MASKS_MAX:
            return -1
        if self.suite != CHACHA20_POLY1305:
            # Section 5.4.3: one AES block for each sample, none depending on another.
            if EVP_EncryptUpdate(self.cipher, masks, &written, samples, <int>(count * SAMPLE_SIZE)) != 1:
                return -1
            return 0
        # Section 5.4.4: the sample is ChaCha20's block counter and nonce, which is how EVP takes its IV.
        memset(zeros, 0, SAMPLE_SIZE)
        for at in range(count):
            if EVP_EncryptInit_ex(self.cipher, NULL, NULL, NULL, samples + at * SAMPLE_SIZE) != 1:
                return -1
            if EVP_EncryptUpdate(self.cipher, masks + at * SAMPLE_SIZE, &written, zeros, SAMPLE_SIZE) != 1:
                return -1
        return 0


# ---- Back-ends ----


def backend():
    return chosen_backend


def backends():
    return ("evp", "ipsec-mb") if direct_usable() else ("evp",)


cdef object direct_verdict = None


cdef bint direct_usable() except -1:
    # Asked once: starting the library and comparing take some milliseconds.
    global direct_verdict
    if direct_verdict is None:
        # Provisional, for the keys that the comparison makes.
        direct_verdict = direct_start() == 0
        direct_verdict = direct_verdict and direct_agrees(AES_128_GCM) and direct_agrees(AES_256_GCM)
    return direct_verdict


cdef bint direct_agrees(int suite) except -1:
    # The same answers as OpenSSL's, in one part and in two, around the sizes where code paths part; and a wrong tag
    # refused.
    cdef bytes text = bytes([7 * at & 0xff for at in range(1600)])
    cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(text)
    cdef PacketKey evp = PacketKey(suite, text[:key_size(suite)], text[:IV_SIZE], "evp")
    cdef PacketKey direct = PacketKey(suite, text[:key_size(suite)], text[:IV_SIZE], "ipsec-mb")
    cdef uint8_t[1600 + TAG_SIZE] expected, sealed
    cdef size_t head, size, whole
    for head in (0, 1, 16, 27, 48):
        for size in (0, 1, 15, 16, 17, 31, 48, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 767, 1023, 1400, 1552):
            whole = head + size + TAG_SIZE
            if evp.seal(size, data, head, data, head, data + head, size, expected):
                return False
            if direct.seal(size, data, head, data, head, data + head, size, sealed):
                return False
            if memcmp(expected, sealed, whole):
                return False
            if direct.open(size, data, head, expected, whole, sealed) or memcmp(sealed, data, head + size):
                return False
            expected[whole - 1] ^= 1
            if direct.open(size, data, head, expected, whole, sealed) == 0:
                return False
    return True


cdef str choose(str wanted):
    if wanted not in ("", "evp", "ipsec-mb"):
        raise EngineUnavailable(f"SPACEBLOCK_AEAD is {wanted!r}; set it to evp or ipsec-mb, or leave it unset")
    if wanted == "evp" or not direct_usable():
        if wanted == "ipsec-mb":
            raise EngineUnavailable(NOT_USABLE)
        return "evp"
    return "ipsec-mb"


# ---- What enters from Python ----

cdef str NOT_USABLE = "libipsec-mb is not in this build or does not suit this processor; choose evp"


cdef EVP_CIPHER_CTX *new_context(const EVP_CIPHER *cipher, const uint8_t *key, bint sealing) except NULL:
    cdef EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new()
    cdef int done
    if context == NULL:
        raise MemoryError
    if sealing:
        done = EVP_EncryptInit_ex(context, cipher, NULL, key, NULL)
    else:
        done = EVP_DecryptInit_ex(context, cipher, NULL, key, NULL)
    if done != 1:
        EVP_CIPHER_CTX_free(context)
        ERR_clear_error()
        raise EngineUnavailable("this OpenSSL lacks a cipher that QUIC needs; install one that has it")
    return context


cdef inline Py_ssize_t key_size(int suite) noexcept:
    return 16 if suite == AES_128_GCM else 32


cdef uint64_t packet_number(object value) except? 0xdead:
    if not 0 <= value <= PN_MAX:
        raise ValueError(f"the packet number is {value}; pass one within 0 to 2^62-1")
    return value


cdef int check_size(str name, bytes value, Py_ssize_t size) except -1:
    if len(value) != size:
        raise ValueError(f"{name} has {len(value)} bytes; pass {size}")
    return 0


cdef int check_length(const uint8_t[::1] header, Py_ssize_t size) except -1:
    # No sum of two sizes of Python objects overflows.
    if header.shape[0] > PACKET_MAX or size > PACKET_MAX - TAG_SIZE:
        raise ValueError(f"a packet with {header.shape[0]} + {size} bytes; pass what fits into {PACKET_MAX}")
    return 0


cdef size_t room_at(const uint8_t[::1] out, object pos, size_t size) except? 0xdead:
    if not 0 <= pos <= out.shape[0] or size > <size_t>(out.shape[0] - pos):
        raise ValueError(f"no room for {size} bytes at {pos} in a buffer of {out.shape[0]}; pass a larger one")
    return pos


cdef int check_apart(const uint8_t *out, size_t size, const uint8_t[::1] data) except -1:
    cdef uintptr_t start = <uintptr_t>out
    cdef uintptr_t other = <uintptr_t>&data[0]
    if data.shape[0] and (other - start < size if other >= start else start - other < <uintptr_t>data.shape[0]):
        raise ValueError("an input overlaps the output; pass separate memory")
    return 0


cdef object unknown_suite(int suite):
    return ValueError(f"there is no suite {suite}; choose one of Suite")


cdef object failed():
    ERR_clear_error()
    return EngineUnavailable("OpenSSL refused to encrypt; choose another suite or another build")


cdef str chosen_backend = choose(os.environ.get("SPACEBLOCK_AEAD", ""))
