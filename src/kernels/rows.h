/* Rows with equal numbers, found by one stable sort and summed, each sum by one thread in the order
 * in which its rows came: what gradients of lookups are made of. */
#ifndef LT_KERNELS_ROWS_H
#define LT_KERNELS_ROWS_H

#include "core/dtype.h"
#include "core/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct lt_groups {
  int64_t count;
  int64_t *number; /* of the rows in each group, ascending */
  int64_t *start;  /* where each begins in `order`; count + 1 of them */
  int64_t *order;  /* positions of the rows, from 0 */
} lt_groups;

/* Groups the n rows with these numbers. Those numbered *skip (NULL: none) are in no group. To be
 * freed also after a failure. */
lt_status lt_groups_find(lt_context *ctx, int64_t n, const int64_t *number, const int64_t *skip,
                         lt_groups *g);
void lt_groups_free(lt_groups *g);

/* Each group's sum of rows of x, of `width` floats each, becomes a row of y: with `packed` the
 * next one, otherwise the one of its number, from 1. With `mean` divided by the size of the group.
 * Sums of float32 are taken in double. */
lt_status lt_groups_sum(lt_context *ctx, const lt_groups *g, lt_dtype dtype, int64_t width,
                        const void *x, void *y, bool packed, bool mean);

/* n bytes of zeros, by all threads. */
lt_status lt_zero(lt_context *ctx, void *y, int64_t n);

#endif
