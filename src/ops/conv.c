/* Convolution: conv1d, conv2d, conv3d, and the three inner ops behind all convolutions. These are
 * one trilinear map seen from three sides (result, input gradient, weight gradient), so that each
 * one's gradients are the other two. */
#include "ops/conv.h"
#include "ops/family.h"
#include "tape/forward.h"
#include "tape/vmap.h"

/* ---- Checking ------------------------------------------------------------------------------- */

lt_status lt_conv_numbers(const lt_call *c, int option, int dims, int64_t fallback, int64_t least,
                          int64_t result[LT_CONV_DIMS]) {
  const char *name = c->op->options[option].name;
  int n;
  const int64_t *list = lt_get_list(c->attrs, c->op, option, &n);
  if (list && n != 1 && n != dims) {
    return lt_fail(c->ctx, "%s: %s must be one number or %d, got %d", c->op->name, name, dims, n);
  }
  for (int d = 0; d < dims; d++) {
    result[d] = !list ? fallback : list[n == 1 ? 0 : d];
    if (result[d] >= least && result[d] <= INT32_MAX) continue;
    return lt_fail(c->ctx, "%s: %s must be %s%s, got %lld", c->op->name, name,
                   least == 0 ? "at least 0" : "positive",
                   result[d] > INT32_MAX ? " and below 2^31" : "", (long long)result[d]);
  }
  return LT_OK;
}

lt_status lt_conv_span(const lt_call *c, int64_t size, int64_t dilation, int64_t *span) {
  if (!__builtin_mul_overflow(size - 1, dilation, span) && *span < LT_MAX_ELEMENTS) {
    *span += 1;
    return LT_OK;
  }
  return lt_fail(c->ctx, "%s: a kernel of %lld with dilation %lld is too large", c->op->name,
                 (long long)size, (long long)dilation);
}

lt_status lt_conv_check(const lt_call *c, int dims, int groups_option, bool transposed,
                        lt_conv_call *result) {
  static const char *const space[] = {"length", "height x width", "depth x height x width"};
  const lt_tensor *x = c->in[0], *w = c->in[1], *bias = c->in[2];
  const char *name = c->op->name;
  char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
  lt_shape_text(&x->shape, left);
  lt_shape_text(&w->shape, right);
  for (int i = 1; i < 3; i++) {
    if (!c->in[i] || c->in[i]->dtype == x->dtype) continue;
    const char *type = lt_dtype_name((lt_dtype)x->dtype);
    return lt_fail(c->ctx, "%s: dtypes differ (x %s, %s %s); convert one, as in x:to(\"%s\")", name,
                   type, c->op->inputs[i].name, lt_dtype_name((lt_dtype)c->in[i]->dtype), type);
  }
  if (x->shape.ndim != dims + 1 && x->shape.ndim != dims + 2) {
    return lt_fail(c->ctx, "%s: x must be channels x %s, with or without a batch in front, got %s",
                   name, space[dims - 1], left);
  }
  if (w->shape.ndim != dims + 2) {
    return lt_fail(c->ctx, "%s: weight must be %s x %s, got %s", name,
                   transposed ? "in x out/groups" : "out x in/groups", space[dims - 1], right);
  }
  int64_t groups = lt_get_int(c->attrs, c->op, groups_option);
  result->dims = dims;
  result->batched = x->shape.ndim == dims + 2;
  result->groups = groups;
  int64_t channels = x->shape.size[result->batched], first = w->shape.size[0];
  if (groups < 1) {
    return lt_fail(c->ctx, "%s: groups must be positive, got %lld", name, (long long)groups);
  }
  if (first % groups != 0 || first == 0) {
    return lt_fail(c->ctx, "%s: groups = %lld does not divide the %lld channels of weight (%s)",
                   name, (long long)groups, (long long)first, right);
  }
  int64_t takes = transposed ? first : w->shape.size[1];
  if (transposed ? channels != takes : channels % groups != 0 || channels / groups != takes) {
    return lt_fail(c->ctx,
                   "%s: x has %lld channels, weight takes %lld%s (x %s, weight %s, groups %lld)",
                   name, (long long)channels, (long long)takes, transposed ? "" : " in each group",
                   left, right, (long long)groups);
  }
  int64_t out;
  if (__builtin_mul_overflow(transposed ? w->shape.size[1] : first, transposed ? groups : 1,
                             &out)) {
    return lt_fail(c->ctx, "%s: groups = %lld is too large", name, (long long)groups);
  }
  for (int d = 0; d < dims; d++) {
    if (w->shape.size[2 + d] > 0) continue;
    return lt_fail(c->ctx, "%s: the kernel is empty (weight %s)", name, right);
  }
  if (bias && (bias->shape.ndim != 1 || bias->numel != out)) {
    return lt_fail(c->ctx, "%s: bias must have %lld elements, got %s", name, (long long)out,
                   lt_shape_text(&bias->shape, left));
  }
  return LT_OK;
}

/* ---- The inner ops ------------------------------------------------------------------------ */

#define INNER_OPTIONS                                                                              \
  {                                                                                                \
    {"stride", LT_OPTION_INTS, .required = true}, {"padding", LT_OPTION_INTS, .required = true},   \
        {"dilation", LT_OPTION_INTS, .required = true}, {"groups", LT_OPTION_INT, .value = 1},     \
        {"size", LT_OPTION_SIZES, .required = true},                                               \
  }

static int64_t inner_groups(const lt_attrs *a) {
  return lt_get_int(a, &lt_op_convolution, LT_CONV_GROUPS);
}

/* The geometry of x, w and y, where `size` stands in for one of their spatial shapes. */
static lt_conv geometry(const lt_call *c, const lt_shape *x, const lt_shape *w, const lt_shape *y) {
  lt_conv g = {.dtype = (lt_dtype)c->in[0]->dtype, .groups = inner_groups(c->attrs)};
  int n;
  const int64_t *stride = lt_get_list(c->attrs, c->op, LT_CONV_STRIDE, &n);
  const int64_t *padding = lt_get_list(c->attrs, c->op, LT_CONV_PADDING, &n);
  const int64_t *dilation = lt_get_list(c->attrs, c->op, LT_CONV_DILATION, &n);
  const int64_t *size = lt_get_list(c->attrs, c->op, LT_CONV_SIZE, &n);
  g.images = x ? x->size[0] : y->size[0];
  g.in = x ? x->size[1] / g.groups : w->size[1];
  g.out = (y ? y->size[1] : w->size[0]) / g.groups;
  for (int d = 0; d < LT_CONV_DIMS; d++) {
    g.x[d] = g.kernel[d] = g.y[d] = g.stride[d] = g.dilation[d] = 1;
  }
  for (int d = 0; d < n; d++) {
    int at = n == LT_CONV_DIMS ? d : d + 1;
    g.x[at] = x ? x->size[2 + d] : size[d];
    g.kernel[at] = w ? w->size[2 + d] : size[d];
    g.y[at] = y ? y->size[2 + d] : size[d];
    g.stride[at] = stride[d];
    g.padding[at] = padding[d];
    g.dilation[at] = dilation[d];
  }
  return g;
}

static lt_conv_tensor operand(const lt_tensor *t) {
  lt_conv_tensor o = {t->data, t->strides[0], t->strides[1], {0, 1, 1}};
  int dims = t->shape.ndim - 2;
  for (int d = 0; d < dims; d++) o.space[dims == LT_CONV_DIMS ? d : d + 1] = t->strides[2 + d];
  return o;
}

/* A result of rows x columns x size. */
static lt_status inner_result(lt_call *c, int64_t rows, int64_t columns) {
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, LT_CONV_SIZE, &n);
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, {.ndim = n + 2, .size = {rows, columns}}};
  for (int d = 0; d < n; d++) c->result[0].shape.size[2 + d] = size[d];
  return LT_OK;
}

/* An inner op with the options of this one, for a result of the spatial shape of `like`. */
static lt_tensor *inner(lt_vjp *v, const lt_op *op, lt_tensor *a, lt_tensor *b, lt_spec like) {
  lt_attrs attrs = *v->attrs;
  lt_attrs_set_list(&attrs, op, LT_CONV_SIZE, like.shape.ndim - 2, like.shape.size + 2);
  lt_tensor *in[] = {a, b, NULL};
  if (!a || !b) return NULL;
  return lt_do(v->s, op, &attrs, op == &lt_op_convolution ? 3 : 2, in);
}

/* ---- Their batches: samples side by side as groups ------------------------------------------- */

static lt_tensor *exchanged(lt_scope *s, lt_tensor *t) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_transpose);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 0, 0);
  lt_attrs_set_int(&attrs, &lt_op_transpose, 1, 1);
  return lt_do1(s, &lt_op_transpose, &attrs, t);
}

/* t with dims `at` and `at` + 1 made one. */
static lt_tensor *merged(lt_scope *s, lt_tensor *t, int at) {
  if (!t) return NULL;
  lt_shape shape = {.ndim = t->shape.ndim - 1};
  for (int d = 0; d < shape.ndim; d++) shape.size[d] = t->shape.size[d < at ? d : d + 1];
  shape.size[at] *= t->shape.size[at];
  if (at > 0) shape.size[at] = t->shape.size[at] * t->shape.size[at + 1];
  return lt_reshape_to(s, t, &shape);
}

/* t with dim `at` cut into `count` parts. */
static lt_tensor *parted(lt_scope *s, lt_tensor *t, int at, int64_t count) {
  if (!t) return NULL;
  lt_shape shape = {.ndim = t->shape.ndim + 1};
  for (int d = 0; d < shape.ndim; d++) shape.size[d] = t->shape.size[d <= at ? d : d - 1];
  shape.size[at] = count;
  shape.size[at + 1] = t->shape.size[at] / count;
  return lt_reshape_to(s, t, &shape);
}

/* All samples of images, side by side as channels. */
static lt_tensor *beside(lt_batch *b, int i) {
  return merged(b->s, exchanged(b->s, lt_batch_in(b, i)), 1);
}

static void run_batch(lt_batch *b, bool grouped, lt_tensor *const *in) {
  lt_attrs attrs = *b->attrs;
  if (grouped) {
    lt_attrs_set_int(&attrs, b->op, LT_CONV_GROUPS, inner_groups(b->attrs) * b->size);
  }
  if (b->s->status == LT_OK) lt_batch_run(b, &attrs, in);
}

/* Of convolution and its input gradient: weights that all samples share take one larger batch. */
static void images_batch(lt_batch *b) {
  bool shared = !b->over[1] && (b->inputs < 3 || !b->over[2]);
  lt_tensor *in[3] = {NULL};
  if (shared) {
    in[0] = merged(b->s, lt_batch_in(b, 0), 0);
    for (int i = 1; i < b->inputs; i++) in[i] = b->in[i];
    run_batch(b, false, in);
    b->out[0] = parted(b->s, b->out[0], 0, b->size);
    return;
  }
  in[0] = beside(b, 0);
  in[1] = merged(b->s, lt_batch_in(b, 1), 0);
  if (b->inputs == 3 && b->in[2]) in[2] = merged(b->s, lt_batch_in(b, 2), 0);
  run_batch(b, true, in);
  b->out[0] = exchanged(b->s, parted(b->s, b->out[0], 1, b->size));
}

/* Of the weight gradient: those of all samples at once. */
static void weight_batch(lt_batch *b) {
  lt_tensor *in[] = {beside(b, 0), beside(b, 1)};
  run_batch(b, true, in);
  b->out[0] = parted(b->s, b->out[0], 0, b->size);
}

/* ---- convolution -------------------------------------------------------------------------- */

static lt_status convolution_infer(lt_call *c) {
  return inner_result(c, c->in[0]->shape.size[0], c->in[1]->shape.size[0]);
}

static lt_status convolution_forward(lt_call *c) {
  const lt_tensor *bias = c->in[2];
  lt_conv g = geometry(c, &c->in[0]->shape, &c->in[1]->shape, NULL);
  lt_conv_tensor x = operand(c->in[0]), w = operand(c->in[1]), y = operand(c->out[0]);
  return lt_conv_forward(c->ctx, &g, &x, &w, bias ? bias->data : NULL, bias ? bias->strides[0] : 0,
                         &y);
}

static void convolution_vjp(lt_vjp *v) {
  lt_tensor *dy = v->dy[0];
  if (v->need[0]) {
    lt_give(v, 0, inner(v, &lt_op_convolution_input, dy, v->in[1], lt_input_spec(v, 0)));
  }
  if (v->need[1]) {
    lt_give(v, 1, inner(v, &lt_op_convolution_weight, v->in[0], dy, lt_input_spec(v, 1)));
  }
  if (v->need[2] && dy) {
    int64_t dims[] = {0, 2, 3, 4};
    lt_give(v, 2, lt_sum_over(v->s, dy, dy->shape.ndim - 1, dims, false));
  }
}

/* dx * w + x * dw + dbias */
static void convolution_jvp(lt_jvp *j) {
  lt_tensor *x = j->in[0], *w = j->in[1], *bias = j->dx[2];
  if (j->dx[0]) {
    j->dy[0] = lt_do(j->s, j->op, j->attrs, 3, (lt_tensor *[]){j->dx[0], w, bias});
    bias = NULL;
  }
  if (j->dx[1]) {
    lt_tensor *dy = lt_do(j->s, j->op, j->attrs, 3, (lt_tensor *[]){x, j->dx[1], bias});
    j->dy[0] = j->dy[0] ? lt_add(j->s, j->dy[0], dy) : dy;
    bias = NULL;
  }
  if (!bias) return;
  lt_shape shape = lt_shape_make(2, (int64_t[]){bias->numel, 1});
  for (; shape.ndim < x->shape.ndim - 1; shape.ndim++) shape.size[shape.ndim] = 1;
  j->dy[0] = lt_expand_to(j->s, lt_reshape_to(j->s, bias, &shape), &j->out[0]->shape);
}

const lt_op lt_op_convolution = {
    .name = "convolution",
    .doc = "What conv1d, conv2d and conv3d are made of: y[n, o] = bias[o] + the sum over c and k "
           "of weight[o, c, k] * x[n, c, i * stride - padding + k * dilation] at place i, for "
           "places 0 to size - 1; beyond its ends x counts as 0.",
    .inputs = {{"x", LT_FLOAT}, {"weight", LT_FLOAT}, {"bias", LT_FLOAT, .optional = true}},
    .options = INNER_OPTIONS,
    .infer = convolution_infer,
    .forward = convolution_forward,
    .vjp = convolution_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .jvp = convolution_jvp,
    .batch = images_batch,
    .internal = true,
};

/* ---- convolution_input ---------------------------------------------------------------------- */

static lt_status input_infer(lt_call *c) {
  return inner_result(c, c->in[0]->shape.size[0], c->in[1]->shape.size[1] * inner_groups(c->attrs));
}

static lt_status input_forward(lt_call *c) {
  lt_conv g = geometry(c, NULL, &c->in[1]->shape, &c->in[0]->shape);
  lt_conv_tensor dy = operand(c->in[0]), w = operand(c->in[1]), dx = operand(c->out[0]);
  return lt_conv_input(c->ctx, &g, &dy, &w, &dx);
}

static void input_vjp(lt_vjp *v) {
  lt_tensor *ddx = v->dy[0];
  if (v->need[0]) {
    lt_give(v, 0, inner(v, &lt_op_convolution, ddx, v->in[1], lt_input_spec(v, 0)));
  }
  if (v->need[1]) {
    lt_give(v, 1, inner(v, &lt_op_convolution_weight, ddx, v->in[0], lt_input_spec(v, 1)));
  }
}

const lt_op lt_op_convolution_input = {
    .name = "convolution_input",
    .doc = "The gradient of convolution for x, of spatial shape size: the transposed convolution.",
    .inputs = {{"dy", LT_FLOAT}, {"weight", LT_FLOAT}},
    .options = INNER_OPTIONS,
    .infer = input_infer,
    .forward = input_forward,
    .vjp = input_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .multilinear = true,
    .batch = images_batch,
    .internal = true,
};

/* ---- convolution_weight --------------------------------------------------------------------- */

static lt_status weight_infer(lt_call *c) {
  int64_t in = c->in[0]->shape.size[1] / inner_groups(c->attrs);
  return inner_result(c, c->in[1]->shape.size[1], in);
}

static lt_status weight_forward(lt_call *c) {
  lt_conv g = geometry(c, &c->in[0]->shape, NULL, &c->in[1]->shape);
  lt_tensor *compact;
  LT_TRY(lt_tensor_contiguous(c->in[1], &compact));
  lt_conv_tensor x = operand(c->in[0]), dy = operand(compact), dw = operand(c->out[0]);
  lt_status status = lt_conv_weight(c->ctx, &g, &x, &dy, &dw);
  lt_tensor_release(compact);
  return status;
}

static void weight_vjp(lt_vjp *v) {
  lt_tensor *ddw = v->dy[0];
  if (v->need[0]) {
    lt_give(v, 0, inner(v, &lt_op_convolution_input, v->in[1], ddw, lt_input_spec(v, 0)));
  }
  if (v->need[1]) {
    lt_give(v, 1, inner(v, &lt_op_convolution, v->in[0], ddw, lt_input_spec(v, 1)));
  }
}

const lt_op lt_op_convolution_weight = {
    .name = "convolution_weight",
    .doc = "The gradient of convolution for weight, whose kernel has the shape size.",
    .inputs = {{"x", LT_FLOAT}, {"dy", LT_FLOAT}},
    .options = INNER_OPTIONS,
    .infer = weight_infer,
    .forward = weight_forward,
    .vjp = weight_vjp,
    .saves = LT_IN(0) | LT_IN(1),
    .crosswise = true,
    .multilinear = true,
    .batch = weight_batch,
    .internal = true,
};

/* ---- conv1d, conv2d, conv3d --------------------------------------------------------------- */

enum { STRIDE, PADDING, DILATION, GROUPS };
enum { VALID, SAME };

/* Options of a call, and the sizes of its result. */
static lt_status plan(const lt_call *c, int dims, lt_conv_call *o) {
  const lt_tensor *x = c->in[0], *w = c->in[1];
  LT_TRY(lt_conv_check(c, dims, GROUPS, false, o));
  LT_TRY(lt_conv_numbers(c, STRIDE, dims, 1, 1, o->stride));
  LT_TRY(lt_conv_numbers(c, DILATION, dims, 1, 1, o->dilation));
  LT_TRY(lt_conv_numbers(c, PADDING, dims, 0, 0, o->padding));
  bool same = lt_get_word(c->attrs, c->op, PADDING) == SAME;
  for (int d = 0; d < dims; d++) {
    int64_t size = x->shape.size[x->shape.ndim - dims + d], span;
    LT_TRY(lt_conv_span(c, w->shape.size[2 + d], o->dilation[d], &span));
    if (same && o->stride[d] != 1) {
      return lt_fail(c->ctx, "%s: padding = \"same\" needs stride 1, got %lld", c->op->name,
                     (long long)o->stride[d]);
    }
    if (same) { /* what is odd goes to the end */
      o->padding[d] = (span - 1) / 2;
      o->size[d] = size;
      continue;
    }
    int64_t padded = size + 2 * o->padding[d];
    if (padded < span) {
      char left[LT_SHAPE_TEXT], right[LT_SHAPE_TEXT];
      return lt_fail(c->ctx,
                     "%s: the kernel spans %lld places, the padded x only %lld (x %s, weight %s)",
                     c->op->name, (long long)span, (long long)padded,
                     lt_shape_text(&x->shape, left), lt_shape_text(&w->shape, right));
    }
    o->size[d] = (padded - span) / o->stride[d] + 1;
  }
  return LT_OK;
}

lt_tensor *lt_conv_do(lt_scope *s, const lt_op *op, const lt_conv_call *o, lt_tensor *x,
                      lt_tensor *w, lt_tensor *bias) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_list(&attrs, op, LT_CONV_STRIDE, o->dims, o->stride);
  lt_attrs_set_list(&attrs, op, LT_CONV_PADDING, o->dims, o->padding);
  lt_attrs_set_list(&attrs, op, LT_CONV_DILATION, o->dims, o->dilation);
  lt_attrs_set_int(&attrs, op, LT_CONV_GROUPS, o->groups);
  lt_attrs_set_list(&attrs, op, LT_CONV_SIZE, o->dims, o->size);
  lt_shape shape = {.ndim = x->shape.ndim + 1, .size = {1}};
  for (int d = 0; d < x->shape.ndim; d++) shape.size[d + 1] = x->shape.size[d];
  if (!o->batched) x = lt_reshape_to(s, x, &shape);
  if (!x) return NULL;
  lt_tensor *y = lt_do(s, op, &attrs, lt_op_inputs(op), (lt_tensor *[]){x, w, bias});
  if (!y || o->batched) return y;
  shape = lt_shape_make(y->shape.ndim - 1, y->shape.size + 1);
  return lt_reshape_to(s, y, &shape);
}

static void compose(lt_call *c, lt_scope *s, int dims) {
  lt_conv_call o;
  s->status = plan(c, dims, &o);
  if (s->status != LT_OK) return;
  c->out[0] = lt_conv_do(s, &lt_op_convolution, &o, c->in[0], c->in[1], c->in[2]);
}

#define INPUTS                                                                                     \
  { {"x", LT_FLOAT}, {"weight", LT_FLOAT}, {"bias", LT_FLOAT, .optional = true}, }
#define OPTIONS                                                                                    \
  {                                                                                                \
    {"stride", LT_OPTION_INTS}, {"padding", LT_OPTION_INTS, .choices = "valid same"},              \
        {"dilation", LT_OPTION_INTS}, {"groups", LT_OPTION_INT, .value = 1},                       \
  }

static lt_status conv1d_infer(lt_call *c) { return plan(c, 1, &(lt_conv_call){0}); }
static void conv1d_compose(lt_call *c, lt_scope *s) { compose(c, s, 1); }

const lt_op lt_op_conv1d = {
    .name = "conv1d",
    .doc = "Convolution over one dimension, as conv2d has it: x n x in x l (or in x l), weight "
           "out x in/groups x k, bias out.",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv1d_infer,
    .compose = conv1d_compose,
    .sample = {"normal(2, 3, 5), normal(4, 3, 2), normal(4)",
               "normal(2, 4, 7), normal(2, 2, 3), {stride = 2, padding = 1, groups = 2}",
               "transposed(2, 5), normal(3, 2, 2), normal(3), {padding = 'same', dilation = 2}"},
};

static lt_status conv2d_infer(lt_call *c) { return plan(c, 2, &(lt_conv_call){0}); }
static void conv2d_compose(lt_call *c, lt_scope *s) { compose(c, s, 2); }

const lt_op lt_op_conv2d = {
    .name = "conv2d",
    .doc =
        "Convolution (cross-correlation) over height and width: y[n, o] = bias[o] + the sum over c "
        "of weight[o, c] correlated with x[n, c]; x is n x in x h x w (or in x h x w), weight out "
        "x in/groups x kh x kw, bias out, y n x out x h' x w' with h' = floor((h + 2 padding - "
        "dilation (kh - 1) - 1) / stride) + 1. Options are one number, or one for each dimension. "
        "padding counts zeros on both sides, and may be \"valid\" (none) or \"same\" (as many as "
        "keep the size; with stride 1 only; what is odd goes to the end). Channels fall into "
        "groups that do not see each other; groups = in is the depthwise convolution. Definition "
        "and names are PyTorch's; columns are packed by tiles after cuDNN's implicit product "
        "(Chetlur et al. 2014, arXiv 1410.0759).",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv2d_infer,
    .compose = conv2d_compose,
    .sample = {"normal(2, 3, 5, 4), normal(4, 3, 3, 2), normal(4)",
               "normal(2, 2, 6, 5), normal(4, 1, 3, 2), normal(4), {stride = {2, 1}, padding = {1, "
               "2}, groups = 2}",
               "normal(1, 2, 7, 6), normal(2, 2, 2, 3), {stride = {2, 3}, dilation = {3, 2}, "
               "padding = 1}",
               "transposed(2, 5, 4), normal(3, 2, 2, 3), normal(3), {padding = 'same'}",
               "normal(2, 3, 4, 4), normal(3, 1, 3, 3), {padding = 1, groups = 3}",
               "normal(2, 3, 3, 2), transposed(4, 3, 1, 1), normal(4)"},
};

static lt_status conv3d_infer(lt_call *c) { return plan(c, 3, &(lt_conv_call){0}); }
static void conv3d_compose(lt_call *c, lt_scope *s) { compose(c, s, 3); }

const lt_op lt_op_conv3d = {
    .name = "conv3d",
    .doc = "Convolution over depth, height and width, as conv2d has it: x n x in x d x h x w (or "
           "without n), weight out x in/groups x kd x kh x kw, bias out.",
    .inputs = INPUTS,
    .options = OPTIONS,
    .infer = conv3d_infer,
    .compose = conv3d_compose,
    .sample = {"normal(2, 2, 3, 4, 3), normal(2, 2, 2, 3, 2), normal(2)",
               "normal(4, 3, 4, 3), normal(2, 2, 2, 2, 2), {stride = {1, 2, 1}, padding = 1, "
               "dilation = {2, 1, 1}, groups = 2}"},
};

LT_FAMILY(conv, &lt_op_convolution, &lt_op_convolution_input, &lt_op_convolution_weight,
          &lt_op_conv1d, &lt_op_conv2d, &lt_op_conv3d)
