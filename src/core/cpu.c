/* The processor's instruction set (cpuid, through the compiler's own check, which also asks whether
 * the operating system saves the wide registers) and the processors of this process. */
#if !defined(_GNU_SOURCE)
#  define _GNU_SOURCE /* sched_getaffinity */
#endif

#include "core/cpu.h"

#if defined(__linux__)
#  include <sched.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[LT_SIMD_COUNT] = {"portable", "avx2", "avx512"};

static lt_simd supported(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return LT_SIMD_PORTABLE;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) {
    return LT_SIMD_AVX2;
  }
  return LT_SIMD_AVX512;
#else
  return LT_SIMD_PORTABLE;
#endif
}

lt_simd lt_simd_detect(void) {
  lt_simd found = supported();
  const char *asked = getenv("LUATAPE_SIMD");
  for (int i = 0; asked != NULL && i < (int)found; i++) {
    if (strcmp(asked, names[i]) == 0) return (lt_simd)i;
  }
  return found;
}

const char *lt_simd_name(lt_simd simd) { return names[simd]; }

int lt_cpu_count(void) {
#if defined(__linux__)
  cpu_set_t set;
  /* fails where the machine has more processors than the set has bits: the plain count serves */
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count < 1 ? 1 : count > 4096 ? 4096 : (int)count;
}
