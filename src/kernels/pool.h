/* Pooling: windows that move over planes and keep the largest element or the mean. One core for
 * one, two and three dimensions (axes that are not there have one place), each task one row. */
#ifndef LT_KERNELS_POOL_H
#define LT_KERNELS_POOL_H

#include "core/dtype.h"
#include "core/status.h"

/* One axis of a window: output o looks at `kernel` places, dilation apart, from
 * o * stride - padding on; those outside 0..in-1 are padding. Where kernel is 0 the window adapts
 * to the sizes: from floor(o in / out) to before ceil((o + 1) in / out). */
typedef struct lt_window {
  int64_t in, out, kernel, stride, padding, dilation;
} lt_window;

enum { LT_POOL_AXES = 3 /* depth, rows, columns */ };

/* Planes lie one behind the other, without gaps. */
typedef struct lt_pooling {
  lt_dtype dtype; /* of x and y */
  int64_t planes;
  lt_window axis[LT_POOL_AXES];
  bool count_include_pad; /* a mean divides by the window's size with padding */
  double divisor;         /* instead of the size; 0: none */
  /* Where each maximum stood. As LT_UINT8: its number in the window, LT_NO_TAP where the whole
   * window is padding; as LT_INT64: its place in the plane from 1 on, then 0. */
  lt_dtype place_dtype;
  void *place; /* NULL: not asked for */
} lt_pooling;

enum { LT_NO_TAP = UINT8_MAX };

/* The type that holds the places of such windows in the least memory. */
lt_dtype lt_pool_place_dtype(const lt_window axis[LT_POOL_AXES]);

/* x: planes of axis.in, y: planes of axis.out. The first of equal elements is the largest, NaN
 * above all. */
lt_status lt_max_pool(lt_context *ctx, const lt_pooling *p, const void *x, void *y);
/* x = zeros, to which y is added at the places. */
lt_status lt_max_pool_scatter(lt_context *ctx, const lt_pooling *p, const void *y, void *x);
/* y = x at the places; 0 where there is none. */
lt_status lt_max_pool_gather(lt_context *ctx, const lt_pooling *p, const void *x, void *y);

/* y = the means of x's windows. */
lt_status lt_avg_pool(lt_context *ctx, const lt_pooling *p, const void *x, void *y);
/* Its adjoint: x = the sum of y's shares. */
lt_status lt_avg_pool_adjoint(lt_context *ctx, const lt_pooling *p, const void *y, void *x);

#endif
