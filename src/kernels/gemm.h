/* The product of two matrices, for every shape and every strides. Small and thin products run in
 * direct kernels of ours, large ones in BLIS, which needs 4 us for 16x16x16 where ours need 0.1. */
#ifndef LT_KERNELS_GEMM_H
#define LT_KERNELS_GEMM_H

#include <stdbool.h>
#include <stdint.h>

#include "core/cpu.h"

/* C (m x n) = A (m x k) B (k x n), or C + A B when `accumulate`. Strides count elements: x_row
 * leads from one row to the next, x_col from one column to the next. A transposed operand is its
 * view with the strides exchanged. The strides of A and B may be anything, zero (broadcast) and
 * negative ones included; those of C must give each element its own place, and C must not overlap A
 * or B. */
typedef struct lt_gemm {
  int64_t m, n, k;
  const void *a;
  int64_t a_row, a_col;
  const void *b;
  int64_t b_row, b_col;
  void *c;
  int64_t c_row, c_col;
  bool accumulate;
} lt_gemm;

/* The product of float32, or of float64. k = 0 gives zeros (or leaves C when accumulating); with
 * m = 0 or n = 0 nothing is touched; without `accumulate` C is not read. `simd` is the level of the
 * direct kernels, at most lt_simd_detect().
 *
 * `threads` is how many threads may share the work, and is the caller's to decide by its size. Two
 * pay from about 64x64x64 on an idle machine; on a busy one each call may wait for a time slice of
 * the scheduler, some 10 ms. The result has the same bits for any number (not for another shape,
 * stride or level). A forked child must pass 1: libgomp hangs there.
 *
 * Nothing fails. Our side takes 36 KB of stack and no memory, and neither does BLIS once it has
 * been opened (one thread each: it takes a product for a single thread whatever `threads` says);
 * OpenMP takes some memory when more threads run than ever before. */
void lt_gemm_f32(const lt_gemm *g, lt_simd simd, int threads);
void lt_gemm_f64(const lt_gemm *g, lt_simd simd, int threads);

/* Starts BLIS for the whole process (the first product for BLIS would, in the midst of the work):
 * chooses its kernels by the processor's features (unless the user has set BLIS_ARCH_TYPE), and
 * makes it allocate what later products of one thread need. Idempotent and thread-safe; 0.2 ms the
 * first time. While it runs that first time it sets, and removes, BLIS_ARCH_TYPE in the
 * environment: a host whose other threads call getenv at that very moment opens its first context
 * before it starts them. */
void lt_blis_open(void);

/* BLIS's version ("0.9.0"), and the name of the kernels it runs ("skx", "haswell", "zen3", ...).
 * Start it if need be. */
const char *lt_blis_version(void);
const char *lt_blis_kernels(void);

#endif
