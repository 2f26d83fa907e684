/* Windows as ops see them: checked from PyTorch's options, and handed to the internal ops of
 * pooling as options `depth`, `rows` and `columns`, each the numbers of an lt_window. */
#ifndef LT_OPS_POOL_H
#define LT_OPS_POOL_H

#include "kernels/pool.h"
#include "ops/op.h"
#include "tape/vjp.h"

/* n integers of an option that takes one for all axes or n, each in least..2^31 - 1; `otherwise`
 * where none was given. */
lt_status lt_axis_list(const lt_call *c, int option, int n, int64_t otherwise, int64_t least,
                       int64_t list[LT_POOL_AXES]);

/* x must have n dimensions to be walked, of size 1 and more, behind (N,) C. Puts their sizes at
 * the end of axis, and makes windows of one place of the others. */
lt_status lt_plane_axes(const lt_call *c, int n, lt_window axis[LT_POOL_AXES]);

/* The n axes of an internal op, which come first among its options. */
#define LT_AXIS_OPTIONS                                                                            \
  {"depth", LT_OPTION_INTS}, {"rows", LT_OPTION_INTS}, { "columns", LT_OPTION_INTS }
enum { LT_AXIS_OPTION_COUNT = LT_POOL_AXES };
void lt_set_axes(lt_attrs *attrs, const lt_op *op, int n, const lt_window axis[LT_POOL_AXES]);
int lt_get_axes(const lt_attrs *attrs, const lt_op *op, lt_window axis[LT_POOL_AXES]);
/* t's shape with the sizes of the axes at its end: their inputs or their outputs. */
lt_shape lt_with_axes(const lt_shape *t, int n, const lt_window axis[LT_POOL_AXES], bool in);

/* The window of an axis of size `in` that adapts to `out` outputs; a plain one where it can be. */
lt_window lt_adaptive_window(int64_t in, int64_t out);

/* What pooling ops of any kind are made of, on windows that have been checked: results of c. */
void lt_compose_max_pool(lt_call *c, lt_scope *s, int n, const lt_window axis[LT_POOL_AXES],
                         bool return_indices);
lt_tensor *lt_mean_windows(lt_scope *s, lt_tensor *x, int n, const lt_window axis[LT_POOL_AXES],
                           bool count_include_pad, double divisor);

/* LT_BY_RANK(max_pool, 2) makes max_pool2d_infer and max_pool2d_compose of functions that take
 * the number of axes too. */
#define LT_BY_RANK(NAME, N)                                                                        \
  static lt_status NAME##N##d_infer(lt_call *c) { return NAME##_infer(c, N); }                     \
  static void NAME##N##d_compose(lt_call *c, lt_scope *s) { NAME##_compose(c, s, N); }

#endif
