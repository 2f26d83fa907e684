/* Lines: the elements of tensors along one dimension, each line computed by itself. Lines that do
 * not lie contiguous are gathered, several neighbours at a time, and scattered back. */
#ifndef LT_KERNELS_LINES_H
#define LT_KERNELS_LINES_H

#include "core/tensor.h"

enum { LT_LINE_OPERANDS = 4 };

/* line[i] holds the elements of operand i one behind the other; scratch is the caller's. */
typedef void lt_line_fn(const void *argument, void *const *line, void *scratch);

/* Tensors of one shape, but for their sizes along `dim`; the last `written` of them are written.
 * A 0-d tensor is a line of one. `scratch` bytes are given to each call; `cost` is the number of
 * elementary steps per line. */
lt_status lt_lines(lt_context *ctx, int dim, int operands, lt_tensor *const *t, int written,
                   lt_line_fn *fn, const void *argument, int64_t scratch, int64_t cost);

/* Elements in a line of t. */
static inline int64_t lt_line_length(const lt_tensor *t, int dim) {
  return t->shape.ndim == 0 ? 1 : t->shape.size[dim];
}

#endif
