/* Normalisation over contiguous runs of elements: their moments, the map onto zero mean and unit
 * variance, and both again for the gradient. Ops put runs together: a row, the segments of a
 * channel. */
#ifndef LT_KERNELS_NORM_H
#define LT_KERNELS_NORM_H

#include "core/cpu.h"

#include <stdint.h>

/* All on n contiguous elements of one float type; xh stands for (x - centre) * scale, g for dy * w
 * (or dy, where there is no w). */
typedef struct lt_norm_kernels {
  /* The sum of x. */
  double (*sum)(int64_t n, const void *x);
  /* Adds the sums of x - centre and of its square to into[0..1]. */
  void (*squares)(int64_t n, const void *x, double centre, double into[2]);
  /* y = xh * w + b + shift; w and b may be NULL. */
  void (*map)(int64_t n, const void *x, void *y, double centre, double scale, double shift,
              const void *w, const void *b);
  /* Adds the sums of g and of g * xh to into[0..1]; where dw and db are given, dy * xh and dy
   * element by element to them. */
  void (*dots)(int64_t n, const void *dy, const void *x, double centre, double scale, const void *w,
               void *dw, void *db, double into[2]);
  /* dx = factor * g + shift + slope * (x - centre). */
  void (*back)(int64_t n, const void *dy, const void *x, void *dx, const void *w, double centre,
               double factor, double shift, double slope);
  /* into += x, and x = 0. */
  void (*drain)(int64_t n, void *x, double *into);
} lt_norm_kernels;

/* By level of SIMD and float type. */
extern const lt_norm_kernels lt_norm_kernels_of[LT_SIMD_COUNT][2];

/* Mean and variance (dividing by n) from sums about a centre near the mean. */
static inline void lt_norm_moments(const double sums[2], double centre, int64_t n, double *mean,
                                   double *variance) {
  double shift = sums[0] / (double)n;
  *mean = centre + shift;
  *variance = sums[1] / (double)n - shift * shift;
  if (*variance < 0) *variance = 0;
}

#endif
