/* Ranges of one dimension: windows on the same memory. The gradient of each is dy put into zeros
 * of the input's size, an op whose own gradient is a slice again. */
#include "core/context.h"
#include "kernels/copy.h"
#include "ops/family.h"
#include "ops/index.h"
#include "tape/vmap.h"

#include <string.h>

/* The dimension in option `option`, in gradient rules. */
static int rule_dim(const lt_vjp *v, int option) {
  int64_t dim = lt_get_int(v->attrs, v->op, option);
  return (int)(dim < 0 ? dim + lt_input_spec(v, 0).shape.ndim : dim);
}

/* Elements start, start + step, ... of dimension dim. */
typedef struct range {
  int dim;
  int64_t start, step, length;
} range;

static lt_status range_window(lt_call *c, const range *r) {
  const lt_tensor *x = c->in[0];
  lt_shape shape = x->shape;
  int64_t strides[LT_MAX_RANK];
  memcpy(strides, x->strides, sizeof strides);
  int64_t offset = r->length > 0 ? r->start * strides[r->dim] : 0;
  shape.size[r->dim] = r->length;
  strides[r->dim] *= r->step;
  return lt_tensor_view(x, offset, &shape, strides, &c->out[0]);
}

static void range_infer(lt_call *c, const range *r) {
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[0]->shape};
  c->result[0].shape.size[r->dim] = r->length;
}

/* Negative numbers count from the end. */
static int64_t from_end(int64_t i, int64_t n) { return i < 0 ? i + n : i; }

static int64_t clamped(int64_t i, int64_t low, int64_t high) {
  return i < low ? low : i > high ? high : i;
}

static long long shown(int64_t i) { return (long long)(i < 0 ? i : i + 1); }

/* ---- slice_backward -------------------------------------------------------------------------- */

enum { BACK_SIZE, BACK_DIM, BACK_START, BACK_STEP };
enum { SLICE_DIM, SLICE_START, SLICE_STOP, SLICE_STEP };

static lt_status slice_backward_infer(lt_call *c) {
  int n;
  const int64_t *size = lt_get_list(c->attrs, c->op, BACK_SIZE, &n);
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, lt_shape_make(n, size)};
  return LT_OK;
}

static lt_status slice_backward_forward(lt_call *c) {
  const lt_tensor *dy = c->in[0];
  lt_tensor *dx = c->out[0];
  lt_dtype dtype = (lt_dtype)dx->dtype;
  int64_t dim = lt_get_int(c->attrs, c->op, BACK_DIM), strides[LT_MAX_RANK];
  int64_t offset = lt_get_int(c->attrs, c->op, BACK_START) * dx->strides[dim];
  memcpy(strides, dx->strides, sizeof strides);
  strides[dim] *= lt_get_int(c->attrs, c->op, BACK_STEP);
  memset(dx->data, 0, (size_t)(dx->numel * lt_dtype_size(dtype)));
  if (dy->numel == 0) return LT_OK;
  lt_copy(&dy->shape, dtype, dx->data + offset * lt_dtype_size(dtype), strides, dtype, dy->data,
          dy->strides);
  return LT_OK;
}

static void slice_backward_vjp(lt_vjp *v) {
  int64_t dim = lt_get_int(v->attrs, v->op, BACK_DIM);
  int64_t start = lt_get_int(v->attrs, v->op, BACK_START);
  int64_t step = lt_get_int(v->attrs, v->op, BACK_STEP);
  int64_t length = lt_input_spec(v, 0).shape.size[dim];
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_slice);
  lt_attrs_set_int(&attrs, &lt_op_slice, SLICE_DIM, dim);
  lt_attrs_set_int(&attrs, &lt_op_slice, SLICE_START, length ? start : 1);
  lt_attrs_set_int(&attrs, &lt_op_slice, SLICE_STOP, length ? start + (length - 1) * step : 0);
  lt_attrs_set_int(&attrs, &lt_op_slice, SLICE_STEP, step);
  lt_give(v, 0, lt_do1(v->s, &lt_op_slice, &attrs, v->dy[0]));
}

const lt_op lt_op_slice_backward = {
    .name = "slice_backward",
    .doc = "Zeros of the given size, with dy at elements start, start + step, ... of dim.",
    .inputs = {{"dy", LT_ANY}},
    .options = {{"size", LT_OPTION_SIZES, .required = true},
                {"dim", LT_OPTION_DIM},
                {"start", LT_OPTION_INDEX},
                {"step", LT_OPTION_INT, .value = 1}},
    .infer = slice_backward_infer,
    .forward = slice_backward_forward,
    .vjp = slice_backward_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
    .sample = {"normal(2, 3), {size = {5, 3}, dim = 1, start = 2, step = 2}"},
};

static void give_range(lt_vjp *v, const range *r, lt_tensor *dy) {
  lt_spec x = lt_input_spec(v, 0);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_slice_backward);
  lt_attrs_set_list(&attrs, &lt_op_slice_backward, BACK_SIZE, x.shape.ndim, x.shape.size);
  lt_attrs_set_int(&attrs, &lt_op_slice_backward, BACK_DIM, r->dim);
  lt_attrs_set_int(&attrs, &lt_op_slice_backward, BACK_START, r->start);
  lt_attrs_set_int(&attrs, &lt_op_slice_backward, BACK_STEP, r->step);
  lt_give(v, 0, lt_do1(v->s, &lt_op_slice_backward, &attrs, dy));
}

/* ---- slice ------------------------------------------------------------------------------------
 */

/* start and stop are both included and may lie beyond the ends, as in Lua's string.sub. */
static range slice_range(const lt_attrs *attrs, const lt_op *op, int dim, int64_t n) {
  int64_t stop = clamped(from_end(lt_get_int(attrs, op, SLICE_STOP), n), -1, n - 1);
  range r = {.dim = dim,
             .start = clamped(from_end(lt_get_int(attrs, op, SLICE_START), n), 0, n),
             .step = clamped(lt_get_int(attrs, op, SLICE_STEP), 1, n > 1 ? n : 1)};
  r.length = stop < r.start ? 0 : (stop - r.start) / r.step + 1;
  return r;
}

static lt_status slice_infer(lt_call *c) {
  int dim;
  int64_t step = lt_get_int(c->attrs, c->op, SLICE_STEP);
  LT_TRY(lt_indexed_dim(c, SLICE_DIM, &dim));
  if (step < 1) {
    return lt_fail(c->ctx, "slice: step must be at least 1, got %lld", (long long)step);
  }
  range r = slice_range(c->attrs, c->op, dim, c->in[0]->shape.size[dim]);
  range_infer(c, &r);
  return LT_OK;
}

static lt_status slice_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_indexed_dim(c, SLICE_DIM, &dim));
  range r = slice_range(c->attrs, c->op, dim, c->in[0]->shape.size[dim]);
  return range_window(c, &r);
}

static void slice_vjp(lt_vjp *v) {
  int dim = rule_dim(v, SLICE_DIM);
  range r = slice_range(v->attrs, v->op, dim, lt_input_spec(v, 0).shape.size[dim]);
  give_range(v, &r, v->dy[0]);
}

/* In C, stop is the last element itself, counted from 0: slice 2..3 is start = 1, stop = 2. */
const lt_op lt_op_slice = {
    .name = "slice",
    .doc = "Elements start, start + step, ..., up to stop, which is included, of dimension dim. "
           "Negative numbers count from the end; what lies beyond the ends is left out. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"start", LT_OPTION_INDEX, .value = 0},
                {"stop", LT_OPTION_INDEX, .value = -1},
                {"step", LT_OPTION_INT, .value = 1}},
    .infer = slice_infer,
    .forward = slice_forward,
    .vjp = slice_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(3, 4), 2, 2, 3", "normal(2, 7, 3), {dim = 2, start = -6, step = 3}",
               "transposed(4, 3), {dim = 1, stop = -2}"},
};

/* ---- narrow -----------------------------------------------------------------------------------
 */

enum { NARROW_DIM, NARROW_START, NARROW_LENGTH };

static lt_status narrow_infer(lt_call *c) {
  range r = {.step = 1, .length = lt_get_int(c->attrs, c->op, NARROW_LENGTH)};
  LT_TRY(lt_indexed_dim(c, NARROW_DIM, &r.dim));
  int64_t given = lt_get_int(c->attrs, c->op, NARROW_START), n = c->in[0]->shape.size[r.dim];
  r.start = from_end(given, n);
  if (r.start < 0 || r.start > n || r.length < 0 || r.length > n - r.start) {
    return lt_fail(c->ctx, "narrow: %lld elements from %lld on do not lie in 1..%lld (dim %d)",
                   (long long)r.length, shown(given), (long long)n, r.dim + 1);
  }
  range_infer(c, &r);
  return LT_OK;
}

static lt_status narrow_forward(lt_call *c) {
  range r = {.step = 1, .length = lt_get_int(c->attrs, c->op, NARROW_LENGTH)};
  LT_TRY(lt_indexed_dim(c, NARROW_DIM, &r.dim));
  r.start = from_end(lt_get_int(c->attrs, c->op, NARROW_START), c->in[0]->shape.size[r.dim]);
  return range_window(c, &r);
}

static void narrow_vjp(lt_vjp *v) {
  range r = {.dim = rule_dim(v, NARROW_DIM), .step = 1};
  int64_t n = lt_input_spec(v, 0).shape.size[r.dim];
  r.start = from_end(lt_get_int(v->attrs, v->op, NARROW_START), n);
  give_range(v, &r, v->dy[0]);
}

const lt_op lt_op_narrow = {
    .name = "narrow",
    .doc = "length elements from start on of dimension dim; a negative start counts from the end. "
           "A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"start", LT_OPTION_INDEX, .required = true},
                {"length", LT_OPTION_INT, .required = true}},
    .infer = narrow_infer,
    .forward = narrow_forward,
    .vjp = narrow_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(3, 4), 2, 2, 3", "normal(2, 3, 4), {dim = -1, start = -2, length = 1}"},
};

/* ---- select -----------------------------------------------------------------------------------
 */

enum { SELECT_DIM, SELECT_INDEX };

static lt_status select_infer(lt_call *c) {
  int dim;
  LT_TRY(lt_indexed_dim(c, SELECT_DIM, &dim));
  const lt_shape *x = &c->in[0]->shape;
  int64_t index = lt_get_int(c->attrs, c->op, SELECT_INDEX), n = x->size[dim];
  if (index < -n || index >= n) {
    char text[LT_SHAPE_TEXT];
    return lt_fail(c->ctx, "select: index %lld is outside 1..%lld (dim %d of %s)", shown(index),
                   (long long)n, dim + 1, lt_shape_text(x, text));
  }
  lt_spec *r = &c->result[0];
  *r = (lt_spec){.dtype = (lt_dtype)c->in[0]->dtype};
  for (int d = 0; d < x->ndim; d++) {
    if (d != dim) r->shape.size[r->shape.ndim++] = x->size[d];
  }
  return LT_OK;
}

static lt_status select_forward(lt_call *c) {
  int dim, n = 0;
  int64_t strides[LT_MAX_RANK];
  const lt_tensor *x = c->in[0];
  LT_TRY(lt_indexed_dim(c, SELECT_DIM, &dim));
  int64_t index = from_end(lt_get_int(c->attrs, c->op, SELECT_INDEX), x->shape.size[dim]);
  for (int d = 0; d < x->shape.ndim; d++) {
    if (d != dim) strides[n++] = x->strides[d];
  }
  return lt_tensor_view(x, index * x->strides[dim], &c->result[0].shape, strides, &c->out[0]);
}

static void select_vjp(lt_vjp *v) {
  range r = {.dim = rule_dim(v, SELECT_DIM), .step = 1};
  int64_t n = lt_input_spec(v, 0).shape.size[r.dim];
  r.start = from_end(lt_get_int(v->attrs, v->op, SELECT_INDEX), n);
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_unsqueeze);
  lt_attrs_set_int(&attrs, &lt_op_unsqueeze, 0, r.dim);
  give_range(v, &r, lt_do1(v->s, &lt_op_unsqueeze, &attrs, v->dy[0]));
}

const lt_op lt_op_select = {
    .name = "select",
    .doc = "Element number index of dimension dim, which goes; a negative index counts from the "
           "end. A view.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM, .required = true},
                {"index", LT_OPTION_INDEX, .required = true}},
    .infer = select_infer,
    .forward = select_forward,
    .vjp = select_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .view = true,
    .sample = {"normal(3, 4), 1, 2", "normal(2, 3, 4), -2, -1", "normal(3), 1, 3"},
};

LT_FAMILY(slice, &lt_op_select, &lt_op_slice, &lt_op_narrow, &lt_op_slice_backward)
