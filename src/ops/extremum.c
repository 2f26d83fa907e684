/* The largest and smallest elements and their places. Gradients go to the place that was returned,
 * and where no place is, evenly to all equals. NaN is an extreme: it wins (PyTorch). */
#include "kernels/elementwise.h"
#include "kernels/reduce.h"
#include "ops/family.h"
#include "ops/reduction.h"
#include "tape/vmap.h"

#define IS_NAN(x) ((x) != (x))

/* ---- ties -------------------------------------------------------------------------------- */

enum { NANS };

LT_KERNEL_2(ties, x, y, x == y || (k[NANS] != 0 && IS_NAN(x) && IS_NAN(y)))

const lt_op lt_op_ties = {
    .name = "ties",
    .doc = "1 where x equals y, else 0; with nans, NaN equals NaN. A constant for gradients.",
    .inputs = {{"x", LT_FLOAT}, {"y", LT_FLOAT}},
    .options = {{"nans", LT_OPTION_BOOL}},
    .infer = lt_infer_elementwise,
    .kernel = &ties_kernel,
    .cuts = true,
    .internal = true,
};

void lt_give_evenly(lt_vjp *v, bool nans) {
  lt_attrs attrs;
  lt_attrs_default(&attrs, &lt_op_ties);
  lt_attrs_set_int(&attrs, &lt_op_ties, NANS, nans);
  lt_tensor *y = lt_restore_dims(v, v->out[0]), *dy = lt_restore_dims(v, v->dy[0]);
  lt_tensor *equal = lt_do2(v->s, &lt_op_ties, &attrs, v->in[0], y);
  lt_tensor *count = lt_reduce_alike(v, &lt_op_sum, equal);
  lt_give(v, 0, lt_div(v->s, lt_mul(v->s, dy, equal), count));
}

/* ---- amax, amin -------------------------------------------------------------------------- */

static lt_status infer_extremum(lt_call *c) {
  return lt_infer_taken(c, 0, (lt_dtype)c->in[0]->dtype);
}

static lt_status amax_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_amax, NULL); }
static lt_status amin_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_amin, NULL); }

static void amax_vjp(lt_vjp *v) { lt_give_evenly(v, false); }

const lt_op lt_op_amax = {
    .name = "amax",
    .doc = "Largest element over the dimensions in dim, by default all. The gradient is spread "
           "evenly over equal ones.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_extremum,
    .forward = amax_forward,
    .vjp = amax_vjp,
    .zero = "masked",
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}"},
};

const lt_op lt_op_amin = {
    .name = "amin",
    .doc = "Smallest element over the dimensions in dim, by default all. The gradient is spread "
           "evenly over equal ones.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIMS}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_extremum,
    .forward = amin_forward,
    .vjp = amax_vjp,
    .zero = "masked",
    .batch = lt_batch_dims,
    .saves = LT_IN(0) | LT_OUT(0),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = {1, 3}, keepdim = true}"},
};

/* ---- argmax, argmin ---------------------------------------------------------------------- */

static lt_status infer_place(lt_call *c) { return lt_infer_taken(c, 0, LT_INT64); }

static lt_status argmax_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_argmax, NULL); }
static lt_status argmin_forward(lt_call *c) { return lt_forward_fold(c, &lt_fold_argmin, NULL); }

const lt_op lt_op_argmax = {
    .name = "argmax",
    .doc = "Place of the largest element along dim, the first of equal ones, counted from 1, as "
           "int64; without dim the place in row-major order.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_place,
    .forward = argmax_forward,
    .batch = lt_batch_dims_or_all,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2, keepdim = true}"},
};

const lt_op lt_op_argmin = {
    .name = "argmin",
    .doc = "Place of the smallest element along dim, the first of equal ones, counted from 1, as "
           "int64; without dim the place in row-major order.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = infer_place,
    .forward = argmin_forward,
    .batch = lt_batch_dims_or_all,
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2, keepdim = true}"},
};

/* ---- max, min ---------------------------------------------------------------------------- */

lt_status lt_infer_placed(lt_call *c) {
  LT_TRY(infer_extremum(c));
  if (!lt_given(c->attrs, 0)) return LT_OK;
  c->outputs = 2;
  c->result[1] = (lt_spec){LT_INT64, c->result[0].shape};
  return LT_OK;
}

void lt_placed_vjp(lt_vjp *v) {
  if (v->outputs == 1) {
    lt_give_evenly(v, true);
    return;
  }
  int64_t dim = lt_get_int(v->attrs, v->op, 0);
  lt_shape line = lt_input_spec(v, 0).shape; /* one element along dim, also of a 1-d tensor */
  if (line.ndim > 0) line.size[dim < 0 ? dim + line.ndim : dim] = 1;
  lt_tensor *dy = lt_reshape_to(v->s, v->dy[0], &line);
  lt_give(v, 0, lt_put_along(v, dy, lt_reshape_to(v->s, v->out[1], &line), dim));
}

static lt_status max_forward(lt_call *c) {
  return lt_forward_fold(c, c->outputs == 1 ? &lt_fold_amax : &lt_fold_max, NULL);
}
static lt_status min_forward(lt_call *c) {
  return lt_forward_fold(c, c->outputs == 1 ? &lt_fold_amin : &lt_fold_min, NULL);
}

const lt_op lt_op_max = {
    .name = "max",
    .results = 2,
    .doc = "Without dim the largest element; its gradient is spread evenly over equal ones. With "
           "dim two results, the largest along dim and its place (int64, counted from 1, the "
           "first of equal ones); the gradient goes to that place.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_placed,
    .forward = max_forward,
    .vjp = lt_placed_vjp,
    .zero = "masked",
    .batch = lt_batch_dims_or_all,
    .saves = LT_IN(0) | LT_OUT(0) | LT_OUT(1),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2, keepdim = true}", "normal(3, 4), 1",
               "normal(5), 1"},
};

const lt_op lt_op_min = {
    .name = "min",
    .results = 2,
    .doc = "Without dim the smallest element; its gradient is spread evenly over equal ones. With "
           "dim two results, the smallest along dim and its place (int64, counted from 1, the "
           "first of equal ones); the gradient goes to that place.",
    .inputs = {{"x", LT_ANY}},
    .options = {{"dim", LT_OPTION_DIM}, {"keepdim", LT_OPTION_BOOL}},
    .infer = lt_infer_placed,
    .forward = min_forward,
    .vjp = lt_placed_vjp,
    .zero = "masked",
    .batch = lt_batch_dims_or_all,
    .saves = LT_IN(0) | LT_OUT(0) | LT_OUT(1),
    .sample = {"normal(3, 4)", "normal(2, 3, 4), {dim = 2, keepdim = true}", "normal(3, 4), 1",
               "normal(5), 1"},
};

LT_FAMILY(extremum, &lt_op_ties, &lt_op_amax, &lt_op_amin, &lt_op_argmax, &lt_op_argmin, &lt_op_max,
          &lt_op_min)
