/* Sizes and strides: every product is checked in 64 bits before anything is allocated. */
#ifndef LT_CORE_SHAPE_H
#define LT_CORE_SHAPE_H

#include "core/status.h"
#include <stdbool.h>
#include <stdint.h>

enum { LT_MAX_RANK = 8 };

/* Elements per tensor stay below this, so that byte counts and sums of sizes cannot overflow. */
#define LT_MAX_ELEMENTS ((int64_t)1 << 48)

typedef struct lt_shape {
  int32_t ndim;
  int64_t size[LT_MAX_RANK];
} lt_shape;

static inline lt_shape lt_shape_make(int ndim, const int64_t *size) {
  lt_shape s = {.ndim = ndim};
  for (int i = 0; i < ndim; i++) s.size[i] = size[i];
  return s;
}
bool lt_shape_equal(const lt_shape *a, const lt_shape *b);

/* The product of the sizes. Only for shapes that lt_shape_check let pass. */
int64_t lt_shape_numel(const lt_shape *s);

/* Fails for negative sizes and for products of 2^48 elements and more; `op` begins the message. */
lt_status lt_shape_check(lt_context *ctx, const char *op, const lt_shape *s);

/* "2x3"; "0-d" for a scalar. Returns `text`. */
enum { LT_SHAPE_TEXT = 176 };
const char *lt_shape_text(const lt_shape *s, char text[LT_SHAPE_TEXT]);

/* Row-major strides, in elements. */
void lt_shape_strides(const lt_shape *s, int64_t strides[LT_MAX_RANK]);

/* NumPy's broadcasting of `b` into `a`, in place: sizes are aligned at the end, 1 stretches.
 * Returns false, with `a` untouched, when they do not fit. */
bool lt_shape_broadcast(lt_shape *a, const lt_shape *b);

/* Strides of an operand seen in the shape it broadcasts to: 0 where it is repeated. */
void lt_broadcast_strides(const lt_shape *own, const int64_t *own_strides, const lt_shape *shape,
                          int64_t strides[LT_MAX_RANK]);

/* Turns a dimension given 0-based, or negative from the end, into 0..ndim-1. A 0-d tensor takes
 * 0 and -1, as in PyTorch. The message counts dimensions from 1, as users do. */
lt_status lt_dim_normalise(lt_context *ctx, const char *op, int64_t dim, int ndim, int *result);

#endif
