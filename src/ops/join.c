/* Putting tensors side by side: cat along a dimension they have, stack along a new one. Each
 * input has a window in the result, and its gradient is that window of dy. */
#include "core/context.h"
#include "kernels/copy.h"
#include "kernels/parallel.h"
#include "ops/family.h"
#include "tape/vmap.h"

enum { DIM };

/* dy seen through the window of input i: view op `op` with dim and two more options. */
static lt_tensor *window(lt_vjp *v, const lt_op *op, int dim, int64_t first, int64_t length) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, op);
  lt_attrs_set_int(&attrs, op, 0, dim);
  lt_attrs_set_int(&attrs, op, 1, first);
  if (op == &lt_op_narrow) lt_attrs_set_int(&attrs, op, 2, length);
  return lt_do1(v->s, op, &attrs, v->dy[0]);
}

/* The inputs, as they are laid into the result along dim. */
typedef struct joining {
  const lt_call *c;
  int dim;
  bool stack; /* each input is one slice */
} joining;

/* Inputs first..last-1. */
static void join_task(void *argument, int64_t first, int64_t last) {
  const joining *w = argument;
  const lt_tensor *y = w->c->out[0];
  int64_t strides[LT_MAX_RANK], size = lt_dtype_size((lt_dtype)y->dtype), at = 0;
  for (int64_t i = 0; i < last; i++) {
    const lt_tensor *x = w->c->in[i];
    if (i >= first && x->numel > 0) {
      for (int d = 0; d < x->shape.ndim; d++) {
        strides[d] = y->strides[w->stack && d >= w->dim ? d + 1 : d];
      }
      lt_copy(&x->shape, (lt_dtype)y->dtype, y->data + at * y->strides[w->dim] * size, strides,
              (lt_dtype)x->dtype, x->data, x->strides);
    }
    at += w->stack ? 1 : x->shape.size[w->dim];
  }
}

/* ---- cat ---------------------------------------------------------------------------------- */

static lt_status cat_infer(lt_call *c) {
  const lt_shape *first = &c->in[0]->shape;
  char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
  int dim;
  if (first->ndim == 0) return lt_fail(c->ctx, "cat: tensor 1 is 0-d; stack joins such tensors");
  LT_TRY(lt_dim_normalise(c->ctx, "cat", lt_get_int(c->attrs, c->op, DIM), first->ndim, &dim));
  c->result[0] = (lt_spec){lt_result_type(c), *first};
  for (int i = 1; i < c->inputs; i++) {
    lt_shape x = c->in[i]->shape;
    bool same = x.ndim == first->ndim;
    for (int d = 0; same && d < x.ndim; d++) same = d == dim || x.size[d] == first->size[d];
    if (!same) {
      return lt_fail(c->ctx, "cat: tensors 1 and %d differ in more than dim %d (%s and %s)", i + 1,
                     dim + 1, lt_shape_text(first, a), lt_shape_text(&x, b));
    }
    c->result[0].shape.size[dim] += x.size[dim];
    LT_TRY(lt_shape_check(c->ctx, "cat", &c->result[0].shape));
  }
  return LT_OK;
}

static lt_status cat_forward(lt_call *c) {
  joining w = {.c = c};
  int ndim = c->out[0]->shape.ndim;
  LT_TRY(lt_dim_normalise(c->ctx, "cat", lt_get_int(c->attrs, c->op, DIM), ndim, &w.dim));
  return lt_parallel(c->ctx, c->inputs, c->out[0]->numel, join_task, &w);
}

static void cat_vjp(lt_vjp *v) {
  int64_t dim = lt_get_int(v->attrs, v->op, DIM), at = 0;
  if (dim < 0) dim += lt_input_spec(v, 0).shape.ndim;
  for (int i = 0; i < v->inputs; i++) {
    int64_t length = lt_input_spec(v, i).shape.size[dim];
    if (v->need[i]) lt_give(v, i, window(v, &lt_op_narrow, (int)dim, at, length));
    at += length;
  }
}

const lt_op lt_op_cat = {
    .name = "cat",
    .function = true,
    .doc = "The tensors of a list one behind the other along dimension dim, in which alone they "
           "may differ; of the dtype in which they meet.",
    .inputs = {{"tensors", LT_ANY, .list = true}},
    .options = {{"dim", LT_OPTION_DIM, .value = 0}},
    .infer = cat_infer,
    .forward = cat_forward,
    .vjp = cat_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"{normal(2, 3), normal(1, 3)}", "{normal(2, 3, 1), normal(2, 1, 1)}, {dim = 2}",
               "{transposed(3, 2), normal(3, 4), normal(3, 0)}, {dim = -1}"},
};

/* ---- stack -------------------------------------------------------------------------------- */

static lt_status stack_infer(lt_call *c) {
  const lt_shape *x = &c->in[0]->shape;
  int dim;
  if (x->ndim == LT_MAX_RANK) {
    return lt_fail(c->ctx, "stack: tensors have %d dimensions already, the most there are",
                   x->ndim);
  }
  LT_TRY(lt_dim_normalise(c->ctx, "stack", lt_get_int(c->attrs, c->op, DIM), x->ndim + 1, &dim));
  for (int i = 1; i < c->inputs; i++) {
    char a[LT_SHAPE_TEXT], b[LT_SHAPE_TEXT];
    if (lt_shape_equal(x, &c->in[i]->shape)) continue;
    return lt_fail(c->ctx, "stack: tensors 1 and %d have different shapes (%s and %s)", i + 1,
                   lt_shape_text(x, a), lt_shape_text(&c->in[i]->shape, b));
  }
  lt_spec *r = &c->result[0];
  *r = (lt_spec){.dtype = lt_result_type(c), .shape.ndim = x->ndim + 1};
  for (int d = 0; d < r->shape.ndim; d++) {
    r->shape.size[d] = d < dim ? x->size[d] : d == dim ? c->inputs : x->size[d - 1];
  }
  return LT_OK;
}

static lt_status stack_forward(lt_call *c) {
  joining w = {.c = c, .stack = true};
  int ndim = c->out[0]->shape.ndim;
  LT_TRY(lt_dim_normalise(c->ctx, "stack", lt_get_int(c->attrs, c->op, DIM), ndim, &w.dim));
  return lt_parallel(c->ctx, c->inputs, c->out[0]->numel, join_task, &w);
}

static void stack_vjp(lt_vjp *v) {
  int64_t dim = lt_get_int(v->attrs, v->op, DIM);
  if (dim < 0) dim += lt_output_spec(v, 0).shape.ndim;
  for (int i = 0; i < v->inputs; i++) {
    if (v->need[i]) lt_give(v, i, window(v, &lt_op_select, (int)dim, i, 1));
  }
}

const lt_op lt_op_stack = {
    .name = "stack",
    .function = true,
    .doc = "The tensors of a list, all of one shape, as the slices of a new dimension at place "
           "dim of the result; of the dtype in which they meet.",
    .inputs = {{"tensors", LT_ANY, .list = true}},
    .options = {{"dim", LT_OPTION_DIM, .value = 0}},
    .infer = stack_infer,
    .forward = stack_forward,
    .vjp = stack_vjp,
    .linear = true,
    .batch = lt_batch_dims,
    .sample = {"{normal(2, 3), normal(2, 3)}", "{normal(2, 3), normal(2, 3)}, {dim = -1}",
               "{normal(), normal(), normal()}"},
};

LT_FAMILY(join, &lt_op_cat, &lt_op_stack)
