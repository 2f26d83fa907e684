/* Softmax and its logarithm on lines (kernels/lines.h), forward and backward, each in one pass
 * over a line that stays in the cache. */
#ifndef LT_KERNELS_SOFTMAX_H
#define LT_KERNELS_SOFTMAX_H

#include "core/cpu.h"
#include "kernels/lines.h"

/* The argument of the functions below. */
typedef struct lt_softmax_line {
  int64_t n;
  bool negative; /* the softmax of -x */
} lt_softmax_line;

/* By level of SIMD and float type. Lines: x, y. */
extern lt_line_fn *const lt_softmax_lines[LT_SIMD_COUNT][2];
extern lt_line_fn *const lt_log_softmax_lines[LT_SIMD_COUNT][2];
/* Lines: dy, y, dx. */
extern lt_line_fn *const lt_softmax_backward_lines[LT_SIMD_COUNT][2];
extern lt_line_fn *const lt_log_softmax_backward_lines[LT_SIMD_COUNT][2];

#endif
