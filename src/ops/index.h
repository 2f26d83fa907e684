/* What ops share that read element numbers out of tensors, or cut tensors
 * along a dimension. */
#ifndef LT_OPS_INDEX_H
#define LT_OPS_INDEX_H

#include "ops/op.h"

/* Do all elements of t, integers, lie in 1..count? Those equal to *skip (NULL: none) may be
 * anything. The message: "cross_entropy: label 11 at element 5 is outside 1..10". */
lt_status lt_check_indices(const char *op, const char *what, const lt_tensor *t, int64_t count,
                           const int64_t *skip);

/* t as contiguous elements of the given type: t itself, retained, if it is that already,
 * otherwise a copy. Not recorded. */
lt_status lt_contiguous_as(lt_tensor *t, lt_dtype dtype, lt_tensor **result);

/* The dimension of input 0 in option `option`; a 0-d tensor has none. */
lt_status lt_indexed_dim(const lt_call *c, int option, int *dim);

#endif
