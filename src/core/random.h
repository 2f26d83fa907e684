/* A counter-based random generator: number i of stream (seed, offset) is a pure function of the
 * three, so any thread can make any part. Philox4x32-10, Salmon et al. 2011, "Parallel random
 * numbers: as easy as 1, 2, 3". */
#ifndef LT_CORE_RANDOM_H
#define LT_CORE_RANDOM_H

#include <stdint.h>

typedef struct lt_random {
  uint64_t seed;
  uint64_t offset; /* counters used so far; each gives four 32-bit numbers */
} lt_random;

/* Four random words for one counter. */
void lt_philox(uint64_t seed, uint64_t counter, uint32_t out[4]);

/* Takes `count` counters off the stream and returns the first. */
uint64_t lt_random_take(lt_random *r, uint64_t count);

/* 53 (24) random bits in [0, 1). */
static inline double lt_uniform64(uint32_t hi, uint32_t lo) {
  return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}
static inline float lt_uniform32(uint32_t x) { return (float)(x >> 8) * 0x1p-24f; }

#endif
