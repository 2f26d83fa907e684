/* Padding: every dimension grows or shrinks at both ends. What the new elements hold, a number or
 * elements of x, is the mode; the gradient returns to the elements that were shown. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/spans.h"
#include "ops/family.h"
#include "tape/forward.h"
#include "tape/vjp.h"
#include "tape/vmap.h"

#include <math.h>

enum { PAD, MODE };
enum { VALUE = 2 }; /* of pad */
enum { SIZE = 2 };  /* of pad_backward */
enum { CONSTANT, REFLECT, REPLICATE, CIRCULAR };

/* Spans of a dimension of n elements. With reflect and replicate, element j of the result looks at
 * place j - left of x, wherever that is; with circular, negative ends cut before the others turn
 * round. */
static lt_status spans_of_dim(const lt_call *c, int mode, int d, int64_t n, int64_t left,
                              int64_t right, lt_spans *spans) {
  int64_t cut = left < 0 ? -left : 0, rest = n - cut - (right < 0 ? -right : 0);
  int64_t before = left > 0 ? left : 0, after = right > 0 ? right : 0, size = n + left + right;
  int64_t most = mode == REFLECT ? n - 1 : mode == CIRCULAR ? rest : LT_MAX_ELEMENTS;
  if (most < 0 || (mode == REPLICATE && n == 0)) most = 0;
  if (before > most || after > most) {
    return lt_fail(c->ctx, "pad: %lld and %lld elements more for dim %d of size %lld; %s",
                   (long long)left, (long long)right, d + 1, (long long)n,
                   mode == REFLECT     ? "reflect needs fewer than its size"
                   : mode == REPLICATE ? "replicate has nothing to repeat"
                                       : "circular takes no more than its size");
  }
  int64_t body = before < size ? before : size, end = n + left > 0 ? n + left : 0;
  if (end > size) end = size;
  switch (mode) {
  case REFLECT:
    lt_spans_add(spans, d, (lt_span){.to = 0, .from = left, .length = body, .step = -1});
    break;
  case REPLICATE: lt_spans_add(spans, d, (lt_span){.to = 0, .from = 0, .length = body}); break;
  case CIRCULAR:
    lt_spans_add(spans, d,
                 (lt_span){.to = 0, .from = cut + rest - before, .length = before, .step = 1});
    break;
  default: lt_spans_add(spans, d, (lt_span){.length = body, .filled = true});
  }
  lt_spans_add(spans, d, (lt_span){.to = body, .from = cut, .length = end - body, .step = 1});
  switch (mode) {
  case REFLECT:
    lt_spans_add(
        spans, d,
        (lt_span){.to = end, .from = 2 * (n - 1) - (end - left), .length = size - end, .step = -1});
    break;
  case REPLICATE:
    lt_spans_add(spans, d, (lt_span){.to = end, .from = n - 1, .length = size - end});
    break;
  case CIRCULAR:
    lt_spans_add(spans, d, (lt_span){.to = end, .from = cut, .length = after, .step = 1});
    break;
  default: lt_spans_add(spans, d, (lt_span){.to = end, .length = size - end, .filled = true});
  }
  return LT_OK;
}

/* What the options make of the shape x. */
static lt_status padding(const lt_call *c, const lt_shape *x, lt_shape *y, lt_spans *spans) {
  int n, mode = (int)lt_get_int(c->attrs, c->op, MODE);
  const int64_t *pad = lt_get_list(c->attrs, c->op, PAD, &n);
  char text[LT_SHAPE_TEXT];
  if (n % 2 != 0 || n / 2 > x->ndim) {
    return lt_fail(c->ctx,
                   "pad: %d numbers, where x (%s) takes two for each dimension from the last", n,
                   lt_shape_text(x, text));
  }
  *spans = (lt_spans){0};
  *y = *x;
  for (int d = 0; d < x->ndim; d++) {
    int pair = x->ndim - 1 - d;
    int64_t left = pair < n / 2 ? pad[2 * pair] : 0, right = pair < n / 2 ? pad[2 * pair + 1] : 0;
    bool huge = left >= LT_MAX_ELEMENTS || left <= -LT_MAX_ELEMENTS || right >= LT_MAX_ELEMENTS ||
                right <= -LT_MAX_ELEMENTS;
    y->size[d] = huge ? -1 : x->size[d] + left + right;
    if (y->size[d] < 0) {
      return lt_fail(c->ctx, "pad: dim %d of size %lld cannot change by %lld and %lld", d + 1,
                     (long long)x->size[d], (long long)left, (long long)right);
    }
    LT_TRY(spans_of_dim(c, mode, d, x->size[d], left, right, spans));
  }
  return lt_shape_check(c->ctx, "pad", y);
}

/* ---- pad ------------------------------------------------------------------------------------ */

static lt_status pad_infer(lt_call *c) {
  lt_spans spans;
  LT_TRY(lt_infer_same(c));
  LT_TRY(padding(c, &c->in[0]->shape, &c->result[0].shape, &spans));
  double value = lt_get_number(c->attrs, c->op, VALUE);
  if (lt_dtype_is_float(c->dtype) || value == floor(value)) return LT_OK;
  return lt_fail(c->ctx, "pad: value %g does not fit x, which is %s", value,
                 lt_dtype_name(c->dtype));
}

static lt_status pad_forward(lt_call *c) {
  lt_spans spans;
  lt_shape shape;
  double value = lt_get_number(c->attrs, c->op, VALUE);
  int64_t fill;
  lt_convert(1, (lt_dtype)c->out[0]->dtype, &fill, 1, LT_FLOAT64, &value, 1);
  LT_TRY(padding(c, &c->in[0]->shape, &shape, &spans));
  return lt_spans_copy(&spans, c->out[0], c->in[0], &fill);
}

/* The options with `value` 0 and, to cut what was added, the numbers negated. */
static lt_attrs homogeneous(const lt_attrs *attrs, bool negate) {
  int n;
  const int64_t *pad = lt_get_list(attrs, &lt_op_pad, PAD, &n);
  lt_attrs result = *attrs;
  int64_t list[2 * LT_MAX_RANK];
  for (int i = 0; i < n; i++) list[i] = negate ? -pad[i] : pad[i];
  lt_attrs_set_list(&result, &lt_op_pad, PAD, n, list);
  lt_attrs_set_number(&result, &lt_op_pad, VALUE, 0);
  return result;
}

static void pad_vjp(lt_vjp *v) {
  int n;
  const int64_t *pad = lt_get_list(v->attrs, v->op, PAD, &n);
  int64_t mode = lt_get_int(v->attrs, v->op, MODE);
  lt_attrs attrs;
  if (mode == CONSTANT) {
    attrs = homogeneous(v->attrs, true);
    lt_give(v, 0, lt_do1(v->s, &lt_op_pad, &attrs, v->dy[0]));
    return;
  }
  lt_shape x = lt_input_spec(v, 0).shape;
  lt_attrs_default(&attrs, &lt_op_pad_backward);
  lt_attrs_set_list(&attrs, &lt_op_pad_backward, PAD, n, pad);
  lt_attrs_set_int(&attrs, &lt_op_pad_backward, MODE, mode);
  lt_attrs_set_list(&attrs, &lt_op_pad_backward, SIZE, x.ndim, x.size);
  lt_give(v, 0, lt_do1(v->s, &lt_op_pad_backward, &attrs, v->dy[0]));
}

static void pad_jvp(lt_jvp *j) {
  lt_attrs attrs = homogeneous(j->attrs, false);
  j->dy[0] = lt_do1(j->s, j->op, &attrs, j->dx[0]);
}

const lt_op lt_op_pad = {
    .name = "pad",
    .doc = "x with elements added at the ends of its last dimensions: pad holds two numbers, "
           "before and behind, for the last dimension, then for the one before it, and so on; "
           "negative ones cut. The new elements are value (mode constant), x mirrored about its "
           "first and last element (reflect), these repeated (replicate), or x going round "
           "(circular).",
    .inputs = {{"x", LT_ANY}},
    .options = {{"pad", LT_OPTION_PAIRS, .required = true},
                {"mode", LT_OPTION_CHOICE, .choices = "constant reflect replicate circular"},
                {"value", LT_OPTION_NUMBER}},
    .infer = pad_infer,
    .forward = pad_forward,
    .vjp = pad_vjp,
    .jvp = pad_jvp,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4), {1, 2}", "normal(2, 3, 4), {pad = {2, -1, 0, 1}, value = 0.5}",
               "normal(2, 3, 4), {pad = {2, 3, 1, 0}, mode = 'reflect'}",
               "transposed(4, 3), {pad = {2, 1, -1, 4}, mode = 'replicate'}",
               "normal(2, 3, 4), {pad = {1, 4, 2, -1}, mode = 'circular'}"},
};

/* ---- pad_backward ---------------------------------------------------------------------------- */

static lt_status pad_backward_infer(lt_call *c) {
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, SIZE, &n);
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, lt_shape_make(n, size)};
  return LT_OK;
}

static lt_status pad_backward_forward(lt_call *c) {
  lt_spans spans;
  lt_shape shape;
  LT_TRY(padding(c, &c->out[0]->shape, &shape, &spans));
  return lt_spans_return(&spans, c->out[0], c->in[0]);
}

static void pad_backward_vjp(lt_vjp *v) {
  int n;
  const int64_t *pad = lt_get_list(v->attrs, v->op, PAD, &n);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_pad);
  lt_attrs_set_list(&attrs, &lt_op_pad, PAD, n, pad);
  lt_attrs_set_int(&attrs, &lt_op_pad, MODE, lt_get_int(v->attrs, v->op, MODE));
  lt_give(v, 0, lt_do1(v->s, &lt_op_pad, &attrs, v->dy[0]));
}

const lt_op lt_op_pad_backward = {
    .name = "pad_backward",
    .doc = "Gradient of pad with elements of x: to each of them is added what stands in dy where "
           "it was shown.",
    .inputs = {{"dy", LT_FLOAT}},
    .options = {{"pad", LT_OPTION_PAIRS, .required = true},
                {"mode", LT_OPTION_CHOICE, .choices = "constant reflect replicate circular"},
                {"size", LT_OPTION_SIZES, .required = true}},
    .infer = pad_backward_infer,
    .forward = pad_backward_forward,
    .vjp = pad_backward_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
    .sample = {"normal(3, 7), {pad = {2, 1}, mode = 'reflect', size = {3, 4}}"},
};

LT_FAMILY(pad, &lt_op_pad, &lt_op_pad_backward)
