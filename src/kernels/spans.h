/* Rearranging along dimensions: each dimension of the result is made of a few spans of the source's
 * elements, forwards, backwards or standing still. Flipping is one span, rolling two, padding
 * three; where one span of each dimension meets is a block, which is copied by its strides. */
#ifndef LT_KERNELS_SPANS_H
#define LT_KERNELS_SPANS_H

#include "core/tensor.h"

enum { LT_MAX_SPANS = 3 };

/* Elements to, to + 1, ... of a dimension are the source's elements from, from + step, ...; the
 * filled ones are no elements of the source. */
typedef struct lt_span {
  int64_t to, from, length;
  int64_t step; /* -1, 0 or 1 */
  bool filled;
} lt_span;

typedef struct lt_spans {
  int count[LT_MAX_RANK];
  lt_span span[LT_MAX_RANK][LT_MAX_SPANS];
} lt_spans;

/* One more span of dimension d; one without elements is left out. */
void lt_spans_add(lt_spans *r, int d, lt_span span);

/* y = x in spans, of x's type; the filled blocks hold the element `fill`. */
lt_status lt_spans_copy(const lt_spans *r, lt_tensor *y, const lt_tensor *x, const void *fill);

/* The way back, for floats: to each element of dx is added what was made of it in dy. dx is
 * contiguous. */
lt_status lt_spans_return(const lt_spans *r, lt_tensor *dx, const lt_tensor *dy);

#endif
