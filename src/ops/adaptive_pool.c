/* Pooling to a size: the windows follow from the sizes of x and of the result. Where one divides
 * the other they are plain windows side by side. */
#include "core/context.h"
#include "ops/family.h"
#include "ops/pool.h"

enum { OUTPUT_SIZE, RETURN_INDICES };

lt_window lt_adaptive_window(int64_t in, int64_t out) {
  if (in % out == 0) return (lt_window){in, out, in / out, in / out, 0, 1};
  return (lt_window){.in = in, .out = out};
}

static lt_status windows(const lt_call *c, int n, lt_window axis[LT_POOL_AXES]) {
  int64_t size[LT_POOL_AXES];
  LT_TRY(lt_axis_list(c, OUTPUT_SIZE, n, 1, -1, size));
  LT_TRY(lt_plane_axes(c, n, axis));
  for (int i = 0; i < n; i++) {
    lt_window *a = &axis[LT_POOL_AXES - n + i];
    int64_t in = a->in, out = size[i] == -1 ? in : size[i];
    if (out == 0) return lt_fail(c->ctx, "%s: output_size must not be 0", c->op->name);
    *a = lt_adaptive_window(in, out);
  }
  return LT_OK;
}

/* ---- adaptive_avg_pool1d, 2d, 3d ------------------------------------------------------------- */

static lt_status adaptive_avg_pool_infer(lt_call *c, int n) {
  lt_window axis[LT_POOL_AXES];
  return windows(c, n, axis);
}

static void adaptive_avg_pool_compose(lt_call *c, lt_scope *s, int n) {
  lt_window axis[LT_POOL_AXES];
  s->status = windows(c, n, axis);
  c->out[0] = lt_mean_windows(s, c->in[0], n, axis, true, 0);
}

LT_BY_RANK(adaptive_avg_pool, 1)
LT_BY_RANK(adaptive_avg_pool, 2)
LT_BY_RANK(adaptive_avg_pool, 3)

const lt_op lt_op_adaptive_avg_pool1d = {
    .name = "adaptive_avg_pool1d",
    .doc = "Means along the last dimension, of output_size windows that cover it: window i (from "
           "0) begins at floor(i L / output_size) and ends before ceil((i + 1) L / output_size). x "
           "is (C, L) or (N, C, L); -1 keeps the size.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"output_size", LT_OPTION_INTS, .required = true}},
    .infer = adaptive_avg_pool1d_infer,
    .compose = adaptive_avg_pool1d_compose,
    .sample = {"normal(2, 3, 7), 3", "normal(2, 3), 5", "normal(2, 4), 1"},
};

const lt_op lt_op_adaptive_avg_pool2d = {
    .name = "adaptive_avg_pool2d",
    .doc = "Means over the last two dimensions, of windows as in adaptive_avg_pool1d; x is "
           "(C, H, W) or (N, C, H, W), output_size one integer or one for each dimension.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"output_size", LT_OPTION_INTS, .required = true}},
    .infer = adaptive_avg_pool2d_infer,
    .compose = adaptive_avg_pool2d_compose,
    .sample = {"normal(2, 2, 5, 7), {2, 3}", "normal(2, 4, 6), 1", "normal(2, 4, 6), {2, -1}"},
};

const lt_op lt_op_adaptive_avg_pool3d = {
    .name = "adaptive_avg_pool3d",
    .doc = "Means over the last three dimensions, of windows as in adaptive_avg_pool1d; x is "
           "(C, D, H, W) or (N, C, D, H, W), output_size one integer or one for each dimension.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"output_size", LT_OPTION_INTS, .required = true}},
    .infer = adaptive_avg_pool3d_infer,
    .compose = adaptive_avg_pool3d_compose,
    .sample = {"normal(1, 2, 3, 4, 5), {2, 3, 2}", "normal(2, 2, 3, 2), 1"},
};

/* ---- adaptive_max_pool1d, 2d, 3d ------------------------------------------------------------- */

static lt_status adaptive_max_pool_infer(lt_call *c, int n) {
  lt_window axis[LT_POOL_AXES];
  return windows(c, n, axis);
}

static void adaptive_max_pool_compose(lt_call *c, lt_scope *s, int n) {
  lt_window axis[LT_POOL_AXES];
  s->status = windows(c, n, axis);
  lt_compose_max_pool(c, s, n, axis, lt_get_int(c->attrs, c->op, RETURN_INDICES));
}

LT_BY_RANK(adaptive_max_pool, 1)
LT_BY_RANK(adaptive_max_pool, 2)
LT_BY_RANK(adaptive_max_pool, 3)

#define MAX_OPTIONS                                                                                \
  {"output_size", LT_OPTION_INTS, .required = true}, { "return_indices", LT_OPTION_BOOL }

const lt_op lt_op_adaptive_max_pool1d = {
    .name = "adaptive_max_pool1d",
    .doc = "Largest elements along the last dimension, of windows as in adaptive_avg_pool1d; x is "
           "(C, L) or (N, C, L). With return_indices also their places along it, as int64 from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = adaptive_max_pool1d_infer,
    .compose = adaptive_max_pool1d_compose,
    .results = 2,
    .sample = {"normal(2, 3, 7), 3", "normal(2, 3), {output_size = 5, return_indices = true}"},
};

const lt_op lt_op_adaptive_max_pool2d = {
    .name = "adaptive_max_pool2d",
    .doc = "Largest elements over the last two dimensions, of windows as in adaptive_avg_pool2d; x "
           "is (C, H, W) or (N, C, H, W). With return_indices also their places in the plane, "
           "row after row, as int64 from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = adaptive_max_pool2d_infer,
    .compose = adaptive_max_pool2d_compose,
    .results = 2,
    .sample = {"normal(2, 2, 5, 7), {2, 3}",
               "normal(2, 4, 6), {output_size = 2, return_indices = "
               "true}",
               "normal(2, 3, 4), 1"},
};

const lt_op lt_op_adaptive_max_pool3d = {
    .name = "adaptive_max_pool3d",
    .doc = "Largest elements over the last three dimensions, of windows as in "
           "adaptive_avg_pool3d; x is (C, D, H, W) or (N, C, D, H, W). With return_indices also "
           "their places in the volume, as int64 from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = adaptive_max_pool3d_infer,
    .compose = adaptive_max_pool3d_compose,
    .results = 2,
    .sample = {"normal(1, 2, 3, 4, 5), {2, 3, 2}"},
};

LT_FAMILY(adaptive_pool, &lt_op_adaptive_avg_pool1d, &lt_op_adaptive_avg_pool2d,
          &lt_op_adaptive_avg_pool3d, &lt_op_adaptive_max_pool1d, &lt_op_adaptive_max_pool2d,
          &lt_op_adaptive_max_pool3d)
