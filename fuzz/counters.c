/* Counts where compiled modules go that were built with -fsanitize-coverage=trace-pc, which gcc has as well as clang.
   Loaded before the program (LD_PRELOAD); used by coverage.py. One thread at a time counts right. */

#include <stdint.h>
#include <string.h>

#define SIZE 65536

static uint8_t run[SIZE];  /* this run's edges, counted up to 255 */
static uint8_t seen[SIZE]; /* how often one run took each: a bit for each power of two */
static uintptr_t last;
static int places;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    uint8_t *count = &run[(here ^ last) % SIZE];
    *count += *count < 255;
    last = here >> 1;
}

/* Adds this run to what was seen, and returns how much of it was new. */
int fuzz_merge(void)
{
    int fresh = 0;
    for (size_t i = 0; i < SIZE; i += 8) {
        uint64_t word;
        memcpy(&word, run + i, 8);
        if (word == 0)
            continue;
        for (size_t j = i; j < i + 8; j++) {
            if (run[j] == 0)
                continue;
            uint8_t bucket = (uint8_t)(1u << (31 - __builtin_clz((unsigned)run[j])));
            places += seen[j] == 0;
            fresh += (seen[j] & bucket) == 0;
            seen[j] |= bucket;
        }
    }
    memset(run, 0, SIZE);
    last = 0;
    return fresh;
}

int fuzz_places(void)
{
    return places;
}
