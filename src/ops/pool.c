/* Pooling over windows of fixed size. The ops for one, two and three dimensions are made of three
 * internal pairs on any leading dimensions: maxima with their places, gather and scatter at the
 * places, means and their adjoint. */
#include "ops/pool.h"
#include "core/context.h"
#include "ops/family.h"
#include "tape/vmap.h"

/* ---- Windows ------------------------------------------------------------------------------ */

static const char *const layouts[] = {"(C, L) or (N, C, L)", "(C, H, W) or (N, C, H, W)",
                                      "(C, D, H, W) or (N, C, D, H, W)"};

lt_status lt_axis_list(const lt_call *c, int option, int n, int64_t otherwise, int64_t least,
                       int64_t list[LT_POOL_AXES]) {
  int count;
  const char *name = c->op->options[option].name;
  const int64_t *given = lt_get_list(c->attrs, c->op, option, &count);
  if (given && count != 1 && count != n) {
    return lt_fail(c->ctx, "%s: %s takes 1 integer%s, got %d", c->op->name, name,
                   n == 1   ? ""
                   : n == 2 ? " or 2"
                            : " or 3",
                   count);
  }
  for (int i = 0; i < n; i++) {
    list[i] = given ? given[count == 1 ? 0 : i] : otherwise;
    if (list[i] >= least && list[i] <= INT32_MAX) continue;
    return lt_fail(c->ctx, "%s: %s must be between %lld and %d, got %lld", c->op->name, name,
                   (long long)least, INT32_MAX, (long long)list[i]);
  }
  return LT_OK;
}

lt_status lt_plane_axes(const lt_call *c, int n, lt_window axis[LT_POOL_AXES]) {
  const lt_shape *x = &c->in[0]->shape;
  char text[LT_SHAPE_TEXT];
  if (x->ndim != n + 1 && x->ndim != n + 2) {
    return lt_fail(c->ctx, "%s: x must be %s, got %s", c->op->name, layouts[n - 1],
                   lt_shape_text(x, text));
  }
  for (int d = 0; d < LT_POOL_AXES; d++) axis[d] = (lt_window){1, 1, 1, 1, 0, 1};
  for (int d = x->ndim - n; d < x->ndim; d++) {
    if (x->size[d] < 1 || x->size[d] > INT32_MAX) {
      return lt_fail(c->ctx, "%s: dim %d of x has size %lld, must be between 1 and %d (%s)",
                     c->op->name, d + 1, (long long)x->size[d], INT32_MAX, lt_shape_text(x, text));
    }
    axis[d - x->ndim + LT_POOL_AXES].in = x->size[d];
  }
  return LT_OK;
}

enum { WINDOW_WORDS = 6 };

void lt_set_axes(lt_attrs *attrs, const lt_op *op, int n, const lt_window axis[LT_POOL_AXES]) {
  for (int d = LT_POOL_AXES - n; d < LT_POOL_AXES; d++) {
    const lt_window *a = &axis[d];
    lt_attrs_set_list(attrs, op, d, WINDOW_WORDS,
                      (int64_t[]){a->in, a->out, a->kernel, a->stride, a->padding, a->dilation});
  }
}

int lt_get_axes(const lt_attrs *attrs, const lt_op *op, lt_window axis[LT_POOL_AXES]) {
  int n = 0, words;
  for (int d = 0; d < LT_POOL_AXES; d++) {
    const int64_t *a = lt_get_list(attrs, op, d, &words);
    axis[d] = a ? (lt_window){a[0], a[1], a[2], a[3], a[4], a[5]} : (lt_window){1, 1, 1, 1, 0, 1};
    n += a != NULL;
  }
  return n;
}

lt_shape lt_with_axes(const lt_shape *t, int n, const lt_window axis[LT_POOL_AXES], bool in) {
  lt_shape shape = *t;
  for (int d = 1; d <= n; d++) {
    const lt_window *a = &axis[LT_POOL_AXES - d];
    shape.size[shape.ndim - d] = in ? a->in : a->out;
  }
  return shape;
}

static lt_pooling pooling_of(const lt_call *c, const lt_tensor *t) {
  lt_pooling p = {.dtype = (lt_dtype)t->dtype, .planes = 1};
  int n = lt_get_axes(c->attrs, c->op, p.axis);
  for (int d = 0; d < t->shape.ndim - n; d++) p.planes *= t->shape.size[d];
  return p;
}

/* ---- max_pool, max_pool_backward, max_pool_gather (internal) -------------------------------- */

enum { INDICES = LT_AXIS_OPTION_COUNT };

static lt_status max_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  int n = lt_get_axes(c->attrs, c->op, axis);
  bool indices = lt_get_int(c->attrs, c->op, INDICES);
  lt_shape shape = lt_with_axes(&c->in[0]->shape, n, axis, false);
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, shape};
  if (!indices && !c->recorded) return LT_OK;
  c->outputs = 2;
  c->result[1] = (lt_spec){indices ? LT_INT64 : lt_pool_place_dtype(axis), shape};
  return LT_OK;
}

static lt_status max_forward(lt_call *c) {
  lt_tensor *x;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[0], &x));
  lt_pooling p = pooling_of(c, x);
  if (c->outputs == 2) {
    p.place_dtype = (lt_dtype)c->out[1]->dtype;
    p.place = c->out[1]->data;
  }
  lt_status status = lt_max_pool(c->ctx, &p, x->data, c->out[0]->data);
  lt_tensor_release(x);
  return status;
}

/* Another op of this family on the axes of v's. */
static lt_tensor *on_axes(lt_vjp *v, const lt_op *op, lt_tensor *t, lt_tensor *place) {
  lt_window axis[LT_POOL_AXES];
  lt_attrs attrs;
  int n = lt_get_axes(v->attrs, v->op, axis);
  lt_attrs_default(&attrs, op);
  lt_set_axes(&attrs, op, n, axis);
  return lt_do2(v->s, op, &attrs, t, place);
}

static const lt_op max_pool_backward, max_pool_gather;

static void max_vjp(lt_vjp *v) {
  lt_give(v, 0, on_axes(v, &max_pool_backward, v->dy[0], v->out[1]));
}

static const lt_op max_pool = {
    .name = "max_pool",
    .doc = "The largest elements of windows over the last dimensions, and their places: numbers "
           "in the window, or with indices places in the plane, from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LT_AXIS_OPTIONS, {"indices", LT_OPTION_BOOL}},
    .infer = max_infer,
    .forward = max_forward,
    .vjp = max_vjp,
    .zero = "masked",
    .saves = LT_OUT(1),
    .results = 2,
    .hidden = 1,
    .batch = lt_batch_leading,
    .internal = true,
};

/* x and dy at the places, each as one of the two inputs or the result. */
static lt_status placed_forward(lt_call *c, bool scatter) {
  lt_tensor *t, *place, *y = c->out[0];
  if (y->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[0], &t));
  lt_status status = lt_tensor_contiguous(c->in[1], &place);
  if (status == LT_OK) {
    lt_pooling p = pooling_of(c, t);
    p.place_dtype = (lt_dtype)place->dtype;
    p.place = place->data;
    status = scatter ? lt_max_pool_scatter(c->ctx, &p, t->data, y->data)
                     : lt_max_pool_gather(c->ctx, &p, t->data, y->data);
    lt_tensor_release(place);
  }
  lt_tensor_release(t);
  return status;
}

static lt_status backward_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  int n = lt_get_axes(c->attrs, c->op, axis);
  c->result[0] =
      (lt_spec){(lt_dtype)c->in[0]->dtype, lt_with_axes(&c->in[0]->shape, n, axis, true)};
  return LT_OK;
}

static lt_status backward_forward(lt_call *c) { return placed_forward(c, true); }

static void backward_vjp(lt_vjp *v) {
  lt_give(v, 0, on_axes(v, &max_pool_gather, v->dy[0], v->in[1]));
}

static const lt_op max_pool_backward = {
    .name = "max_pool_backward",
    .doc = "Zeros, to which dy is added at the places that max_pool gave.",
    .inputs = {{"dy", LT_FLOAT}, {"place", LT_ANY}},
    .options = {LT_AXIS_OPTIONS},
    .infer = backward_infer,
    .forward = backward_forward,
    .vjp = backward_vjp,
    .saves = LT_IN(1),
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
};

static lt_status gather_infer(lt_call *c) {
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[1]->shape};
  return LT_OK;
}

static lt_status gather_forward(lt_call *c) { return placed_forward(c, false); }

static void gather_vjp(lt_vjp *v) {
  lt_give(v, 0, on_axes(v, &max_pool_backward, v->dy[0], v->in[1]));
}

static const lt_op max_pool_gather = {
    .name = "max_pool_gather",
    .doc = "x at the places that max_pool gave.",
    .inputs = {{"x", LT_FLOAT}, {"place", LT_ANY}},
    .options = {LT_AXIS_OPTIONS},
    .infer = gather_infer,
    .forward = gather_forward,
    .vjp = gather_vjp,
    .saves = LT_IN(1),
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
};

void lt_compose_max_pool(lt_call *c, lt_scope *s, int n, const lt_window axis[LT_POOL_AXES],
                         bool return_indices) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &max_pool);
  lt_set_axes(&attrs, &max_pool, n, axis);
  lt_attrs_set_int(&attrs, &max_pool, INDICES, return_indices);
  lt_do_all(s, &max_pool, &attrs, 1, c->in, c->out);
  c->outputs = return_indices ? 2 : 1;
}

/* ---- avg_pool, avg_pool_backward (internal) ------------------------------------------------- */

enum { INCLUDE_PAD = LT_AXIS_OPTION_COUNT, DIVISOR };

static lt_status avg_infer(lt_call *c) {
  lt_window axis[LT_POOL_AXES];
  int n = lt_get_axes(c->attrs, c->op, axis);
  c->result[0] =
      (lt_spec){(lt_dtype)c->in[0]->dtype, lt_with_axes(&c->in[0]->shape, n, axis, false)};
  return LT_OK;
}

static lt_status mean_forward(lt_call *c, bool adjoint) {
  lt_tensor *t;
  if (c->out[0]->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[0], &t));
  lt_pooling p = pooling_of(c, t);
  p.count_include_pad = lt_get_int(c->attrs, c->op, INCLUDE_PAD);
  p.divisor = lt_get_number(c->attrs, c->op, DIVISOR);
  lt_status status = adjoint ? lt_avg_pool_adjoint(c->ctx, &p, t->data, c->out[0]->data)
                             : lt_avg_pool(c->ctx, &p, t->data, c->out[0]->data);
  lt_tensor_release(t);
  return status;
}

static const lt_op avg_pool, avg_pool_backward;

static lt_status avg_forward(lt_call *c) { return mean_forward(c, false); }
static void avg_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do1(v->s, &avg_pool_backward, v->attrs, v->dy[0]));
}

static const lt_op avg_pool = {
    .name = "avg_pool",
    .doc = "The means of windows over the last dimensions.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LT_AXIS_OPTIONS,
                {"count_include_pad", LT_OPTION_BOOL},
                {"divisor", LT_OPTION_NUMBER}},
    .infer = avg_infer,
    .forward = avg_forward,
    .vjp = avg_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

static lt_status avg_backward_forward(lt_call *c) { return mean_forward(c, true); }
static void avg_backward_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_do1(v->s, &avg_pool, v->attrs, v->dy[0]));
}

static const lt_op avg_pool_backward = {
    .name = "avg_pool_backward",
    .doc = "The adjoint of avg_pool: dy spread evenly over its windows.",
    .inputs = {{"dy", LT_FLOAT}},
    .options = {LT_AXIS_OPTIONS,
                {"count_include_pad", LT_OPTION_BOOL},
                {"divisor", LT_OPTION_NUMBER}},
    .infer = backward_infer,
    .forward = avg_backward_forward,
    .vjp = avg_backward_vjp,
    .linear = true,
    .batch = lt_batch_leading,
    .internal = true,
};

lt_tensor *lt_mean_windows(lt_scope *s, lt_tensor *x, int n, const lt_window axis[LT_POOL_AXES],
                           bool count_include_pad, double divisor) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &avg_pool);
  lt_set_axes(&attrs, &avg_pool, n, axis);
  lt_attrs_set_int(&attrs, &avg_pool, INCLUDE_PAD, count_include_pad);
  lt_attrs_set_number(&attrs, &avg_pool, DIVISOR, divisor);
  return lt_do1(s, &avg_pool, &attrs, x);
}

/* ---- Windows from PyTorch's options -------------------------------------------------------- */

/* Options by their place; -1: the op has none such. */
typedef struct places {
  int kernel_size, stride, padding, dilation, ceil_mode;
} places;

static lt_status windows(const lt_call *c, int n, const places *at, lt_window axis[LT_POOL_AXES]) {
  int64_t kernel[LT_POOL_AXES], stride[LT_POOL_AXES], padding[LT_POOL_AXES] = {0},
                                                      dilation[LT_POOL_AXES] = {1, 1, 1};
  char text[LT_SHAPE_TEXT];
  LT_TRY(lt_axis_list(c, at->kernel_size, n, 1, 1, kernel));
  if (lt_given(c->attrs, at->stride))
    LT_TRY(lt_axis_list(c, at->stride, n, 1, 1, stride));
  else
    for (int i = 0; i < n; i++) stride[i] = kernel[i];
  if (at->padding >= 0) LT_TRY(lt_axis_list(c, at->padding, n, 0, 0, padding));
  if (at->dilation >= 0) LT_TRY(lt_axis_list(c, at->dilation, n, 1, 1, dilation));
  LT_TRY(lt_plane_axes(c, n, axis));
  bool ceil_mode = lt_get_int(c->attrs, c->op, at->ceil_mode);
  for (int i = 0; i < n; i++) {
    lt_window *a = &axis[LT_POOL_AXES - n + i];
    int64_t reach = (kernel[i] - 1) * dilation[i] + 1, room = a->in + 2 * padding[i] - reach;
    if (2 * padding[i] > reach) {
      return lt_fail(c->ctx,
                     "%s: padding must be at most half of the window (padding %lld, window %lld)",
                     c->op->name, (long long)padding[i], (long long)reach);
    }
    *a = (lt_window){a->in, 0, kernel[i], stride[i], padding[i], dilation[i]};
    if (ceil_mode) room += stride[i] - 1;
    a->out = room < 0 ? 0 : room / stride[i] + 1;
    /* The last window starts inside x or in front of it (PyTorch). */
    if (ceil_mode && (a->out - 1) * stride[i] >= a->in + padding[i]) a->out--;
    if (a->out < 1) {
      return lt_fail(c->ctx,
                     "%s: the window is larger than x (window %lld, size %lld, padding %lld; %s)",
                     c->op->name, (long long)reach, (long long)a->in, (long long)padding[i],
                     lt_shape_text(&c->in[0]->shape, text));
    }
  }
  return LT_OK;
}

/* ---- max_pool1d, max_pool2d, max_pool3d ------------------------------------------------------ */

enum { MAX_KERNEL, MAX_STRIDE, MAX_PADDING, MAX_DILATION, MAX_CEIL, MAX_INDICES };
static const places max_options = {MAX_KERNEL, MAX_STRIDE, MAX_PADDING, MAX_DILATION, MAX_CEIL};

static lt_status max_pool_infer(lt_call *c, int n) {
  lt_window axis[LT_POOL_AXES];
  return windows(c, n, &max_options, axis);
}

static void max_pool_compose(lt_call *c, lt_scope *s, int n) {
  lt_window axis[LT_POOL_AXES];
  s->status = windows(c, n, &max_options, axis);
  lt_compose_max_pool(c, s, n, axis, lt_get_int(c->attrs, c->op, MAX_INDICES));
}

LT_BY_RANK(max_pool, 1)
LT_BY_RANK(max_pool, 2)
LT_BY_RANK(max_pool, 3)

#define MAX_OPTIONS                                                                                \
  {"kernel_size", LT_OPTION_INTS, .required = true}, {"stride", LT_OPTION_INTS},                   \
      {"padding", LT_OPTION_INTS}, {"dilation", LT_OPTION_INTS}, {"ceil_mode", LT_OPTION_BOOL}, {  \
    "return_indices", LT_OPTION_BOOL                                                               \
  }

const lt_op lt_op_max_pool1d = {
    .name = "max_pool1d",
    .doc = "Largest element of each window of kernel_size along the last dimension; x is (C, L) "
           "or (N, C, L). The result has floor((L + 2 padding - dilation (kernel_size - 1) - 1) / "
           "stride) + 1 places; with ceil_mode rounded up, windows that would start in the right "
           "padding left out. stride is kernel_size by default, padding at most half of it; what "
           "is padded never wins. NaN wins, and of equal elements the first. With return_indices "
           "also their places along the dimension, as int64 from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = max_pool1d_infer,
    .compose = max_pool1d_compose,
    .results = 2,
    .sample = {"normal(2, 3, 8), 2", "normal(2, 7), {kernel_size = 3, stride = 2, padding = 1}",
               "normal(1, 2, 9), {kernel_size = 3, stride = 1, dilation = 2, ceil_mode = true, "
               "return_indices = true}"},
};

const lt_op lt_op_max_pool2d = {
    .name = "max_pool2d",
    .doc = "Largest element of each window over the last two dimensions; x is (C, H, W) or "
           "(N, C, H, W). kernel_size, stride, padding and dilation are one integer or one for "
           "each dimension, as in max_pool1d. With return_indices also their places in the "
           "plane, row after row, as int64 from 1.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = max_pool2d_infer,
    .compose = max_pool2d_compose,
    .results = 2,
    .sample = {"normal(2, 3, 4, 6), 2",
               "normal(2, 5, 7), {kernel_size = {3, 2}, stride = {2, 1}, padding = 1}",
               "normal(1, 2, 6, 5), {kernel_size = 2, stride = 2, dilation = {1, 2}, ceil_mode = "
               "true, return_indices = true}",
               "normal(1, 1, 6, 40), {kernel_size = {2, 18}, stride = {2, 9}}"},
};

const lt_op lt_op_max_pool3d = {
    .name = "max_pool3d",
    .doc = "Largest element of each window over the last three dimensions; x is (C, D, H, W) or "
           "(N, C, D, H, W). Options as in max_pool2d.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {MAX_OPTIONS},
    .infer = max_pool3d_infer,
    .compose = max_pool3d_compose,
    .results = 2,
    .sample = {"normal(1, 2, 4, 4, 4), 2",
               "normal(2, 3, 4, 5), {kernel_size = {2, 3, 2}, stride = {1, 2, 2}, padding = {1, 1, "
               "0}, return_indices = true}"},
};

/* ---- avg_pool1d, avg_pool2d, avg_pool3d ------------------------------------------------------ */

enum { AVG_KERNEL, AVG_STRIDE, AVG_PADDING, AVG_CEIL, AVG_INCLUDE_PAD, AVG_DIVISOR };
static const places avg_options = {AVG_KERNEL, AVG_STRIDE, AVG_PADDING, -1, AVG_CEIL};

static lt_status avg_pool_infer(lt_call *c, int n) {
  lt_window axis[LT_POOL_AXES];
  if (n > 1 && lt_given(c->attrs, AVG_DIVISOR) && lt_get_int(c->attrs, c->op, AVG_DIVISOR) == 0) {
    return lt_fail(c->ctx, "%s: divisor_override must not be 0", c->op->name);
  }
  return windows(c, n, &avg_options, axis);
}

static void avg_pool_compose(lt_call *c, lt_scope *s, int n) {
  lt_window axis[LT_POOL_AXES];
  s->status = windows(c, n, &avg_options, axis);
  double divisor = n > 1 ? (double)lt_get_int(c->attrs, c->op, AVG_DIVISOR) : 0;
  c->out[0] =
      lt_mean_windows(s, c->in[0], n, axis, lt_get_int(c->attrs, c->op, AVG_INCLUDE_PAD), divisor);
}

LT_BY_RANK(avg_pool, 1)
LT_BY_RANK(avg_pool, 2)
LT_BY_RANK(avg_pool, 3)

#define AVG_OPTIONS                                                                                \
  {"kernel_size", LT_OPTION_INTS, .required = true}, {"stride", LT_OPTION_INTS},                   \
      {"padding", LT_OPTION_INTS}, {"ceil_mode", LT_OPTION_BOOL}, {                                \
    "count_include_pad", LT_OPTION_BOOL, .value = 1                                                \
  }

const lt_op lt_op_avg_pool1d = {
    .name = "avg_pool1d",
    .doc = "Mean of each window of kernel_size along the last dimension; x is (C, L) or (N, C, L). "
           "Sizes and ceil_mode as in max_pool1d. Padding is zeros, which count; without "
           "count_include_pad only elements of x count.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {AVG_OPTIONS},
    .infer = avg_pool1d_infer,
    .compose = avg_pool1d_compose,
    .sample = {"normal(2, 3, 8), 2", "normal(2, 7), {kernel_size = 3, stride = 2, padding = 1}",
               "normal(1, 2, 8), {kernel_size = 3, stride = 2, padding = 1, ceil_mode = true, "
               "count_include_pad = false}"},
};

const lt_op lt_op_avg_pool2d = {
    .name = "avg_pool2d",
    .doc = "Mean of each window over the last two dimensions; x is (C, H, W) or (N, C, H, W). "
           "kernel_size, stride and padding are one integer or one for each dimension; the "
           "other options as in avg_pool1d. divisor_override divides the sums instead of the "
           "number of elements.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {AVG_OPTIONS, {"divisor_override", LT_OPTION_INT}},
    .infer = avg_pool2d_infer,
    .compose = avg_pool2d_compose,
    .sample = {"normal(2, 3, 4, 6), 2",
               "normal(2, 5, 7), {kernel_size = {3, 2}, stride = {2, 1}, padding = 1, "
               "count_include_pad = false}",
               "normal(1, 2, 5, 5), {kernel_size = 2, ceil_mode = true, divisor_override = 3}",
               "normal(1, 1, 3, 40), {kernel_size = {2, 18}, stride = {1, 9}, padding = {0, 2}}"},
};

const lt_op lt_op_avg_pool3d = {
    .name = "avg_pool3d",
    .doc = "Mean of each window over the last three dimensions; x is (C, D, H, W) or "
           "(N, C, D, H, W). Options as in avg_pool2d.",
    .inputs = {{"x", LT_FLOAT}},
    .options = {AVG_OPTIONS, {"divisor_override", LT_OPTION_INT}},
    .infer = avg_pool3d_infer,
    .compose = avg_pool3d_compose,
    .sample = {"normal(1, 2, 4, 4, 4), 2",
               "normal(2, 3, 4, 5), {kernel_size = {2, 3, 2}, stride = {1, 2, 2}, padding = {1, 1, "
               "0}, count_include_pad = false}"},
};

/* ---- lp_pool1d, lp_pool2d, lp_pool3d --------------------------------------------------------- */

enum { LP_NORM, LP_KERNEL, LP_STRIDE, LP_CEIL };
static const places lp_options = {LP_KERNEL, LP_STRIDE, -1, -1, LP_CEIL};

static lt_status lp_pool_infer(lt_call *c, int n) {
  lt_window axis[LT_POOL_AXES];
  if (lt_get_number(c->attrs, c->op, LP_NORM) == 0) {
    return lt_fail(c->ctx, "%s: norm_type must not be 0", c->op->name);
  }
  return windows(c, n, &lp_options, axis);
}

/* The sum of a window is its mean times its size, also where it is cut off (PyTorch). */
static void lp_pool_compose(lt_call *c, lt_scope *s, int n) {
  lt_window axis[LT_POOL_AXES];
  s->status = windows(c, n, &lp_options, axis);
  double p = lt_get_number(c->attrs, c->op, LP_NORM), size = 1;
  for (int d = 0; d < LT_POOL_AXES; d++) size *= (double)axis[d].kernel;
  lt_tensor *power = lt_do2(s, &lt_op_pow, NULL, c->in[0], lt_number(s, p));
  lt_tensor *mean = lt_mean_windows(s, power, n, axis, true, 0);
  c->out[0] = lt_do2(s, &lt_op_pow, NULL, lt_scale(s, mean, size), lt_number(s, 1 / p));
}

LT_BY_RANK(lp_pool, 1)
LT_BY_RANK(lp_pool, 2)
LT_BY_RANK(lp_pool, 3)

#define LP_OPTIONS                                                                                 \
  {"norm_type", LT_OPTION_NUMBER, .required = true},                                               \
      {"kernel_size", LT_OPTION_INTS, .required = true}, {"stride", LT_OPTION_INTS}, {             \
    "ceil_mode", LT_OPTION_BOOL                                                                    \
  }

const lt_op lt_op_lp_pool1d = {
    .name = "lp_pool1d",
    .doc = "Power mean without the division, y = (sum of x ^ norm_type) ^ (1 / norm_type), of each "
           "window along the last dimension; x is (C, L) or (N, C, L). kernel_size, stride and "
           "ceil_mode as in avg_pool1d; what ceil_mode cuts off a window counts as the mean of "
           "the rest (PyTorch).",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LP_OPTIONS},
    .infer = lp_pool1d_infer,
    .compose = lp_pool1d_compose,
    .sample = {"positive(2, 3, 8), 2, 2", "positive(2, 7), {norm_type = 3, kernel_size = 3, stride "
                                          "= 2, ceil_mode = true}"},
};

const lt_op lt_op_lp_pool2d = {
    .name = "lp_pool2d",
    .doc = "lp_pool1d over the last two dimensions; x is (C, H, W) or (N, C, H, W).",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LP_OPTIONS},
    .infer = lp_pool2d_infer,
    .compose = lp_pool2d_compose,
    .sample = {"positive(2, 3, 4, 6), 2, 2", "positive(2, 5, 6), {norm_type = 1.5, kernel_size = "
                                             "{3, 2}, stride = 2}"},
};

const lt_op lt_op_lp_pool3d = {
    .name = "lp_pool3d",
    .doc = "lp_pool1d over the last three dimensions; x is (C, D, H, W) or (N, C, D, H, W).",
    .inputs = {{"x", LT_FLOAT}},
    .options = {LP_OPTIONS},
    .infer = lp_pool3d_infer,
    .compose = lp_pool3d_compose,
    .sample = {"positive(1, 2, 4, 4, 4), 2, 2"},
};

LT_FAMILY(pool, &max_pool, &max_pool_backward, &max_pool_gather, &avg_pool, &avg_pool_backward,
          &lt_op_max_pool1d, &lt_op_max_pool2d, &lt_op_max_pool3d, &lt_op_avg_pool1d,
          &lt_op_avg_pool2d, &lt_op_avg_pool3d, &lt_op_lp_pool1d, &lt_op_lp_pool2d,
          &lt_op_lp_pool3d)
