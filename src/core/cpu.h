/* What the processor can do: the instruction set the kernels are chosen by, and the number of
 * processors this process may run on. Asked once per context; nothing is remembered here. */
#ifndef LT_CORE_CPU_H
#define LT_CORE_CPU_H

/* Instruction sets the kernels are compiled for, in rising order. */
typedef enum lt_simd {
  LT_SIMD_PORTABLE, /* what the compiler's baseline has: SSE2 on x86-64, NEON on arm64 */
  LT_SIMD_AVX2,     /* AVX2 and FMA */
  LT_SIMD_AVX512,   /* AVX-512 F, DQ, BW and VL */
  LT_SIMD_COUNT
} lt_simd;

/* The highest level that this processor and its operating system support. The environment variable
 * LUATAPE_SIMD (portable, avx2 or avx512) lowers it and never raises it; another value counts as
 * unset. */
lt_simd lt_simd_detect(void);

/* "portable", "avx2" or "avx512". */
const char *lt_simd_name(lt_simd simd);

/* Processors this process may run on, at least 1: a process pinned to one of many gets 1. */
int lt_cpu_count(void);

#endif
