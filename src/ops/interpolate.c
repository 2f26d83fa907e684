/* Resizing: values at the points of another grid. One internal pair, resampling and its adjoint,
 * on any leading dimensions; means over areas are adaptive pooling. */
#include "kernels/interpolate.h"
#include "core/context.h"
#include "ops/family.h"
#include "ops/pool.h"
#include "tape/vmap.h"

#include <math.h>

/* ---- resample, resample_backward (internal) -------------------------------------------------- */

enum { IN_SIZES, OUT_SIZES, FACTORS, KERNEL, ALIGN };

#define OPTIONS                                                                                    \
  {"from", LT_OPTION_INTS}, {"to", LT_OPTION_INTS}, {"factors", LT_OPTION_NUMBERS},                \
      {"kernel", LT_OPTION_INT}, {                                                                 \
    "align_corners", LT_OPTION_BOOL                                                                \
  }

static lt_status infer_sizes(lt_call *c, int option) {
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, option, &n);
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  lt_shape *y = &c->result[0].shape;
  for (int i = 0; i < n; i++) y->size[y->ndim - n + i] = size[i];
  return LT_OK;
}

static lt_status run_resampling(lt_call *c, bool adjoint) {
  lt_tensor *x;
  int n, factors;
  if (c->out[0]->numel == 0) return LT_OK;
  const int64_t *in = lt_get_list(c->attrs, c->op, IN_SIZES, &n);
  const int64_t *out = lt_get_list(c->attrs, c->op, OUT_SIZES, &n);
  const double *factor = lt_get_numbers(c->attrs, c->op, FACTORS, &factors);
  lt_resampling r = {.dtype = (lt_dtype)c->in[0]->dtype,
                     .planes = 1,
                     .mode = (lt_resample_mode)lt_get_int(c->attrs, c->op, KERNEL),
                     .align_corners = lt_get_int(c->attrs, c->op, ALIGN),
                     .in = {1, 1, 1},
                     .out = {1, 1, 1}};
  for (int i = 0; i < n; i++) {
    int axis = LT_RESAMPLE_AXES - n + i;
    r.in[axis] = in[i];
    r.out[axis] = out[i];
    r.scale[axis] = factor ? factor[i] : 0;
  }
  for (int d = 0; d < c->in[0]->shape.ndim - n; d++) r.planes *= c->in[0]->shape.size[d];
  LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  lt_status status = adjoint ? lt_resample_adjoint(c->ctx, &r, x->data, c->out[0]->data)
                             : lt_resample(c->ctx, &r, x->data, c->out[0]->data);
  lt_tensor_release(x);
  return status;
}

static const lt_op resample, resample_backward;

static lt_status resample_infer(lt_call *c) { return infer_sizes(c, OUT_SIZES); }
static lt_status resample_forward(lt_call *c) { return run_resampling(c, false); }
static void resample_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do1(v->s, &resample_backward, v->attrs, v->dy[0]));
}

static const lt_op resample = {
    .name = "resample",
    .doc = "The last dimensions of x on another grid, by the weights of a kernel.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {OPTIONS},
    .infer = resample_infer,
    .forward = resample_forward,
    .vjp = resample_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

static lt_status backward_infer(lt_call *c) { return infer_sizes(c, IN_SIZES); }
static lt_status backward_forward(lt_call *c) { return run_resampling(c, true); }
static void backward_vjp(lt_vjp *v) { lt_give(v, 0, lt_do1(v->s, &resample, v->attrs, v->dy[0])); }

static const lt_op resample_backward = {
    .name = "resample_backward",
    .doc = "The adjoint of resample.",
    .inputs = {{"dy", LT_FLOAT}},
    .options = {OPTIONS},
    .infer = backward_infer,
    .forward = backward_forward,
    .vjp = backward_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

/* ---- interpolate ----------------------------------------------------------------------------- */

enum { SIZE, SCALE_FACTOR, MODE, ALIGN_CORNERS, RECOMPUTE };
enum { NEAREST, NEAREST_EXACT, LINEAR, BILINEAR, BICUBIC, TRILINEAR, AREA };

/* What a mode is made of, and for how many dimensions; 0: any. */
static const struct {
  lt_resample_mode kernel;
  int dims;
} modes[] = {[NEAREST] = {LT_NEAREST, 0}, [NEAREST_EXACT] = {LT_NEAREST_EXACT, 0},
             [LINEAR] = {LT_LINEAR, 1},   [BILINEAR] = {LT_LINEAR, 2},
             [BICUBIC] = {LT_CUBIC, 2},   [TRILINEAR] = {LT_LINEAR, 3},
             [AREA] = {LT_NEAREST, 0}};

typedef struct grid {
  int n;
  int64_t in[LT_RESAMPLE_AXES], out[LT_RESAMPLE_AXES];
  double factor[LT_RESAMPLE_AXES];
  bool factors; /* coordinates follow from them */
} grid;

static lt_status sizes_by_factor(const lt_call *c, grid *g) {
  int count;
  const double *factor = lt_get_numbers(c->attrs, c->op, SCALE_FACTOR, &count);
  if (count != 1 && count != g->n) {
    return lt_fail(c->ctx,
                   "interpolate: scale_factor takes 1 number or one for each of %d "
                   "dimensions, got %d",
                   g->n, count);
  }
  for (int i = 0; i < g->n; i++) {
    g->factor[i] = factor[count == 1 ? 0 : i];
    double out = floor((double)g->in[i] * g->factor[i]);
    if (!(out >= 1 && out <= INT32_MAX)) {
      return lt_fail(c->ctx,
                     "interpolate: scale_factor %g makes size %lld to %g, must be between "
                     "1 and %d",
                     g->factor[i], (long long)g->in[i], out, INT32_MAX);
    }
    g->out[i] = (int64_t)out;
  }
  g->factors = !lt_get_int(c->attrs, c->op, RECOMPUTE);
  return LT_OK;
}

static lt_status find_grid(const lt_call *c, grid *g) {
  const lt_shape *x = &c->in[0]->shape;
  int sizes, factors;
  lt_get_list(c->attrs, c->op, SIZE, &sizes);
  lt_get_numbers(c->attrs, c->op, SCALE_FACTOR, &factors);
  bool size = sizes > 0, factor = factors > 0;
  int mode = (int)lt_get_int(c->attrs, c->op, MODE);
  char text[LT_SHAPE_TEXT], name[32];
  lt_choice_name(&c->op->options[MODE], mode, name);
  *g = (grid){.n = x->ndim - 2};
  if (g->n < 1 || g->n > LT_RESAMPLE_AXES) {
    return lt_fail(c->ctx,
                   "interpolate: x must be (N, C, L), (N, C, H, W) or (N, C, D, H, W), "
                   "got %s",
                   lt_shape_text(x, text));
  }
  if (modes[mode].dims && modes[mode].dims != g->n) {
    return lt_fail(c->ctx, "interpolate: mode %s takes x of %d dimensions, got %s", name,
                   modes[mode].dims + 2, lt_shape_text(x, text));
  }
  if (size == factor) {
    return lt_fail(c->ctx, "interpolate: takes either size or scale_factor, got %s",
                   size ? "both" : "neither");
  }
  if (lt_given(c->attrs, ALIGN_CORNERS) && !modes[mode].dims) {
    return lt_fail(c->ctx,
                   "interpolate: align_corners is for linear, bilinear, bicubic and "
                   "trilinear, not for mode %s",
                   name);
  }
  if (size && lt_get_int(c->attrs, c->op, RECOMPUTE)) {
    return lt_fail(c->ctx, "interpolate: recompute_scale_factor needs a scale_factor, not a size");
  }
  for (int i = 0; i < g->n; i++) {
    g->in[i] = x->size[2 + i];
    if (g->in[i] >= 1 && g->in[i] <= INT32_MAX) continue;
    return lt_fail(c->ctx, "interpolate: dim %d of x has size %lld, must be between 1 and %d (%s)",
                   3 + i, (long long)g->in[i], INT32_MAX, lt_shape_text(x, text));
  }
  return size ? lt_axis_list(c, SIZE, g->n, 1, 1, g->out) : sizes_by_factor(c, g);
}

static lt_status interpolate_infer(lt_call *c) {
  grid g;
  return find_grid(c, &g);
}

static void interpolate_compose(lt_call *c, lt_scope *s) {
  grid g;
  s->status = find_grid(c, &g);
  int mode = (int)lt_get_int(c->attrs, c->op, MODE);
  if (mode == AREA) {
    lt_window axis[LT_POOL_AXES] = {{1, 1, 1, 1, 0, 1}, {1, 1, 1, 1, 0, 1}, {1, 1, 1, 1, 0, 1}};
    for (int i = 0; i < g.n; i++) {
      axis[LT_POOL_AXES - g.n + i] = lt_adaptive_window(g.in[i], g.out[i]);
    }
    c->out[0] = lt_mean_windows(s, c->in[0], g.n, axis, true, 0);
    return;
  }
  lt_attrs attrs;
  lt_attrs_default(&attrs, &resample);
  lt_attrs_set_list(&attrs, &resample, IN_SIZES, g.n, g.in);
  lt_attrs_set_list(&attrs, &resample, OUT_SIZES, g.n, g.out);
  if (g.factors) lt_attrs_set_numbers(&attrs, &resample, FACTORS, g.n, g.factor);
  lt_attrs_set_int(&attrs, &resample, KERNEL, modes[mode].kernel);
  lt_attrs_set_int(&attrs, &resample, ALIGN, lt_get_int(c->attrs, c->op, ALIGN_CORNERS));
  c->out[0] = lt_do1(s, &resample, &attrs, c->in[0]);
}

const lt_op lt_op_interpolate = {
    .name = "interpolate",
    .doc =
        "x (N, C, L), (N, C, H, W) or (N, C, D, H, W) resized to size, or to floor(scale_factor "
        "times its size); both are one number or one for each dimension. Mode nearest takes the "
        "element at floor(i in / out), nearest-exact at floor((i + 0.5) in / out), linear, "
        "bilinear and trilinear (of 3, 4 and 5 dimensions) mix neighbours, bicubic (4) four of "
        "them with Keys's kernel, a = -0.75, area takes adaptive_avg_pool. A point i (from 0) of "
        "the result lies at (i + 0.5) in / out - 0.5 of x, in / out being 1 / scale_factor where "
        "one is given, unless recompute_scale_factor; with align_corners at i (in - 1) / (out - "
        "1). As in PyTorch.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {{"size", LT_OPTION_INTS},
                {"scale_factor", LT_OPTION_NUMBERS},
                {"mode", LT_OPTION_CHOICE,
                 .choices = "nearest nearest-exact linear bilinear bicubic trilinear area"},
                {"align_corners", LT_OPTION_BOOL},
                {"recompute_scale_factor", LT_OPTION_BOOL}},
    .infer = interpolate_infer,
    .compose = interpolate_compose,
    .sample = {"normal(1, 2, 3, 4), {5, 7}",
               "normal(2, 1, 4, 3), {scale_factor = {1.5, 2}, mode = 'bilinear'}",
               "normal(1, 1, 4, 5), {size = {7, 3}, mode = 'bicubic', align_corners = true}",
               "normal(1, 2, 5), {scale_factor = 1.7, mode = 'linear', recompute_scale_factor = "
               "true}",
               "normal(1, 2, 2, 3, 2), {size = {3, 2, 4}, mode = 'trilinear'}",
               "normal(1, 2, 4, 6), {size = {3, 4}, mode = 'area'}",
               "normal(1, 2, 3, 4), {scale_factor = 0.6, mode = 'nearest-exact'}",
               "normal(1, 1, 3, 3), {scale_factor = 2.5, mode = 'bicubic'}"},
};

LT_FAMILY(interpolate, &resample, &resample_backward, &lt_op_interpolate)
