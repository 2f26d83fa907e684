/* One look at all elements of a float tensor: is any of them NaN or infinite, are all of them 0? */
#ifndef LT_KERNELS_FINITE_H
#define LT_KERNELS_FINITE_H

#include "core/tensor.h"

typedef struct lt_look {
  bool nonfinite; /* some element is NaN, inf or -inf */
  bool zero;      /* there are elements, and all are 0 */
} lt_look;

/* Of sparse gradients the values that they hold. Neither for other types and for values that have
 * no elements of their own. */
lt_look lt_look_at(const lt_tensor *t);

/* The place, in row-major order, of the first element that is not finite (`nan`: that is NaN), or
 * -1. */
int64_t lt_first_nonfinite(const lt_tensor *t, bool nan);

/* How many elements are not 0. */
int64_t lt_count_nonzero(const lt_tensor *t);

/* The offset in t of the element at row-major place `at` of `shape`, to which t broadcasts; -1 if
 * it does not. */
int64_t lt_offset_at(const lt_tensor *t, const lt_shape *shape, int64_t at);

#endif
