/* Products by BLIS, for kernels/gemm.c alone. */
#ifndef LT_KERNELS_GEMM_BLIS_H
#define LT_KERNELS_GEMM_BLIS_H

#include "kernels/gemm.h"

/* Whether these strides are for BLIS: in each matrix one stride is 1 and the other at least the
 * extent beside it. Broadcast, overlapping, reversed and doubly strided operands are not. */
bool lt_blis_takes(const lt_gemm *g);

/* C = A B [+ C], for m, n and k of at least 1 and strides that lt_blis_takes. */
void lt_blis_gemm_f32(const lt_gemm *g);
void lt_blis_gemm_f64(const lt_gemm *g);

#endif
