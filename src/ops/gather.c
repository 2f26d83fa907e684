/* Elements along a dimension, each chosen by an index of its own. The gradient adds dy back where
 * it was taken; reductions, scans and sorts that choose elements give theirs in the same way. */
#include "ops/gather.h"
#include "kernels/lines.h"
#include "ops/family.h"
#include "ops/index.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

#include <string.h>

/* ---- Lanes ---------------------------------------------------------------------------------- */

enum { DIM };

lt_status lt_check_lanes(const lt_call *c, int *dim) {
  const lt_shape *x = &c->in[0]->shape, *index = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  LT_TRY(lt_dim_normalise(c->ctx, c->op->name, lt_get_int(c->attrs, c->op, DIM), x->ndim, dim));
  bool fits = x->ndim == index->ndim;
  for (int d = 0; fits && d < x->ndim; d++) fits = d == *dim || index->size[d] <= x->size[d];
  if (!fits) {
    return lt_fail(c->ctx,
                   "%s: index (%s) must have the dimensions of x (%s), no larger but along dim %d",
                   c->op->name, lt_shape_text(index, a), lt_shape_text(x, b), *dim + 1);
  }
  return lt_check_indices(c->op->name, "index", c->in[1], lt_line_length(c->in[0], *dim), NULL);
}

/* lt_lanes with an index of any index type. */
static lt_status on_lanes(lt_lane_work work, int dim, const lt_shape *shape, lt_tensor *far,
                          lt_tensor *index, lt_tensor *near) {
  if (index->dtype == LT_INT64) return lt_lanes(work, dim, shape, far, index, near);
  lt_tensor *wide;
  LT_TRY(lt_contiguous_as(index, LT_INT64, &wide));
  lt_status status = lt_lanes(work, dim, shape, far, wide, near);
  lt_tensor_release(wide);
  return status;
}

lt_status lt_on_lanes(lt_lane_work work, int dim, lt_tensor *far, lt_tensor *index,
                      lt_tensor *near) {
  return on_lanes(work, dim, &index->shape, far, index, near);
}

lt_status lt_add_on_lanes(int dim, lt_tensor *far, lt_tensor *index, lt_tensor *near) {
  bool crowded = lt_line_length(index, dim) > 8 * lt_line_length(far, dim);
  if (far->dtype != LT_FLOAT32 || !crowded) return lt_on_lanes(LT_ADD, dim, far, index, near);
  lt_tensor *wide; /* float32 would lose what the sums are made of */
  LT_TRY(lt_tensor_new(far->ctx, "scatter_add", LT_FLOAT64, &far->shape, &wide));
  lt_status status = lt_tensor_copy(wide, far);
  if (status == LT_OK) status = lt_on_lanes(LT_ADD, dim, wide, index, near);
  if (status == LT_OK) status = lt_tensor_copy(far, wide);
  lt_tensor_release(wide);
  return status;
}

/* ---- gather --------------------------------------------------------------------------------- */

lt_tensor *lt_gather(lt_scope *s, lt_tensor *x, int64_t dim, lt_tensor *index) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_gather);
  lt_attrs_set_int(&attrs, &lt_op_gather, DIM, dim);
  return lt_do2(s, &lt_op_gather, &attrs, x, index);
}

static lt_status gather_infer(lt_call *c) {
  int dim;
  LT_TRY(lt_check_lanes(c, &dim));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, c->in[1]->shape};
  return LT_OK;
}

static lt_status gather_forward(lt_call *c) {
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  return lt_on_lanes(LT_TAKE, dim, c->in[0], c->in[1], c->out[0]);
}

static void gather_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, 0).shape;
  int64_t dim = lt_get_int(v->attrs, v->op, DIM);
  lt_give(v, 0, lt_gather_backward(v->s, v->dy[0], dim, v->in[1], &x));
}

const lt_op lt_op_gather = {
    .name = "gather",
    .option_at = 2,
    .doc = "y[i][j][k] = x[index[i][j][k]][j][k] for dim 1, x[i][index[i][j][k]][k] for dim 2, and "
           "so on. index has the dimensions of x and is no larger but along dim; its numbers count "
           "from 1. The shape of index.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM, .required = true}},
    .infer = gather_infer,
    .forward = gather_forward,
    .vjp = gather_vjp,
    .zero = "masked",
    .saves = LT_IN(1),
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"normal(3, 4), integers(1, 4, 3, 5), {dim = 2}",
               "normal(2, 3, 4), integers(1, 2, 4, 3, 2), {dim = 1}",
               "transposed(4, 3), integers(1, 3, 2, 2), {dim = -1}"},
};

/* ---- gather_backward ------------------------------------------------------------------------ */

enum { SIZE = 1 };

lt_tensor *lt_gather_backward(lt_scope *s, lt_tensor *dy, int64_t dim, lt_tensor *index,
                              const lt_shape *x) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_gather_backward);
  lt_attrs_set_int(&attrs, &lt_op_gather_backward, DIM, dim);
  lt_attrs_set_list(&attrs, &lt_op_gather_backward, SIZE, x->ndim, x->size);
  return lt_do2(s, &lt_op_gather_backward, &attrs, dy, index);
}

lt_tensor *lt_put_along(lt_vjp *v, lt_tensor *dy, lt_tensor *place, int64_t dim) {
  lt_shape x = lt_input_spec(v, 0).shape;
  return lt_gather_backward(v->s, dy, dim, place, &x);
}

static lt_status gather_backward_infer(lt_call *c) {
  int n, dim;
  const int64_t *size = lt_get_list(c->attrs, c->op, SIZE, &n);
  LT_TRY(lt_dim_of(c, &dim));
  c->result[0] = (lt_spec){(lt_dtype)c->in[0]->dtype, lt_shape_make(n, size)};
  /* They were in bounds when elements were taken, but may have been overwritten since. */
  return lt_check_indices(c->op->name, "index", c->in[1], n > 0 ? size[dim] : 1, NULL);
}

static lt_status gather_backward_forward(lt_call *c) {
  lt_tensor *dx = c->out[0];
  int dim;
  LT_TRY(lt_dim_of(c, &dim));
  memset(dx->data, 0, (size_t)(dx->numel * lt_dtype_size((lt_dtype)dx->dtype)));
  return lt_add_on_lanes(dim, dx, c->in[1], c->in[0]);
}

static void gather_backward_vjp(lt_vjp *v) {
  lt_give(v, 0, lt_gather(v->s, v->dy[0], lt_get_int(v->attrs, v->op, DIM), v->in[1]));
}

const lt_op lt_op_gather_backward = {
    .name = "gather_backward",
    .doc = "Zeros of the given size, to which dy is added at the places that index, of dy's shape, "
           "names along dim.",
    .inputs = {{"dy", LT_FLOAT}, {"index", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM}, {"size", LT_OPTION_SIZES, .required = true}},
    .infer = gather_backward_infer,
    .forward = gather_backward_forward,
    .vjp = gather_backward_vjp,
    .saves = LT_IN(1),
    .linear = true,
    .batch = lt_batch_dims,
    .internal = true,
    .sample = {"normal(3, 5), integers(1, 4, 3, 5), {dim = 2, size = {3, 4}}"},
};

/* ---- take_along_axis ------------------------------------------------------------------------- */

/* The shape in which x and index meet, x having the size of index along dim; of one dimension
 * without dim. */
static lt_status meet(lt_call *c, int *dim, lt_shape *shape) {
  const lt_shape *x = &c->in[0]->shape, *index = &c->in[1]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  *dim = 0;
  *shape = lt_shape_make(1, &c->in[1]->numel);
  if (!lt_given(c->attrs, DIM)) return LT_OK;
  LT_TRY(lt_dim_of(c, dim));
  *shape = *x;
  if (x->ndim > 0 && index->ndim == x->ndim) shape->size[*dim] = index->size[*dim];
  if (index->ndim == x->ndim && lt_shape_broadcast(shape, index)) return LT_OK;
  return lt_fail(c->ctx, "take_along_axis: index (%s) does not broadcast to x (%s) but for dim %d",
                 lt_shape_text(index, a), lt_shape_text(x, b), *dim + 1);
}

static lt_status take_along_axis_infer(lt_call *c) {
  const lt_tensor *x = c->in[0];
  lt_shape shape;
  int dim;
  LT_TRY(meet(c, &dim, &shape));
  LT_TRY(lt_shape_check(c->ctx, "take_along_axis", &shape));
  c->result[0] = (lt_spec){(lt_dtype)x->dtype, shape};
  int64_t places = lt_given(c->attrs, DIM) ? lt_line_length(x, dim) : x->numel;
  return lt_check_indices("take_along_axis", "index", c->in[1], places, NULL);
}

/* t as one dimension, in row-major order. */
static lt_status as_line(lt_tensor *t, lt_tensor **line) {
  const int64_t step[LT_MAX_RANK] = {1};
  lt_shape shape = lt_shape_make(1, &t->numel);
  lt_tensor *packed;
  LT_TRY(lt_tensor_contiguous(t, &packed));
  lt_status status = lt_tensor_view(packed, 0, &shape, step, line);
  lt_tensor_release(packed);
  return status;
}

static lt_status take_along_axis_forward(lt_call *c) {
  lt_shape shape;
  int dim;
  LT_TRY(meet(c, &dim, &shape));
  if (lt_given(c->attrs, DIM)) {
    return on_lanes(LT_TAKE, dim, &shape, c->in[0], c->in[1], c->out[0]);
  }
  lt_tensor *x, *index = NULL;
  LT_TRY(as_line(c->in[0], &x));
  lt_status status = as_line(c->in[1], &index);
  if (status == LT_OK) status = on_lanes(LT_TAKE, 0, &shape, x, index, c->out[0]);
  lt_tensor_release(index);
  lt_tensor_release(x);
  return status;
}

static void take_along_axis_vjp(lt_vjp *v) {
  lt_shape x = lt_input_spec(v, 0).shape, y = lt_output_spec(v, 0).shape, full = y;
  if (!lt_given(v->attrs, DIM)) {
    int64_t numel = lt_shape_numel(&x);
    lt_shape line = lt_shape_make(1, &numel);
    lt_tensor *index = lt_reshape_to(v->s, v->in[1], &y);
    lt_tensor *dx = lt_gather_backward(v->s, v->dy[0], 0, index, &line);
    lt_give(v, 0, lt_reshape_to(v->s, dx, &x));
    return;
  }
  int64_t dim = lt_get_int(v->attrs, v->op, DIM), at = dim < 0 ? dim + x.ndim : dim;
  if (x.ndim > 0) full.size[at] = x.size[at];
  lt_tensor *index = lt_expand_to(v->s, v->in[1], &y);
  lt_give(v, 0, lt_gather_backward(v->s, v->dy[0], dim, index, &full));
}

const lt_op lt_op_take_along_axis = {
    .name = "take_along_axis",
    .doc = "gather with an index that broadcasts to x, and x to index, in all dimensions but dim, "
           "as places along a dimension come out of argmax and argsort. Without dim, x and index "
           "are taken as one dimension. NumPy's take_along_axis, PyTorch's take_along_dim.",
    .inputs = {{"x", LT_ANY}, {"index", LT_INDEX}},
    .options = {{"dim", LT_OPTION_DIM}},
    .infer = take_along_axis_infer,
    .forward = take_along_axis_forward,
    .vjp = take_along_axis_vjp,
    .saves = LT_IN(1),
    .linear = true,
    .batch = lt_batch_dims_or_all,
    .sample = {"normal(3, 4), integers(1, 4, 3, 2), {dim = 2}",
               "normal(2, 1, 4), integers(1, 4, 1, 3, 2), {dim = -1}",
               "transposed(4, 3), integers(1, 12, 5)"},
};

LT_FAMILY(gather, &lt_op_gather, &lt_op_gather_backward, &lt_op_take_along_axis)
