/* BLAKE3 of what is short and in one piece, by four chunks at a time: for many small files in one call, where going
   through Python for each would cost more than the digest. What is long is hashed by the blake3 package, which uses
   wider instructions. After section 2 of the BLAKE3 paper; hash mode only. */

#ifndef SPACEBLOCK_SMALL_DIGEST_H
#define SPACEBLOCK_SMALL_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SMALL_DIGEST_SIZE 32
#define SMALL_DIGEST_CHUNKS 16
#define SMALL_DIGEST_MAX (SMALL_DIGEST_CHUNKS * 1024)

enum { SD_CHUNK_START = 1, SD_CHUNK_END = 2, SD_PARENT = 4, SD_ROOT = 8 };

static const uint32_t sd_iv[8] = {0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au,
                                  0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u};

/* The order of the words of a block in each of the seven rounds. */
static const uint8_t sd_order[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

#define SD_TURN(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define SD_MIX(a, b, c, d, x, y) \
    a += b + (x); d = SD_TURN(d ^ a, 16); c += d; b = SD_TURN(b ^ c, 12); \
    a += b + (y); d = SD_TURN(d ^ a, 8); c += d; b = SD_TURN(b ^ c, 7)
#define SD_ROUND(s, m, o) \
    SD_MIX(s[0], s[4], s[8], s[12], m[(o)[0]], m[(o)[1]]); SD_MIX(s[1], s[5], s[9], s[13], m[(o)[2]], m[(o)[3]]); \
    SD_MIX(s[2], s[6], s[10], s[14], m[(o)[4]], m[(o)[5]]); SD_MIX(s[3], s[7], s[11], s[15], m[(o)[6]], m[(o)[7]]); \
    SD_MIX(s[0], s[5], s[10], s[15], m[(o)[8]], m[(o)[9]]); SD_MIX(s[1], s[6], s[11], s[12], m[(o)[10]], m[(o)[11]]); \
    SD_MIX(s[2], s[7], s[8], s[13], m[(o)[12]], m[(o)[13]]); SD_MIX(s[3], s[4], s[9], s[14], m[(o)[14]], m[(o)[15]])
#define SD_ROUNDS(s, m) \
    SD_ROUND(s, m, sd_order[0]); SD_ROUND(s, m, sd_order[1]); SD_ROUND(s, m, sd_order[2]); SD_ROUND(s, m, sd_order[3]); \
    SD_ROUND(s, m, sd_order[4]); SD_ROUND(s, m, sd_order[5]); SD_ROUND(s, m, sd_order[6])

static uint32_t sd_load(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void sd_compress(uint32_t value[8], const uint32_t block[16], uint64_t counter, uint32_t length, uint32_t flags) {
    uint32_t s[16];
    int i;
    for (i = 0; i < 8; i++) s[i] = value[i];
    for (i = 0; i < 4; i++) s[8 + i] = sd_iv[i];
    s[12] = (uint32_t)counter;
    s[13] = (uint32_t)(counter >> 32);
    s[14] = length;
    s[15] = flags;
    SD_ROUNDS(s, block);
    for (i = 0; i < 8; i++) value[i] = s[i] ^ s[8 + i];
}

/* One chunk of at most 1024 bytes; ``last`` are the flags of its last block beside its own. */
static void sd_chunk(const uint8_t *data, size_t size, uint64_t counter, uint32_t last, uint32_t value[8]) {
    uint32_t flags = SD_CHUNK_START;
    memcpy(value, sd_iv, sizeof(sd_iv));
    for (;;) {
        uint8_t bytes[64] = {0};
        uint32_t block[16];
        size_t length = size < 64 ? size : 64;
        int i;
        if (length) memcpy(bytes, data, length);
        for (i = 0; i < 16; i++) block[i] = sd_load(bytes + 4 * i);
        data += length;
        size -= length;
        if (size == 0) flags |= SD_CHUNK_END | last;
        sd_compress(value, block, counter, (uint32_t)length, flags);
        if (size == 0) return;
        flags = 0;
    }
}

#if defined(__GNUC__)
typedef uint32_t sd_four __attribute__((vector_size(16)));

/* Four whole chunks that follow each other, side by side. */
static void sd_four_chunks(const uint8_t *data, uint32_t counter, uint32_t values[4][8]) {
    sd_four value[8];
    int block, i, lane;
    for (i = 0; i < 8; i++) value[i] = (sd_four){sd_iv[i], sd_iv[i], sd_iv[i], sd_iv[i]};
    for (block = 0; block < 16; block++) {
        const uint8_t *at = data + 64 * block;
        uint32_t flags = (block == 0 ? SD_CHUNK_START : 0) | (block == 15 ? SD_CHUNK_END : 0);
        sd_four s[16], m[16];
        for (i = 0; i < 16; i++, at += 4)
            m[i] = (sd_four){sd_load(at), sd_load(at + 1024), sd_load(at + 2048), sd_load(at + 3072)};
        for (i = 0; i < 8; i++) s[i] = value[i];
        for (i = 0; i < 4; i++) s[8 + i] = (sd_four){sd_iv[i], sd_iv[i], sd_iv[i], sd_iv[i]};
        s[12] = (sd_four){counter, counter + 1, counter + 2, counter + 3};
        s[13] = (sd_four){0, 0, 0, 0};
        s[14] = (sd_four){64, 64, 64, 64};
        s[15] = (sd_four){flags, flags, flags, flags};
        SD_ROUNDS(s, m);
        for (i = 0; i < 8; i++) value[i] = s[i] ^ s[8 + i];
    }
    for (lane = 0; lane < 4; lane++)
        for (i = 0; i < 8; i++) values[lane][i] = value[i][lane];
}
#endif

/* The digest of at most SMALL_DIGEST_MAX bytes. */
static void small_digest(const uint8_t *data, size_t size, uint8_t out[SMALL_DIGEST_SIZE]) {
    uint32_t values[SMALL_DIGEST_CHUNKS][8];
    size_t count = 0, i;
    if (size <= 1024) {
        sd_chunk(data, size, 0, SD_ROOT, values[0]);
        count = 1;
    } else {
#if defined(__GNUC__)
        for (; size >= 4096; count += 4, data += 4096, size -= 4096) sd_four_chunks(data, (uint32_t)count, values + count);
#endif
        while (size) {
            size_t length = size < 1024 ? size : 1024;
            sd_chunk(data, length, count, 0, values[count]);
            count++;
            data += length;
            size -= length;
        }
    }
    /* The tree's left side is as large and full as can be, which is what pairing them up row by row gives. */
    while (count > 1) {
        uint32_t flags = SD_PARENT | (count == 2 ? SD_ROOT : 0);
        size_t pairs = count / 2;
        for (i = 0; i < pairs; i++) {
            uint32_t block[16], value[8];
            memcpy(block, values[2 * i], 64);
            memcpy(value, sd_iv, sizeof(sd_iv));
            sd_compress(value, block, 0, 64, flags);
            memcpy(values[i], value, sizeof(value));
        }
        if (count % 2) memcpy(values[pairs], values[count - 1], sizeof(values[0]));
        count = pairs + count % 2;
    }
    for (i = 0; i < SMALL_DIGEST_SIZE; i++) out[i] = (uint8_t)(values[0][i / 4] >> (8 * (i % 4)));
}

#endif
