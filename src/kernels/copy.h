/* Copying and converting elements between any two types and any strides. */
#ifndef LT_KERNELS_COPY_H
#define LT_KERNELS_COPY_H

#include "core/dtype.h"
#include "core/shape.h"

/* One row: dst[i * dst_step] = src[i * src_step] for i in 0..n-1, steps in elements. A float
 * becomes an integer by truncation, saturating, NaN as 0; anything but 0 becomes true. */
void lt_convert(int64_t n, lt_dtype to, void *dst, int64_t dst_step, lt_dtype from, const void *src,
                int64_t src_step);

/* All elements of `shape`. */
void lt_copy(const lt_shape *shape, lt_dtype to, void *dst, const int64_t *dst_strides,
             lt_dtype from, const void *src, const int64_t *src_strides);

#endif
