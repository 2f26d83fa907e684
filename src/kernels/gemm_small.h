/* Direct products: nothing is allocated, no thread is started, every shape and stride is right.
 * Made for small and thin ones; kernels/gemm.h chooses. */
#ifndef LT_KERNELS_GEMM_SMALL_H
#define LT_KERNELS_GEMM_SMALL_H

#include "kernels/gemm.h"

/* As lt_gemm_f32 and lt_gemm_f64, for m, n and k of at least 1. */
void lt_gemm_small_f32(const lt_gemm *g, lt_simd simd, int threads);
void lt_gemm_small_f64(const lt_gemm *g, lt_simd simd, int threads);

#endif
