/* Elements put, added, multiplied into places along a dimension. Each op is x with changed
 * elements: their gradient goes to what they were changed by, the others' to x. */
#include "core/context.h"
#include "kernels/loop.h"
#include "ops/family.h"
#include "ops/gather.h"
#include "ops/index.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

#include <math.h>
#include <string.h>

enum { DIM };

/* ---- What the ops share ---------------------------------------------------------------------- */

/* Does the input `source` have x's dtype? */
static lt_status check_dtype(const lt_call *c, int source) {
  lt_dtype x = (lt_dtype)c->in[0]->dtype, other = (lt_dtype)c->in[source]->dtype;
  if (x == other) return LT_OK;
  return lt_fail(c->ctx, "%s: x and %s must have one dtype (%s and %s)", c->op->name,
                 c->op->inputs[source].name, lt_dtype_name(x), lt_dtype_name(other));
}

static lt_status check_numbers(const lt_call *c) {
  if (c->in[0]->dtype != LT_BOOL) return LT_OK;
  return lt_fail(c->ctx, "%s: x must hold numbers, got bool", c->op->name);
}

/* Can x hold the number? */
static lt_status check_number(const lt_call *c, double number) {
  lt_dtype x = (lt_dtype)c->in[0]->dtype;
  if (lt_dtype_is_float(x) || number == floor(number)) return LT_OK;
  return lt_fail(c->ctx, "%s: value %g does not fit x, which is %s", c->op->name, number,
                 lt_dtype_name(x));
}

/* x, index and src of scatter and its like. */
static lt_status check_src(lt_call *c, int *dim) {
  const lt_shape *index = &c->in[1]->shape, *src = &c->in[2]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  bool fits = src->ndim == index->ndim;
  for (int d = 0; fits && d < index->ndim; d++) fits = index->size[d] <= src->size[d];
  if (!fits) {
    return lt_fail(c->ctx, "%s: src (%s) must have the dimensions of index (%s) and be as large",
                   c->op->name, lt_shape_text(src, a), lt_shape_text(index, b));
  }
  LT_TRY(check_dtype(c, 2));
  return lt_check_lanes(c, dim);
}

/* y, once it holds x, changed at index by one number. */
static lt_status number_on_lanes(lt_lane_work work, int dim, lt_tensor *y, lt_tensor *index,
                                 double number) {
  lt_tensor *one;
  LT_TRY(lt_tensor_scalar(y->ctx, number, (lt_dtype)y->dtype, &one));
  lt_status status =
      work == LT_ADD ? lt_add_on_lanes(dim, y, index, one) : lt_on_lanes(work, dim, y, index, one);
  lt_tensor_release(one);
  return status;
}

/* ---- What their rules share ------------------------------------------------------------------ */

static int64_t rule_dim(const lt_vjp *v) { return lt_get_int(v->attrs, v->op, DIM); }

/* t with its sizes changed at their ends: cut, or filled with zeros. */
static lt_tensor *resized(lt_scope *s, lt_tensor *t, const lt_shape *shape) {
  if (!t || lt_shape_equal(&t->shape, shape)) return t;
  int64_t pad[2 * LT_MAX_RANK] = {0};
  for (int d = 0; d < shape->ndim; d++) {
    pad[2 * (shape->ndim - 1 - d) + 1] = shape->size[d] - t->shape.size[d];
  }
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_pad);
  lt_attrs_set_list(&attrs, &lt_op_pad, 0, 2 * shape->ndim, pad);
  return lt_do1(s, &lt_op_pad, &attrs, t);
}

/* x with `number` at index. */
static lt_tensor *with_number(lt_scope *s, lt_tensor *x, int64_t dim, lt_tensor *index,
                              double number) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_scatter);
  lt_attrs_set_int(&attrs, &lt_op_scatter, DIM, dim);
  return lt_do3(s, &lt_op_scatter, &attrs, x, index, lt_number(s, number));
}

static lt_tensor *with_added(lt_scope *s, lt_tensor *x, int64_t dim, lt_tensor *index,
                             lt_tensor *src) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_scatter_add);
  lt_attrs_set_int(&attrs, &lt_op_scatter_add, DIM, dim);
  return lt_do3(s, &lt_op_scatter_add, &attrs, x, index, src);
}

static lt_tensor *where(lt_scope *s, lt_tensor *mask, lt_tensor *a, lt_tensor *b) {
  return lt_do3(s, &lt_op_where, NULL, mask, a, b);
}

/* Which elements of index were the last for their places in x: only theirs are seen there. */
static lt_tensor *last_ones(lt_scope *s, int64_t dim, lt_tensor *index, const lt_shape *x) {
  const lt_spec places = {LT_INT64, *x};
  lt_attrs attrs;
  if (!index) return NULL;
  lt_attrs_default(&attrs, &lt_op_range);
  lt_attrs_set_number(&attrs, &lt_op_range, 0, 1);
  lt_attrs_set_number(&attrs, &lt_op_range, 1, (double)index->numel);
  lt_attrs_set_int(&attrs, &lt_op_range, 3, LT_INT64);
  lt_tensor *number = lt_reshape_to(s, lt_do(s, &lt_op_range, &attrs, 0, NULL), &index->shape);
  lt_attrs_default(&attrs, &lt_op_scatter);
  lt_attrs_set_int(&attrs, &lt_op_scatter, DIM, dim);
  lt_tensor *put = lt_do3(s, &lt_op_scatter, &attrs, lt_full_like(s, &places, 0), index, number);
  return lt_do2(s, &lt_op_eq, NULL, lt_gather(s, put, dim, index), number);
}

/* The gradient of src, from that of its elements at index. */
static void give_src(lt_vjp *v, lt_tensor *gradient) {
  lt_shape src = lt_input_spec(v, 2).shape;
  lt_give(v, 2, resized(v->s, gradient, &src));
}

/* ---- scatter --------------------------------------------------------------------------------- */

enum { VALUE = 1, REDUCE };
enum { NONE, ADD, MULTIPLY };

static lt_status scatter_infer(lt_call *c) {
  int dim;
  const lt_tensor *src = c->in[2];
  bool value = lt_given(c->attrs, VALUE);
  if ((src != NULL) == value) {
    return lt_fail(c->ctx, "scatter: either src or value must be given%s",
                   value ? ", not both" : "");
  }
  if (lt_get_int(c->attrs, c->op, REDUCE) != NONE) LT_TRY(check_numbers(c));
  LT_TRY(lt_infer_same(c));
  if (src && !src->weak) return check_src(c, &dim);
  LT_TRY(check_number(c, value ? lt_get_number(c->attrs, c->op, VALUE) : lt_tensor_read(src, 0)));
  return lt_check_lanes(c, &dim);
}

static lt_status scatter_forward(lt_call *c) {
  static const lt_lane_work works[] = {LT_PUT, LT_ADD, LT_MULTIPLY};
  lt_lane_work work = works[lt_get_int(c->attrs, c->op, REDUCE)];
  lt_tensor *y = c->out[0], *src = c->in[2];
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  LT_TRY(lt_tensor_copy(y, c->in[0]));
  if (!src || src->weak) {
    double number = src ? lt_tensor_read(src, 0) : lt_get_number(c->attrs, c->op, VALUE);
    return number_on_lanes(work, dim, y, c->in[1], number);
  }
  if (work == LT_ADD) return lt_add_on_lanes(dim, y, c->in[1], src);
  return lt_on_lanes(work, dim, y, c->in[1], src);
}

static void add_rule(lt_vjp *v) {
  lt_give(v, 0, v->dy[0]);
  if (v->need[2]) give_src(v, lt_gather(v->s, v->dy[0], rule_dim(v), v->in[1]));
}

/* The op once more, on other tensors; src NULL: on the same number. */
static lt_tensor *again(lt_vjp *v, lt_tensor *x, lt_tensor *src) {
  if (!src) src = v->in[2];
  return x ? lt_do(v->s, v->op, v->attrs, 3, (lt_tensor *[]){x, v->in[1], src}) : NULL;
}

/* Of products: y over x, and y over src. Where a factor is 0 the product of the others is computed
 * anew with 1 in its place (PyTorch's scatter_reduce_backward). */
static void product_rule(lt_vjp *v, bool include_self) {
  lt_scope *s = v->s;
  lt_tensor *dy = v->dy[0], *x = v->in[0], *index = v->in[1];
  lt_tensor *zero = lt_number(s, 0), *one = lt_number(s, 1);
  int64_t dim = rule_dim(v);
  if (v->need[0] && include_self) {
    lt_tensor *factor = where(s, lt_do2(s, &lt_op_eq, NULL, x, zero), one, x);
    lt_give(v, 0, lt_div(s, lt_mul(s, dy, again(v, factor, NULL)), factor));
  } else if (v->need[0]) {
    lt_give(v, 0, with_number(s, dy, dim, index, 0));
  }
  if (!v->need[2]) return;
  lt_spec spec = lt_input_spec(v, 0);
  lt_tensor *src = resized(s, v->in[2], &index->shape);
  lt_tensor *is_zero = lt_do2(s, &lt_op_eq, NULL, src, zero);
  lt_tensor *zeros =
      with_added(s, lt_full_like(s, &spec, 0), dim, index, lt_to_dtype(s, is_zero, spec.dtype));
  lt_tensor *alone = lt_do2(s, &lt_op_eq, NULL, lt_gather(s, zeros, dim, index), one);
  alone = lt_do2(s, &lt_op_logical_and, NULL, is_zero, alone);
  lt_tensor *others = again(v, x, where(s, alone, one, src));
  lt_tensor *of_zero = lt_gather(s, lt_mul(s, dy, others), dim, index);
  lt_tensor *of_rest = lt_gather(s, lt_mul(s, dy, v->out[0]), dim, index);
  of_rest = lt_div(s, of_rest, where(s, is_zero, one, src));
  give_src(v, where(s, alone, of_zero, of_rest));
}

static void scatter_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, 0).shape;
  int64_t dim = rule_dim(v);
  switch (lt_get_int(v->attrs, v->op, REDUCE)) {
  case ADD: add_rule(v); return;
  case MULTIPLY: product_rule(v, true); return;
  default: break;
  }
  if (v->need[0]) lt_give(v, 0, with_number(v->s, v->dy[0], dim, v->in[1], 0));
  if (!v->need[2]) return;
  lt_tensor *dy = lt_gather(v->s, v->dy[0], dim, v->in[1]);
  lt_tensor *stayed = last_ones(v->s, dim, v->in[1], &x);
  give_src(v, where(v->s, stayed, dy, lt_number(v->s, 0)));
}

/* One number for all samples stays what it is. */
static void scatter_batch(lt_batch *b) {
  if (!b->in[2] || !b->in[2]->weak) {
    lt_batch_dims(b);
  } else if (b->in[0]->shape.ndim == 0) {
    lt_batch_each(b);
  } else {
    lt_attrs attrs;
    lt_batch_shift(b, &attrs);
    lt_batch_run(b, &attrs, (lt_tensor *[]){lt_batch_in(b, 0), lt_batch_in(b, 1), b->in[2]});
  }
}

const lt_op lt_op_scatter = {
    .name = "scatter",
    .option_at = 2,
    .doc = "x with src[i][j][k] at place [index[i][j][k]][j][k] for dim 1, at [i][index[i][j][k]]"
           "[k] for dim 2, and so on: the opposite of gather. Of several for one place the last, "
           "in the order of index, stays. src, a tensor of x's dtype, is as large as index; or it "
           "is a number, also given as value. With reduce, src is added to what is there, or "
           "multiplied.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"src", LT_ANY, .optional = true}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"value", LT_OPTION_NUMBER},
                {"reduce", LT_OPTION_CHOICE, .choices = "none add multiply"}},
    .infer = scatter_infer,
    .forward = scatter_forward,
    .vjp = scatter_vjp,
    .batch = scatter_batch,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_OUT(0),
    .sample = {"normal(3, 4), integers(1, 4, 2, 3), normal(2, 3), {dim = 2}",
               "normal(2, 3, 4), integers(1, 2, 3, 2, 4), {dim = 1, value = 0.5}",
               "normal(3, 4), integers(1, 3, 5, 2), normal(6, 4), {dim = 1, reduce = 'add'}",
               "normal(3, 4), integers(1, 3, 4, 3), normal(4, 3), {dim = 1, reduce = 'multiply'}",
               "normal(3, 4), integers(1, 4, 2, 3), -1, {dim = 2, reduce = 'multiply'}"},
};

/* ---- scatter_add ------------------------------------------------------------------------------
 */

static lt_status scatter_add_infer(lt_call *c) {
  int dim;
  LT_TRY(check_numbers(c));
  LT_TRY(check_src(c, &dim));
  return lt_infer_same(c);
}

static lt_status scatter_add_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  LT_TRY(lt_tensor_copy(c->out[0], c->in[0]));
  return lt_add_on_lanes(dim, c->out[0], c->in[1], c->in[2]);
}

const lt_op lt_op_scatter_add = {
    .name = "scatter_add",
    .option_at = 2,
    .doc = "x with src[i][j][k] added at place [index[i][j][k]][j][k] for dim 1, at "
           "[i][index[i][j][k]][k] for dim 2, and so on; several may meet in one place. src has "
           "x's dtype and is as large as index.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"src", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = scatter_add_infer,
    .forward = scatter_add_forward,
    .vjp = add_rule,
    .batch = lt_batch_dims,
    .saves = LT_IN(1),
    .linear = true,
    .sample = {"normal(3, 4), integers(1, 4, 3, 6), normal(3, 6), {dim = 2}",
               "normal(2, 3, 4), integers(1, 2, 5, 2, 4), normal(5, 3, 4), {dim = 1}"},
};

/* ---- scatter_reduce ---------------------------------------------------------------------------
 */

enum { KIND = 1, INCLUDE_SELF };
enum { SUM, PROD, MEAN, AMAX, AMIN };

static lt_status scatter_reduce_infer(lt_call *c) {
  lt_dtype x = (lt_dtype)c->in[0]->dtype;
  LT_TRY(check_numbers(c));
  if (lt_get_int(c->attrs, c->op, KIND) == MEAN && !lt_dtype_is_float(x)) {
    return lt_fail(c->ctx, "scatter_reduce: the mean is of floats, got %s", lt_dtype_name(x));
  }
  int dim;
  LT_TRY(check_src(c, &dim));
  return lt_infer_same(c);
}

#define DIVIDE(T)                                                                                  \
  {                                                                                                \
    T *sum = (T *)(void *)y->data;                                                                 \
    const T *n = (const T *)(const void *)count->data;                                             \
    for (int64_t i = 0; i < y->numel; i++) sum[i] = n[i] > 1 ? sum[i] / n[i] : sum[i];             \
  }

/* y, a sum, by how many went into each element. */
static lt_status divide_by_count(lt_call *c, int dim, lt_tensor *y) {
  lt_tensor *one, *count;
  double self = lt_get_int(c->attrs, c->op, INCLUDE_SELF) ? 1 : 0;
  LT_TRY(lt_tensor_new(c->ctx, c->op->name, (lt_dtype)y->dtype, &y->shape, &count));
  lt_status status = lt_tensor_scalar(c->ctx, self, (lt_dtype)y->dtype, &one);
  if (status == LT_OK) {
    status = lt_tensor_copy(count, one);
    lt_tensor_release(one);
  }
  if (status == LT_OK) status = number_on_lanes(LT_ADD, dim, count, c->in[1], 1);
  if (status == LT_OK && y->dtype == LT_FLOAT32)
    DIVIDE(float)
  else if (status == LT_OK)
    DIVIDE(double)
  lt_tensor_release(count);
  return status;
}

static lt_status scatter_reduce_forward(lt_call *c) {
  static const lt_lane_work works[] = {LT_ADD, LT_MULTIPLY, LT_ADD, LT_LARGER, LT_SMALLER};
  static const double neutral[] = {0, 1, 0, -INFINITY, INFINITY};
  int64_t kind = lt_get_int(c->attrs, c->op, KIND);
  lt_tensor *y = c->out[0], *index = c->in[1];
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  LT_TRY(lt_tensor_copy(y, c->in[0]));
  if (!lt_get_int(c->attrs, c->op, INCLUDE_SELF)) {
    LT_TRY(number_on_lanes(LT_PUT, dim, y, index, neutral[kind]));
  }
  if (works[kind] == LT_ADD)
    LT_TRY(lt_add_on_lanes(dim, y, index, c->in[2]));
  else
    LT_TRY(lt_on_lanes(works[kind], dim, y, index, c->in[2]));
  return kind == MEAN ? divide_by_count(c, dim, y) : LT_OK;
}

/* x where no element of index went; all of it, if it counts itself. */
static lt_tensor *self_part(lt_vjp *v, lt_tensor *x) {
  bool include = lt_get_int(v->attrs, v->op, INCLUDE_SELF);
  return include ? x : with_number(v->s, x, rule_dim(v), v->in[1], 0);
}

static void mean_rule(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_spec x = lt_input_spec(v, 0), src = {x.dtype, v->in[1]->shape};
  int64_t self = lt_get_int(v->attrs, v->op, INCLUDE_SELF), dim = rule_dim(v);
  lt_tensor *count = lt_full_like(s, &x, self ? 1 : 0), *one = lt_full_like(s, &src, 1);
  count =
      lt_do2(s, &lt_op_maximum, NULL, with_added(s, count, dim, v->in[1], one), lt_number(s, 1));
  lt_tensor *share = lt_div(s, v->dy[0], count);
  if (v->need[0]) lt_give(v, 0, self_part(v, share));
  if (v->need[2]) give_src(v, lt_gather(s, share, dim, v->in[1]));
}

/* Equal extremes share evenly. */
static void extremum_rule(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_tensor *x = v->in[0], *index = v->in[1], *y = v->out[0];
  lt_dtype dtype = lt_input_spec(v, 0).dtype;
  int64_t dim = rule_dim(v);
  lt_tensor *src = resized(s, v->in[2], &index->shape);
  lt_tensor *own = lt_to_dtype(s, lt_do2(s, &lt_op_eq, NULL, x, y), dtype);
  lt_tensor *other = lt_do2(s, &lt_op_eq, NULL, src, lt_gather(s, y, dim, index));
  own = self_part(v, own);
  other = lt_to_dtype(s, other, dtype);
  lt_tensor *share = lt_div(s, v->dy[0], with_added(s, own, dim, index, other));
  if (v->need[0]) lt_give(v, 0, lt_mul(s, own, share));
  if (v->need[2]) give_src(v, lt_mul(s, other, lt_gather(s, share, dim, index)));
}

static void scatter_reduce_vjp(lt_vjp *v) {
  switch (lt_get_int(v->attrs, v->op, KIND)) {
  case SUM:
    if (v->need[0]) lt_give(v, 0, self_part(v, v->dy[0]));
    if (v->need[2]) give_src(v, lt_gather(v->s, v->dy[0], rule_dim(v), v->in[1]));
    return;
  case PROD: product_rule(v, lt_get_int(v->attrs, v->op, INCLUDE_SELF)); return;
  case MEAN: mean_rule(v); return;
  default: extremum_rule(v);
  }
}

const lt_op lt_op_scatter_reduce = {
    .name = "scatter_reduce",
    .option_at = 2,
    .doc = "As scatter_add, but what meets in one place is reduced by sum, prod, mean, amax or "
           "amin; with include_self = false, without the element of x that was there. Equal "
           "extremes share the gradient evenly.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"src", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"reduce", LT_OPTION_CHOICE, .choices = "sum prod mean amax amin",
                 .required = true},
                {"include_self", LT_OPTION_BOOL, .value = 1}},
    .infer = scatter_reduce_infer,
    .forward = scatter_reduce_forward,
    .vjp = scatter_reduce_vjp,
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_IN(1) | LT_IN(2) | LT_OUT(0),
    .sample = {"normal(3, 4), integers(1, 4, 3, 6), normal(3, 6), {dim = 2, reduce = 'sum', "
               "include_self = false}",
               "normal(3, 4), integers(1, 3, 5, 4), normal(6, 4), {dim = 1, reduce = 'prod'}",
               "normal(2, 3, 4), integers(1, 2, 5, 2, 4), normal(5, 3, 4), {dim = 1, reduce = "
               "'mean'}",
               "normal(3, 4), integers(1, 3, 5, 4), normal(6, 4), {dim = 1, reduce = 'amax'}",
               "normal(3, 4), integers(1, 3, 2, 4), normal(6, 4), {dim = 1, reduce = 'amin', "
               "include_self = false}",
               "normal(3, 4), integers(1, 3, 5, 4), normal(5, 4), {dim = 1, reduce = 'prod', "
               "include_self = false}"},
};

/* ---- index_copy, index_fill -------------------------------------------------------------------
 */

/* dim, and an index of one dimension in bounds. */
static lt_status check_slices(lt_call *c, int *dim) {
  const lt_tensor *index = c->in[1];
  LT_TRY(lt_indexed_dim(c, DIM, dim));
  if (index->shape.ndim > 1) {
    char text[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "%s: index must have one dimension, got %s", c->op->name,
                   lt_shape_text(&index->shape, text));
  }
  return lt_check_indices(c->op->name, "index", index, c->in[0]->shape.size[*dim], NULL);
}

/* y = x, and near at the slices of dimension dim that index lists. */
static lt_status put_slices(lt_call *c, lt_tensor *near) {
  lt_tensor *y = c->out[0], *index, *lanes = NULL;
  lt_shape shape = y->shape;
  int64_t strides[LT_MAX_RANK] = {0};
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  LT_TRY(lt_tensor_copy(y, c->in[0]));
  LT_TRY(lt_contiguous_as(c->in[1], LT_INT64, &index));
  shape.size[dim] = index->numel;
  strides[dim] = 1;
  lt_status status = lt_tensor_view(index, 0, &shape, strides, &lanes);
  if (status == LT_OK) status = lt_on_lanes(LT_PUT, dim, y, lanes, near);
  lt_tensor_release(lanes);
  lt_tensor_release(index);
  return status;
}

/* An index that all samples share serves the whole batch. */
static void slices_batch(lt_batch *b) {
  bool number = b->in[2]->shape.ndim == 0;
  if (b->over[1] || (number && b->over[2])) {
    lt_batch_each(b);
    return;
  }
  lt_attrs attrs;
  lt_batch_shift(b, &attrs);
  lt_tensor *source = number ? b->in[2] : lt_batch_in(b, 2);
  lt_batch_run(b, &attrs, (lt_tensor *[]){lt_batch_in(b, 0), b->in[1], source});
}

static lt_status index_copy_infer(lt_call *c) {
  int dim;
  LT_TRY(check_slices(c, &dim));
  LT_TRY(check_dtype(c, 2));
  LT_TRY(lt_infer_same(c));
  lt_shape want = c->in[0]->shape;
  want.size[dim] = c->in[1]->numel;
  if (lt_shape_equal(&want, &c->in[2]->shape)) return LT_OK;
  char needs[LT_SHAPE_TEXT], got[LT_SHAPE_TEXT];
  return lt_fail(c->ctx, "index_copy: source must be %s, got %s", lt_shape_text(&want, needs),
                 lt_shape_text(&c->in[2]->shape, got));
}

static lt_status index_copy_forward(lt_call *c) { return put_slices(c, c->in[2]); }

/* x with one number in the slices. */
static lt_tensor *filled(lt_vjp *v, lt_tensor *x, double number) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_fill);
  lt_attrs_set_int(&attrs, &lt_op_index_fill, DIM, rule_dim(v));
  return lt_do3(v->s, &lt_op_index_fill, &attrs, x, v->in[1], lt_number(v->s, number));
}

static void index_copy_vjp(lt_vjp *v) {
  if (v->need[0]) lt_give(v, 0, filled(v, v->dy[0], 0));
  if (!v->need[2]) return;
  lt_spec x = lt_input_spec(v, 0);
  int64_t dim = rule_dim(v), n = v->in[1]->numel;
  if (dim < 0) dim += x.shape.ndim;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_index_select);
  lt_attrs_set_int(&attrs, &lt_op_index_select, DIM, dim);
  lt_tensor *dy = lt_do2(v->s, &lt_op_index_select, &attrs, v->dy[0], v->in[1]);
  lt_shape line = lt_shape_make(1, &n), slices = {.ndim = x.shape.ndim};
  for (int d = 0; d < slices.ndim; d++) slices.size[d] = d == dim ? n : 1;
  lt_tensor *index = lt_reshape_to(v->s, v->in[1], &line);
  lt_tensor *stayed = last_ones(v->s, 0, index, &(lt_shape){1, {x.shape.size[dim]}});
  stayed = lt_reshape_to(v->s, stayed, &slices);
  lt_give(v, 2, where(v->s, stayed, dy, lt_number(v->s, 0)));
}

const lt_op lt_op_index_copy = {
    .name = "index_copy",
    .option_at = 2,
    .doc = "x with slice j of source in the place of slice index[j] of dimension dim; numbers "
           "count from 1. Of several for one place the last stays.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"source", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = index_copy_infer,
    .forward = index_copy_forward,
    .vjp = index_copy_vjp,
    .batch = slices_batch,
    .saves = LT_IN(1),
    .linear = true,
    .sample = {"normal(4, 3), integers(1, 4, 3), normal(3, 3), {dim = 1}",
               "normal(2, 3, 4), integers(1, 4, 5), normal(2, 3, 5), {dim = -1}"},
};

static lt_status index_fill_infer(lt_call *c) {
  int dim;
  const lt_tensor *value = c->in[2];
  if (value->shape.ndim > 0) {
    char text[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "index_fill: value must be a number or 0-d, got %s",
                   lt_shape_text(&value->shape, text));
  }
  LT_TRY(check_number(c, lt_tensor_read(value, 0)));
  LT_TRY(check_slices(c, &dim));
  return lt_infer_same(c);
}

static lt_status index_fill_forward(lt_call *c) {
  lt_tensor *value;
  LT_TRY(lt_contiguous_as(c->in[2], (lt_dtype)c->in[0]->dtype, &value));
  lt_status status = put_slices(c, value);
  lt_tensor_release(value);
  return status;
}

static void index_fill_vjp(lt_vjp *v) {
  lt_spec x = lt_input_spec(v, 0);
  if (v->need[0]) lt_give(v, 0, filled(v, v->dy[0], 0));
  if (!v->need[2]) return;
  lt_tensor *here = filled(v, lt_full_like(v->s, &x, 0), 1);
  lt_give(v, 2, lt_mul(v->s, v->dy[0], here));
}

const lt_op lt_op_index_fill = {
    .name = "index_fill",
    .option_at = 2,
    .doc = "x with value (a number or a 0-d tensor) in all slices of dimension dim whose numbers "
           "index lists; they count from 1. The result has x's dtype.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}, {"value", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = index_fill_infer,
    .forward = index_fill_forward,
    .vjp = index_fill_vjp,
    .batch = slices_batch,
    .saves = LT_IN(1),
    .sample = {"normal(4, 3), integers(1, 4, 2), 0.5, {dim = 1}",
               "normal(2, 3, 4), integers(1, 3, 2), normal(), {dim = 2}"},
};

/* ---- masked_scatter ----------------------------------------------------------------------------
 */

static lt_status masked_scatter_infer(lt_call *c) {
  lt_shape shape = c->in[0]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  if (!lt_shape_broadcast(&shape, &c->in[1]->shape)) {
    return lt_fail(c->ctx, "masked_scatter: shapes do not broadcast (%s and %s)",
                   lt_shape_text(&shape, a), lt_shape_text(&c->in[1]->shape, b));
  }
  LT_TRY(check_dtype(c, 2));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, shape};
  return lt_shape_check(c->ctx, "masked_scatter", &shape);
}

static lt_status masked_scatter_forward(lt_call *c) {
  lt_tensor *y = c->out[0], *source;
  const lt_tensor *mask = c->in[1];
  int64_t size = lt_dtype_size((lt_dtype)y->dtype), used = 0, at[LT_LOOP_OPERANDS];
  int64_t strides[LT_MAX_RANK];
  lt_loop loop;
  LT_TRY(lt_tensor_copy(y, c->in[0]));
  if (y->numel == 0) return LT_OK;
  LT_TRY(lt_tensor_contiguous(c->in[2], &source));
  lt_broadcast_strides(&mask->shape, mask->strides, &y->shape, strides);
  lt_loop_build(&loop, &y->shape, 2, (const int64_t *const[]){y->strides, strides});
  bool enough = true;
  for (int64_t row = 0; enough && row < loop.rows; row++) {
    lt_loop_row(&loop, row, at);
    for (int64_t i = 0; enough && i < loop.length; i++) {
      if (!mask->data[at[1] + i * loop.step[1]]) continue;
      enough = used < source->numel;
      if (enough) {
        memcpy(y->data + (at[0] + i * loop.step[0]) * size, source->data + used++ * size,
               (size_t)size);
      }
    }
  }
  lt_tensor_release(source);
  if (enough) return LT_OK;
  return lt_fail(c->ctx, "masked_scatter: the mask names more than the %lld elements of source",
                 (long long)used);
}

/* Element number k of source went where the mask is true for the k-th time. */
static void masked_scatter_vjp(lt_vjp *v) {
  lt_scope *s = v->s;
  lt_shape source = lt_input_spec(v, 2).shape, y = lt_output_spec(v, 0).shape;
  int64_t size = lt_shape_numel(&source), numel = lt_shape_numel(&y);
  lt_shape line = lt_shape_make(1, &size), all = lt_shape_make(1, &numel);
  lt_spec ones = {LT_INT64, all};
  lt_tensor *dy = v->dy[0], *mask = v->in[1], *zero = lt_number(s, 0);
  if (v->need[0]) lt_give(v, 0, where(s, mask, zero, dy));
  if (!v->need[2] || size == 0) return;
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_cumsum);
  lt_attrs_set_int(&attrs, &lt_op_cumsum, 0, 0);
  mask = lt_reshape_to(s, lt_expand_to(s, mask, &y), &all);
  lt_tensor *number = lt_do1(s, &lt_op_cumsum, &attrs, mask);
  number = lt_do2(s, &lt_op_maximum, NULL, number, lt_full_like(s, &ones, 1));
  dy = where(s, mask, lt_reshape_to(s, dy, &all), zero);
  lt_give(v, 2, lt_reshape_to(s, lt_gather_backward(s, dy, 0, number, &line), &source));
}

const lt_op lt_op_masked_scatter = {
    .name = "masked_scatter",
    .doc = "x with the elements of source, in row-major order, in turn where mask is true; x and "
           "mask broadcast. source has x's dtype and as many elements as mask names, or more.",
    .inputs = {{"x", LT_ANY}, {"mask", LT_MASK}, {"source", LT_ANY}},
    .infer = masked_scatter_infer,
    .forward = masked_scatter_forward,
    .vjp = masked_scatter_vjp,
    .batch = lt_batch_each,
    .saves = LT_IN(1),
    .linear = true,
    .sample = {"normal(3, 4), mask(3, 4), normal(13)",
               "normal(2, 3, 1), mask(4), transposed(6, 4)"},
};

LT_FAMILY(scatter, &lt_op_scatter, &lt_op_scatter_add, &lt_op_scatter_reduce, &lt_op_index_copy,
          &lt_op_index_fill, &lt_op_masked_scatter)
