/* Resampling planes to other sizes: along each axis an element of the result is a weighted sum of
 * a few elements of x. The weights of an axis are a sparse table; the adjoint reads it the other
 * way around. */
#ifndef LT_KERNELS_INTERPOLATE_H
#define LT_KERNELS_INTERPOLATE_H

#include "core/dtype.h"
#include "core/status.h"

typedef enum lt_resample_mode {
  LT_NEAREST,       /* the element at floor(i in / out) */
  LT_NEAREST_EXACT, /* at floor((i + 1/2) in / out) */
  LT_LINEAR,
  LT_CUBIC /* Keys's kernel with a = -3/4 (PyTorch) */
} lt_resample_mode;

enum { LT_RESAMPLE_AXES = 3 };

/* Depth, rows and columns; axes that are not there have size 1. */
typedef struct lt_resampling {
  lt_dtype dtype;
  int64_t planes;
  lt_resample_mode mode;
  bool align_corners; /* corners of both grids lie on each other */
  int64_t in[LT_RESAMPLE_AXES];
  int64_t out[LT_RESAMPLE_AXES];
  double scale[LT_RESAMPLE_AXES]; /* a factor that was asked for instead of out / in; 0: none */
} lt_resampling;

/* x: planes of `in`, y: planes of `out`, without gaps. */
lt_status lt_resample(lt_context *ctx, const lt_resampling *r, const void *x, void *y);
/* x = the sum of the weighted elements of y. */
lt_status lt_resample_adjoint(lt_context *ctx, const lt_resampling *r, const void *y, void *x);

#endif
