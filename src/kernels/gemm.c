/* The door of the matrix product: empty ones, strides that mean nothing, and the choice between the
 * direct kernels and BLIS. The choice looks at the shape, the strides and the instruction set,
 * never at the number of threads: that is half of why the bits do not depend on it. */
#include "kernels/gemm.h"

#include "kernels/gemm_blis.h"
#include "kernels/gemm_small.h"

/* From how many multiplications on, and with how many rows and columns of C, BLIS is faster: its
 * packing pays when every packed element is used often. Measured; the wider the vectors, the later,
 * since the direct kernels hold 0.9 of the processor's speed up to 512x512x512 in AVX-512. */
static const struct {
  double f32, f64;
  int64_t extent;
} blis_from[LT_SIMD_COUNT] = {
    [LT_SIMD_PORTABLE] = {1 << 24, 1 << 24, 32},
    [LT_SIMD_AVX2] = {1 << 25, 1 << 24, 32},
    [LT_SIMD_AVX512] = {1 << 28, 1 << 26, 192},
};

static bool for_blis(const lt_gemm *g, double from, int64_t extent) {
  return (double)g->m * (double)g->n * (double)g->k >= from && g->m >= extent && g->n >= extent &&
         g->k >= 32 && lt_blis_takes(g);
}

/* The stride along an extent of 1 leads nowhere: 1 lets it pass for neighbours. */
static lt_gemm tidy(const lt_gemm *g) {
  lt_gemm t = *g;
  if (t.m == 1) t.a_row = t.c_row = 1;
  if (t.n == 1) t.b_col = t.c_col = 1;
  if (t.k == 1) t.a_col = t.b_row = 1;
  return t;
}

void lt_gemm_f32(const lt_gemm *g, lt_simd simd, int threads) {
  if (g->k <= 0 && !g->accumulate) {
    for (int64_t i = 0; i < g->m; i++) {
      for (int64_t j = 0; j < g->n; j++) ((float *)g->c)[i * g->c_row + j * g->c_col] = 0;
    }
  }
  if (g->m <= 0 || g->n <= 0 || g->k <= 0) return;
  const lt_gemm t = tidy(g);
  if (for_blis(&t, blis_from[simd].f32, blis_from[simd].extent)) {
    lt_blis_gemm_f32(&t);
  } else {
    lt_gemm_small_f32(&t, simd, threads);
  }
}

void lt_gemm_f64(const lt_gemm *g, lt_simd simd, int threads) {
  if (g->k <= 0 && !g->accumulate) {
    for (int64_t i = 0; i < g->m; i++) {
      for (int64_t j = 0; j < g->n; j++) ((double *)g->c)[i * g->c_row + j * g->c_col] = 0;
    }
  }
  if (g->m <= 0 || g->n <= 0 || g->k <= 0) return;
  const lt_gemm t = tidy(g);
  if (for_blis(&t, blis_from[simd].f64, blis_from[simd].extent)) {
    lt_blis_gemm_f64(&t);
  } else {
    lt_gemm_small_f64(&t, simd, threads);
  }
}
